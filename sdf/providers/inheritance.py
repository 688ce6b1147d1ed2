"""What earlier workers left at the API, in batches that go on: whoever asks for one of these requests takes it over.

The money for it was set aside when it was sent. Taken over, it moves to the worker that waits for it now, so that one
request counts once, however many runs have waited for it. That is on record before the money moves; requests that come
up while a record is written share the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdf.providers.batch_log import ID_CHARS, BatchLog, Claim, Sent, epoch_of

# The API keeps results for 29 days; near that, what is found there may have to be paid again.
KEPT_SECONDS = 28 * 86_400.0


class _Left(NamedTuple):
    """Sorted keys, and the dollars that earlier epochs set aside for each: nothing where this epoch did."""

    keys: npt.NDArray[np.bytes_]
    usd: npt.NDArray[np.float64]

    def find(self, key: str) -> float | None:
        place = int(np.searchsorted(self.keys, key.encode()))
        is_left = place < len(self.keys) and self.keys[place] == key.encode()
        return float(self.usd[place]) if is_left else None


class Inheritance:
    """For one event loop. Knows the batches that were on record when it was first asked."""

    def __init__(self, log: BatchLog) -> None:
        self._log = log
        self._left: asyncio.Task[_Left] | None = None
        self._taken: set[str] = set()
        self._unwritten: dict[str, float] = {}
        self._inherited: set[str] = set()
        self._turn = asyncio.Lock()

    async def take(self, key: str, worst: float) -> float | None:
        """The dollars that lie aside for the request already; 0.0 where `worst` must be set aside for it here. None
        when nobody left it, or it was taken over here before. On record when this returns."""
        if self._left is None:
            self._left = asyncio.get_running_loop().create_task(asyncio.to_thread(_left, self._log))
        usd = (await asyncio.shield(self._left)).find(key)
        if usd is None or key in self._taken:
            return None
        self._taken.add(key)
        self._unwritten[key] = usd or worst
        if usd:
            self._inherited.add(key)
        try:
            await self._written(key)
        except BaseException:
            self._taken.discard(key)
            raise
        return usd

    async def _written(self, key: str) -> None:
        async with self._turn:
            if key not in self._unwritten:
                return
            writing, self._unwritten = self._unwritten, {}
            try:
                await asyncio.to_thread(self._log.take, writing, self._inherited & writing.keys())
            except BaseException:
                self._unwritten = writing | self._unwritten
                raise


def _left(log: BatchLog) -> _Left:
    epoch = epoch_of(log.writer)
    sent = [each for each in log.known() if not log.is_own(each) and log.now() - each.at < KEPT_SECONDS]
    keys = _keys(sent)
    usd = np.concatenate([np.zeros(0), *(np.asarray(each.usd) * (epoch_of(each.writer) != epoch) for each in sent)])
    is_free = np.concatenate([np.zeros(0, dtype=bool), *map(_freed, sent)])
    keys, usd = keys[~is_free], usd[~is_free]
    # Of each key the dearest.
    order = np.lexsort((-usd, keys))
    keys, first = np.unique(keys[order], return_index=True)
    usd = usd[order][first]
    usd[np.isin(keys, _keys([each for each in log.taken() if epoch_of(each.writer) == epoch]))] = 0.0
    return _Left(keys, usd)


def _keys(claims: Sequence[Claim]) -> npt.NDArray[np.bytes_]:
    return np.frombuffer("".join(each.joined for each in claims).encode(), dtype=f"S{ID_CHARS}")


def _freed(sent: Sent) -> npt.NDArray[np.bool_]:
    if sent.ended is None:
        return np.zeros(sent.n_requests, dtype=bool)
    return np.fromiter(map(sent.is_free, sent.ids), dtype=bool, count=sent.n_requests)
