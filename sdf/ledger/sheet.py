"""The sidecars of a ledger as columns: all answers, all settlements, and what is damaged.

Reads each sidecar once, and a part only where its sidecar is missing or torn (then without its texts). The
price of deciding on columns is that all of them lie in memory: 300,000 settlements of three answers each take
a resume 570 MB at its peak, its receipts included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from sdf.errors import DamagedError, Missing
from sdf.ledger.file import (
    Column,
    Table,
    decode,
    epoch_of_log,
    is_log,
    part_of_file,
    part_path,
    read_side_by_side,
    seal_of,
    sidecar_path,
)
from sdf.ledger.key_index import Ints, Words, key_words
from sdf.ledger.rows import ANSWERS, LOG, SIDECAR, USAGE_COLUMNS
from sdf.storage import RunDir

Mask = npt.NDArray[np.bool_]

# Its functions are made when it is imported, so a type checker sees none of them.
pc: Any = pyarrow.compute

# What a view is made of; texts, steps and units stay on disk.
_BILLS = ("model", *USAGE_COLUMNS, "cost_usd")
_SETTLED = (
    *("kind", "id", "genre", "index", "reason", "basis", "n_tokens", "reject"),
    *("principle", "lane", "number", "angles"),
)
_USED = pa.field("answers", pa.list_(pa.struct([("part", pa.string()), ("row", pa.int32())])))
_READ = ("signature", *_BILLS, *_SETTLED, "answers.list.element.part", "answers.list.element.row")
_NO_BILLS = pa.schema([SIDECAR.field(name) for name in _BILLS]).empty_table()
_NO_SETTLED = pa.schema([*(SIDECAR.field(name) for name in _SETTLED), _USED]).empty_table()


class Sheet(NamedTuple):
    """Answers and settlements of all parts, each in the order of location.

    names: the parts; names[p] has answers first_answer[p] .. first_answer[p + 1], in the order of their rows, and
        settlements first_settled[p] .. first_settled[p + 1], which lie at the rows `row` of its sidecar.
    words: (n answers, 2), their keys. bills: their model and usage.
    settled: one row per settlement. signatures: theirs, as the objects that receipts take over, since a second
        copy would be most of the memory; None where there is none.
    is_whole: of each part, whether its answers can be read.
    """

    names: tuple[str, ...]
    is_whole: Mask
    first_answer: Ints
    words: Words
    bills: Table
    first_settled: Ints
    row: Ints
    settled: Table
    signatures: list[bytes | None]
    damaged: tuple[str, ...]

    @property
    def is_readable(self) -> Mask:
        """Of each answer."""
        return np.repeat(self.is_whole, np.diff(self.first_answer))


def part_of(numbers: Ints, first: Ints) -> Ints:
    """In which part each lies; `first` is a sheet's `first_answer` or `first_settled`."""
    return np.searchsorted(first, numbers, side="right") - 1


def read_sheet(run_dir: RunDir, files: Mapping[str, int], wanted: Callable[[str], bool] | None) -> Sheet:
    """Of every part among `files`, or of those whose name `wanted` accepts."""
    names = [name for name in _parts_in(files) if wanted is None or wanted(name)]
    parts = list(read_side_by_side(lambda name: _read_part(run_dir, name, files), names))
    return Sheet(
        names=tuple(names),
        is_whole=np.array([part.is_whole for part in parts], dtype=bool),
        first_answer=np.cumsum([0, *(len(part.words) for part in parts)]),
        words=np.concatenate([_NO_WORDS, *(part.words for part in parts)]),
        bills=pa.concat_tables([_NO_BILLS, *(part.bills for part in parts)]),
        first_settled=np.cumsum([0, *(len(part.row) for part in parts)]),
        row=np.concatenate([_NO_ROWS, *(part.row for part in parts)]),
        settled=pa.concat_tables([_NO_SETTLED, *(part.settled for part in parts)]),
        signatures=[signature for part in parts for signature in part.signatures],
        damaged=tuple(path for part in parts for path in part.damaged),
    )


class Log(NamedTuple):
    """What the drivers' logs name, newest epoch first, then in the order of log and entry: row `row[i]` of
    the sidecar of names[part[i]]. What a log named was durable, so `damaged` holds sidecars that it
    names and that are gone."""

    names: list[str]
    part: Ints
    row: Ints
    damaged: list[str]


def read_logs(run_dir: RunDir, files: Mapping[str, int]) -> Log:
    # A driver that slept through its lease may still write a log: its successor's corpus must not depend on that.
    paths = sorted(sorted(filter(is_log, files)), key=epoch_of_log, reverse=True)
    logs = list(read_side_by_side(lambda path: _read_log(run_dir, path), paths))
    entries = pa.concat_tables([LOG.empty_table(), *(log for log in logs if log is not None)]).combine_chunks()
    parts = pc.dictionary_encode(entries["part"]).combine_chunks()
    names = parts.dictionary.to_pylist()
    damaged = [path for path, log in zip(paths, logs, strict=True) if log is None]
    damaged += [path for path in map(sidecar_path, names) if path not in files]
    return Log(names, parts.indices.to_numpy(), entries["row"].to_numpy(), damaged)


def _read_log(run_dir: RunDir, path: str) -> Table | None:
    try:
        return decode(run_dir.read(path), LOG, path)
    except (DamagedError, Missing):
        return None


_NO_WORDS: Words = np.empty((0, 2), dtype=np.uint64)
_NO_ROWS: Ints = np.empty(0, dtype=np.int64)


class _Part(NamedTuple):
    """A part as its sidecar tells it, or as its own columns do where there is no good sidecar."""

    is_whole: bool
    damaged: tuple[str, ...]
    words: Words = _NO_WORDS
    bills: Table = _NO_BILLS
    row: Ints = _NO_ROWS
    settled: Table = _NO_SETTLED
    signatures: Sequence[bytes | None] = ()


def _parts_in(files: Iterable[str]) -> list[str]:
    return sorted({part for part in map(part_of_file, files) if part})


def _read_part(run_dir: RunDir, name: str, files: Mapping[str, int]) -> _Part:
    path, beside = part_path(name), sidecar_path(name)
    damaged: tuple[str, ...] = ()
    if beside in files:
        try:
            return _from_sidecar(decode(run_dir.read(beside), SIDECAR, beside, _READ), beside, path, files.get(path, 0))
        except (DamagedError, Missing):
            damaged = (beside,)
    if path not in files:
        return _Part(False, damaged)
    try:
        rows = decode(run_dir.read(path), ANSWERS, path, ("key", *_BILLS))
    except (DamagedError, Missing):
        return _Part(False, (*damaged, path))
    return _Part(True, damaged, _words(rows["key"]), rows.select(_BILLS))


def _from_sidecar(rows: Table, beside: str, path: str, size_bytes: int) -> _Part:
    is_whole = size_bytes == seal_of(rows, beside).size_bytes
    rows = rows.replace_schema_metadata(None)
    is_answer = pc.equal(rows["kind"], "answer")
    is_settled = pc.invert(is_answer)
    return _Part(
        is_whole,
        () if is_whole else (path,),
        _words(rows["id"].filter(is_answer)),
        rows.select(_BILLS).filter(is_answer),
        np.flatnonzero(is_settled.to_numpy()),
        rows.select(_NO_SETTLED.column_names).filter(is_settled),
        rows["signature"].filter(is_settled).to_pylist(),
    )


def _words(keys: Column) -> Words:
    return key_words("".join(keys.to_pylist()))
