"""The ledger: the one store of answers and settlements, append-only.

    ledger/000003/w1-000007.answers.parquet    the answers of one flush, written first
    ledger/000003/w1-000007.sidecar.parquet    what resume needs of them, and the settlements
    ledger/000003/log-000000.parquet           which settlements the driver took, in order
    ledger/prefixes/<hash>.txt                 each prompt prefix, once

Here is what the other rooms use: `LedgerWriter` and `SettlementLog` append, `read_ledger` tells a resume where
everything lies from the sidecars alone, and only the readers below open a part for its texts. They read and
check a whole file (4 MB) for one row of it, so ask for many rows at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from sdf.errors import DamagedError
from sdf.ledger.file import (
    ANSWERS_SUFFIX,
    LEDGER,
    PREFIXES,
    SIDECAR_SUFFIX,
    Schema,
    Seal,
    Table,
    decode,
    is_log,
    part_of_file,
    part_path,
    read_side_by_side,
    seal_of,
    sidecar_path,
)
from sdf.ledger.key_index import KeyIndex
from sdf.ledger.rows import ANSWERS, LOG, SIDECAR, answer_entry, settlement
from sdf.ledger.view import LedgerView, read_ledger
from sdf.ledger.writer import LedgerWriter, SealedPart, SettlementLog
from sdf.records import AnswerEntry, Location, Prefix, RoundSettlement, Settlement
from sdf.storage import RunDir

__all__ = [
    "AnswerReader",
    "KeyIndex",
    "LedgerView",
    "LedgerWriter",
    "SealedPart",
    "SettlementLog",
    "check_ledger",
    "read_answers",
    "read_ledger",
    "read_settlements",
]

Result = TypeVar("Result")


def read_settlements(run_dir: RunDir, locations: Sequence[Location]) -> list[Settlement | RoundSettlement]:
    """In the order of `locations`, reading each sidecar once. DamagedError or Missing names the file at fault."""
    return _read_rows(locations, lambda part: _read_table(run_dir, sidecar_path(part), SIDECAR), settlement)


def read_answers(run_dir: RunDir, locations: Sequence[Location]) -> list[AnswerEntry]:
    """In the order of `locations`, reading each part once; besides the answers asked for, N_READERS parts lie in
    memory. DamagedError or Missing names the file at fault."""
    return _read_rows(locations, lambda part: _read_table(run_dir, part_path(part), ANSWERS), answer_entry)


class AnswerReader:
    """Answers one at a time; the `n_parts` parts used last stay decoded (about 4 MB each). For one thread."""

    def __init__(self, run_dir: RunDir, n_parts: int = 16) -> None:
        self._run_dir, self._n_parts = run_dir, n_parts
        self._tables: OrderedDict[str, Table] = OrderedDict()

    def read(self, location: Location) -> AnswerEntry:
        """DamagedError or Missing names the part at fault."""
        table = self._tables.get(location.part)
        if table is None:
            table = _read_table(self._run_dir, part_path(location.part), ANSWERS)
        self._tables[location.part] = table
        self._tables.move_to_end(location.part)
        if len(self._tables) > self._n_parts:
            self._tables.popitem(last=False)
        return answer_entry(_rows_at(table, location.part, [location.row])[0])


def _read_table(run_dir: RunDir, path: str, schema: Schema) -> Table:
    return decode(run_dir.read(path), schema, path)


def _read_rows(
    locations: Sequence[Location], read: Callable[[str], Table], entry_of: Callable[[Mapping[str, Any]], Result]
) -> list[Result]:
    wanted: dict[str, list[int]] = {}
    for i, location in enumerate(locations):
        wanted.setdefault(location.part, []).append(i)

    def entries_of(part: str) -> list[Result]:
        return [entry_of(row) for row in _rows_at(read(part), part, [locations[i].row for i in wanted[part]])]

    found: dict[int, Result] = {}
    for part, entries in zip(wanted, read_side_by_side(entries_of, wanted), strict=True):
        found.update(zip(wanted[part], entries, strict=True))
    return [found[i] for i in range(len(locations))]


def _rows_at(table: Table, part: str, rows: Sequence[int]) -> list[dict[str, Any]]:
    if max(rows) >= len(table):
        raise DamagedError(f"ledger part {part}: damaged: it has {len(table)} rows, and row {max(rows)} is referred to")
    return table.take(pa.array(rows)).to_pylist()


def check_ledger(run_dir: RunDir) -> list[str]:
    """One sentence for each file whose bytes are not what was written, or that is missing; in order of path.

    Reads everything: each file against its own hash, parts also against the size and sha256 in their sidecar.
    """
    files = dict(run_dir.files(LEDGER))
    found = {path: f"{path}: missing, though other files refer to it" for path in read_ledger(run_dir).damaged}
    for problems in read_side_by_side(lambda path: _problems(run_dir, path, files), sorted(files)):
        found |= problems
    return [found[path] for path in sorted(found)]


def _problems(run_dir: RunDir, path: str, files: Mapping[str, int]) -> dict[str, str]:
    """What is wrong with the file at `path`, or by its word with another, by path."""
    try:
        data = run_dir.read(path)
        if is_log(path):
            decode(data, LOG, path)
        elif part_of_file(path) and path.endswith(SIDECAR_SUFFIX):
            return _part_problems(run_dir, path, decode(data, SIDECAR, path), files)
        elif part_of_file(path):
            decode(data, ANSWERS, path)
        elif path.startswith(PREFIXES) and Prefix.of(data.decode()).hash != path[len(PREFIXES) : -len(".txt")]:
            return {path: f"{path}: damaged: its text is not the one its name is the hash of"}
    except DamagedError as error:
        return {path: str(error)}
    except UnicodeDecodeError as error:
        return {path: f"{path}: damaged: {error}"}
    return {}


def _part_problems(run_dir: RunDir, beside: str, sidecar: Table, files: Mapping[str, int]) -> dict[str, str]:
    seal = seal_of(sidecar, beside)
    path = beside.removesuffix(SIDECAR_SUFFIX) + ANSWERS_SUFFIX
    if files.get(path, 0) != seal.size_bytes:
        return {path: f"{path}: damaged: {files.get(path, 0)} bytes, {seal.size_bytes} were written"}
    if seal.size_bytes and Seal.of(run_dir.read(path)) != seal:
        return {path: f"{path}: damaged: its sha256 is not the one that was written"}
    return {}
