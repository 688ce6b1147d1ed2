"""Rows that a genre reads from outside: Parquet, JSONL or another corpus.

The file is pinned by sha256, so the sequence it makes is as fixed as a prompt. Others' files are hostile:
they are opened by `parquet.open_parquet`, which refuses extension types and bombs.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from sdf.errors import SourceError
from sdf.frontmatter import near
from sdf.genres import Source
from sdf.genres.model import STAGE
from sdf.parquet import open_parquet
from sdf.records import canonical_json
from sdf.sources.corpora import is_corpus, open_corpus, pinned, rows_with
from sdf.storage import RunDir


class Rows(Protocol):
    """The rows of a source, addressed by number; `row` returns only the declared columns, as plain data."""

    def __len__(self) -> int: ...

    def row(self, number: int) -> Mapping[str, Any]: ...


def open_rows(source: Source, genre_path: str) -> Rows:
    """Relative paths are relative to the genre file. SourceError names genre, line, file and column."""
    try:
        return _opened(source, genre_path)
    except SourceError as error:
        raise SourceError(f"{genre_path}:{source.line}: {error}") from None


def _opened(source: Source, genre_path: str) -> Rows:
    path, columns = _path(source, genre_path), tuple(source.columns)
    if path.startswith(STAGE):
        raise SourceError(f"{path}: this stage is not made yet; `sdf run` makes it first")
    if is_corpus(path):
        corpus = open_corpus(path)
        shards, n_rows = rows_with(corpus, pinned(corpus, source.sha256), columns)
        return ParquetRows([(corpus.run_dir, shard.path) for shard in shards], columns, n_rows)
    found = _sha256(Path(path))
    if source.sha256 not in (None, found):
        raise SourceError(
            f"{path}: sha256 is {found}, the genre pins {source.sha256}; use the pinned file or change the pin"
        )
    if path.endswith(".parquet"):
        return ParquetRows([(RunDir(Path(path).parent), Path(path).name)], columns)
    if path.endswith((".jsonl", ".json")):
        return JsonRows(Path(path), columns)
    raise SourceError(f"{path}: give a .parquet or .jsonl file, or the directory of a corpus")


class Pin(NamedTuple):
    """What a source holds now, and what it is: of a corpus its newest and its first manifest; a file is both."""

    sha256: str
    lineage: str


def pin(source: Source, genre_path: str) -> Pin:
    """SourceError names the file."""
    path = _path(source, genre_path)
    if is_corpus(path):
        corpus = open_corpus(path)
        return Pin(corpus.sha256, corpus.lineage)
    found = _sha256(Path(path))
    return Pin(found, found)


def _path(source: Source, genre_path: str) -> str:
    assert source.path is not None, "a job gives every source its path"
    if "://" in source.path or source.path.startswith(STAGE):
        return source.path
    return str(Path(genre_path).parent / source.path)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    return found.hexdigest()


class Unmade:
    """Stands for the rows of a corpus that is planned and not made: how many are expected, none known."""

    def __init__(self, columns: tuple[str, ...], n_rows: int) -> None:
        self._columns, self._n_rows = columns, n_rows

    def __len__(self) -> int:
        return self._n_rows

    def row(self, number: int) -> Mapping[str, Any]:
        if not 0 <= number < self._n_rows:
            raise IndexError(number)
        return dict.fromkeys(self._columns, "")


class ParquetRows:
    """One row group in memory at a time: briefs are asked for nearly in order. `most` rows, of files that may have
    grown since."""

    def __init__(self, files: Sequence[tuple[RunDir, str]], columns: tuple[str, ...], most: int | None = None) -> None:
        self._columns = columns
        self._groups: list[tuple[RunDir, str, int]] = []
        self._starts: list[int] = []
        self._n_rows = 0
        for run_dir, path in files:
            if most is None or self._n_rows < most:
                self._add(run_dir, path)
        self._n_rows = self._n_rows if most is None else min(self._n_rows, most)
        self._last: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return self._n_rows

    def row(self, number: int) -> Mapping[str, Any]:
        if not 0 <= number < self._n_rows:
            raise IndexError(number)
        group = bisect_right(self._starts, number) - 1
        try:
            if self._last is None or self._last[0] != group:
                self._last = (group, self._read(group))
            return self._last[1].slice(number - self._starts[group], 1).to_pylist()[0]
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            run_dir, path, _ = self._groups[group]
            raise SourceError(
                f"{run_dir.root}/{path}: row {number + 1} cannot be read ({error}); write or download the file again"
            ) from None

    def _add(self, run_dir: RunDir, path: str) -> None:
        place = f"{run_dir.root}/{path}"
        with run_dir.open(path) as opened:
            file = open_parquet(opened, place)
            names = file.schema_arrow.names
            missing = [name for name in self._columns if name not in names]
            if missing:
                raise SourceError(f"{place}: no column {missing[0]!r}{near(missing[0], names)}")
            for name in self._columns:
                _check_plain(file.schema_arrow.field(name).type, place, name)
            for number in range(file.metadata.num_row_groups):
                self._groups.append((run_dir, path, number))
                self._starts.append(self._n_rows)
                self._n_rows += file.metadata.row_group(number).num_rows

    def _read(self, group: int) -> Any:
        run_dir, path, number = self._groups[group]
        with run_dir.open(path) as opened:
            file = open_parquet(opened, f"{run_dir.root}/{path}")
            return file.read_row_group(number, columns=list(self._columns))


def _check_plain(kind: Any, place: str, column: str) -> None:
    """A row is hashed and rendered as JSON data, so dates, bytes and decimals have no one form in it."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        for position in range(kind.num_fields):
            _check_plain(kind.field(position).type, place, column)
    elif not any(is_kind(kind) for is_kind in _PLAIN):
        raise SourceError(
            f"{place}: column {column!r} holds {kind}; a row is made of text, numbers, booleans, and lists and structs "
            "of these: convert the column"
        )


_PLAIN = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null),
)


class JsonRows:
    """JSON Lines, by byte offset: one pass when opened, one seek per row."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._path, self._columns = path, columns
        self._offsets = array("q")
        with path.open("rb") as file:
            offset = 0
            for line in file:
                if line.strip():
                    self._offsets.append(offset)
                offset += len(line)
        if self._offsets:
            self.row(0)

    def __len__(self) -> int:
        return len(self._offsets)

    def row(self, number: int) -> Mapping[str, Any]:
        with self._path.open("rb") as file:
            file.seek(self._offsets[number])
            line = file.readline()
        try:
            value = json.loads(line)
            row = {name: value[name] for name in self._columns}
            canonical_json(row).encode()  # half of a cut emoji is legal JSON and no text
        except (ValueError, TypeError, RecursionError) as error:
            raise SourceError(f"{self._path}: row {number + 1} is no JSON object of valid text ({error})") from None
        except KeyError as error:
            asked = ", ".join(self._columns)
            raise SourceError(f"{self._path}: row {number + 1} has no field {error}; the genre reads {asked}") from None
        return row
