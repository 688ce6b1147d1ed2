"""Shards: one file per content, nothing half, and every damage named."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdf.errors import DamagedError, Missing, StorageError, StorageFull, Superseded
from sdf.manifest import GenreCount, Manifest, Shard, TokenizerRef
from sdf.shards import (
    gc,
    publish,
    read_ids,
    read_manifest,
    read_shard,
    verify_manifests,
    verify_shard,
    verify_shards,
    write_shard,
)
from sdf.shards.file import COLUMNS, encode, row_groups
from sdf.storage import LocalDisk, RunDir

ROOT = Path(__file__).parents[2]
TEXTS: dict[str, Any] = {
    "documents": {"text": "Ein Satz, ein Wort. 🌱\n\nA second paragraph."},
    "chats": {
        "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}],
        "tools": '[{"name":"search"}]',
    },
    "prompts": {"messages": [{"role": "user", "content": "Why?"}], "tools": None},
    "items": {"item": '{"question":"Why?"}'},
}


def row(number: int, config: str = "documents", **changes: Any) -> dict[str, Any]:
    return {
        **TEXTS[config],
        "id": f"{number:032x}",
        "genre": "blog_post",
        "principle": "honesty",
        "axes": '{"stance":"warm"}',
        "scores": "{}",
        "source": None,
        "model": "offline-grammar",
        "fallback": False,
        "prompt_hash": "ab" * 16,
        "n_tokens": 7,
        "finish_reason": "stop",
        "constitution_hash": "cd" * 16,
        **changes,
    }


def rows(n: int, config: str = "documents") -> list[dict[str, Any]]:
    return [row(number, config) for number in range(n)]


def manifest(number: int, before: Manifest | None, *shards: Shard) -> Manifest:
    return Manifest(
        number=number,
        state="growing",
        predecessor=before.sha256 if before else None,
        recipe_hash="aa",
        constitution_hash="bb",
        tokenizer=TokenizerRef("o200k_base", "cc"),
        target_tokens=1000,
        n_tokens=sum(shard.n_tokens for shard in shards),
        n_documents=sum(shard.n_rows for shard in shards),
        shards=shards,
        genres={"blog_post": GenreCount(0, 0, 1.0)},
        rejected={},
        pyarrow=pa.__version__,
        made_by="sdf 0",
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def stored(run_dir: RunDir) -> list[str]:
    return [path for path, _ in run_dir.files("data")]


@pytest.mark.parametrize("config", sorted(COLUMNS))
def test_rows_come_back_as_they_were_given(run_dir: RunDir, config: str) -> None:
    given = rows(3, config)
    shard = write_shard(run_dir, config, "train", 7, given)
    assert [each for group in read_shard(run_dir, shard) for each in group] == given
    data = run_dir.read(shard.path)
    sha256 = hashlib.sha256(data).hexdigest()
    assert shard.path == f"data/{config}/train-00007-{sha256[:8]}.parquet"
    assert (shard.sha256, shard.size_bytes, shard.n_rows, shard.n_tokens) == (sha256, len(data), 3, 21)


def test_ids_are_read_without_the_texts(run_dir: RunDir) -> None:
    shard = write_shard(run_dir, "chats", "train", 0, rows(1200, "chats"))
    assert read_ids(run_dir, shard) == [f"{number:032x}" for number in range(1200)]
    with pytest.raises(DamagedError, match="its ids cannot be read"):
        read_ids(run_dir, foreign(run_dir, pa.table({"text": ["no id"]})))


def test_row_groups_have_exactly_1000_rows() -> None:
    data, _ = encode("documents", rows(2500))
    footer = pq.read_metadata(io.BytesIO(data))
    assert [footer.row_group(group).num_rows for group in range(footer.num_row_groups)] == [1000, 1000, 500]


def test_same_rows_make_the_same_file_in_another_process() -> None:
    script = (
        "import hashlib, sys; sys.path[:0] = ['tests/unit', '.']; import test_shards as t\n"
        "print(hashlib.sha256(t.encode('chats', t.rows(1200, 'chats'))[0]).hexdigest())"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert printed == hashlib.sha256(encode("chats", rows(1200, "chats"))[0]).hexdigest()


def test_bytes_do_not_depend_on_the_order_of_keys_or_on_nulls_left_out() -> None:
    given = row(0, "prompts")
    turned = dict(reversed([item for item in given.items() if item[0] != "tools"]))
    assert encode("prompts", [turned]) == encode("prompts", [given])


def test_a_file_carries_nothing_but_rows() -> None:
    opened = pq.ParquetFile(io.BytesIO(encode("chats", rows(5, "chats"))[0]))
    assert opened.metadata.metadata is None
    assert opened.schema_arrow.equals(COLUMNS["chats"], check_metadata=True)


def test_text_is_never_dictionary_encoded_however_often_it_repeats() -> None:
    footer = pq.read_metadata(io.BytesIO(encode("documents", rows(1000))[0]))
    columns = {footer.row_group(0).column(n).path_in_schema: footer.row_group(0).column(n) for n in range(11)}
    assert not columns["text"].has_dictionary_page
    assert columns["genre"].has_dictionary_page


def test_a_document_of_many_pages_comes_back() -> None:
    given = [row(number, text=f"{number} " + "long text " * 20_000) for number in range(130)]
    data, _ = encode("documents", given)
    assert [each for group in row_groups(io.BytesIO(data), "x", "documents") for each in group] == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": None}, "lacks ['text']"),
        ({"txt": "x"}, "unknown columns ['txt']"),
        ({"n_tokens": "seven"}, "does not fit"),
        ({"text": b"\xff"}, "does not fit|would lose"),
        ({"text": "a lone \ud800 surrogate"}, "does not fit"),
    ],
)
def test_a_row_that_does_not_fit_is_named_and_nothing_is_stored(
    run_dir: RunDir, given: dict[str, Any], said: str
) -> None:
    bad = [*rows(1500), row(1500, **given)]
    with pytest.raises(ValueError, match=said.replace("[", r"\[").replace("]", r"\]")) as caught:
        write_shard(run_dir, "documents", "train", 0, bad)
    assert bad[1500]["id"] in str(caught.value)
    assert run_dir.files() == []


def test_a_message_with_more_than_role_and_content_is_refused_instead_of_cut() -> None:
    messages = [{"role": "user", "content": "Why?", "name": "Ada"}]
    with pytest.raises(ValueError, match="would lose something"):
        encode("prompts", [row(0, "prompts", messages=messages)])


def test_an_empty_shard_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        encode("documents", [])


def test_a_writer_that_fails_leaves_no_half_shard(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: LocalDisk, path: str, data: bytes) -> None:
        raise StorageFull("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(LocalDisk, "write", full)
        with pytest.raises(StorageFull):
            write_shard(run_dir, "documents", "train", 0, rows(10))
    assert run_dir.files() == []


def test_an_identical_file_is_kept_and_a_damaged_one_replaced(run_dir: RunDir) -> None:
    shard = write_shard(run_dir, "documents", "train", 0, rows(10))
    file = Path(run_dir.root, shard.path)
    before = file.stat()
    assert write_shard(run_dir, "documents", "train", 0, rows(10)) == shard
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    file.write_bytes(file.read_bytes()[:-100])
    assert write_shard(run_dir, "documents", "train", 0, rows(10)) == shard
    assert verify_shard(run_dir, shard, None) == []


def test_publish_and_read_back(run_dir: RunDir) -> None:
    assert read_manifest(run_dir) is None
    first = manifest(1, None, write_shard(run_dir, "documents", "train", 0, rows(10)))
    publish(run_dir, first)
    second = manifest(2, first, *first.shards, write_shard(run_dir, "documents", "train", 1, rows(11)))
    publish(run_dir, second)
    publish(run_dir, second)
    assert read_manifest(run_dir) == second
    assert read_manifest(run_dir, 1) == first
    assert read_manifest(run_dir, 3) is None
    assert verify_manifests(run_dir) == []


def test_two_runs_cannot_publish_the_same_number(run_dir: RunDir) -> None:
    mine = manifest(1, None, write_shard(run_dir, "documents", "train", 0, rows(10)))
    publish(run_dir, mine)
    theirs = manifest(1, None, write_shard(run_dir, "documents", "train", 0, rows(11)))
    with pytest.raises(Superseded, match=r"manifests/000001\.json: another run published it first"):
        publish(run_dir, theirs)
    assert read_manifest(run_dir) == mine


def test_a_manifest_follows_the_one_before_it(run_dir: RunDir) -> None:
    first = manifest(1, None)
    publish(run_dir, first)
    other = replace(first, target_tokens=5)
    with pytest.raises(Superseded, match="does not follow"):
        publish(run_dir, manifest(2, other))
    with pytest.raises(Superseded, match="does not follow"):
        publish(run_dir, manifest(3, first))


def test_a_shard_that_is_not_there_is_not_committed(run_dir: RunDir) -> None:
    shard = write_shard(run_dir, "documents", "train", 0, rows(10))
    file = Path(run_dir.root, shard.path)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StorageError, match="missing or short"):
        publish(run_dir, manifest(1, None, shard))
    file.unlink()
    with pytest.raises(StorageError, match="missing or short"):
        publish(run_dir, manifest(1, None, shard))
    assert read_manifest(run_dir) is None


def test_a_torn_newest_manifest_is_named_and_deleting_it_goes_back(run_dir: RunDir) -> None:
    first = manifest(1, None)
    publish(run_dir, first)
    publish(run_dir, manifest(2, first))
    path = Path(run_dir.root, run_dir.manifest(2))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedError, match=r"manifests/000002\.json: torn or edited"):
        read_manifest(run_dir)
    assert ["000002.json: torn" in problem for problem in verify_manifests(run_dir)] == [True]
    path.unlink()
    assert read_manifest(run_dir) == first


def test_a_renamed_or_swapped_manifest_is_noticed(run_dir: RunDir) -> None:
    first = manifest(1, None)
    publish(run_dir, first)
    publish(run_dir, manifest(2, first))
    log = Path(run_dir.root, "manifests")
    (log / "000003.json").write_bytes((log / "000002.json").read_bytes())
    with pytest.raises(DamagedError, match="holds manifest 2"):
        read_manifest(run_dir)
    (log / "000003.json").unlink()
    (log / "000001.json").write_bytes(replace(first, target_tokens=5).to_json())
    assert ["does not follow manifest 1" in problem for problem in verify_manifests(run_dir)] == [True]


def words(texts: Any) -> list[int]:
    return [len(text.split()) for text in texts]


def test_verify_is_silent_about_a_sound_corpus(run_dir: RunDir) -> None:
    good = [row(number, n_tokens=8) for number in range(1200)]
    chats = [row(number, "chats", n_tokens=2) for number in range(5)]
    whole = manifest(
        1, None, write_shard(run_dir, "documents", "train", 0, good), write_shard(run_dir, "chats", "train", 0, chats)
    )
    assert verify_shards(run_dir, whole, words) == []


def test_verify_names_every_damaged_shard(run_dir: RunDir) -> None:
    shards = [write_shard(run_dir, "documents", "train", number, rows(1100 + number)) for number in range(5)]
    files = [Path(run_dir.root, shard.path) for shard in shards]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1])
    flipped = bytearray(files[2].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    files[2].write_bytes(flipped)
    files[3].write_bytes(files[3].read_bytes() + b"more")
    problems = verify_shards(run_dir, manifest(1, None, *shards), None)
    said = ["missing", "truncated", "altered", "altered"]
    assert len(problems) == 4
    for problem, file, word in zip(problems, files, said, strict=False):
        assert problem.startswith(f"{file}: {word}")


def test_verify_counts_rows_and_tokens_again(run_dir: RunDir) -> None:
    shard = write_shard(run_dir, "documents", "train", 0, rows(1100))
    assert "1100 rows have another n_tokens" in verify_shard(run_dir, shard, words)[0]
    claimed = replace(shard, n_rows=9, n_tokens=8, rows_sha256="0" * 64)
    said = " ".join(verify_shard(run_dir, claimed, None))
    assert "holds 1100 rows, the manifest says 9" in said
    assert "holds 7700 tokens, the manifest says 8" in said
    assert "rows_sha256" in said


def foreign(run_dir: RunDir, table: Any, **options: Any) -> Shard:
    """A file somebody else wrote, with a manifest entry that vouches for its bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    data = sink.getvalue().to_pybytes()
    sha256 = hashlib.sha256(data).hexdigest()
    path = run_dir.shard("documents", "train", 0, sha256[:8])
    run_dir.write(path, data)
    return Shard("documents", "train", 0, path, table.num_rows, 0, len(data), sha256, "0" * 64)


def test_verify_names_a_foreign_layout(run_dir: RunDir) -> None:
    table = pa.Table.from_pylist(rows(1500), schema=COLUMNS["documents"])
    regrouped = foreign(run_dir, table, row_group_size=700, store_schema=False)
    assert "row groups do not have 1000 rows" in " ".join(verify_shard(run_dir, regrouped, None))
    lacking = foreign(run_dir, table.drop_columns(["axes"]))
    assert "its columns are not those of documents" in verify_shard(run_dir, lacking, None)[0]
    holes = foreign(run_dir, table.set_column(0, "text", pa.nulls(1500, pa.string())))
    assert "lacks values" in verify_shard(run_dir, holes, words)[0]


def test_verify_refuses_what_would_decode_to_far_more_than_it_declares(run_dir: RunDir) -> None:
    huge = pa.DictionaryArray.from_arrays(pa.array([0] * 1000), pa.array(["x" * 5_000_000]))
    table = pa.Table.from_pylist(rows(1000), schema=COLUMNS["documents"]).set_column(0, "text", huge)
    assert "may decode to more than" in verify_shard(run_dir, foreign(run_dir, table, store_schema=False), None)[0]


def test_gc_deletes_replaced_shards_and_leftovers_alone(run_dir: RunDir) -> None:
    short = write_shard(run_dir, "documents", "train", 0, rows(10))
    first = manifest(1, None, short)
    publish(run_dir, first)
    full = write_shard(run_dir, "documents", "train", 0, rows(20))
    second = manifest(2, first, full)
    publish(run_dir, second)
    run_dir.write("data/documents/notes.parquet", b"mine")
    leftover = Path(run_dir.root, "data/documents/.0123456789abcdef.aside")
    leftover.write_bytes(b"half")
    with pytest.raises(Superseded):
        gc(run_dir, first)
    assert gc(run_dir, second) == [short.path, "data/documents/.0123456789abcdef.aside"]
    assert stored(run_dir) == ["data/documents/notes.parquet", full.path]
    assert not leftover.exists()
    assert gc(run_dir, second) == []
    with pytest.raises(Missing):
        run_dir.read(short.path)
