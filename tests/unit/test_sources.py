"""Rows of files: only the declared columns, as plain data, and never of another file than the pinned one."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streams import and_no_text
from support import NOTE, QUESTION, make, make_job, write_recipe

from sdf.errors import SourceError
from sdf.genres import Source
from sdf.records import canonical_json
from sdf.sources import Rows, open_rows, pin

ROWS = [{"topic": f"t{number}", "level": number, "tags": ["a", str(number)]} for number in range(10)]


def opened(path: Path, *columns: str, sha256: str | None = None) -> Rows:
    return open_rows(Source(path.name, sha256, columns or ("topic", "level")), str(path.parent / "genre.md"))


def written(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_every_row_is_found_by_number_with_the_declared_columns_alone(tmp_path: Path, name: str) -> None:
    rows = opened(written(tmp_path / name), "tags", "topic")
    assert len(rows) == 10
    for number in (9, 0, 4, 3, 5):
        assert rows.row(number) == {"tags": ["a", str(number)], "topic": f"t{number}"}


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_there_is_no_row_past_the_end(tmp_path: Path, name: str) -> None:
    with pytest.raises(IndexError):
        opened(written(tmp_path / name)).row(10)


def test_blank_lines_and_the_last_line_feed_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"topic": "a", "level": 1}\n\n  \n{"topic": "ü", "level": 2}\n\n', encoding="utf-8")
    rows = opened(path)
    assert [rows.row(number)["topic"] for number in range(len(rows))] == ["a", "ü"]


def test_the_pin_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert pin(Source(path.name, None, ("topic",)), str(tmp_path / "genre.md")) == (sha256, sha256)
    assert len(opened(path, sha256=sha256)) == 10
    path.write_text(path.read_text() + "\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"rows\.jsonl: sha256 is .* the genre pins"):
        opened(path, sha256=sha256)


def test_a_missing_file_and_an_unknown_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.jsonl: cannot be read"):
        opened(tmp_path / "none.jsonl")
    (tmp_path / "rows.csv").write_text("a,b")
    with pytest.raises(SourceError, match=r"rows\.csv: give a \.parquet or \.jsonl file"):
        opened(tmp_path / "rows.csv")


def test_an_unknown_column_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no column 'topics'; did you mean 'topic'"):
        opened(written(tmp_path / "rows.parquet"), "topics")
    with pytest.raises(SourceError, match=r"row 1 has no field 'topics'; the genre reads topics"):
        opened(written(tmp_path / "rows.jsonl"), "topics")


@pytest.mark.parametrize("line", ["[1]", "3", "nope", '"topic"', "null", "\xff", "[" * 100_000, "1" * 5_000])
def test_a_line_that_is_no_object_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"topic": 1, "level": 1}\n' + line + "\n", encoding="latin-1")
    with pytest.raises(SourceError, match="row 2 is no JSON object"):
        opened(path).row(1)


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2020, 1, 1),
        datetime.date(2020, 1, 1),
        decimal.Decimal("1.5"),
        b"bytes",
        [b"bytes"],
        {"a": b""},
    ],
)
def test_parquet_columns_that_are_no_plain_data_are_refused_when_opened(tmp_path: Path, value: object) -> None:
    path = written(tmp_path / "rows.parquet", [{"topic": value, "level": 1}])
    with pytest.raises(SourceError, match=r"column 'topic' holds .*convert the column"):
        opened(path)
    assert opened(path, "level").row(0) == {"level": 1}


@pytest.mark.parametrize("value", ["text", 1, 1.5, True, None, ["a", None], {"a": [1], "b": "x"}])
def test_parquet_columns_of_plain_data_are_read_as_such(tmp_path: Path, value: object) -> None:
    path = written(tmp_path / "rows.parquet", [{"topic": value, "level": 1}])
    row = opened(path).row(0)
    assert row["topic"] == value and canonical_json(dict(row))


def test_a_row_group_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"topic": and_no_text("fine")}), path, row_group_size=1)
    rows = opened(path, "topic")
    assert rows.row(0) == {"topic": "fine"}
    with pytest.raises(SourceError, match=r"rows\.parquet: row 2 cannot be read \('utf-8' codec"):
        rows.row(1)
    pq.write_table(pa.table({"topic": [str(number) for number in range(10_000)]}), path)
    data = bytearray(path.read_bytes())
    data[100:1_000] = bytes(900)
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"rows\.parquet: row 1 cannot be read"):
        opened(path, "topic").row(0)


def test_a_complete_corpus_is_a_source_and_a_growing_one_is_not(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"note": NOTE}, tokens=300)
    made = make(recipe, tmp_path / "genres" / "corpus")
    text = QUESTION.replace("{path: rows.jsonl, columns: [topic, level]}", "{path: corpus, columns: [text, principle]}")
    text = text.replace("brief.row.topic", "brief.row.text").replace("brief.row.level", "brief.row.principle")
    job = make_job(tmp_path, {"question": text})
    (genre,) = job.genres
    assert genre.source is not None and genre.source.sha256 is not None
    rows = open_rows(genre.source, genre.path)
    assert made.manifest is not None and len(rows) == made.manifest.n_documents
    assert set(rows.row(0)) == {"text", "principle"}
    make(write_recipe(tmp_path, {"note": NOTE}, tokens=600), tmp_path / "genres" / "corpus")
    # What is pinned stays what it was, in shards that have grown since.
    pinned = open_rows(genre.source, genre.path)
    assert [pinned.row(place) for place in range(len(pinned))] == [rows.row(place) for place in range(len(rows))]
    grown = make_job(tmp_path, {"question": text})
    (later,) = grown.genres
    assert later.source is not None and len(open_rows(later.source, later.path)) > len(rows)
    assert later.source.sha256 != genre.source.sha256 and later.source.lineage == genre.source.lineage
    assert grown.hash == job.hash
    manifest = max((tmp_path / "genres" / "corpus" / "manifests").glob("*.json"))
    assert b'"complete"' in manifest.read_bytes()


def test_a_directory_that_is_no_corpus_is_named(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    with pytest.raises(SourceError, match="corpus: no manifest here"):
        opened(tmp_path / "corpus")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_open_rows_travel_to_workers(tmp_path: Path, name: str) -> None:
    rows = opened(written(tmp_path / name))
    assert rows.row(4)["topic"] == "t4"
    assert pickle.loads(pickle.dumps(rows)).row(7)["topic"] == "t7"


def test_half_an_emoji_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"topic": "a", "level": 1}\n{"topic": "\\ud83d", "level": 2}\n', encoding="utf-8")
    with pytest.raises(SourceError, match="row 2 is no JSON object of valid text"):
        opened(path).row(1)
