"""MDS exports, read by MosaicML's own `StreamingDataset`; skipped where that package is not installed.

It cannot share an environment with `datasets` 5: pip install -e '.[mds]' pytest hypothesis, in one of its own.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from sdf.export import Wanted, export
from sdf.shards import write_shard
from sdf.storage import RunDir
from tests.corpora import chats, commit, documents, make_corpus

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    streaming = pytest.importorskip("streaming", reason="MosaicML streaming is not installed: pip install 'sdf[mds]'")

pytestmark = pytest.mark.filterwarnings("ignore")


def read(directory: Path) -> list[dict[str, Any]]:
    streaming.base.util.clean_stale_shared_memory()
    found = streaming.StreamingDataset(local=str(directory), shuffle=False, batch_size=1)
    return [found[number] for number in range(len(found))]


def test_documents_and_chats_are_read_as_they_were_written(tmp_path: Path) -> None:
    made = export(make_corpus(tmp_path / "corpus"), Wanted(to="mds"), tmp_path / "out")
    assert read(tmp_path / "out/documents/train") == documents(25)
    assert read(tmp_path / "out/documents/validation") == documents(2)
    assert read(tmp_path / "out/chats/train") == chats(6)
    assert made.n_documents == 33


def test_training_columns_in_several_shards_and_the_same_bytes_again(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "corpus")
    large = [{**row, "text": f"{row['text']} {'x' * 400_000}"} for row in documents(7)]
    commit(run_dir, 1, None, write_shard(run_dir, "documents", "train", 0, large))
    wanted = Wanted(to="mds", columns="training", file_mb=1)
    for name in ("a", "b"):
        export(run_dir, wanted, tmp_path / name)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "documents/train").iterdir()}
        for name in ("a", "b")
    )
    assert first == second
    assert len([name for name in first if name.endswith(".mds")]) == 4
    assert read(tmp_path / "a/documents/train") == [{"text": row["text"]} for row in large]
    assert export(run_dir, wanted, tmp_path / "a").was_there
