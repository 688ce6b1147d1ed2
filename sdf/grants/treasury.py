"""Grants that are durable before they are sent: whatever happens, a worker spends no more than is on record."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

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

    async def keep(self) -> None:
        """Writes the grants as they are."""
        granted, record = self.grants.granted(), self.grants.record()
        if record["workers"]:
            data = json.dumps(record, separators=(",", ":")).encode() + b"\n"
            await asyncio.to_thread(self._run_dir.write, self._path, data)
        self._durable, self._written_at = granted, self._clock()


def outstanding(run_dir: RunDir) -> dict[str, float]:
    """ "000003/w0001-000" -> dollars that it was granted, less what it gave back of those and of what it inherited."""
    found: dict[str, float] = {}
    for path, _ in run_dir.files("ledger"):
        match = PATH.fullmatch(path)
        if match is None:
            continue
        try:
            workers: Mapping[str, Any] = json.loads(run_dir.read(path))["workers"]
            for worker, amounts in workers.items():
                found[f"{match[1]}/{worker}"] = float(amounts["granted"]) - float(amounts["returned"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedError(
                f"{run_dir.root}/{path}: not a record of grants as sdf writes it; restore it from a copy, or delete "
                "it: then only what the ledger proves counts against --max-cost"
            ) from None
    return found
