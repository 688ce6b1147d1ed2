"""Out: requests gather in a pool, and when no more come for a while the pool goes out as one batch.

Batches go out one at a time, so that no more than one is held as bytes: with a prefix of 120 kB, 800 requests are
100 MB.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sdf.errors import ProviderError, RateLimited, RequestRejected, SdfError, Unauthorized, Unavailable
from sdf.failpoints import reach
from sdf.money.budget import Stopped
from sdf.providers.anthropic import batch_api
from sdf.providers.anthropic.batch_api import BatchAPI
from sdf.providers.anthropic.batch_search import Search
from sdf.providers.batch_log import BatchLog, Sent, UnderWay
from sdf.records import Prefix

# The API takes 256 MB. Encoding holds a batch twice.
MOST_BYTES = 100_000_000
# A pool that never falls silent goes out after so many times `gather`.
LONGEST_GATHER = 10
# Encoded prefixes that are kept: a job has one per genre, and one per cell where the context is a principle.
N_PREFIXES = 256
# Stands for the prefix until the batch goes out.
PREFIX_HERE = "\0prefix"


@dataclass(slots=True, eq=False)
class Pooled:
    """A request on its way out, encoded up to its prefix. `worst` dollars are set aside for it."""

    key: str
    item: bytes
    prefix: bytes
    worst: float
    sent: asyncio.Future[Sent] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def n_bytes(self) -> int:
        return len(self.item) + len(self.prefix)


class Pool:
    """For one event loop. A batch holds `size` requests at most; `gather`: seconds of silence before one goes out."""

    def __init__(self, api: BatchAPI, log: BatchLog, search: Search, *, size: int, gather: float) -> None:
        self._api, self._log, self._search = api, log, search
        self._size, self._gather = size, gather
        self._waiting: list[Pooled] = []
        self._news = asyncio.Event()
        self._gathering: asyncio.Task[None] | None = None
        self._submitting: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._prefixes: OrderedDict[str, bytes] = OrderedDict()
        self._is_closed = False
        # Those whose reply was lost.
        self._looked_for: list[Sent] = []
        # Requests of batches that this pool sent, or may have sent, or took over; whoever gets a result takes it out.
        self.at_stake: set[str] = set()

    async def sent(self, key: str, params: dict[str, Any], prefix: Prefix, worst: float = 0.0) -> Sent:
        """The batch that holds the request: one that is under way already, else the next to go out.

        Raises Stopped once the pool is closed; RequestRejected when the request alone is refused; Unavailable when no
        batch can be created.
        """
        if self._is_closed:
            raise Stopped
        has_prefix = bool(prefix.text.strip())
        item = _item(key, params, has_prefix=has_prefix)
        pooled = Pooled(key, item, self._encoded(prefix) if has_prefix else b"", worst)
        self._waiting.append(pooled)
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().create_task(self._gather_for_ever())
        self._news.set()
        try:
            return await pooled.sent
        finally:
            pooled.sent.cancel()

    @property
    def looked_for(self) -> list[UnderWay]:
        """The batches of which nobody knows yet whether they were created."""
        return [UnderWay(sent.name, None, sent.n_requests, sent.at) for sent in self._looked_for]

    def drain(self) -> None:
        """Nothing else goes out: whoever waits to be sent is told Stopped."""
        self._is_closed = True
        for each in self._waiting:
            _fail(each, Stopped())
        self._waiting = []

    async def close(self) -> None:
        self.drain()
        tasks = [*self._submitting, *([self._gathering] if self._gathering else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- gathering ---

    async def _gather_for_ever(self) -> None:
        while True:
            await self._news.wait()
            await self._silence()
            while batch := self._taken():
                self._start(batch)

    async def _silence(self) -> None:
        """Until no request came for `gather` seconds, or there are enough for a batch."""
        began = time.monotonic()
        while self._news.is_set() and not self._is_full and time.monotonic() - began < LONGEST_GATHER * self._gather:
            self._news.clear()
            await asyncio.sleep(self._gather)
        self._news.clear()

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= self._size or sum(each.n_bytes for each in self._waiting) >= MOST_BYTES

    def _taken(self) -> list[Pooled]:
        """As many as one batch may hold, without those whose documents are gone."""
        waiting = [each for each in self._waiting if not each.sent.done()]
        n = n_bytes = 0
        for each in waiting[: self._size]:
            n_bytes += each.n_bytes
            if n and n_bytes > MOST_BYTES:
                break
            n += 1
        self._waiting = waiting[n:]
        return waiting[:n]

    def _start(self, batch: list[Pooled]) -> None:
        task = asyncio.get_running_loop().create_task(self._submit(batch))
        self._submitting.add(task)
        task.add_done_callback(lambda done: self._ended(done, batch))

    def _ended(self, task: asyncio.Task[None], batch: Sequence[Pooled]) -> None:
        """Nobody is left waiting, whatever the task died of."""
        self._submitting.discard(task)
        error = Stopped() if task.cancelled() else task.exception()
        for each in batch:
            if error is not None:
                _fail(each, _again(error))

    # --- submission ---

    async def _submit(self, batch: list[Pooled]) -> None:
        """Sends a batch and tells its requests; an error goes to all of them."""
        batch = await self._not_under_way(batch)
        halves = [batch] if batch else []
        while halves:
            half = halves.pop(0)
            sent = await self._created(half)
            if isinstance(sent, Sent):
                _tell(half, sent)
            elif len(half) == 1:
                _fail(half[0], sent)
            else:
                # The first of them at once: when each is refused, that shows soon.
                halves[:0] = [half[: len(half) // 2], half[len(half) // 2 :]]

    async def _not_under_way(self, batch: list[Pooled]) -> list[Pooled]:
        """Those that no record holds; the others wait for the batch that an earlier worker, or a lost one, sent."""
        holding = await asyncio.to_thread(self._log.holding, [each.key for each in batch])
        rest: list[Pooled] = []
        for each in batch:
            if each.key in holding:
                _tell([each], holding[each.key][-1])
            else:
                rest.append(each)
        return rest

    async def _created(self, batch: Sequence[Pooled]) -> Sent | RequestRejected:
        """The batch, on record and at the API; or why the API refused it whole."""
        pause, began = batch_api.FIRST_PAUSE, time.monotonic()
        while True:
            sent, reply = await self._attempt(batch)
            if isinstance(reply, Unauthorized | RequestRejected | RateLimited):
                await asyncio.to_thread(self._log.void, sent)
            elif not isinstance(reply, str):
                # It may have been created all the same.
                await self._find(sent)
            if sent.batch is not None:
                reach("batch submitted")
                return sent
            self.at_stake.difference_update(sent.ids)
            if isinstance(reply, RequestRejected):
                return reply
            if isinstance(reply, Unauthorized) or time.monotonic() - began > batch_api.PATIENCE:
                raise _failure(reply)
            wait = reply.retry_after if isinstance(reply, RateLimited) and reply.retry_after is not None else pause
            await asyncio.sleep(min(wait, batch_api.LONGEST_PAUSE))
            pause = min(2 * pause, batch_api.LONGEST_PAUSE)

    async def _find(self, sent: Sent) -> None:
        self._looked_for.append(sent)
        try:
            await self._search.find(sent)
        finally:
            self._looked_for.remove(sent)

    async def _attempt(self, batch: Sequence[Pooled]) -> tuple[Sent, str | ProviderError | None]:
        """Its record, and what `create` said. A record for each attempt: when it was made bounds when its batch was."""
        async with self._turn:
            if self._is_closed:
                raise Stopped
            content = await asyncio.to_thread(_content, batch)
            keys, usd = [each.key for each in batch], [each.worst for each in batch]
            self.at_stake.update(keys)
            sent = await asyncio.to_thread(self._log.intend, keys, usd)
            reach("batch intended")
            reply = await self._api.create(content)
        if isinstance(reply, str):
            reach("batch created")
            await asyncio.to_thread(self._log.identify, sent, reply)
        return sent, reply

    def _encoded(self, prefix: Prefix) -> bytes:
        found = self._prefixes.pop(prefix.hash, None) or json.dumps(prefix.text).encode()
        self._prefixes[prefix.hash] = found
        if len(self._prefixes) > N_PREFIXES:
            self._prefixes.popitem(last=False)
        return found


def _item(key: str, params: dict[str, Any], *, has_prefix: bool) -> bytes:
    """One request of a batch; PREFIX_HERE stands for its prefix, the first text of `system`."""
    if has_prefix:
        first, *rest = params["system"]
        # Foremost: what follows may hold the same characters.
        params = {
            "system": [{**first, "text": PREFIX_HERE}, *rest],
            **{k: v for k, v in params.items() if k != "system"},
        }
    return json.dumps({"custom_id": key, "params": params}).encode()


def _content(batch: Sequence[Pooled]) -> bytes:
    here = json.dumps(PREFIX_HERE).encode()
    parts = [b'{"requests": [']
    for each in batch:
        parts += [each.item.replace(here, each.prefix, 1) if each.prefix else each.item, b", "]
    parts[-1] = b"]}"
    return b"".join(parts)


def _tell(batch: Sequence[Pooled], sent: Sent) -> None:
    for each in batch:
        if not each.sent.done():
            each.sent.set_result(sent)


def _fail(pooled: Pooled, error: BaseException) -> None:
    if not pooled.sent.done():
        pooled.sent.set_exception(error)


def _failure(reply: ProviderError | str | None) -> ProviderError:
    """Of a batch that is known not to exist: nothing of it is billed."""
    if isinstance(reply, Unauthorized | RateLimited):
        return reply
    return Unavailable(f"no batch could be created: {reply or 'a reply without an id'}", maybe_billed=False)


def _again(error: BaseException) -> BaseException:
    """A fresh error of the same kind and words, so that no two requests share a traceback."""
    if isinstance(error, Unavailable) and not isinstance(error, RateLimited):
        return Unavailable(*error.args, maybe_billed=error.maybe_billed)
    return type(error)(*error.args) if isinstance(error, SdfError | Stopped) else error
