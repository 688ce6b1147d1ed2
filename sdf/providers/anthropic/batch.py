"""Claude through Message Batches: half the price, for answers within a day instead of a minute.

    request ─▶ pool ─▶ record ─▶ create ─▶ … hours … ─▶ results ─▶ answer
                 ▲        └── a lost reply is searched for ──┘ │
                 └───────── errored, expired, canceled ◀───────┘

Requests of all documents and steps that are in flight gather in a pool, which goes out as one batch. What a batch holds
is on record before it is created, so that after a crash or a lost reply it is looked for, and never sent again blindly.
The trade-off: a document's steps take a batch each, one after another, so throughput is the number of documents in
flight, and what an abort leaves behind waits at the API to be collected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdf.errors import RequestRejected, Unauthorized, Unavailable
from sdf.providers import settings as read
from sdf.providers.anthropic import online
from sdf.providers.anthropic.batch_api import BatchAPI, Result
from sdf.providers.anthropic.batch_pool import Pool
from sdf.providers.anthropic.batch_results import Results
from sdf.providers.anthropic.batch_search import Search
from sdf.providers.anthropic.messages import answer_of, body_of, check
from sdf.providers.batch_log import BatchLog, Cancellation, Sent, UnderWay
from sdf.providers.endpoints import failure
from sdf.providers.inheritance import Inheritance
from sdf.providers.pace import SILENT
from sdf.providers.replies import as_object
from sdf.providers.served import Served
from sdf.records import Answer, Request

NAME = "anthropic-batch"
# Errors of single requests within a batch, and batches that expired: sent again this often.
ATTEMPTS = 4
# Seconds that whoever cancels waits for an API that does not answer.
AT_A_TERMINAL = 30.0


class AnthropicBatch:
    """Answers by Message Batches. Build it where it is used; `batches` keeps the records of the run's directory."""

    told = SILENT

    def __init__(self, settings: Mapping[str, str], batches: BatchLog) -> None:
        given = read.anthropic_batch(settings)
        self._online = online_half(settings)
        self._api = BatchAPI(self._online)
        self._search = Search(
            self._api,
            batches,
            lost_reply=given.lost_reply,
            poll=given.poll,
            max_wait=given.max_wait,
            timeout=given.online.timeout,
        )
        self._pool = Pool(self._api, batches, self._search, size=given.size, gather=given.gather)
        self._results = Results(self._api, batches, self._search, poll=given.poll, max_wait=given.max_wait)
        self._inheritance = Inheritance(batches)

    async def answer(self, request: Request, worst: float = 0.0) -> Answer:
        """The model's answer, hours later perhaps. Raises a ProviderError for what the API says of the request; Stopped
        when it was not sent before `drain`; StillProcessing after `max_wait`. `worst` as of `Batched.answer`."""
        check(request)
        params = body_of(request, self._online.marker if self._online.is_marked(request) else None)
        key, problems = request.key(), list[str]()
        while len(problems) < ATTEMPTS:
            sent = await self._pool.sent(key, params, request.prefix, worst)
            result = await self._results.result(sent, key)
            if sent.has_lost(key):
                # Still at stake: it was answered, and billed.
                raise Unavailable(f"{NAME}: {sent.batch} answered, and its results are kept no longer")
            answer = _answer(request, result)
            self._pool.at_stake.discard(key)
            if answer is not None:
                return answer
            if result is not None and result.get("type") != "canceled":
                problems.append(self._problem(result))
            if result is not None and result.get("type") == "errored":
                self._raise_what_stays(result, problems[-1])
        raise Unavailable(f"{problems[-1]}, {ATTEMPTS} times", maybe_billed=False)

    async def take_over(self, request: Request, worst: float) -> float:
        """As `Batched.take_over`."""
        key = request.key()
        usd = await self._inheritance.take(key, worst)
        if usd is None:
            return 0.0
        self._pool.at_stake.add(key)
        return usd

    async def served(self, model: str) -> Served:
        return await self._online.served(model)

    @property
    def under_way(self) -> list[UnderWay]:
        """The batches that answers are waited for, and those that are looked for."""
        return [*self._results.under_way, *self._pool.looked_for]

    def is_at_stake(self, request: Request) -> bool:
        """As `Batched.is_at_stake`."""
        return request.key() in self._pool.at_stake

    def drain(self) -> None:
        """No other batch goes out; those under way may still end."""
        self._pool.drain()

    async def cancel(self, sent: Sent) -> Cancellation:
        """Cancels a batch that is on record; what it did not answer yet is not billed."""
        self._api.patience = min(self._api.patience, AT_A_TERMINAL)
        batch, going_on = (sent.batch, list[str]()) if sent.batch is not None else await self._search.look(sent)
        if batch is None:
            return Cancellation("unclear" if going_on else "ended", tuple(going_on))
        state = await self._api.look(batch)
        if state is None or state.has_ended:
            return Cancellation("unknown" if state is None else "ended", (batch,))
        await self._api.cancel(batch)
        return Cancellation("canceled", (batch,))

    async def close(self) -> None:
        """Submitted batches stay submitted: the next run collects them."""
        for each in (self._pool, self._results, self._search):
            await each.close()
        await self._online.close()

    def _raise_what_stays(self, result: Result, problem: str) -> None:
        """What asking again does not mend: the request's own fault, or a key, a model or a bill that needs a person."""
        error = _error(result)
        code = as_object(error.get("details")).get("error_code") or error.get("type")
        status = online.STREAM_ERRORS.get(str(error.get("type")), 500)
        found = failure(NAME, status, self._api.said(code), self._api.said(error.get("message")), None)
        if isinstance(found, Unauthorized):
            raise found
        if isinstance(found, RequestRejected):
            raise RequestRejected(problem)

    def _problem(self, result: Result) -> str:
        error, kind = _error(result), self._api.said(result.get("type"))
        why = f": {self._api.said(error.get('type'))}: {self._api.said(error.get('message'))}" if error else ""
        return f"{NAME}: a request of a batch came back {kind}{why}"


def online_half(settings: Mapping[str, str]) -> online.Anthropic:
    """The online client of these settings, all of which are checked: it can tell what is served."""
    read.anthropic_batch(settings)
    given = {**read.ANTHROPIC_BATCH, **settings}
    return online.Anthropic({name: value for name, value in given.items() if name in read.ANTHROPIC})


def _answer(request: Request, result: Result | None) -> Answer | None:
    """None for a request that was not answered. RequestRejected for an answer that is none: to fetch it again would
    change nothing."""
    if result is None or result.get("type") != "succeeded":
        return None
    try:
        return answer_of(request, as_object(result.get("message")))
    except Unavailable as error:
        raise RequestRejected(str(error)) from None


def _error(result: Result) -> dict[str, Any]:
    found = as_object(result.get("error"))
    return as_object(found.get("error")) or found
