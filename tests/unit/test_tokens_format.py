from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdf.errors import DamagedError, Missing
from sdf.manifest import TokenizerRef
from sdf.stream.tokens_format import INDEX, TokenIndex, TokenWriter, map_arrays, read_index

DOCUMENTS = [
    np.arange(start, start + length, dtype=np.uint32) for start, length in ((0, 5), (70_000, 1), (9, 7), (3, 2))
]


def head(**fields: Any) -> TokenIndex:
    given: dict[str, Any] = {
        "config": "documents",
        "split": "train",
        "tokenizer": TokenizerRef("demo", "ab"),
        "eos_id": None,
        "has_labels": False,
        "manifest": 3,
        "manifest_sha256": "cd" * 32,
    }
    return TokenIndex(**given | fields)


def written(directory: Path, **fields: Any) -> TokenIndex:
    writer = TokenWriter(directory, head(**fields), shard_tokens=6)
    for document in DOCUMENTS:
        writer.add(document, (document % 2).astype(np.uint8) if fields.get("has_labels") else None)
    return writer.finish()


@pytest.mark.parametrize("has_labels", [False, True])
def test_documents_come_back_as_they_went_in(tmp_path: Path, has_labels: bool) -> None:
    index = written(tmp_path, has_labels=has_labels)
    assert read_index(tmp_path) == index
    assert [(shard.n_tokens, shard.n_documents) for shard in index.shards] == [(6, 2), (7, 1), (2, 1)]
    assert (index.n_tokens, index.n_documents) == (15, 4)
    found = []
    for shard in index.shards:
        arrays = map_arrays(tmp_path, shard, verify=True)
        for start, stop in zip(arrays.offsets[:-1].tolist(), arrays.offsets[1:].tolist(), strict=True):
            found.append(arrays.ids[start:stop])
            if has_labels:
                assert arrays.labels is not None
                assert (arrays.labels[start:stop] == found[-1] % 2).all()
    assert [each.tolist() for each in found] == [each.tolist() for each in DOCUMENTS]


def test_the_files_are_plain_arrays(tmp_path: Path) -> None:
    written(tmp_path)
    assert (tmp_path / "00000.tokens.u32").read_bytes() == np.array([0, 1, 2, 3, 4, 70_000], "<u4").tobytes()
    assert (tmp_path / "00000.offsets.u64").read_bytes() == np.array([0, 5, 6], "<u8").tobytes()


def test_an_empty_directory_has_an_index_and_no_shards(tmp_path: Path) -> None:
    TokenWriter(tmp_path, head(), 10).finish()
    assert read_index(tmp_path).shards == ()
    with pytest.raises(Missing, match="sdf export"):
        read_index(tmp_path / "none")


EDITS = {
    "torn": lambda text: text[:-5],
    "not JSON": lambda text: "no",
    "a list": lambda text: "[]",
    "another count": lambda text: text.replace('"n_tokens": 15', '"n_tokens": 16'),
    "a path": lambda text: text.replace('"00000"', '"../00"'),
    "an unknown key": lambda text: text.replace('"config"', '"konfig"'),
    "labels that are not there": lambda text: text.replace('"has_labels": false', '"has_labels": true'),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_index_is_named(tmp_path: Path, edit: Any) -> None:
    written(tmp_path)
    (tmp_path / INDEX).write_text(edit((tmp_path / INDEX).read_text()))
    with pytest.raises(DamagedError, match=f"{tmp_path}/{INDEX}: torn or edited"):
        read_index(tmp_path)


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    written(tmp_path)
    values = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(values | {"format": 2}))
    with pytest.raises(DamagedError, match="format 2 was written by a newer sdf"):
        read_index(tmp_path)


def test_a_missing_short_or_altered_file_is_named(tmp_path: Path) -> None:
    shard = written(tmp_path, has_labels=True).shards[0]
    path = tmp_path / "00000.tokens.u32"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(DamagedError, match=f"{path}: 20 bytes do not hold 6"):
        map_arrays(tmp_path, shard)
    path.write_bytes(bytes(24))
    map_arrays(tmp_path, shard)
    with pytest.raises(DamagedError, match=f"{path}: altered"):
        map_arrays(tmp_path, shard, verify=True)
    path.unlink()
    with pytest.raises(Missing, match=f"{path}"):
        map_arrays(tmp_path, shard)
    path.write_bytes(whole)
    for values in ([1, 5, 6], [0, 5, 7], [0, 6, 5]):
        (tmp_path / "00000.offsets.u64").write_bytes(np.array(values, "<u8").tobytes())
        with pytest.raises(DamagedError, match="not offsets"):
            map_arrays(tmp_path, replace(shard))
