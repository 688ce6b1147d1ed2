"""Looking for a batch whose `create` got no reply: it may have been created, and then it is paid for.

The API takes no idempotency key and a batch carries no name of ours, so a batch of as many requests, created about
then, that no record has the id of, may be it; whose custom ids it holds shows when it has ended. The trade-off: a batch
of somebody else's in the same workspace that looks the same is waited for until it has ended too.
"""

from __future__ import annotations

import asyncio
import logging
import time

from sdf.errors import StillProcessing
from sdf.providers.anthropic.batch_api import BatchAPI, State
from sdf.providers.batch_log import BatchLog, Sent

log = logging.getLogger(__name__)

# Clocks differ: a batch cannot be older than its record by more than this (seconds), nor younger by more than LATE,
# since `create` is sent right after the record was written and given up after `timeout`.
SKEW, LATE = 600.0, 3_600.0


class Search:
    """`lost_reply`: seconds for which a batch is looked for before it counts as never created. `poll`: between looks.
    `max_wait`: for a batch that may be it to end."""

    def __init__(
        self, api: BatchAPI, log: BatchLog, *, lost_reply: float, poll: float, max_wait: float, timeout: float
    ) -> None:
        self._api, self._log = api, log
        self._lost_reply, self._poll, self._max_wait, self._timeout = lost_reply, poll, max_wait, timeout
        # By record: batches that have ended and held none of its requests.
        self._not_it: dict[str, set[str]] = {}
        self._looking: dict[str, asyncio.Task[str | None]] = {}

    async def find(self, sent: Sent) -> str | None:
        """The id of a batch that may have been created; None once it is clear that it was not. On record before it
        returns. StillProcessing while one goes on that may be it."""
        task = self._looking.get(sent.name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._found(sent))
            self._looking[sent.name] = task
            task.add_done_callback(lambda _: self._looking.pop(sent.name, None))
        return await asyncio.shield(task)

    async def look(self, sent: Sent) -> tuple[str | None, list[str]]:
        """Its id if that can be told now; else the batches going on that may be it."""
        going_on: list[str] = []
        for state in await self._alike(sent):
            if not state.has_ended:
                going_on.append(state.id)
            elif await self._is_it(sent, state):
                return state.id, []
            else:
                self._not_it.setdefault(sent.name, set()).add(state.id)
        return None, going_on

    async def close(self) -> None:
        looking = list(self._looking.values())
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)

    async def _found(self, sent: Sent) -> str | None:
        began = time.monotonic()
        log.warning(
            "the reply to a batch of %s requests was lost: it is looked for among the batches at the API",
            f"{sent.n_requests:,}",
        )
        while sent.batch is None:
            found, going_on = await self.look(sent)
            waited = time.monotonic() - began
            if found is not None:
                await asyncio.to_thread(self._log.identify, sent, found)
            elif not going_on and waited >= self._lost_reply:
                await asyncio.to_thread(self._log.void, sent)
                return None
            elif waited > self._max_wait:
                raise StillProcessing(
                    f"the reply to a batch of {sent.n_requests:,} requests was lost, and {', '.join(going_on)} may be "
                    "it; whose it is shows when it has ended: the same command then collects it"
                )
            else:
                await asyncio.sleep(min(self._poll, self._lost_reply / 3))
        return sent.batch

    async def _alike(self, sent: Sent) -> list[State]:
        """Batches that may be it, oldest first. `known` also notices when another worker finds it."""
        known = await asyncio.to_thread(self._log.known)
        taken = {each.batch for each in known} | self._not_it.get(sent.name, set())
        found: list[State] = []
        async for state in self._api.listed():
            if state.created_at is not None and state.created_at < sent.at - SKEW:
                break
            is_late = state.created_at is not None and state.created_at > sent.at + self._timeout + LATE
            if state.id not in taken and not is_late and state.n_requests in (0, sent.n_requests):
                found.append(state)
        return found[::-1]

    async def _is_it(self, sent: Sent, state: State) -> bool:
        if state.is_archived:
            return False
        results = await self._api.results(state.id, lambda found: len(found) >= state.n_requests)
        return not results.keys().isdisjoint(sent.ids)
