"""A corpus, read by the real `datasets` library, offline: what most people will do with it first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdf.shards import gc, write_shard
from sdf.storage import RunDir
from tests.corpora import chats, commit, documents

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,500 + 10 documents and 20 chats; beside them an orphan and a replaced shard, which no reader may see."""
    run_dir = RunDir(tmp_path_factory.mktemp("corpus"))
    replaced = write_shard(run_dir, "documents", "train", 1, documents(3))
    first = commit(run_dir, 1, None, write_shard(run_dir, "documents", "train", 0, documents(1500)), replaced)
    commit(
        run_dir,
        2,
        first,
        first.shards[0],
        write_shard(run_dir, "documents", "train", 1, documents(2500)[1500:]),
        write_shard(run_dir, "documents", "validation", 0, documents(10)),
        write_shard(run_dir, "chats", "train", 0, chats(10)),
        write_shard(run_dir, "chats", "train", 1, chats(20)[10:]),
        write_shard(run_dir, "chats", "validation", 0, chats(2)),
    )
    write_shard(run_dir, "documents", "train", 2, documents(5))
    return Path(run_dir.root)


def loaded(script: str, corpus: Path, tmp_path: Path) -> str:
    """Runs in a process of its own, since `datasets` fixes its caches and its offline mode when it is imported."""
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "HF_DATASETS_CACHE": str(tmp_path / "datasets"),
        "PYTHONPATH": str(ROOT),
    }
    script = (
        f"import os\nfrom datasets import load_dataset\nfrom tests.integration import test_load_dataset as t\n{script}"
    )
    # A streaming reader's threads may still run when the interpreter ends, which then aborts.
    script += "\nsys.stdout.flush()\nos._exit(0)\n"
    command = [sys.executable, "-c", script, str(corpus)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Ignoring part of dataset_info" not in done.stderr
    return done.stdout


CHECK = """
import sys
from datasets import Value, List
whole = {config: load_dataset(sys.argv[1], config, streaming=STREAMING) for config in ("documents", "chats")}
expected = {
    "documents": {"train": t.documents(2500), "validation": t.documents(10)},
    "chats": {"train": t.chats(20), "validation": t.chats(2)},
}
for config, splits in expected.items():
    assert set(whole[config]) == set(splits), whole[config]
    for split, rows in splits.items():
        assert list(whole[config][split]) == rows, (config, split)
features = whole["documents"]["train"].features
assert features["text"] == Value("string") and features["fallback"] == Value("bool"), features
assert features["n_tokens"] == Value("int64"), features
features = whole["chats"]["validation"].features
assert features["messages"] == List({"role": Value("string"), "content": Value("string")}), features
assert features["tools"] == Value("string"), features
assert next(iter(load_dataset(sys.argv[1], split="validation", streaming=STREAMING))) == t.documents(1)[0]
print("equal")
"""


@pytest.mark.parametrize("streaming", [False, True])
def test_documents_and_chats_are_read_as_they_were_written(corpus: Path, tmp_path: Path, streaming: bool) -> None:
    assert loaded(CHECK.replace("STREAMING", str(streaming)), corpus, tmp_path).strip() == "equal"


def test_streaming_goes_on_from_where_it_stopped(corpus: Path, tmp_path: Path) -> None:
    script = """
import sys
train = load_dataset(sys.argv[1], "documents", streaming=True)["train"]
reader = iter(train)
seen = [next(reader)["id"] for _ in range(1700)]
state = train.state_dict()
again = load_dataset(sys.argv[1], "documents", streaming=True)["train"]
again.load_state_dict(state)
assert seen + [row["id"] for row in again] == [row["id"] for row in t.documents(2500)]
print("equal")
"""
    assert loaded(script, corpus, tmp_path).strip() == "equal"


@pytest.mark.slow
def test_shuffled_shards_are_enough_for_many_workers(tmp_path: Path) -> None:
    """`datasets` deals whole shards: a shuffle must leave as many as there are files, and each rank its own."""
    run_dir = RunDir(tmp_path / "run")
    rows = documents(240)
    shards = [
        write_shard(run_dir, "documents", "train", number, rows[number * 10 : number * 10 + 10]) for number in range(24)
    ]
    commit(run_dir, 1, None, *shards)
    script = """
import sys
from datasets.distributed import split_dataset_by_node
train = load_dataset(sys.argv[1], "documents", streaming=True)["train"].shuffle(seed=1, buffer_size=50)
assert train.num_shards == 24, train.num_shards
of_ranks = [[row["id"] for row in split_dataset_by_node(train, rank, 8)] for rank in range(8)]
assert [len(ids) for ids in of_ranks] == [30] * 8
assert sorted(sum(of_ranks, [])) == [row["id"] for row in t.documents(240)]
assert of_ranks[0] != sorted(of_ranks[0])
print("equal")
"""
    assert loaded(script, Path(run_dir.root), tmp_path).strip() == "equal"


def test_gc_takes_nothing_that_the_card_names(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    first = commit(run_dir, 1, None, write_shard(run_dir, "documents", "train", 0, documents(3)))
    second = commit(run_dir, 2, first, write_shard(run_dir, "documents", "train", 0, documents(4)))
    assert gc(run_dir, second) == [first.shards[0].path]
    script = "import sys; print(len(load_dataset(sys.argv[1], 'documents')['train']))"
    assert loaded(script, Path(run_dir.root), tmp_path).strip() == "4"
