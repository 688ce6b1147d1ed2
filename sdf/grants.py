"""Who may spend how much: a cap on dollars that holds over all workers, all crashes and all runs of a directory.

    cap = spent before + what workers hold (granted, and not given back) + free

A grant is durable before it is sent, so whatever happens a worker spends no more than is on record. What was granted
and never given back counts as spent from then on, unless the ledger proves more: a kill costs the worst case of what
was in flight, and some seconds of spending granted ahead. Amounts are cumulative, so messages may be lost or repeated.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdf.allowance import Account
from sdf.budget import TOLERANCE
from sdf.errors import BudgetExhausted, DamagedError
from sdf.ledger import LedgerView
from sdf.providers.batch_log import BatchLog
from sdf.storage import RunDir

# Seconds between two writes of the grants, at least.
GRANT_EVERY = 1.0
# Seconds of a worker's spending that are granted ahead: enough to last until the next write.
AHEAD = 2.5
# Its part of what is free that a worker may get ahead of need, at most.
AHEAD_OF_FREE = 0.25

PATH = re.compile(r"ledger/(\d+)/grants\.json")


def grants_path(epoch: int) -> str:
    return f"{RunDir.ledger_dir(epoch)}/grants.json"


@dataclass(slots=True)
class _Holder:
    """A worker, as far as its money goes. `short_since`: the number of the decision since which it is short."""

    granted: float = 0.0
    account: Account = field(default_factory=Account)
    is_open: bool = True
    is_lost: bool = False
    rate: float = 0.0
    heard_at: float | None = None
    short_since: int | None = None

    @property
    def held(self) -> float:
        """What counts against the cap."""
        if not self.is_open and not self.is_lost:
            return self.account.spent
        return max(self.granted - self.account.returned, self.account.spent)

    @property
    def is_short(self) -> bool:
        return self.is_open and self.account.least is not None


class Grants:
    """The books: pure, no clock and no disk. `before` was spent by earlier epochs."""

    def __init__(self, cap: float, before: float) -> None:
        self.cap, self.before = cap, before
        self._holders: dict[str, _Holder] = {}
        self._n_decisions = 0
        self.recall = False

    def hire(self, worker: str) -> None:
        self._holders[worker] = _Holder()

    def hear(self, worker: str, account: Account, now: float) -> None:
        """A worker's newest word. Older words that arrive late change nothing."""
        holder = self._holders[worker]
        if account.spent < holder.account.spent or account.returned < holder.account.returned:
            return
        if holder.heard_at is not None and now > holder.heard_at:
            spent = (account.spent - holder.account.spent) / (now - holder.heard_at)
            holder.rate += (spent - holder.rate) / 2
        holder.account, holder.heard_at = account, now

    def close(self, worker: str, account: Account) -> None:
        """The worker has ended, and this was its last word: what it did not spend comes back."""
        self._holders[worker].account = account
        self._holders[worker].is_open = False

    def lose(self, worker: str) -> None:
        """The worker is gone without a last word: what it was granted is spent."""
        self._holders[worker].is_open = False
        self._holders[worker].is_lost = True

    @property
    def spent(self) -> float:
        """What is known to be spent, or taken for it; what workers hold besides is not in it."""
        return self.before + math.fsum(each.held if each.is_lost else each.account.spent for each in self._all)

    @property
    def free(self) -> float:
        return self.cap - self.before - math.fsum(each.held for each in self._all)

    @property
    def _all(self) -> list[_Holder]:
        return list(self._holders.values())

    def decide(self) -> bool:
        """Grants what is needed and what will be, as far as the cap allows; whether any grant was raised."""
        self._n_decisions += 1
        before = {worker: holder.granted for worker, holder in self._holders.items()}
        for holder in self._all:
            if not holder.is_short:
                holder.short_since = None
            elif holder.short_since is None:
                holder.short_since = self._n_decisions
        self.recall = False
        short = [each for each in self._all if each.is_short]
        for holder in sorted(short, key=lambda each: each.short_since or 0):
            self._give_needed(holder)
        if not self.recall:
            for holder in self._all:
                self._give_ahead(holder)
        return any(holder.granted > before[worker] for worker, holder in self._holders.items())

    def _give_needed(self, holder: _Holder) -> None:
        """Money for what waits; else for some of it; else what others do not use is asked back."""
        account = holder.account
        # What is on its way already.
        coming = holder.granted - (account.granted or 0.0)
        wanted, least = account.wanted - coming, (account.least or 0.0) - coming
        if wanted <= 0:
            return
        self.recall |= wanted > self.free
        if max(least, 0.0) <= self.free + TOLERANCE:
            holder.granted += max(0.0, min(wanted, self.free))

    def _give_ahead(self, holder: _Holder) -> None:
        if not holder.is_open:
            return
        idle = holder.granted - holder.account.spent - holder.account.returned - holder.account.reserved
        n_open = sum(each.is_open for each in self._all)
        missing = min(holder.rate * AHEAD - max(0.0, idle), self.free * AHEAD_OF_FREE / n_open)
        # Crumbs are not worth a write.
        if missing > holder.rate * AHEAD / 4:
            holder.granted += missing

    def granted(self) -> dict[str, float]:
        return {worker: holder.granted for worker, holder in self._holders.items()}

    @property
    def needed(self) -> float | None:
        """Dollars of the smallest request that waits and can never be paid; None while any may yet be."""
        open_ = [each for each in self._all if each.is_open]
        waiting = [each.account.least + max(0.0, each.account.idle) for each in open_ if each.account.least is not None]
        if not waiting or any(each.account.reserved > TOLERANCE for each in open_):
            return None
        if any(each.granted > (each.account.granted or 0.0) for each in open_):
            return None
        pot = self.free + math.fsum(max(0.0, each.account.idle) for each in open_)
        return min(waiting) if min(waiting) > pot + TOLERANCE else None

    def record(self) -> dict[str, Any]:
        """What a later run needs: of each worker what it was granted, and what of that came back."""
        return {
            "workers": {
                worker: {"granted": holder.granted, "returned": holder.granted - holder.held}
                for worker, holder in sorted(self._holders.items())
                if holder.granted
            }
        }


@dataclass(frozen=True, slots=True)
class Cost:
    """What a directory has cost in all its life, in dollars, and what may be spent on it.

    `spent` is what answers came to, of which `here` in this run; `presumed` is taken for spent besides: attempts whose
    outcome is unknown, and grants of workers that ended without a word. `n_unpriced` answers of this run have no known
    price, nor have those that the models in `unpriced` gave before. `cap` None: no limit was set.
    """

    spent: float
    presumed: float
    here: float
    n_unpriced: int
    cap: float | None
    unpriced: tuple[str, ...] = ()

    @property
    def is_worth_saying(self) -> bool:
        """Whether anyone who bills was asked, or a cap was set."""
        return bool(self.spent or self.presumed or self.n_unpriced or self.unpriced) or self.cap is not None


def together(costs: Sequence[Cost]) -> Cost | None:
    """Of corpora made one after another; where a cap binds them, the last knows what all have cost."""
    if not costs:
        return None
    last = costs[-1]
    parts = [last] if last.cap is not None else costs
    return Cost(
        spent=math.fsum(each.spent for each in parts),
        presumed=math.fsum(each.presumed for each in parts),
        here=math.fsum(each.here for each in costs),
        n_unpriced=sum(each.n_unpriced for each in costs),
        cap=last.cap,
        unpriced=tuple(dict.fromkeys(model for each in parts for model in each.unpriced)),
    )


@dataclass(frozen=True, slots=True)
class Spent:
    """What a directory has cost so far, in dollars: proved by answers in its ledger, and beyond them taken for spent,
    because a worker that was granted it ended without a word. What the models in `unpriced` took has no known price."""

    proved: float
    presumed: float
    unpriced: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        return self.proved + self.presumed

    def __add__(self, other: Spent) -> Spent:
        unpriced = tuple(dict.fromkeys(self.unpriced + other.unpriced))
        return Spent(self.proved + other.proved, self.presumed + other.presumed, unpriced)


def spent_in(run_dir: RunDir, view: LedgerView, *, before_epoch: int | None = None) -> Spent:
    """Of all epochs, or of those before one. DamagedError names a record that cannot be read."""
    proved = {name: cost for name, cost in view.cost_by_writer.items() if _is_before(name, before_epoch)}
    submitted, presumed = _submitted(run_dir, view)
    for worker, amount in _outstanding(run_dir).items():
        if _is_before(worker, before_epoch):
            presumed += max(0.0, amount - proved.get(worker, 0.0) - submitted.get(worker, 0.0))
    return Spent(math.fsum(proved.values()), presumed)


def _submitted(run_dir: RunDir, view: LedgerView) -> tuple[dict[str, float], float]:
    """Dollars that workers set aside for what they submitted in batches and did not collect, by worker; and those of
    what nobody has collected yet: it counts once, at its worst, however many runs have waited for it."""
    by_worker: dict[str, dict[str, float]] = {}
    waiting: dict[str, float] = {}
    for sent in BatchLog(run_dir, "books").known():
        own = by_worker.setdefault(sent.writer, {})
        for key, usd in zip(sent.ids, sent.usd, strict=True):
            answered = view.keys.find(key)
            if answered is None or answered.part.rpartition("-")[0] != sent.writer:
                own[key] = max(usd, own.get(key, 0.0))
            if answered is None:
                waiting[key] = max(usd, waiting.get(key, 0.0))
    return {worker: math.fsum(own.values()) for worker, own in by_worker.items()}, math.fsum(waiting.values())


def _is_before(worker: str, epoch: int | None) -> bool:
    return epoch is None or int(worker.partition("/")[0]) < epoch


def _outstanding(run_dir: RunDir) -> dict[str, float]:
    """ "000003/w0001-000" -> dollars that it was granted and did not give back."""
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


class Treasury:
    """Grants that are durable before they are sent: a file per epoch, written at most every GRANT_EVERY seconds."""

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

    def hear(self, worker: str, account: Account) -> BudgetExhausted | None:
        """Takes a worker's word; returns the error that ends the run, once nothing more can be paid."""
        self.grants.hear(worker, account, self._clock())
        return self._exhausted()

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

    def _exhausted(self) -> BudgetExhausted | None:
        needed = self.grants.needed
        if needed is None:
            return None
        grants = self.grants
        return BudgetExhausted(
            f"--max-cost: ${grants.spent:,.4f} of ${grants.cap:,.2f} is spent, and the next request may cost up to "
            f"${needed:,.4f}; everything so far is kept: the same command with a higher --max-cost goes on"
        )
