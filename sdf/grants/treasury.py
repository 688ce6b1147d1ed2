"""Grants that are durable before they are sent: whatever happens, a worker spends no more than is on record."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sdf.errors import DamagedError
from sdf.grants.dollars import Grants
from sdf.money.allowance import Account
from sdf.storage import RunDir

# Seconds between two writes of the grants, at least.
GRANT_EVERY = 1.0

PATH = re.compile(r"ledger/(\d+)/grants\.json")


def grants_path(epoch: int) -> str:
    return f"{RunDir.ledger_dir(epoch)}/grants.json"


class Treasury:
    """A file per epoch, written at most every GRANT_EVERY seconds."""

    def __init__(
        self, run_dir: RunDir, epoch: int, grants: Grants, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run_dir, self._path, self._clock = run_dir, grants_path(epoch), clock
        self.grants = grants
        self._durable: dict[str, float] = {}
        self._noted = 0.0
        self._written_at = -math.inf
        self._turn = asyncio.Lock()

    def hire(self, worker: str) -> None:
        self.grants.hire(worker)

    def hear(self, worker: str, account: Account) -> None:
        """Takes a worker's word."""
        self.grants.hear(worker, account, self._clock())

    async def granted(self, worker: str) -> float:
        """Dollars that the worker may spend in its whole life, on record when this returns."""
        async with self._turn:
            if self._clock() - self._written_at >= GRANT_EVERY and self.grants.decide():
                await self.keep()
        return self._durable.get(worker, 0.0)

    async def note(self) -> None:
        """Puts on record what is presumed, where no cap makes anyone ask for grants."""
        async with self._turn:
            if self._clock() - self._written_at >= GRANT_EVERY and self.grants.assumed > self._noted:
                await self.keep()

    async def keep(self) -> None:
        """Writes the grants as they are."""
        self._noted = self.grants.assumed
        granted, record = self.grants.granted(), self.grants.record()
        if record["workers"]:
            data = json.dumps(record, separators=(",", ":")).encode() + b"\n"
            await asyncio.to_thread(self._run_dir.write, self._path, data)
        self._durable, self._written_at = granted, self._clock()


class Outstanding(NamedTuple):
    """Dollars of a worker: granted, less what it gave back of those and of what it inherited; and of what it spent, the
    part that no usage proves."""

    held: float
    assumed: float


def outstanding(run_dir: RunDir) -> dict[str, Outstanding]:
    """By worker ("000003/w0001-000"), as far as it is on record."""
    found: dict[str, Outstanding] = {}
    for path, _ in run_dir.files("ledger"):
        match = PATH.fullmatch(path)
        if match is None:
            continue
        try:
            workers: Mapping[str, Any] = json.loads(run_dir.read(path))["workers"]
            for worker, amounts in workers.items():
                held = float(amounts["granted"]) - float(amounts["returned"])
                found[f"{match[1]}/{worker}"] = Outstanding(held, float(amounts.get("assumed", 0.0)))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedError(
                f"{run_dir.root}/{path}: not a record of grants as sdf writes it; restore it from a copy, or delete "
                "it: then only what the ledger proves counts against --max-cost"
            ) from None
    return found
