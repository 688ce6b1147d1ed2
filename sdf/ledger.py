"""The ledger: the one store of answers and settlements, append-only.

A worker appends to parts that nobody else writes, so nothing locks, and a part never changes once it is
written. A flush costs two small files; in exchange a kill loses at most what was not flushed, and whatever
was flushed before stays readable. A part's text is read again only by `read_answers` and `AnswerReader`.

    ledger/000003/w1-000007.answers.parquet    the answers of one flush, written first
    ledger/000003/w1-000007.sidecar.parquet    what resume needs of them, and the settlements
    ledger/000003/log-000000.parquet           which settlements the driver took, in order
    ledger/prefixes/<hash>.txt                 each prompt prefix, once
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from sdf.errors import DamagedError, Missing, StorageError
from sdf.key_index import KeyIndex
from sdf.ledger_rows import (
    ANSWERS,
    ANSWERS_SUFFIX,
    LEDGER,
    LOG,
    PREFIXES,
    SIDECAR,
    SIDECAR_SUFFIX,
    Entry,
    Schema,
    Seal,
    Table,
    answer_entry,
    decode,
    encode_answers,
    encode_log,
    encode_sidecar,
    is_log,
    log_path,
    part_name,
    part_path,
    read_side_by_side,
    seal_of,
    settlement,
    sidecar_path,
    text_bytes,
)
from sdf.ledger_view import LedgerView, read_ledger
from sdf.records import AnswerEntry, Location, Prefix, RoundSettlement, Settlement
from sdf.storage import RunDir

Result = TypeVar("Result")

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

# What is safe in a file name everywhere, and sorts alike everywhere.
WRITER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True, eq=False)
class SealedPart:
    """A part that takes no more entries; `name` is its `Location.part`."""

    name: str
    entries: tuple[Entry, ...]
    writer: LedgerWriter

    def write(self) -> None:
        """Durable on return, with all sealed before it; safe from any thread, and again after it failed."""
        self.writer.write_through(self)


class LedgerWriter:
    """Appends to one writer's parts, in order; `writer` must be new in its epoch (a restarted worker takes another).

    One thread appends, settles and seals; any may write what was sealed.
    """

    def __init__(self, run_dir: RunDir, epoch: int, writer: str) -> None:
        if not WRITER_NAME.fullmatch(writer):
            raise ValueError(f"writer {writer!r}: use up to 100 of A-Z a-z 0-9 _ . -, beginning with a letter or digit")
        self._run_dir, self._epoch, self._writer = run_dir, epoch, writer
        self._n_sealed = 0
        self._pending: list[Entry] = []
        self._n_answers = 0
        self._prefixes: set[str] = set()
        self._unwritten: deque[SealedPart] = deque()
        self._writing = threading.Lock()
        self.pending_bytes = 0

    @property
    def pending(self) -> int:
        """Entries that no flush has taken up."""
        return len(self._pending)

    def append(self, entry: AnswerEntry) -> Location:
        """Where the answer will lie: final at once, durable with the next flush. ValueError when its text is no
        valid Unicode (a lone surrogate) or its key is not 32 hex digits; nothing is kept then."""
        self._keep(entry)
        self._n_answers += 1
        return Location(self._part, self._n_answers - 1)

    def settle(self, settlement: Settlement | RoundSettlement) -> Location:
        """Where the settlement will lie, as a row of the part's sidecar. ValueError as for `append`."""
        self._keep(settlement)
        return Location(self._part, len(self._pending) - 1)

    def keep_prefix(self, prefix: Prefix) -> None:
        """Durable on return, once per hash; call it before the first answer that refers to it."""
        if prefix.hash not in self._prefixes:
            self._run_dir.put_if_absent(RunDir.prefix(prefix.hash), prefix.text.encode())
            self._prefixes.add(prefix.hash)

    def seal(self) -> SealedPart | None:
        """The pending entries as a part to write; what comes next goes to another. None when nothing is pending."""
        if not self._pending:
            return None
        part = SealedPart(self._part, tuple(self._pending), self)
        self._unwritten.append(part)
        self._n_sealed += 1
        self._pending, self._n_answers, self.pending_bytes = [], 0, 0
        return part

    def flush(self) -> None:
        """Everything appended, settled or sealed so far is durable on return."""
        self.seal()
        self.write_through(None)

    def write_through(self, last: SealedPart | None) -> None:
        """Writes sealed parts in order up to `last`, or all. After an error the next call tries that part again."""
        with self._writing:
            while self._unwritten and (last is None or last in self._unwritten):
                _write_part(self._run_dir, self._unwritten[0])
                self._unwritten.popleft()

    @property
    def _part(self) -> str:
        return part_name(self._epoch, f"{self._writer}-{self._n_sealed:06d}")

    def _keep(self, entry: Entry) -> None:
        self.pending_bytes += text_bytes(entry)
        self._pending.append(entry)


def _write_part(run_dir: RunDir, part: SealedPart) -> None:
    answers = [entry for entry in part.entries if isinstance(entry, AnswerEntry)]
    data = encode_answers(answers) if answers else b""
    if answers:
        _put(run_dir, part_path(part.name), data)
    # After its part: a sidecar without one would promise answers that do not exist.
    _put(run_dir, sidecar_path(part.name), encode_sidecar(part.entries, Seal.of(data)))


def _put(run_dir: RunDir, path: str, data: bytes) -> None:
    """Never overwrites. The same bytes may be there already: a repeat, or a store that lost its first reply."""
    if not run_dir.put_if_absent(path, data) and run_dir.read(path) != data:
        raise StorageError(f"{run_dir.root}/{path}: written by another writer of that name; give each writer its own")


class SettlementLog:
    """The driver's own record of which settlements it took, and in what order; one per epoch."""

    def __init__(self, run_dir: RunDir, epoch: int) -> None:
        self._run_dir, self._epoch = run_dir, epoch
        self._n_written = 0
        self._pending: list[Location] = []
        self._unwritten: deque[bytes] = deque()

    def append(self, locations: Iterable[Location]) -> None:
        self._pending += locations

    def flush(self) -> None:
        """Durable on return. After an error nothing is forgotten: the next flush tries again."""
        if self._pending:
            self._unwritten.append(encode_log(self._pending))
            self._pending = []
        while self._unwritten:
            _put(self._run_dir, log_path(self._epoch, self._n_written), self._unwritten[0])
            self._unwritten.popleft()
            self._n_written += 1


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

    Reads everything: sizes and sha256 of parts against their sidecars, pages of sidecars and logs against their
    CRCs, prefixes against their hash.
    """
    files = dict(run_dir.files(LEDGER))
    problems = read_side_by_side(lambda path: _problem(run_dir, path, files), sorted(files))
    return [problem for problem in problems if problem]


def _problem(run_dir: RunDir, path: str, files: Mapping[str, int]) -> str | None:
    try:
        data = run_dir.read(path)
        if path.endswith(SIDECAR_SUFFIX):
            return _problem_of_part(run_dir, path, decode(data, SIDECAR, path), files)
        if path.endswith(ANSWERS_SUFFIX):
            decode(data, ANSWERS, path)
        elif is_log(path):
            decode(data, LOG, path)
        elif path.startswith(PREFIXES) and Prefix.of(data.decode()).hash != path[len(PREFIXES) : -len(".txt")]:
            return f"{path}: damaged: its text is not the one its name is the hash of"
    except (DamagedError, Missing, UnicodeDecodeError) as error:
        return str(error) if path in str(error) else f"{path}: damaged: {error}"
    return None


def _problem_of_part(run_dir: RunDir, beside: str, sidecar: Table, files: Mapping[str, int]) -> str | None:
    seal = seal_of(sidecar, beside)
    path = beside.removesuffix(SIDECAR_SUFFIX) + ANSWERS_SUFFIX
    if files.get(path, 0) != seal.size_bytes:
        return f"{path}: damaged: {files.get(path, 0)} bytes, {seal.size_bytes} were written"
    if seal.size_bytes and Seal.of(run_dir.read(path)) != seal:
        return f"{path}: damaged: its sha256 is not the one that was written"
    return None
