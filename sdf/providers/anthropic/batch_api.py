"""The Message Batches API as the rest of us use it: create, look, list, download, cancel.

A question whose answer is paid for already, or costs nothing, is asked until it is answered; after a quarter of an
hour the run ends, with everything on record. Only `create` is tried once: what to do when its reply is lost is not for
here to decide.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx2

from sdf.errors import CircuitOpen, NotServed, ProviderError, RateLimited, Unauthorized
from sdf.providers.anthropic.online import Anthropic
from sdf.providers.replies import as_object, counts

PATH = "/v1/messages/batches"
PAGE = 100
# Seconds for which a question is asked again while the API limits or fails, and between two times.
PATIENCE = 900.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

# A result of one request: its type, and a message or an error.
Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class State:
    """What the API says of a batch. `n_requests` 0: it says nothing of their number; `created_at` None: nor of when."""

    id: str
    has_ended: bool
    is_archived: bool
    n_requests: int
    created_at: float | None
    counts: Mapping[str, int]


class BatchAPI:
    """Message Batches through the client of an online provider."""

    def __init__(self, online: Anthropic) -> None:
        self._online = online
        self.patience = PATIENCE

    @property
    def where(self) -> str:
        return self._online.base_url

    def said(self, text: object) -> str:
        """Words of the API, fit to be shown."""
        return self._online.said(text)

    async def create(self, content: bytes) -> str | ProviderError | None:
        """The batch's id. An error says why there may be none, and None that the reply was no batch."""
        reply = await self._online.guarded(self._posted(PATH, content))
        if isinstance(reply, ProviderError):
            return reply
        return _state(reply).id or None

    async def look(self, batch: str) -> State | None:
        """What becomes of it; None for a batch that this key knows nothing of."""
        try:
            return _state(await self._asked(f"to look at {batch}", lambda: self._online.got(f"{PATH}/{batch}")))
        except NotServed:
            return None

    async def listed(self) -> AsyncIterator[State]:
        """Every batch of the key's workspace, newest first."""
        after = ""
        while True:
            path = f"{PATH}?limit={PAGE}{after and f'&after_id={after}'}"
            reply = await self._asked("to list the batches", lambda path=path: self._online.got(path))
            data = reply.get("data")
            page = [_state(as_object(each)) for each in data] if isinstance(data, list) else []
            page = [each for each in page if each.id]
            for each in page:
                yield each
            if not page or not reply.get("has_more") or page[-1].id == after:
                return
            after = page[-1].id

    async def results(self, batch: str, is_whole: Callable[[Mapping[str, Result]], bool]) -> dict[str, Result]:
        """custom id -> result of a batch that has ended. One that breaks off, even at the end of a line, is fetched
        again."""

        async def ask() -> dict[str, Any]:
            response = await self._online.client().get(f"{PATH}/{batch}/results", cast_to=httpx2.Response)
            return await asyncio.to_thread(_results, response.content)

        return await self._asked(f"for the results of {batch}", ask, is_whole)

    async def cancel(self, batch: str) -> None:
        await self._asked(f"to cancel {batch}", lambda: self._posted(f"{PATH}/{batch}/cancel", b"{}"))

    async def _asked(
        self,
        what: str,
        ask: Callable[[], Coroutine[Any, Any, dict[str, Any]]],
        is_whole: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> dict[str, Any]:
        """Raises Unauthorized at once, and CircuitOpen after `patience`."""
        pause, began = FIRST_PAUSE, time.monotonic()
        while True:
            reply = await self._online.guarded(ask())
            if not isinstance(reply, ProviderError) and is_whole(reply):
                return reply
            if isinstance(reply, Unauthorized):
                raise reply
            if time.monotonic() - began > self.patience:
                why = reply if isinstance(reply, ProviderError) else "not all of it was there"
                raise CircuitOpen(
                    f"asked {what} for {self.patience:g} s, at last: {why}; what was submitted is on record, "
                    "and the same command collects it"
                )
            wait = reply.retry_after if isinstance(reply, RateLimited) and reply.retry_after is not None else pause
            await asyncio.sleep(min(wait, LONGEST_PAUSE))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _posted(self, path: str, content: bytes) -> dict[str, Any]:
        options: Any = {"headers": {"Content-Type": "application/json"}}
        response = await self._online.client().post(path, cast_to=httpx2.Response, content=content, options=options)
        return as_object(json.loads(response.content))


def _state(reply: Mapping[str, Any]) -> State:
    found, identity = as_object(reply.get("request_counts")), reply.get("id")
    count = counts(found)
    numbers = {kind: count(kind) for kind in found}
    return State(
        identity if isinstance(identity, str) else "",
        reply.get("processing_status") == "ended",
        bool(reply.get("archived_at")),
        sum(numbers.values()),
        _seconds(reply.get("created_at")),
        numbers,
    )


def _seconds(at: object) -> float | None:
    try:
        return datetime.fromisoformat(str(at).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def _results(content: bytes) -> dict[str, Result]:
    lines = [as_object(json.loads(line)) for line in content.splitlines() if line.strip()]
    return {str(line.get("custom_id")): as_object(line.get("result")) for line in lines}
