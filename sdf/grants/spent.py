"""What a directory has cost: what answers prove, and what is taken for spent beyond them; and how that is said, never
$0 for what nobody knows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sdf.grants.treasury import outstanding
from sdf.job import Job
from sdf.ledger import LedgerView
from sdf.money.prices import tariff
from sdf.providers.batch_log import BatchLog, Ended, Sent, Taken, epoch_of
from sdf.storage import RunDir


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


def dollars(amount: float) -> str:
    """Cents where they say enough, four places below a dollar."""
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.4f}"


def cost_line(cost: Cost) -> str:
    """ "$12.30 of $50.00 spent, up to $0.41 more presumed"; "cost unknown" where no answer has a known price."""
    is_unknown = bool(cost.n_unpriced or cost.unpriced)
    if is_unknown and not cost.spent:
        return "cost unknown"
    cap = f" of {dollars(cost.cap)}" if cost.cap is not None else ""
    # A tenth of a cent is a rounding of sums.
    presumed = f", up to {dollars(cost.presumed)} more presumed" if cost.presumed >= 0.001 else ""
    return f"{dollars(cost.spent)}{cap} spent{presumed}{', and what has no known price' if is_unknown else ''}"


def together(costs: Sequence[Cost]) -> Cost | None:
    """Of corpora made one after another; where a cap binds them, the last knows what all have cost."""
    whole = total(costs)
    if whole is None or whole.cap is None:
        return whole
    return replace(whole, spent=costs[-1].spent, presumed=costs[-1].presumed, unpriced=costs[-1].unpriced)


def total(costs: Sequence[Cost]) -> Cost | None:
    """Of directories that tell each of itself alone."""
    if not costs:
        return None
    return Cost(
        spent=math.fsum(each.spent for each in costs),
        presumed=math.fsum(each.presumed for each in costs),
        here=math.fsum(each.here for each in costs),
        n_unpriced=sum(each.n_unpriced for each in costs),
        cap=costs[-1].cap,
        unpriced=tuple(dict.fromkeys(model for each in costs for model in each.unpriced)),
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
    batches = _Batches.of(run_dir, view)
    presumed = math.fsum([*batches.waiting.values(), *batches.lost.values()])
    for worker, (held, assumed) in outstanding(run_dir).items():
        if _is_before(worker, before_epoch):
            # A worker without a cap holds nothing, and may have proved more than was on record when it was killed.
            unproved = max(held + batches.inherited[worker] - proved.get(worker, 0.0), assumed)
            presumed += max(0.0, unproved - batches.set_aside[worker])
    return Spent(math.fsum(proved.values()), presumed)


class _Batches:
    """What workers set aside for requests in batches, in dollars.

    `waiting`, by key: nobody knows yet what it cost; `lost`, by batch and key: nobody ever will. Each counts once, at
    its worst, however many runs have waited for it. `set_aside`, by worker: what therefore does not count again with
    the worker that set it aside, because it is one of these or another has the answer. `inherited`, by worker.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, float] = {}
        self.lost: dict[tuple[str, str], float] = {}
        self.inherited: defaultdict[str, float] = defaultdict(float)
        # By key, the newest epoch that found its results lost.
        self._lost_in: dict[str, int] = {}
        self._unbilled: set[tuple[str, str]] = set()
        # By worker and key what it holds for a request, and apart from it for one that was lost: it asked that again.
        self._open: dict[tuple[str, str], float] = {}
        self._gone: dict[tuple[str, str], float] = {}

    @classmethod
    def of(cls, run_dir: RunDir, view: LedgerView) -> _Batches:
        log, found = BatchLog(run_dir, "books"), cls()
        for sent in log.known():
            found._take_sent(sent, view)
        # What was taken over stands by what became of the batches.
        for taken in log.taken():
            found._take_taken(taken, view)
        return found

    @cached_property
    def set_aside(self) -> defaultdict[str, float]:
        found: defaultdict[str, float] = defaultdict(float)
        for (worker, _), usd in (*self._open.items(), *self._gone.items()):
            found[worker] += usd
        return found

    def _take_sent(self, sent: Sent, view: LedgerView) -> None:
        ended = sent.ended or Ended("")
        self._unbilled.update((ended.by, key) for key in ended.unbilled)
        for key, usd in zip(sent.ids, sent.usd, strict=True):
            own = (sent.writer, key)
            if key in ended.lost:
                self.lost[sent.name, key] = self._gone[own] = usd
                self._lost_in[key] = max(epoch_of(ended.by), self._lost_in.get(key, 0))
            elif key in ended.unbilled:
                # Its own sender went on with the money.
                if ended.by != sent.writer:
                    self._open[own] = max(usd, self._open.get(own, 0.0))
            else:
                answerer = _answerer(view, key)
                if answerer is None:
                    self.waiting[key] = max(usd, self.waiting.get(key, 0.0))
                if answerer != sent.writer:
                    self._open[own] = max(usd, self._open.get(own, 0.0))

    def _take_taken(self, taken: Taken, view: LedgerView) -> None:
        self.inherited[taken.writer] += taken.inherited
        for key, usd in zip(taken.ids, taken.usd, strict=True):
            own = (taken.writer, key)
            answerer = _answerer(view, key)
            is_elsewhere = key in self.waiting if answerer is None else answerer != taken.writer
            if epoch_of(taken.writer) <= self._lost_in.get(key, 0):
                self._gone[own] = usd
            elif is_elsewhere and own not in self._unbilled:
                self._open[own] = max(usd, self._open.get(own, 0.0))


def _answerer(view: LedgerView, key: str) -> str | None:
    """Whose part of the ledger holds the answer."""
    found = view.keys.find(key)
    return None if found is None else found.part.rpartition("-")[0]


def _is_before(worker: str, epoch: int | None) -> bool:
    return epoch is None or epoch_of(worker) < epoch


def spent_before(job: Job, run_dir: RunDir, view: LedgerView, epoch: int | None = None) -> Spent:
    """What the directory cost before this epoch (None: in all). Answers that were bought while nobody knew their price
    count at today's, where the job asks the same model."""
    found = spent_in(run_dir, view, before_epoch=epoch)
    asked = {job.recipe.model_of(seat): job.recipe.backend_of(seat) for seat in job.seats}
    later, unpriced = 0.0, list[str]()
    for model, usage in view.unpriced_by_model.items():
        backend = asked.get(model)
        cost = tariff(job.prices, backend.provider, dict(backend.settings), model).cost(usage) if backend else None
        if cost is not None:
            later += cost
        else:
            unpriced.append(model)
    return Spent(found.proved + later, found.presumed, tuple(unpriced))


def cost_of(job: Job, run_dir: RunDir, view: LedgerView) -> Cost:
    """What the directory has cost so far, as its ledger and its grants tell it."""
    found = spent_before(job, run_dir, view)
    return Cost(found.proved, found.presumed, 0.0, 0, job.recipe.max_cost, found.unpriced)
