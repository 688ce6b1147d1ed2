"""In: a batch is looked at until it has ended, then its results are fetched once for everyone who waits.

Results come all at the end and in any order. They are handed out by custom id and not kept: only of batches that an
earlier worker sent, whose documents come up little by little, and of few of those.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from sdf.errors import NotServed, SdfError, StillProcessing
from sdf.providers.anthropic.batch_api import BatchAPI, Result, State
from sdf.providers.anthropic.batch_search import Search
from sdf.providers.batch_log import BatchLog, Sent, UnderWay
from sdf.providers.inheritance import KEPT_SECONDS

log = logging.getLogger(__name__)

# Batches of which results are held that nobody has asked for yet: 5,000 documents are some 50 MB.
N_KEPT = 2


_MISHAPS = {
    "canceled": "were canceled before they were answered",
    "expired": "expired unanswered, which is not billed",
    "errored": "ended in an error",
}


@dataclass(slots=True, eq=False)
class _Collection:
    """Who waits for results of a batch."""

    sent: Sent
    waiting: dict[str, asyncio.Future[Result | None]] = field(
        default_factory=dict[str, "asyncio.Future[Result | None]"]
    )


class Results:
    """For one event loop. `poll`: seconds between two looks; `max_wait`: until a batch that goes on ends the run."""

    def __init__(self, api: BatchAPI, log: BatchLog, search: Search, *, poll: float, max_wait: float) -> None:
        self._api, self._log, self._search = api, log, search
        self._poll, self._max_wait = poll, max_wait
        self._collections: dict[str, _Collection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: OrderedDict[str, dict[str, Result]] = OrderedDict()

    @property
    def under_way(self) -> list[UnderWay]:
        """The batches that are waited for."""
        found = [(each.sent, len(each.waiting)) for each in self._collections.values()]
        return [UnderWay(sent.name, sent.batch, n, sent.at) for sent, n in found]

    async def result(self, sent: Sent, key: str) -> Result | None:
        """The request's result; None when the batch was never created, or its results are no longer kept.

        StillProcessing after `max_wait`; NotServed when the key's workspace does not know the batch.
        """
        collection = self._collections.get(sent.name)
        if collection is None:
            collection = self._collections[sent.name] = _Collection(sent)
            task = asyncio.get_running_loop().create_task(self._collected(collection))
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._ended(done, collection))
        future = collection.waiting.setdefault(key, asyncio.get_running_loop().create_future())
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Batches that go on, go on: the next run collects them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None], collection: _Collection) -> None:
        """Nobody is left waiting, whatever the task died of."""
        self._tasks.discard(task)
        if self._collections.get(collection.sent.name) is collection:
            self._collections.pop(collection.sent.name)
        error = None if task.cancelled() else task.exception()
        for future in collection.waiting.values():
            if error is not None and not future.done():
                future.set_exception(type(error)(*error.args) if isinstance(error, SdfError) else error)
                # Its document may be gone.
                future.exception()

    async def _collected(self, collection: _Collection) -> None:
        sent = collection.sent
        batch = sent.batch or await self._search.find(sent)
        results = await self._all_of(batch, sent) if batch is not None else {}
        # From here on nobody else may join.
        self._collections.pop(sent.name, None)
        rest = dict(results)
        for key, future in collection.waiting.items():
            result = rest.pop(key, None)
            if not future.done():
                future.set_result(result)
        self._keep(sent, rest)

    def _keep(self, sent: Sent, results: dict[str, Result]) -> None:
        self._kept.pop(sent.name, None)
        if results and not self._log.is_own(sent):
            self._kept[sent.name] = results
        while len(self._kept) > N_KEPT:
            self._kept.popitem(last=False)

    async def _all_of(self, batch: str, sent: Sent) -> Mapping[str, Result]:
        """custom id -> result, once the batch has ended. Empty for one whose results the API keeps no longer."""
        if sent.name in self._kept:
            return self._kept[sent.name]
        began = time.monotonic()
        while not (state := await self._state(batch, sent)).has_ended:
            if time.monotonic() - began > self._max_wait:
                raise StillProcessing(
                    f"{batch} is still being processed after {self._max_wait:g} s; it goes on, and the same command "
                    "collects it (--max-wait waits longer)"
                )
            await asyncio.sleep(self._poll)
        if state.is_archived:
            return await self._lost(batch, sent)
        for kind, what in _MISHAPS.items():
            if n := state.counts.get(kind):
                log.warning("%s: %s of its requests %s; what can be asked again goes out again", batch, f"{n:,}", what)
        try:
            results = await self._api.results(batch, lambda found: found.keys() >= set(sent.ids))
        except NotServed:
            if not (await self._state(batch, sent)).is_archived:
                raise
            return await self._lost(batch, sent)
        unbilled = [key for key in sent.ids if results[key].get("type") != "succeeded"]
        if unbilled:
            # Before anyone hears of it: what goes out again must not be waited for here.
            await asyncio.to_thread(self._log.end, sent, unbilled=unbilled)
        return results

    async def _lost(self, batch: str, sent: Sent) -> Mapping[str, Result]:
        log.warning("%s: the API keeps its results no longer; its requests are asked, and paid for, anew", batch)
        await asyncio.to_thread(self._log.end, sent, lost=list(sent.ids))
        return {}

    async def _state(self, batch: str, sent: Sent) -> State:
        """Of a batch that the API knows, or has forgotten after a month. Another key would know it as little, and a
        batch is never sent again blindly."""
        state = await self._api.look(batch)
        if state is None and self._log.now() - sent.at > KEPT_SECONDS:
            return State(batch, has_ended=True, is_archived=True, n_requests=0, created_at=None, counts={})
        if state is None:
            raise NotServed(
                f"{batch} is on record, and {self._api.where} does not know it with this key; give the key of the "
                f"workspace that sent it. If it was deleted there, delete {self._log.where}/{sent.name}.* too: its "
                "requests are then asked, and paid for, anew"
            )
        return state
