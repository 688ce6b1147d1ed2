"""Which batches were asked for: a record before each is created, another once its id is known.

    batches/000003-w0001-000-0002.json        what is to be in it, durable before `create`
    batches/000003-w0001-000-0002.id.json     the id it got; without one nobody knows whether it was created
    batches/000003-w0001-000-0002.void.json   it was not: its requests are free to go elsewhere
    batches/000003-w0001-000-0002.ended.json  it was, and left some of them unanswered: these are free too
    batches/000004-w0000-000-0001.taken.json  requests of earlier batches that another worker waits for from now on

Records are never changed and never deleted, so any worker of any later run finds what an earlier one has paid for.
Every method reads or writes the disk: call them from a thread.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal, NamedTuple, TypeVar

from sdf.errors import DamagedError, StorageError
from sdf.storage import RunDir

_T = TypeVar("_T")

BATCHES = RunDir.batches
RECORD, ID, VOID, ENDED, TAKEN = ".json", ".id.json", ".void.json", ".ended.json", ".taken.json"

# A request key.
CUSTOM_ID = re.compile(r"[0-9a-f]{32}")
ID_CHARS = 32
# A worker, as the ledger names its parts.
COLLECTOR = re.compile(r"\d+/.+")


@dataclass(frozen=True, slots=True)
class Ended:
    """What a batch left unanswered, as its collector `by` ("000003/w0001-000") found: `unbilled` requests errored,
    expired or were canceled; of the `lost` nobody can tell, since the API kept their results no longer."""

    by: str
    unbilled: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()

    def __contains__(self, key: str) -> bool:
        return key in self.unbilled or key in self.lost


@dataclass(slots=True)
class Claim:
    """Requests and the dollars set aside for each. `joined` holds custom ids, one behind the other: a corpus has a
    million of them."""

    name: str
    joined: str
    usd: array[float]

    @property
    def writer(self) -> str:
        """Whose it is, as the ledger names its parts: "000003/w0001-000"."""
        return _part(self.name.rpartition("-")[0])

    @property
    def n_requests(self) -> int:
        return len(self.joined) // ID_CHARS

    @property
    def ids(self) -> Iterator[str]:
        return (self.joined[at : at + ID_CHARS] for at in range(0, len(self.joined), ID_CHARS))


@dataclass(slots=True)
class Sent(Claim):
    """A batch that was asked for. `at` is in seconds since 1970 by the writer's clock; with `batch` None nobody knows
    whether it was created; `ended` None: it goes on, or answered all."""

    at: float
    batch: str | None = None
    ended: Ended | None = None

    def has_lost(self, key: str) -> bool:
        """Whether nobody will ever know what became of this request of its own."""
        return self.ended is not None and key in self.ended.lost

    def is_free(self, key: str) -> bool:
        """Whether it is clear that it gives this request of its own no answer."""
        return self.ended is not None and key in self.ended


@dataclass(slots=True)
class Taken(Claim):
    """Requests of others that a worker waits for; `is_inherited`, of each: its dollars had lain aside before."""

    is_inherited: Sequence[bool]

    @property
    def inherited(self) -> float:
        return math.fsum(compress(self.usd, self.is_inherited))


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
        self._taken: dict[str, Taken] = {}
        self._turn = threading.Lock()

    @property
    def where(self) -> str:
        return f"{self._run_dir.root}/{BATCHES}"

    @property
    def writer(self) -> str:
        """As the ledger names its parts."""
        return _part(self._writer)

    def now(self) -> float:
        return self._clock()

    def is_own(self, sent: Sent) -> bool:
        """Whether this worker sent it; then whoever asked for its requests is waiting for them."""
        return sent.name.startswith(f"{self._writer}-")

    def intend(self, ids: Sequence[str], usd: Sequence[float]) -> Sent:
        """Durable when it returns: whatever happens next, these requests will be looked for before they are sent."""
        with self._turn:
            sent = Sent(self._next_name(), "".join(ids), array("d", usd), self._clock())
            self._known[sent.name] = sent
        self._put_new(sent.name + RECORD, {"at": sent.at, "ids": list(ids), "usd": list(usd)})
        return sent

    def identify(self, sent: Sent, batch: str) -> None:
        """Whoever finds a batch may say so; the first word stands."""
        sent.batch = batch
        self._put(sent.name + ID, {"batch": batch})

    def void(self, sent: Sent) -> None:
        self._put(sent.name + VOID, {})

    def end(self, sent: Sent, *, unbilled: Collection[str] = (), lost: Collection[str] = ()) -> None:
        """Durable when it returns: these requests of a batch that has ended may go out again. The first word stands."""
        if self._put(sent.name + ENDED, {"by": self.writer, "unbilled": sorted(unbilled), "lost": sorted(lost)}):
            sent.ended = Ended(self.writer, frozenset(unbilled), frozenset(lost))
        else:
            sent.ended = self._parsed(sent.name + ENDED, _ended)

    def take(self, usd: Mapping[str, float], inherited: Collection[str]) -> None:
        """Durable when it returns: this worker waits for these requests of others, and so many dollars lie aside for
        each; those `inherited` had lain aside before."""
        with self._turn:
            name = self._next_name()
        self._put_new(
            name + TAKEN,
            {"ids": list(usd), "usd": list(usd.values()), "is_inherited": [key in inherited for key in usd]},
        )

    def known(self) -> list[Sent]:
        """Every batch that was or may have been created, by name. DamagedError names a file that is torn."""
        with self._turn:
            names = self._names()
            given, void, ended = (_stems(names, suffix) for suffix in (ID, VOID, ENDED))
            found: list[Sent] = []
            for name in _records(names):
                if name not in self._known:
                    self._known[name] = self._parsed(
                        name + RECORD, lambda record, name=name: Sent(name, *_claimed(record), float(record["at"]))
                    )
                sent = self._known[name]
                if sent.batch is None and name in given:
                    sent.batch = self._parsed(name + ID, lambda record: str(record["batch"]))
                if sent.ended is None and name in ended:
                    sent.ended = self._parsed(name + ENDED, _ended)
                if name not in void:
                    found.append(sent)
            return found

    def taken(self) -> list[Taken]:
        """What workers took over from others, by name. DamagedError names a file that is torn."""
        with self._turn:
            for name in _stems(self._names(), TAKEN) - self._taken.keys():
                self._taken[name] = self._parsed(
                    name + TAKEN, lambda record, name=name: Taken(name, *_claimed(record), record["is_inherited"])
                )
            return [self._taken[name] for name in sorted(self._taken)]

    def holding(self, ids: Collection[str]) -> dict[str, list[Sent]]:
        """By custom id, those of the known batches that hold it and may answer it, by name."""
        wanted = set(ids)
        found: dict[str, list[Sent]] = {}
        for sent in self.known():
            for key in wanted.intersection(sent.ids):
                if not sent.is_free(key):
                    found.setdefault(key, []).append(sent)
        return found

    def _next_name(self) -> str:
        name = f"{self._writer}-{self._n_written:04d}"
        self._n_written += 1
        return name

    def _names(self) -> list[str]:
        return [path.removeprefix(f"{BATCHES}/") for path, _ in self._run_dir.files(BATCHES)]

    def _parsed(self, file: str, parse: Callable[[dict[str, Any]], _T]) -> _T:
        try:
            return parse(self._get(file))
        except (ValueError, KeyError, TypeError):
            raise self._damaged(file) from None

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

    def _put_new(self, file: str, content: dict[str, Any]) -> None:
        if not self._put(file, content):
            raise StorageError(f"{self.where}/{file}: written by another; is a second run going on?")

    def _put(self, file: str, content: dict[str, Any]) -> bool:
        data = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        return self._run_dir.put_if_absent(f"{BATCHES}/{file}", data)


def epoch_of(writer: str) -> int:
    """3 of "000003/w0001-000"."""
    return int(writer.partition("/")[0])


def _part(writer: str) -> str:
    """ "000003-w0001-000" -> "000003/w0001-000"."""
    return writer.replace("-", "/", 1)


def _claimed(record: Mapping[str, Any]) -> tuple[str, array[float]]:
    """Ids, joined, and the dollars of each. ValueError for what is neither."""
    if not all(map(CUSTOM_ID.fullmatch, record["ids"])) or len(record["usd"]) != len(record["ids"]):
        raise ValueError("ids")
    return "".join(record["ids"]), array("d", record["usd"])


def _ended(record: Mapping[str, Any]) -> Ended:
    if not COLLECTOR.fullmatch(record["by"]):
        raise ValueError("by")
    return Ended(record["by"], frozenset(record["unbilled"]), frozenset(record["lost"]))


def _stems(names: Sequence[str], suffix: str) -> set[str]:
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


def _records(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name.endswith(RECORD) and not name.endswith((ID, VOID, ENDED, TAKEN)):
            yield name.removesuffix(RECORD)
