"""Claude through Message Batches: half the price, for answers within a day instead of a minute.

Requests of all documents and steps that are in flight gather in a pool; when no more come for a while, the pool goes
out as one batch. What a batch holds is on record before it is created, so that after a crash or a lost reply it is
looked for, and never sent again blindly. The trade-off: a document's steps take a batch each, one after another, so
throughput is the number of documents in flight, and what an abort leaves behind waits at the API to be collected.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx2

from sdf.errors import (
    NotServed,
    ProviderError,
    RateLimited,
    RequestRejected,
    SdfError,
    StillProcessing,
    Unauthorized,
    Unavailable,
)
from sdf.failpoints import reach
from sdf.providers import anthropic as online
from sdf.providers.batch_log import BatchLog, Sent
from sdf.providers.endpoints import checked, said, seconds, whole
from sdf.providers.pace import SILENT
from sdf.providers.replies import as_object, counts
from sdf.providers.served import Served
from sdf.records import Answer, Request

log = logging.getLogger(__name__)

NAME = "anthropic-batch"
# `gather`: seconds without a new request after which a pool goes out. `poll`: between looks at a batch. `max_wait`:
# for a batch, before the run ends and leaves it to be collected later; a batch lives 24 hours. `lost_reply`: how long
# a batch whose `create` got no reply is looked for before it counts as never created.
SETTINGS: Mapping[str, str] = {
    **online.SETTINGS,
    "cache_ttl": "1h",
    "batch_size": "5000",
    "gather": "2",
    "poll": "30",
    "max_wait": "90000",
    "lost_reply": "60",
}
# The API takes 100,000 requests or 256 MB.
MOST_REQUESTS = 100_000
MOST_BYTES = 200_000_000
# A pool that never falls silent goes out after so many times `gather`.
LONGEST_GATHER = 10
# Batches sent by earlier workers whose results are held until their documents come up.
N_KEPT = 2
# Seconds; a batch lives a day.
MAX_WAIT = 30 * 86_400.0
# Clocks differ; a batch cannot be older than its record by more than this (seconds).
SKEW = 600.0
# Errors of single requests within a batch, and batches that expired: sent again this often.
ATTEMPTS = 4
# `create` is tried for so long (seconds) while the API limits or fails.
PATIENCE = 900.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

BATCHES = "/v1/messages/batches"
PAGE = 100

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Pooled:
    """A request on its way out. `tried` names the batches that did not answer it."""

    key: str
    params: dict[str, Any]
    tried: frozenset[str]
    sent: asyncio.Future[Sent]
    size: int


@dataclass(slots=True)
class _Collection:
    """Who waits for results of a batch, and the task that fetches them."""

    waiting: dict[str, asyncio.Future[Result | None]]
    task: asyncio.Task[None]


class AnthropicBatch:
    """Answers by Message Batches. Build it where it is used; `batches` keeps the records of the run's directory."""

    told = SILENT

    def __init__(self, settings: Mapping[str, str], batches: BatchLog | None = None) -> None:
        given = checked(NAME, settings, SETTINGS)
        self._online = online.Anthropic({name: given[name] for name in online.SETTINGS})
        self._batches = batches
        self._size = whole(NAME, "batch_size", given["batch_size"], MOST_REQUESTS)
        self._gather, self._poll = (seconds(NAME, name, given[name]) for name in ("gather", "poll"))
        self._lost_reply = seconds(NAME, "lost_reply", given["lost_reply"])
        self._max_wait = seconds(NAME, "max_wait", given["max_wait"], most=MAX_WAIT)
        self._pool: list[_Pooled] = []
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        # By request: the batches that did not answer it.
        self._tried: dict[str, set[str]] = {}
        self._collections: dict[str, _Collection] = {}
        self._locating: dict[str, asyncio.Task[str | None]] = {}
        # Results of batches that others sent, whose documents have not come up yet.
        self._kept: OrderedDict[str, dict[str, Result]] = OrderedDict()

    async def answer(self, request: Request) -> Answer:
        """The model's answer, hours later perhaps; raises a ProviderError, or StillProcessing after `max_wait`."""
        online.check(request)
        params = online.body_of(request, self._online.marker if self._online.is_marked(request) else None)
        key = request.key()
        tried = self._tried.setdefault(key, set())
        problems: list[str] = []
        while len(problems) < ATTEMPTS:
            sent = await self._sent(key, params, tried)
            tried.add(sent.name)
            result = await self._result(sent, key)
            if result is None:
                continue
            kind = str(result.get("type"))
            if kind == "succeeded":
                self._tried.pop(key, None)
                return online.answer_of(request, as_object(result.get("message")))
            problems.append(_problem(kind, result))
            if kind == "errored" and _is_own_fault(result):
                raise RequestRejected(problems[-1])
        raise Unavailable(f"{problems[-1]}, {ATTEMPTS} times")

    async def served(self, model: str) -> Served:
        return await self._online.served(model)

    async def cancel(self) -> list[str]:
        """Cancels what is on record and goes on: what was not answered yet is not billed. The ids, oldest first."""
        found: list[str] = []
        for sent in await asyncio.to_thread(self._log.known):
            batch = sent.batch or await self._located(sent)
            if batch is None or (await self._asked(f"{BATCHES}/{batch}")).get("processing_status") == "ended":
                continue
            await self._patiently(lambda path=f"{BATCHES}/{batch}/cancel": self._posted(path, b"{}"))
            found.append(batch)
        return found

    async def close(self) -> None:
        """Submitted batches stay submitted: the next run collects them."""
        for task in [*self._tasks, *(each.task for each in self._collections.values()), *self._locating.values()]:
            task.cancel()
        await self._online.close()

    # --- the pool ---

    async def _sent(self, key: str, params: dict[str, Any], tried: set[str]) -> Sent:
        """The batch that holds the request: one that is under way already, else the next to go out."""
        if not self._tasks:
            self._start(self._gathering())
        future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        self._pool.append(_Pooled(key, params, frozenset(tried), future, len(json.dumps(params))))
        self._news.set()
        try:
            return await future
        finally:
            future.cancel()

    async def _gathering(self) -> None:
        while True:
            await self._news.wait()
            began = time.monotonic()
            while (
                self._news.is_set() and not self._is_full() and time.monotonic() - began < LONGEST_GATHER * self._gather
            ):
                self._news.clear()
                await asyncio.sleep(self._gather)
            self._news.clear()
            while batch := self._taken():
                self._start(self._submitted(batch))
            if self._pool:
                self._news.set()

    def _is_full(self) -> bool:
        return len(self._pool) >= self._size or sum(each.size for each in self._pool) >= MOST_BYTES

    def _taken(self) -> list[_Pooled]:
        """As many as one batch may hold, without those whose documents are gone."""
        pool = [each for each in self._pool if not each.sent.done()]
        n = size = 0
        for each in pool[: self._size]:
            if n and size + each.size > MOST_BYTES:
                break
            n, size = n + 1, size + each.size
        self._pool = pool[n:]
        return pool[:n]

    # --- out ---

    async def _submitted(self, batch: list[_Pooled]) -> None:
        """Sends a batch, and tells its requests; an error that no waiting heals goes to all of them."""
        try:
            batch = await self._not_under_way(batch)
            sent = await self._created(batch) if batch else None
        except SdfError as error:
            for each in batch:
                if not each.sent.done():
                    each.sent.set_exception(type(error)(*error.args))
            return
        for each in batch:
            if sent is not None and not each.sent.done():
                each.sent.set_result(sent)

    async def _not_under_way(self, batch: list[_Pooled]) -> list[_Pooled]:
        """Those that no record holds; the others wait for the batch that an earlier worker, or a lost one, sent."""
        holding: dict[str, list[Sent]] = {}
        for sent in await asyncio.to_thread(self._log.known):
            for key in sent.ids:
                holding.setdefault(key, []).append(sent)
        rest: list[_Pooled] = []
        for each in batch:
            untried = [sent for sent in holding.get(each.key, ()) if sent.name not in each.tried]
            if not untried:
                rest.append(each)
            elif not each.sent.done():
                each.sent.set_result(untried[-1])
        return rest

    async def _created(self, batch: list[_Pooled]) -> Sent | None:
        """The batch, on record and at the API. None when it was refused whole, and its halves went out instead."""
        sent = await asyncio.to_thread(self._log.intend, [each.key for each in batch])
        reach("batch intended")
        content = await asyncio.to_thread(_encoded, batch)
        pause, began = FIRST_PAUSE, time.monotonic()
        while True:
            reply = await self._online.guarded(self._posted(BATCHES, content))
            if not isinstance(reply, ProviderError) and isinstance(reply.get("id"), str):
                reach("batch created")
                return self._identified(sent, reply["id"])
            if isinstance(reply, Unauthorized):
                self._log.void(sent)
                raise reply
            if isinstance(reply, RequestRejected):
                self._log.void(sent)
                if len(batch) == 1:
                    raise reply
                for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    self._start(self._submitted(half))
                return None
            if not isinstance(reply, RateLimited):
                # It may have been created all the same.
                found = await self._located(sent)
                if found is not None:
                    return self._identified(sent, found)
            if time.monotonic() - began > PATIENCE:
                self._log.void(sent)
                raise reply if isinstance(reply, ProviderError) else Unavailable(f"{NAME}: a reply without an id")
            wait = reply.retry_after if isinstance(reply, RateLimited) and reply.retry_after is not None else pause
            await asyncio.sleep(min(wait, LONGEST_PAUSE))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _identified(self, sent: Sent, batch: str) -> Sent:
        self._log.identify(sent, batch)
        reach("batch submitted")
        log.info("%s: %s requests submitted as %s", NAME, f"{len(sent.ids):,}", batch)
        return sent

    # --- looking for a batch whose reply was lost ---

    async def _located(self, sent: Sent) -> str | None:
        """The id of a batch that may have been created; None once it is clear that it was not."""
        task = self._locating.get(sent.name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._looked_for(sent))
            self._locating[sent.name] = task
            task.add_done_callback(lambda _: self._locating.pop(sent.name, None))
        return await asyncio.shield(task)

    async def _looked_for(self, sent: Sent) -> str | None:
        until = time.monotonic() + self._lost_reply
        while True:
            for batch in await self._candidates(sent):
                results = await self._results_of(batch)
                if not results.keys().isdisjoint(sent.ids):
                    return batch
            if time.monotonic() >= until:
                return None
            await asyncio.sleep(min(self._poll, self._lost_reply / 3))

    async def _candidates(self, sent: Sent) -> list[str]:
        """Batches of as many requests, not older than the record, that no record has the id of; oldest first."""
        taken = {each.batch for each in self._log.known()}
        found: list[str] = []
        after = ""
        while True:
            reply = await self._asked(f"{BATCHES}?limit={PAGE}{after}")
            page = [as_object(each) for each in reply.get("data") or ()]
            for each in page:
                if _created_at(each) < sent.at - SKEW:
                    return found[::-1]
                if each.get("id") not in taken and _n_requests(each) == len(sent.ids):
                    found.append(str(each["id"]))
            if not page or not reply.get("has_more"):
                return found[::-1]
            after = f"&after_id={page[-1]['id']}"

    # --- in ---

    async def _result(self, sent: Sent, key: str) -> Result | None:
        """The request's result; None when the batch was never created, or its results are no longer kept."""
        collection = self._collections.get(sent.name)
        if collection is None or collection.task.done():
            collection = _Collection({}, self._start(self._collected(sent)))
            self._collections[sent.name] = collection
        future = collection.waiting.get(key)
        if future is None:
            future = collection.waiting[key] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(future)

    async def _collected(self, sent: Sent) -> None:
        """Fetches results until nobody waits for one; whoever comes later begins another collection."""
        # The collection is entered before its task first runs.
        await asyncio.sleep(0)
        waiting = self._collections[sent.name].waiting
        try:
            batch = sent.batch or await self._located(sent)
            if batch is None:
                self._log.void(sent)
            elif sent.batch is None:
                self._identified(sent, batch)
            results = await self._results_of(batch) if batch is not None else {}
        except SdfError as error:
            for future in waiting.values():
                if not future.done():
                    future.set_exception(type(error)(*error.args))
            return
        for key, future in waiting.items():
            result = results.pop(key, None)
            if not future.done():
                future.set_result(result)
        self._keep(batch, results)

    def _keep(self, batch: str | None, results: dict[str, Result]) -> None:
        """Results that nobody has asked for yet; those of few batches, since each may be 50 MB."""
        if batch is not None:
            self._kept.pop(batch, None)
        if batch is not None and results:
            self._kept[batch] = results
        while len(self._kept) > N_KEPT:
            self._kept.popitem(last=False)

    async def _results_of(self, batch: str) -> dict[str, Result]:
        """custom id -> result, once the batch has ended. Empty for a batch that the API keeps no longer."""
        if batch in self._kept:
            return self._kept[batch]
        began = time.monotonic()
        while True:
            try:
                told = await self._asked(f"{BATCHES}/{batch}")
                if told.get("archived_at"):
                    return {}
                if told.get("processing_status") == "ended":
                    return await self._downloaded(batch)
            except NotServed:
                return {}
            if time.monotonic() - began > self._max_wait:
                raise StillProcessing(
                    f"{NAME}: {batch} is still being processed after {self._max_wait:g} s; it goes on, and the same "
                    "command collects it (--max-wait waits longer)"
                )
            await asyncio.sleep(self._poll)

    async def _downloaded(self, batch: str) -> dict[str, Result]:
        """A download that breaks off, or is no JSON in one of its lines, is begun again."""
        while True:
            lines = await self._asked_lines(f"{BATCHES}/{batch}/results")
            if lines is not None:
                return {str(line.get("custom_id")): as_object(line.get("result")) for line in lines}
            await asyncio.sleep(self._poll)

    # --- the wire ---

    async def _asked(self, path: str) -> dict[str, Any]:
        """What a GET is answered with. Shared trouble is waited out up to PATIENCE: what was paid must be fetched."""
        return await self._patiently(lambda: self._online.got(path))

    async def _asked_lines(self, path: str) -> list[dict[str, Any]] | None:
        """The lines of a JSONL; None when one of them is broken."""
        reply = await self._patiently(lambda: self._got_lines(path))
        return reply.get("lines")

    async def _patiently(self, ask: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> dict[str, Any]:
        pause, began = FIRST_PAUSE, time.monotonic()
        while True:
            reply = await self._online.guarded(ask())
            if not isinstance(reply, ProviderError):
                return reply
            if not isinstance(reply, Unavailable) or time.monotonic() - began > PATIENCE:
                raise reply
            wait = reply.retry_after if isinstance(reply, RateLimited) and reply.retry_after is not None else pause
            await asyncio.sleep(min(wait, LONGEST_PAUSE, self._poll))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _got_lines(self, path: str) -> dict[str, Any]:
        response = await self._online.client().get(path, cast_to=httpx2.Response)
        return {"lines": await asyncio.to_thread(_lines, response.content)}

    async def _posted(self, path: str, content: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        client = self._online.client()
        response = await client.post(path, cast_to=httpx2.Response, content=content, options={"headers": headers})
        return as_object(json.loads(response.content))

    @property
    def _log(self) -> BatchLog:
        assert self._batches is not None, "a batch needs a directory to be on record in"
        return self._batches

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _encoded(batch: Sequence[_Pooled]) -> bytes:
    parts = [json.dumps({"custom_id": each.key, "params": each.params}).encode() for each in batch]
    return b'{"requests": [' + b", ".join(parts) + b"]}"


def _lines(content: bytes) -> list[dict[str, Any]] | None:
    try:
        return [as_object(json.loads(line)) for line in content.splitlines() if line.strip()]
    except ValueError:
        return None


def _n_requests(batch: Mapping[str, Any]) -> int:
    found = as_object(batch.get("request_counts"))
    return sum(map(counts(found), found))


def _created_at(batch: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(batch.get("created_at")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return time.time()


def _problem(kind: str, result: Result) -> str:
    error = _error(result)
    why = f": {said(error.get('type'), None)}: {said(error.get('message'), None)}" if error else ""
    return f"{NAME}: a request of a batch came back {kind}{why}"


def _error(result: Result) -> dict[str, Any]:
    found = as_object(result.get("error"))
    return as_object(found.get("error")) or found


def _is_own_fault(result: Result) -> bool:
    """The API finds fault with the request itself; anything else is trouble that passes."""
    return _error(result).get("type") in ("invalid_request_error", "request_too_large", "not_found_error")
