"""The sidecars of a ledger as columns: every row of every part in one table, and what is damaged.

Reads each sidecar once, and a part only where its sidecar is missing or torn (then without its texts). The
price of deciding on columns is that all of them lie in memory: about 1 kB per settlement with its signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sdf.errors import DamagedError, Missing
from sdf.key_index import Ints
from sdf.ledger_rows import (
    ANSWERS,
    ANSWERS_SUFFIX,
    LEDGER,
    LOG,
    SIDECAR,
    SIDECAR_SUFFIX,
    USAGE_COLUMNS,
    Column,
    Table,
    decode,
    is_log,
    part_path,
    read_side_by_side,
    seal_of,
    sidecar_path,
)
from sdf.records import Location
from sdf.storage import RunDir

Mask = npt.NDArray[np.bool_]

# What a view is made of; texts, steps and units stay on disk.
_VIEWED = (
    *("kind", "id", "row", "model", *USAGE_COLUMNS, "genre", "index", "reason", "basis", "n_tokens", "reject"),
    *("signature", "principle", "lane", "number", "angles"),
)
_USED = pa.field("answers", pa.list_(pa.struct([("part", pa.string()), ("row", pa.int32())])))
_EMPTY = pa.schema([*(SIDECAR.field(name) for name in _VIEWED), _USED]).empty_table()
_READ = (*_VIEWED, "answers.list.element.part", "answers.list.element.row")
_OF_AN_ANSWER = {"id": "key", "model": "model", **{name: name for name in USAGE_COLUMNS}}


@dataclass(frozen=True, slots=True)
class Sheet:
    """The rows of all parts, in the order of location; a *place* is a row of it. Signatures lie apart, by part."""

    names: tuple[str, ...]
    rows: Table
    signatures: list[Column]
    starts: Ints
    is_whole: Mask
    damaged: tuple[str, ...]

    def part_of(self, places: Ints) -> Ints:
        return np.searchsorted(self.starts, places, side="right") - 1

    def locations(self, places: Ints) -> list[Location]:
        part = self.part_of(places)
        row = places - self.starts[part]
        return [Location(self.names[p], r) for p, r in zip(part.tolist(), row.tolist(), strict=True)]

    def signatures_at(self, places: Ints) -> Iterator[bytes]:
        """Those of settlements at `places`, which ascend; empty where there is none."""
        bounds = np.searchsorted(places, self.starts)
        for i, signatures in enumerate(self.signatures):
            rows = places[bounds[i] : bounds[i + 1]] - self.starts[i]
            yield from (signature or b"" for signature in signatures.take(pa.array(rows)).to_pylist())


def read_sheet(run_dir: RunDir, files: Mapping[str, int], wanted: Callable[[str], bool] | None) -> Sheet:
    """Of every part among `files`, or of those whose name `wanted` accepts."""
    names = [name for name in _parts_in(files) if wanted is None or wanted(name)]
    parts = list(read_side_by_side(lambda name: _read_part(run_dir, name, files), names))
    return Sheet(
        names=tuple(names),
        rows=pa.concat_tables([_EMPTY, *(part.rows for part in parts)]).drop_columns("signature"),
        signatures=[part.rows["signature"] for part in parts],
        starts=np.cumsum([0, *(len(part.rows) for part in parts)]),
        is_whole=np.array([part.is_whole for part in parts], dtype=bool),
        damaged=tuple(path for part in parts for path in part.damaged),
    )


def read_logs(run_dir: RunDir, files: Mapping[str, int]) -> tuple[list[Location], list[str]]:
    """Every location the drivers' logs name, in the order of epoch, log and entry; and the damaged logs."""
    paths = sorted(filter(is_log, files))
    logs = list(read_side_by_side(lambda path: _read_log(run_dir, path), paths))
    damaged = [path for path, log in zip(paths, logs, strict=True) if log is None]
    return [location for log in logs for location in log or ()], damaged


def _read_log(run_dir: RunDir, path: str) -> list[Location] | None:
    try:
        rows = decode(run_dir.read(path), LOG, path)
    except (DamagedError, Missing):
        return None
    return list(map(Location, rows["part"].to_pylist(), rows["row"].to_pylist()))


class _Part(NamedTuple):
    """A part as its sidecar tells it, or as its own columns do where there is no good sidecar."""

    rows: Table
    is_whole: bool
    damaged: tuple[str, ...] = ()


def _parts_in(files: Mapping[str, int]) -> list[str]:
    found = {
        path[len(LEDGER) + 1 : -len(suffix)]
        for path in files
        for suffix in (ANSWERS_SUFFIX, SIDECAR_SUFFIX)
        if path.endswith(suffix)
    }
    return sorted(found)


def _read_part(run_dir: RunDir, name: str, files: Mapping[str, int]) -> _Part:
    path, beside = part_path(name), sidecar_path(name)
    damaged: tuple[str, ...] = ()
    if beside in files:
        try:
            rows = decode(run_dir.read(beside), SIDECAR, beside, _READ)
            is_whole = files.get(path, 0) == seal_of(rows, beside).size_bytes
            return _Part(rows.replace_schema_metadata(None), is_whole, () if is_whole else (path,))
        except (DamagedError, Missing):
            damaged = (beside,)
    if path not in files:
        return _Part(_EMPTY, False, damaged)
    try:
        return _Part(_sidecar_of(decode(run_dir.read(path), ANSWERS, path, _OF_AN_ANSWER.values())), True, damaged)
    except (DamagedError, Missing):
        return _Part(_EMPTY, False, (*damaged, path))


def _sidecar_of(part: Table) -> Table:
    """The sidecar's rows of a part's answers, from the part itself."""
    n = len(part)
    known = {name: part[theirs] for name, theirs in _OF_AN_ANSWER.items()}
    known |= {"kind": pa.repeat("answer", n), "row": pa.array(range(n), pa.int32())}
    return pa.table([known.get(field.name, pa.nulls(n, field.type)) for field in _EMPTY.schema], _EMPTY.schema)
