"""Appending to a ledger: the parts of one worker, and the log of the driver.

A worker appends to parts that nobody else writes, so nothing locks, and a file never changes once it is
written. A flush costs two small files; in exchange a kill loses at most what was not flushed.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from sdf.errors import StorageError
from sdf.failpoints import reach
from sdf.ledger.file import Seal, log_path, part_name, part_path, sidecar_path
from sdf.ledger.rows import Entry, encode_answers, encode_log, encode_sidecar, text_bytes
from sdf.records import AnswerEntry, Location, Prefix, RoundSettlement, Settlement
from sdf.storage import RunDir

# What is safe in a file name everywhere, and sorts alike everywhere.
WRITER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True, eq=False)
class SealedPart:
    """A part that takes no more entries: the `number`-th of its writer; `name` is its `Location.part`."""

    number: int
    name: str
    entries: tuple[Entry, ...]
    writer: LedgerWriter

    def write(self) -> None:
        """Durable on return, with all sealed before it; safe from any thread, and again after it failed."""
        self.writer.write_through(self.number)


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
        part = SealedPart(self._n_sealed, self._part, tuple(self._pending), self)
        self._unwritten.append(part)
        self._n_sealed += 1
        self._pending, self._n_answers, self.pending_bytes = [], 0, 0
        return part

    def flush(self) -> None:
        """Everything appended, settled or sealed so far is durable on return."""
        self.seal()
        self.write_through(self._n_sealed)

    def write_through(self, number: int) -> None:
        """Writes sealed parts in order, up to this one. After an error the next call tries that part again."""
        with self._writing:
            while self._unwritten and self._unwritten[0].number <= number:
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
        reach("answers written")
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
            reach("log written")
            self._unwritten.popleft()
            self._n_written += 1
