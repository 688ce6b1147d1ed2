"""A worker: orders in, receipts out. One asyncio loop with many documents in flight and one ledger writer.

Receipts leave only after the flush that made their answers durable. Every message may be lost or repeated:
orders are known by name and taken once, receipts are handed over again until the driver acknowledges them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sdf.documents import Draft, Meter
from sdf.errors import RequestRejected, SdfError
from sdf.failpoints import reach
from sdf.generate import settle_brief, settle_round
from sdf.job import Job
from sdf.ledger import AnswerReader, LedgerWriter
from sdf.money.allowance import Account, Allowance
from sdf.money.budget import Purse, Stopped
from sdf.orders import Answered, Batch, BriefOrder, Order, RoundOrder, name_of
from sdf.plan import Plan
from sdf.prompts import Composer
from sdf.providers.batch_log import BatchLog
from sdf.providers.panel import Panel
from sdf.records import (
    Answer,
    AnswerEntry,
    Location,
    Receipt,
    Request,
    RoundReceipt,
    RoundSettlement,
    Settlement,
    Usage,
    receipt_of,
)
from sdf.storage import RunDir

log = logging.getLogger(__name__)

# A flush a second, or sooner at 4 MB: what a kill costs, against the number of small files.
FLUSH_SECONDS = 1.0
FLUSH_BYTES = 4_000_000

# Answers of this worker that a twin may ask for again before they are in any index.
RECENT_ANSWERS = 4_096


class Worker:
    """Build it inside a running event loop. `name` must be new for every incarnation of an epoch."""

    def __init__(self, job: Job, run_dir: RunDir, epoch: int, name: str, answered: Sequence[Answered]) -> None:
        recipe = job.recipe
        self._plan = Plan(job)
        self._composer = Composer(job)
        self._meter = Meter(job)
        self._writer = LedgerWriter(run_dir, epoch, name)
        self._news = asyncio.Event()
        self._purse = Purse(None if recipe.max_cost is None else 0.0, self._news.set)
        has_answered = any(each.own and len(each.keys) for each in answered)
        batches = BatchLog(run_dir, f"{epoch:06d}-{name}")
        self._panel = Panel(job, batches, self._purse, has_answered=has_answered)
        self._principles = {principle.id: principle for principle in job.constitution.principles}
        self._answered: list[tuple[Answered, AnswerReader]] = []
        self._adopt(answered)
        # Rounds do not queue behind documents: what they find is what the documents after those wait for.
        self._slots = {each: asyncio.Semaphore(recipe.n_in_flight) for each in (BriefOrder, RoundOrder)}
        self._seen: set[tuple[str, ...] | tuple[str, int]] = set()
        self._asked: OrderedDict[str, asyncio.Task[tuple[Answer, Location]]] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()
        self._settled: list[tuple[Settlement | RoundSettlement, Draft | None]] = []
        self._unacked: list[tuple[int, Receipt | RoundReceipt]] = []
        self._number = 0
        self._n_open = 0
        self._n_requests = 0
        self._usage = Usage()
        self._draining = False
        self._closing = False
        self._error: SdfError | None = None
        self._error_is_told = False
        self._full = asyncio.Event()
        self._pulse = asyncio.get_running_loop().create_task(self._flush_for_ever())
        self._pulse.add_done_callback(self._noted)

    async def adopt(self, answered: Sequence[Answered]) -> None:
        """Look here too before paying for an answer."""
        self._adopt(answered)

    def _adopt(self, answered: Sequence[Answered]) -> None:
        self._answered += [(each, AnswerReader(each.run_dir)) for each in answered if len(each.keys)]

    async def exchange(
        self,
        orders: Sequence[Order],
        acked: int,
        allowance: Allowance | None = None,
        patience: float = FLUSH_SECONDS,
    ) -> Batch:
        """Takes orders it has not seen, forgets receipts up to `acked`, and returns what is new. It goes on within
        `allowance`, or within the one before.

        Waits up to `patience` seconds for news. Repeating a call repeats its answer and nothing else.
        """
        if allowance is not None:
            self._purse.allow(allowance.granted, recall=allowance.recall)
            self._panel.follow(allowance.lanes)
        self._unacked = [entry for entry in self._unacked if entry[0] > acked]
        for order in orders:
            if name_of(order) not in self._seen:
                self._seen.add(name_of(order))
                self._start(order)
        # An error is news once: a drain asks on until what is in flight has ended, and must let it.
        if not self._unacked and (self._error is None or self._error_is_told):
            self._news.clear()
            await _within(self._news, patience / 4 if self._purse.is_short else patience)
        self._error_is_told = self._error is not None
        return self._batch()

    async def drain(self) -> None:
        """No new request: documents stop at their next step, and go on from its answers another time."""
        self._draining = True
        self._purse.close()
        self._panel.drain()

    async def close(self) -> Account:
        """Ends everything in flight, flushes what is settled, and gives the provider back; its last word on money."""
        tasks: list[asyncio.Task[Any]] = [*self._running, *self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._closing = True
        self._full.set()
        await asyncio.wait([self._pulse])
        await self._panel.close()
        return self._purse.account()

    def _start(self, order: Order) -> None:
        self._n_open += 1
        task = asyncio.get_running_loop().create_task(self._carry_out(order))
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._noted(task):
            self._n_open -= 1
        if not self._running:
            self._full.set()
            self._news.set()

    def _noted(self, task: asyncio.Task[None]) -> bool:
        """Whether a task failed; then the run learns of it."""
        if task.cancelled() or (error := task.exception()) is None:
            return False
        self._fail(error)
        return True

    def _fail(self, error: BaseException) -> None:
        """The first error stops the run; the driver learns of it with the next batch."""
        if not isinstance(error, SdfError):
            log.error("unexpected %s", type(error).__name__, exc_info=error)
            # By name alone: what a foreign error says may hold a secret.
            error = SdfError(f"unexpected {type(error).__name__}; the worker's log has the traceback")
        self._error = self._error or error
        self._news.set()

    async def _carry_out(self, order: Order) -> None:
        async with self._slots[type(order)]:
            if self._draining:
                self._n_open -= 1
                return
            try:
                ended = await self._settle(order)
            except _Drained:
                self._n_open -= 1
                return
            # Not in one line: the list would be looked up before the wait, and a flush takes it away meanwhile.
            self._settled.append(ended)

    async def _settle(self, order: Order) -> tuple[Settlement | RoundSettlement, Draft | None]:
        if isinstance(order, RoundOrder):
            genre, principle = self._plan.genres[order.key.genre], self._principles[order.key.principle]
            return await settle_round(self._composer, self._ask, genre, order.key, principle, order.taken), None
        brief = self._plan.brief(order.genre, order.index)
        return await settle_brief(
            self._composer, self._ask, self._plan.genres[order.genre], brief, order.angle, order.why
        )

    async def _ask(self, request: Request, key: str, unit: str, step: str) -> tuple[Answer, Location]:
        """One purchase per key: twins that ask the same question wait for the same answer."""
        task = self._asked.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._answer(key, request, unit, step))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: str, task: asyncio.Task[tuple[Answer, Location]]) -> None:
        """Failures are asked again; answers are remembered while twins may come."""
        if task.cancelled() or task.exception() is not None:
            self._asked.pop(key, None)
        while len(self._asked) > RECENT_ANSWERS and next(iter(self._asked.values())).done():
            self._asked.popitem(last=False)

    async def _answer(self, key: str, request: Request, unit: str, step: str) -> tuple[Answer, Location]:
        for answered, reader in self._answered:
            location = answered.keys.find(key)
            if location is not None:
                entry = reader.read(location)
                return entry.answer, location if answered.own else self._keep(
                    request,
                    replace(entry, unit=unit, step=step, answer=replace(entry.answer, usage=Usage()), cost_usd=0.0),
                )
        if self._draining:
            raise _Drained
        try:
            answer = await self._panel.answer(request)
        except Stopped:
            raise _Drained from None
        self._n_requests += 1
        self._usage += answer.usage
        cost = self._panel.cost(request, answer.usage)
        return answer, self._keep(request, AnswerEntry(key, unit, step, request.prefix.hash, answer, cost))

    def _keep(self, request: Request, entry: AnswerEntry) -> Location:
        self._writer.keep_prefix(request.prefix)
        try:
            location = self._writer.append(entry)
        except ValueError as error:
            raise RequestRejected(f"the answer cannot be kept: {error}") from None
        if self._writer.pending_bytes >= FLUSH_BYTES:
            self._full.set()
        return location

    async def _flush_for_ever(self) -> None:
        while not self._closing:
            await _within(self._full, FLUSH_SECONDS)
            self._full.clear()
            await self._flush()
        # What came while the last flush was writing.
        await self._flush()

    async def _flush(self) -> None:
        """Measures what settled, writes it, and only then hands out the receipts."""
        settled, self._settled = self._settled, []
        if not settled and not self._writer.pending:
            return
        drafts = [draft for _, draft in settled if draft is not None]
        measures = iter(await asyncio.to_thread(self._meter.measure, drafts))
        receipts: list[Receipt | RoundReceipt] = []
        for settlement, draft in settled:
            whole = settlement
            if draft is not None and isinstance(settlement, Settlement):
                whole = replace(settlement, measures=next(measures))
            receipts.append(_receipt(whole, self._writer.settle(whole)))
        sealed = self._writer.seal()
        if sealed is not None:
            await asyncio.to_thread(sealed.write)
            reach("part written")
        self._number += 1
        self._n_open -= len(receipts)
        self._unacked += [(self._number, receipt) for receipt in receipts]
        self._news.set()

    def _batch(self) -> Batch:
        entries = [entry for _, entry in self._unacked]
        return Batch(
            self._number,
            tuple(entry for entry in entries if isinstance(entry, Receipt)),
            tuple(entry for entry in entries if isinstance(entry, RoundReceipt)),
            self._n_open,
            self._n_requests,
            self._usage,
            self._error,
            self._purse.account(),
            self._panel.reports(),
            self._panel.under_way,
        )


class _Drained(Exception):  # noqa: N818  not a failure
    """A document reached a request that a draining worker does not send."""


def _receipt(settlement: Settlement | RoundSettlement, location: Location) -> Receipt | RoundReceipt:
    if isinstance(settlement, Settlement):
        return receipt_of(settlement, location)
    return RoundReceipt(settlement.key, location, settlement.angles, reason=settlement.reason)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Waits for the event, at most so long; whether it came."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
