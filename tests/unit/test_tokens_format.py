from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdf.errors import DamagedError
from sdf.stream.tokens_format import INDEX, TOKEN, TokenIndex, map_array, write_index, write_shard

LENGTHS = {0: 5, 70_000: 1, 9: 7, 3: 2}
DOCUMENTS = [np.arange(start, start + length, dtype=np.uint32) for start, length in LENGTHS.items()]


def written(directory: Path, *, has_labels: bool = False) -> TokenIndex:
    masks = [(ids % 2).astype(np.uint8) for ids in DOCUMENTS] if has_labels else None
    shards = (
        write_shard(directory, 0, DOCUMENTS[:2], masks and masks[:2]),
        write_shard(directory, 1, DOCUMENTS[2:], masks and masks[2:]),
    )
    index = TokenIndex(
        tokenizer="demo",
        tokenizer_hash="ab",
        eos=None,
        source="cd" * 32,
        config="documents",
        split="train",
        n_documents=4,
        n_tokens=15,
        shards=shards,
    )
    write_index(directory, index)
    return index


def read(directory: Path) -> TokenIndex:
    return TokenIndex.from_json((directory / INDEX).read_bytes(), source=str(directory / INDEX))


@pytest.mark.parametrize("has_labels", [False, True])
def test_documents_come_back_as_they_went_in(tmp_path: Path, has_labels: bool) -> None:
    index = written(tmp_path, has_labels=has_labels)
    assert read(tmp_path) == index
    assert [(shard.n_tokens, shard.n_documents) for shard in index.shards] == [(6, 2), (9, 2)]
    for shard, ids in zip(index.shards, (DOCUMENTS[:2], DOCUMENTS[2:]), strict=True):
        found = map_array(tmp_path / shard.tokens.path, TOKEN, shard.n_tokens, "here")
        assert found.tolist() == np.concatenate(ids).tolist()
        if has_labels:
            assert shard.labels is not None
            mask = map_array(tmp_path / shard.labels.path, np.dtype("u1"), shard.n_tokens, "here")
            assert (mask == found % 2).all()


def test_the_files_are_plain_arrays(tmp_path: Path) -> None:
    written(tmp_path)
    assert (tmp_path / "00000.tokens.u32").read_bytes() == np.array([0, 1, 2, 3, 4, 70_000], "<u4").tobytes()
    assert (tmp_path / "00000.offsets.u64").read_bytes() == np.array([0, 5, 6], "<u8").tobytes()
    assert sorted(path.name for path in tmp_path.iterdir() if "part" in path.name) == []


def test_a_shard_of_empty_documents_can_be_mapped(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, 0, [np.array([], np.uint32)] * 2)
    assert (shard.n_tokens, shard.n_documents) == (0, 2)
    assert map_array(tmp_path / shard.tokens.path, TOKEN, 0, "here").tolist() == []


EDITS = {
    "torn": lambda text: text[:-5],
    "not JSON": lambda text: "no",
    "a list": lambda text: "[]",
    "another count": lambda text: text.replace('"n_tokens": 15', '"n_tokens": 16'),
    "a path": lambda text: text.replace('"00000', '"../0'),
    "an unknown key": lambda text: text.replace('"config"', '"konfig"'),
    "another hash": lambda text: text.replace('"tokenizer_hash": "ab"', '"tokenizer_hash": "ac"'),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_index_is_named(tmp_path: Path, edit: Any) -> None:
    written(tmp_path)
    (tmp_path / INDEX).write_text(edit((tmp_path / INDEX).read_text()))
    with pytest.raises(DamagedError, match=f"{tmp_path}/{INDEX}: torn or edited"):
        read(tmp_path)


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    written(tmp_path)
    values = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(values | {"format": 2}))
    with pytest.raises(DamagedError, match="format 2 was written by a newer sdf"):
        read(tmp_path)


def test_a_file_of_another_size_is_named(tmp_path: Path) -> None:
    shard = written(tmp_path).shards[0]
    path = tmp_path / shard.tokens.path
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DamagedError, match="here: 20 bytes, not 24"):
        map_array(path, TOKEN, shard.n_tokens, "here")
