"""Which batches were asked for: a record before each is created, another once its id is known.

    batches/000003-w0001-000-0002.json        what is to be in it, durable before `create`
    batches/000003-w0001-000-0002.id.json     the id it got; without one nobody knows whether it was created
    batches/000003-w0001-000-0002.void.json   it was not: its requests are free to go elsewhere

Records are never changed and never deleted, so any worker of any later run finds what an earlier one has paid for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sdf.errors import DamagedError, StorageError
from sdf.storage import RunDir

BATCHES = "batches"
RECORD, ID, VOID = ".json", ".id.json", ".void.json"


@dataclass(slots=True)
class Sent:
    """A batch that was asked for. `at` is in seconds since 1970 by the writer's clock; with `batch` None nobody knows
    whether it was created."""

    name: str
    ids: tuple[str, ...]
    at: float
    batch: str | None = None


class BatchLog:
    """The records of one directory, as one worker writes them. `writer` is new for every incarnation of a worker."""

    def __init__(self, run_dir: RunDir, writer: str, clock: Callable[[], float] = time.time) -> None:
        self._run_dir, self._writer, self._clock = run_dir, writer, clock
        self._n_written = 0
        self._known: dict[str, Sent] = {}

    def intend(self, ids: Sequence[str]) -> Sent:
        """Durable when it returns: whatever happens next, these requests will be looked for before they are sent."""
        sent = Sent(f"{self._writer}-{self._n_written:04d}", tuple(ids), self._clock())
        self._n_written += 1
        if not self._put(sent.name + RECORD, {"at": sent.at, "ids": sent.ids}):
            raise StorageError(
                f"{self._run_dir.root}/{BATCHES}/{sent.name}{RECORD}: written by another; is a second run going on?"
            )
        self._known[sent.name] = sent
        return sent

    def identify(self, sent: Sent, batch: str) -> None:
        """Whoever finds a batch may say so; the first word stands."""
        sent.batch = batch
        self._put(sent.name + ID, {"batch": batch})

    def void(self, sent: Sent) -> None:
        self._put(sent.name + VOID, {})

    def known(self) -> list[Sent]:
        """Every batch that was or may have been created, by name. DamagedError names a file that is torn."""
        names = [path.removeprefix(f"{BATCHES}/") for path, _ in self._run_dir.files(BATCHES)]
        given = {name.removesuffix(ID) for name in names if name.endswith(ID)}
        void = {name.removesuffix(VOID) for name in names if name.endswith(VOID)}
        for name in _records(names):
            if name not in self._known or (self._known[name].batch is None and name in given):
                self._known[name] = self._read(name, name in given)
        return [self._known[name] for name in _records(names) if name not in void]

    def _read(self, name: str, has_id: bool) -> Sent:
        try:
            record = self._get(name + RECORD)
            batch = str(self._get(name + ID)["batch"]) if has_id else None
            return Sent(name, tuple(str(each) for each in record["ids"]), float(record["at"]), batch)
        except (ValueError, KeyError, TypeError):
            raise DamagedError(
                f"{self._run_dir.root}/{BATCHES}/{name}{RECORD}: not a record as sdf writes it; restore it from a "
                "copy, or delete it if its batch need not be collected"
            ) from None

    def _get(self, name: str) -> dict[str, Any]:
        found = json.loads(self._run_dir.read(f"{BATCHES}/{name}"))
        if not isinstance(found, dict):
            raise TypeError(name)
        return found

    def _put(self, name: str, content: dict[str, Any]) -> bool:
        data = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        return self._run_dir.put_if_absent(f"{BATCHES}/{name}", data)


def _records(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name.endswith(RECORD) and not name.endswith((ID, VOID)):
            yield name.removesuffix(RECORD)
