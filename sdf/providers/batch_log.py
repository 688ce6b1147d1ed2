"""Which batches were asked for: a record before each is created, another once its id is known.

    batches/000003-w0001-000-0002.json        what is to be in it, durable before `create`
    batches/000003-w0001-000-0002.id.json     the id it got; without one nobody knows whether it was created
    batches/000003-w0001-000-0002.void.json   it was not: its requests are free to go elsewhere

Records are never changed and never deleted, so any worker of any later run finds what an earlier one has paid for.
Every method reads or writes the disk: call them from a thread.
"""

from __future__ import annotations

import json
import re
import threading
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sdf.errors import DamagedError, StorageError
from sdf.storage import RunDir

BATCHES = RunDir.batches
RECORD, ID, VOID = ".json", ".id.json", ".void.json"

# A request key.
CUSTOM_ID = re.compile(r"[0-9a-f]{32}")
ID_CHARS = 32


@dataclass(slots=True)
class Sent:
    """A batch that was asked for. `at` is in seconds since 1970 by the writer's clock; with `batch` None nobody knows
    whether it was created. `joined` holds its custom ids, one behind the other: a corpus has a million of them; `usd`
    what was set aside for each, in dollars."""

    name: str
    joined: str
    at: float
    usd: array[float]
    batch: str | None = None

    @property
    def writer(self) -> str:
        """Who sent it, as the ledger names its parts: "000003/w0001-000"."""
        return self.name.rpartition("-")[0].replace("-", "/", 1)

    @property
    def n_requests(self) -> int:
        return len(self.joined) // ID_CHARS

    @property
    def ids(self) -> Iterator[str]:
        return (self.joined[at : at + ID_CHARS] for at in range(0, len(self.joined), ID_CHARS))


class UnderWay(NamedTuple):
    """A batch that answers are waited for, `n_requests` of them; `batch` None while nobody knows its id."""

    name: str
    batch: str | None
    n_requests: int
    at: float


class Cancellation(NamedTuple):
    """What became of a batch that was to be canceled; "unclear": its reply was lost, and one of `batches` may be it."""

    kind: Literal["canceled", "ended", "unknown", "unclear"]
    batches: tuple[str, ...] = ()


class BatchLog:
    """The records of one directory, as one worker writes them. `writer` is new for every incarnation of a worker."""

    def __init__(self, run_dir: RunDir, writer: str, clock: Callable[[], float] = time.time) -> None:
        self._run_dir, self._writer, self._clock = run_dir, writer, clock
        self._n_written = 0
        self._known: dict[str, Sent] = {}
        self._turn = threading.Lock()

    @property
    def where(self) -> str:
        return f"{self._run_dir.root}/{BATCHES}"

    def now(self) -> float:
        return self._clock()

    def is_own(self, sent: Sent) -> bool:
        """Whether this worker sent it; then whoever asked for its requests is waiting for them."""
        return sent.name.startswith(f"{self._writer}-")

    def intend(self, ids: Sequence[str], usd: Sequence[float]) -> Sent:
        """Durable when it returns: whatever happens next, these requests will be looked for before they are sent."""
        with self._turn:
            sent = Sent(f"{self._writer}-{self._n_written:04d}", "".join(ids), self._clock(), array("d", usd))
            self._n_written += 1
            self._known[sent.name] = sent
        if not self._put(sent.name + RECORD, {"at": sent.at, "ids": list(ids), "usd": list(usd)}):
            raise StorageError(f"{self.where}/{sent.name}{RECORD}: written by another; is a second run going on?")
        return sent

    def identify(self, sent: Sent, batch: str) -> None:
        """Whoever finds a batch may say so; the first word stands."""
        sent.batch = batch
        self._put(sent.name + ID, {"batch": batch})

    def void(self, sent: Sent) -> None:
        self._put(sent.name + VOID, {})

    def known(self) -> list[Sent]:
        """Every batch that was or may have been created, by name. DamagedError names a file that is torn."""
        with self._turn:
            names = [path.removeprefix(f"{BATCHES}/") for path, _ in self._run_dir.files(BATCHES)]
            given = {name.removesuffix(ID) for name in names if name.endswith(ID)}
            void = {name.removesuffix(VOID) for name in names if name.endswith(VOID)}
            found: list[Sent] = []
            for name in _records(names):
                if name not in self._known:
                    self._known[name] = self._read(name)
                sent = self._known[name]
                if sent.batch is None and name in given:
                    sent.batch = self._read_id(name)
                if name not in void:
                    found.append(sent)
            return found

    def holding(self, ids: Collection[str]) -> dict[str, list[Sent]]:
        """By custom id, those of the known batches that hold it, by name."""
        wanted = set(ids)
        found: dict[str, list[Sent]] = {}
        for sent in self.known():
            for key in wanted.intersection(sent.ids):
                found.setdefault(key, []).append(sent)
        return found

    def _read(self, name: str) -> Sent:
        try:
            record = self._get(name + RECORD)
            joined = "".join(record["ids"])
            if not all(map(CUSTOM_ID.fullmatch, record["ids"])) or len(record["usd"]) != len(record["ids"]):
                raise ValueError(name)
            return Sent(name, joined, float(record["at"]), array("d", record["usd"]))
        except (ValueError, KeyError, TypeError):
            raise self._damaged(name + RECORD) from None

    def _read_id(self, name: str) -> str:
        try:
            return str(self._get(name + ID)["batch"])
        except (ValueError, KeyError, TypeError):
            raise self._damaged(name + ID) from None

    def _damaged(self, file: str) -> DamagedError:
        return DamagedError(
            f"{self.where}/{file}: not a record as sdf writes it; restore it from a copy, or delete it if its batch "
            "need not be collected"
        )

    def _get(self, file: str) -> dict[str, Any]:
        found = json.loads(self._run_dir.read(f"{BATCHES}/{file}"))
        if not isinstance(found, dict):
            raise TypeError(file)
        return found

    def _put(self, file: str, content: dict[str, Any]) -> bool:
        data = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        return self._run_dir.put_if_absent(f"{BATCHES}/{file}", data)


def _records(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name.endswith(RECORD) and not name.endswith((ID, VOID)):
            yield name.removesuffix(RECORD)
