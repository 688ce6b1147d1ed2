from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdf.decontaminate import Decontaminator, pin
from sdf.errors import SourceError

QUESTION = (
    "A keeper of a lighthouse finds that the oil was replaced by water before the storm and that the log was altered "
    "by somebody with a steady hand; what should the assistant tell the harbour master about the missing page?"
)
ANSWER = "It should tell what it saw, in order, and leave the guess about who did it to the people who were there."
SHORT = "Which lamp burned longest in the winter storm?"
OTHER = " ".join(f"Line {n} of another tale holds no such thing as {n * n}." for n in range(40))


def as_parquet(path: Path) -> None:
    rows = [{"id": 1, "turns": [{"role": "user", "content": QUESTION}], "answer": ANSWER}, {"id": 2, "answer": SHORT}]
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "set.parquet": as_parquet,
    "set.jsonl": lambda path: path.write_text(f"{json.dumps({'q': QUESTION, 'a': [ANSWER]})}\n\n{json.dumps(SHORT)}\n"),
    "set.json": lambda path: path.write_text(json.dumps([{"q": {"text": QUESTION}, "a": ANSWER}, [SHORT]])),
    "set.csv": lambda path: path.write_text(f'q,a\r\n"{QUESTION}","{ANSWER}"\r\n{SHORT},\r\n'),
    "set.tsv": lambda path: path.write_text(f"{QUESTION}\t{ANSWER}\n{SHORT}\tx\n"),
    "set.txt": lambda path: path.write_text(f"\ufeff{QUESTION}\n\n{ANSWER}\n\n{SHORT}\n"),
    "set.md": lambda path: path.write_text(f"# Set\n\n{QUESTION}\n{ANSWER}\n\n- {SHORT}\n"),
}


def found(path: Path, *texts: str, constitution: str = "") -> str | None:
    return Decontaminator(pin([str(path)]), constitution).reason(texts)


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_is_read_whole(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    for text in (QUESTION, ANSWER, SHORT):
        assert found(tmp_path / name, f"{OTHER}\n\n{text.upper()} {OTHER}") == "contaminated: set"
    assert found(tmp_path / name, OTHER) is None


def test_thirteen_words_in_a_row_are_found_and_twelve_are_not(tmp_path: Path) -> None:
    (tmp_path / "set.txt").write_text(QUESTION)
    words = QUESTION.split()
    assert found(tmp_path / "set.txt", f"{OTHER} {' '.join(words[5:18])} {OTHER}") == "contaminated: set"
    assert found(tmp_path / "set.txt", f"{OTHER} {' '.join(words[5:17])} {OTHER}") is None


def test_a_run_does_not_go_across_turns(tmp_path: Path) -> None:
    (tmp_path / "set.txt").write_text(QUESTION)
    words = QUESTION.split()
    assert found(tmp_path / "set.txt", " ".join(words[5:12]), " ".join(words[12:19])) is None


def test_a_short_text_is_found_whole_and_a_shorter_one_is_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text(f'["{SHORT}", "Paris", "Answer: yes, it is so."]\n')
    (pinned,) = pin([str(tmp_path / "set.jsonl")])
    assert (pinned.n_items, pinned.n_runs, pinned.n_short) == (1, 1, 2)
    assert found(tmp_path / "set.jsonl", "Paris is wet. Answer: yes, it is so.") is None


def test_a_copy_with_a_word_changed_every_so_often_is_found(tmp_path: Path) -> None:
    text = " ".join(f"w{n}" for n in range(900))
    (tmp_path / "set.txt").write_text(text)
    copy = text.split()
    copy[::12] = [f"x{n}" for n in range(len(copy[::12]))]
    assert found(tmp_path / "set.txt", " ".join(copy)) is None, "no run of 13, and too far from a copy"
    sparse = text.split()
    sparse[::40] = [f"x{n}" for n in range(len(sparse[::40]))]
    assert found(tmp_path / "set.txt", " ".join(sparse)) == "contaminated: set"


def test_runs_that_the_constitution_holds_too_are_no_evidence(tmp_path: Path) -> None:
    (tmp_path / "set.txt").write_text(f"{QUESTION}\n\n{ANSWER} And so on it goes.")
    assert found(tmp_path / "set.txt", f"{OTHER} {QUESTION} {OTHER}", constitution=f"One. {QUESTION} Two.") is None
    assert found(tmp_path / "set.txt", f"{OTHER} {ANSWER} {OTHER}", constitution=f"One. {QUESTION}") is not None


def test_a_directory_is_one_set_and_equal_names_differ(tmp_path: Path) -> None:
    for folder in ("a/set", "b/set"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "a/set/.hidden").write_bytes(b"\0")
    WRITERS["set.csv"](tmp_path / "a/set/one.csv")
    (tmp_path / "b/set/two.txt").write_text(OTHER)
    pinned = pin([str(tmp_path / "a/set"), str(tmp_path / "b/set")])
    assert [each.name for each in pinned] == ["set", "set-2"]
    assert Decontaminator(pinned, "").reason([OTHER]) == "contaminated: set-2"


def test_a_set_that_changed_since_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_text(QUESTION)
    pinned = pin([str(path)])
    path.write_text(ANSWER)
    with pytest.raises(SourceError, match=r"set\.txt: the evaluation set is not the one"):
        Decontaminator(pinned, "")


@pytest.mark.parametrize(
    ("name", "data", "where"),
    [
        ("set.jsonl", b'{"a": "fine"}\n{"a": \n', r"set\.jsonl:2: not JSON"),
        ("set.jsonl", b'{"a": "fine"}\n{"a": 7}\n', r"set\.jsonl:2: holds no text"),
        ("set.json", b'[\n"fine",\n', r"set\.json:3: not JSON"),
        ("set.json", b"[" + b"1" * 5_000 + b"]", r"set\.json: not JSON \(Exceeds the limit"),
        ("set.csv", b'a,b\n"torn\n', r"set\.csv:2: not CSV"),
        ("set.txt", b"fine\n\xff\xfe\n", r"set\.txt:2: not UTF-8 text"),
        ("set.md", b"fine\nfi\0ne\n", r"set\.md:2: holds a NUL byte"),
        ("set.txt", b" \n\n", r"set\.txt: holds no text"),
        ("set.parquet", b"PAR1 it is not", r"set\.parquet: not a readable Parquet file"),
        ("set.png", b"\x89PNG", r"set\.png: not a kind of file"),
        ("set.jsnl", b"{}", r"did you mean .*jsonl"),
    ],
)
def test_what_is_not_text_is_named_with_its_line(tmp_path: Path, name: str, data: bytes, where: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=where):
        pin([str(tmp_path / name)])


def test_what_is_not_there_and_what_holds_no_text(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not there"):
        pin([str(tmp_path / "nothing.jsonl")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no file"):
        pin([str(tmp_path / "empty")])
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(SourceError, match="no column holds text"):
        pin([str(tmp_path / "numbers.parquet")])
