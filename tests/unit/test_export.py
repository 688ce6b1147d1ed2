from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdf import api, tokens
from sdf.errors import DamagedError, Missing, StorageError, UsageError
from sdf.export import INDEX, Exported, Wanted, export
from sdf.export.target import aside
from sdf.manifest import Manifest
from sdf.shards import read_manifest, write_shard
from sdf.storage import RunDir
from sdf.stream import Corpus
from sdf.stream.token_table import TokenTable
from tests.corpora import chats, commit, documents, make_corpus

ROOT = Path(__file__).parents[2]


@pytest.fixture
def corpus(tmp_path: Path) -> RunDir:
    return make_corpus(tmp_path / "corpus")


def jsonl(run_dir: RunDir, out: Path, **given: Any) -> Exported:
    return export(run_dir, Wanted(to="jsonl", **given), out)


def rows_in(directory: Path) -> list[dict[str, Any]]:
    texts = [path.read_text(encoding="utf-8") for path in sorted(directory.glob("*.jsonl"))]
    return [json.loads(line) for text in texts for line in text.split("\n")[:-1]]


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def newest(run_dir: RunDir) -> Manifest:
    manifest = read_manifest(run_dir)
    assert manifest is not None
    return manifest


def test_every_row_comes_out_in_order_by_config_and_split(corpus: RunDir, tmp_path: Path) -> None:
    made = jsonl(corpus, tmp_path / "out")
    assert rows_in(tmp_path / "out/documents/train") == documents(25)
    assert rows_in(tmp_path / "out/documents/validation") == documents(2)
    assert rows_in(tmp_path / "out/chats/train") == chats(6)
    assert (made.n_documents, made.n_tokens, made.n_files, made.was_there) == (33, 66, 3, False)


def test_evaluation_items_are_left_out_unless_asked_for(corpus: RunDir, tmp_path: Path) -> None:
    jsonl(corpus, tmp_path / "out")
    assert not (tmp_path / "out/items").exists()
    jsonl(corpus, tmp_path / "items", configs=("items",))
    assert [path.name for path in sorted((tmp_path / "items").iterdir())] == [INDEX, "items"]


def test_training_columns_alone(corpus: RunDir, tmp_path: Path) -> None:
    jsonl(corpus, tmp_path / "out", columns="training")
    assert [set(row) for row in rows_in(tmp_path / "out/documents/train")] == [{"text"}] * 25
    assert rows_in(tmp_path / "out/chats/train") == [
        {"messages": row["messages"], "tools": row["tools"]} for row in chats(6)
    ]


def test_files_close_when_they_are_full(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "corpus")
    large = [{**row, "text": "x" * 400_000} for row in documents(7)]
    commit(run_dir, 1, None, write_shard(run_dir, "documents", "train", 0, large))
    jsonl(run_dir, tmp_path / "out", file_mb=1)
    sizes = [len(path.read_text().splitlines()) for path in sorted((tmp_path / "out/documents/train").iterdir())]
    assert sizes == [3, 3, 1]
    assert rows_in(tmp_path / "out/documents/train") == large


def test_the_same_corpus_gives_the_same_bytes(corpus: RunDir, tmp_path: Path) -> None:
    jsonl(corpus, tmp_path / "a")
    jsonl(corpus, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_only_what_the_manifest_names_is_read(corpus: RunDir, tmp_path: Path) -> None:
    write_shard(corpus, "documents", "train", 3, documents(5))
    jsonl(corpus, tmp_path / "out")
    assert len(rows_in(tmp_path / "out/documents/train")) == 25


def test_the_same_export_again_finds_what_is_there(corpus: RunDir, tmp_path: Path) -> None:
    first = jsonl(corpus, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = jsonl(corpus, tmp_path / "out")
    assert again.was_there
    assert (again.n_documents, again.size_bytes) == (first.n_documents, first.size_bytes)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


def test_another_export_is_not_written_over(corpus: RunDir, tmp_path: Path) -> None:
    jsonl(corpus, tmp_path / "out")
    with pytest.raises(StorageError, match="its columns is 'all', this one's 'training'; give another --out"):
        jsonl(corpus, tmp_path / "out", columns="training")
    first = newest(corpus)
    commit(corpus, 2, first, *first.shards, write_shard(corpus, "documents", "train", 3, documents(40)[30:]))
    with pytest.raises(StorageError, match="its manifest is 1, this one's 2"):
        jsonl(corpus, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("keep")
    with pytest.raises(StorageError, match="not empty, and no export lies there"):
        jsonl(corpus, tmp_path / "mine")
    assert (tmp_path / "mine/notes").read_text() == "keep"


def test_an_export_that_was_damaged_since_is_named(corpus: RunDir, tmp_path: Path) -> None:
    jsonl(corpus, tmp_path / "out")
    path = tmp_path / "out/chats/train/00000.jsonl"
    path.write_bytes(path.read_bytes()[:-2] + b" \n")
    with pytest.raises(DamagedError, match=r"chats/train/00000.jsonl is missing or not what was written"):
        jsonl(corpus, tmp_path / "out")
    (tmp_path / "out" / INDEX).write_text("{")
    with pytest.raises(DamagedError, match="cannot be read"):
        jsonl(corpus, tmp_path / "out")


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "another shard"])
def test_a_damaged_shard_is_named_and_nothing_appears(corpus: RunDir, tmp_path: Path, damage: str) -> None:
    shard = newest(corpus).shards[1]
    path = Path(corpus.root, shard.path)
    data = path.read_bytes()
    damaged = {
        "flip": data[:200] + bytes([data[200] ^ 1]) + data[201:],
        "cut": data[:-100],
        "another shard": Path(corpus.root, newest(corpus).shards[0].path).read_bytes(),
    }
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises((DamagedError, Missing), match=shard.path):
        jsonl(corpus, tmp_path / "out")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["corpus"]


def test_nothing_committed_is_said(tmp_path: Path) -> None:
    for root in (tmp_path / "none", tmp_path):
        with pytest.raises(StorageError, match="nothing of it is committed"):
            jsonl(RunDir(root), tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"to": "jsnol"}, "did you mean 'jsonl'"),
        ({"to": "jsonl", "columns": "trainin"}, "did you mean 'training'"),
        ({"to": "jsonl", "configs": ("document",)}, "did you mean 'documents'"),
        ({"to": "jsonl", "file_mb": 0}, "from 1 to"),
    ],
)
def test_what_is_unknown_is_said_with_the_nearest_name(
    corpus: RunDir, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        export(corpus, Wanted(**given), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mds_without_its_package_says_what_to_install(
    corpus: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "streaming", None)
    with pytest.raises(UsageError, match=r"pip install 'sdf\[mds\]'"):
        export(corpus, Wanted(to="mds"), tmp_path / "out")


def test_a_url_is_no_target(corpus: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="s3://bucket/x: an export is written to a local directory"):
        api.export(corpus.root, "s3://bucket/x", to="jsonl")
    assert not Path("s3:").exists()


def test_a_target_that_cannot_be_written_is_named(corpus: RunDir, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(StorageError, match=f"{out}: .*give another --out"):
            jsonl(corpus, out)
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(StorageError, match="can write to"):
            jsonl(corpus, tmp_path / "locked" / "out")


def test_what_a_killed_export_left_is_removed_by_the_next_and_no_other(corpus: RunDir, tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from sdf.export.target import aside
with aside(Path({str(tmp_path / "out")!r})) as made:
    (made / "half").write_text("")
    print(made.name, flush=True)
    input()
"""
    killed = subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True, cwd=ROOT)
    assert killed.stdin is not None and killed.stdout is not None
    with killed.stdin, killed.stdout, aside(tmp_path / "other"):
        left = killed.stdout.readline().strip()
        jsonl(corpus, tmp_path / "first")
        with aside(tmp_path / "out"):
            assert (tmp_path / left / "half").exists()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    (tmp_path / "out").rmdir()
    jsonl(corpus, tmp_path / "out")
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(".")) == []


def ids_in(directory: Path) -> tuple[dict[str, Any], list[list[int]], list[list[int]]]:
    """The index, the ids of each document, and its mask."""
    index = json.loads((directory / "tokens.json").read_bytes())
    documents: list[list[int]] = []
    masks: list[list[int]] = []
    for shard in index["shards"]:
        ids = np.fromfile(directory / shard["tokens"]["path"], "<u4")
        cuts = np.fromfile(directory / shard["offsets"]["path"], "<u8").astype(int)[1:-1]
        documents += [part.tolist() for part in np.split(ids, cuts)]
        if shard["labels"]:
            masks += [part.tolist() for part in np.split(np.fromfile(directory / shard["labels"]["path"], "u1"), cuts)]
    return index, documents, masks


def test_token_ids_are_those_of_the_texts(tmp_path: Path) -> None:
    run_dir = make_corpus(tmp_path / "corpus", n_chats=0)
    made = export(run_dir, Wanted(to="tokens", tokenizer="o200k_base"), tmp_path / "out")
    index, found, _ = ids_in(tmp_path / "out/documents/train")
    encoding = tokens.load("o200k_base").encoding
    assert [encoding.decode(ids) for ids in found] == [row["text"] for row in documents(25)]
    assert (index["tokenizer"], index["eos"], index["source"]) == ("o200k_base", 199999, newest(run_dir).sha256)
    assert made.n_documents == 27
    again = export(run_dir, Wanted(to="tokens", tokenizer="o200k_base"), tmp_path / "again")
    assert (again.was_there, tree(tmp_path / "again")) == (False, tree(tmp_path / "out"))
    assert export(run_dir, Wanted(to="tokens", tokenizer="o200k_base"), tmp_path / "out").was_there


def test_sdf_stream_reads_the_ids(tmp_path: Path) -> None:
    export(make_corpus(tmp_path / "corpus", n_chats=0), Wanted(to="tokens", tokenizer="o200k_base"), tmp_path / "out")
    corpus = Corpus(str(tmp_path / "out/documents/train"))
    table = corpus.snapshot(corpus.version).table
    assert isinstance(table, TokenTable)
    encoding = tokens.load("o200k_base").encoding
    found = table.ids(range(25))
    assert [encoding.decode(found[row][0].tolist()) for row in range(25)] == [row["text"] for row in documents(25)]


def test_token_shards_close_when_they_are_full(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "corpus")
    large = [{**row, "text": f"{number} the" * 60_000} for number, row in enumerate(documents(7))]
    commit(run_dir, 1, None, write_shard(run_dir, "documents", "train", 0, large))
    export(run_dir, Wanted(to="tokens", tokenizer="o200k_base", file_mb=1), tmp_path / "out")
    index, found, _ = ids_in(tmp_path / "out/documents/train")
    limit = 1024**2 // 4
    assert len(index["shards"]) > 1
    assert all(shard["n_tokens"] >= limit for shard in index["shards"][:-1])
    assert [tokens.load("o200k_base").encoding.decode(ids) for ids in found] == [row["text"] for row in large]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs the --tokenizer"),
        ({"tokenizer": "o200kbase"}, "did you mean 'o200k_base'"),
        ({"tokenizer": "nowhere/tokenizer.json"}, "no such file"),
        ({"tokenizer": "o200k_base"}, "chats need a Hugging Face tokenizer"),
        ({"tokenizer": "o200k_base", "configs": ("items",)}, "nothing of it is learnt"),
        ({"tokenizer": "o200k_base", "columns": "training"}, "--columns is for rows"),
    ],
)
def test_what_tokens_need_is_said_before_anything_is_read(
    corpus: RunDir, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        export(corpus, Wanted(to="tokens", **given), tmp_path / "out")
    with pytest.raises(UsageError, match="--tokenizer is for --to tokens"):
        export(corpus, Wanted(to="jsonl", tokenizer="o200k_base"), tmp_path / "out")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["corpus"]
