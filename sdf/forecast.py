"""What a corpus will cost, from a few of its documents written for real: tokens, yield, dollars, hours, with intervals.

The documents are the first of each genre, so the run that follows finds them paid. Intervals are 90 %, of seeded draws:
shares from what so few leave open (all of three accepted may be two of three), lengths and costs by resampling the
documents. They hold what differs from document to document, not what a larger corpus meets that a small one cannot:
near-duplicates grow with size, and a cache is warm more often than here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from sdf.errors import DamagedError, Missing
from sdf.generate import NO_ANGLE
from sdf.job import Job
from sdf.ledger import LedgerView, read_answers, read_ledger
from sdf.manifest import ALL
from sdf.money.prices import Tariff, tariff
from sdf.plan import Plan, n_rounds
from sdf.records import AnswerEntry, Receipt, RoundReceipt
from sdf.storage import RunDir

PATH = "forecast.json"

N_DRAWS = 2_000
# The 5th and the 95th of a hundred.
LOW, HIGH = 5, 95

# Dollars of an answer; None where the price is not known.
CostOf = Callable[[AnswerEntry], float | None]
Floats = npt.NDArray[np.float64]

NOTHING: Mapping[str, int] = {}


class Interval(NamedTuple):
    """An estimate with its 90 % interval, which need not lie in the middle of it."""

    mean: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        return Interval(*(each * factor for each in self))

    def plus(self, other: Interval) -> Interval:
        """Of amounts that are large together."""
        return Interval(*(each + more for each, more in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Sample:
    """What one brief took that had its angle: accepted tokens (0 when it was rejected), tokens the model wrote for it,
    dollars."""

    n_tokens: int
    n_output: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class GenreForecast:
    """What a genre's share of the target takes. None where no sampled brief was accepted, or no price is known.

    `n_there` is how many briefs there are at most, None where they are endless; `n_briefs` ends with them.
    """

    key: str
    n_sampled: int
    n_accepted: int
    target_tokens: int
    tokens_per_document: Interval | None
    accepted: Interval
    n_briefs: Interval | None
    n_output: Interval | None
    cost_usd: Interval | None
    n_there: int | None = None

    @property
    def falls_short(self) -> bool:
        """Whether its briefs are expected to end before its share of the target is reached."""
        if self.target_tokens == ALL or self.n_briefs is None or self.n_there is None:
            return False
        return self.n_briefs.mean >= self.n_there


@dataclass(frozen=True, slots=True)
class Forecast:
    """The whole corpus. `cost_usd` is at the prices that were paid (online, or in batches)."""

    recipe_hash: str
    target_tokens: int
    genres: tuple[GenreForecast, ...]
    n_briefs: Interval | None
    n_output: Interval | None
    cost_usd: Interval | None


def costs_of(job: Job, *, in_batches: bool | None = None) -> CostOf:
    """Prices as they were paid, each answer by the road it came; or as they would be, all in batches or none."""
    tariffs: dict[str, Tariff] = {}
    for seat in job.seats:
        backend, model = job.recipe.backend_of(seat), job.recipe.model_of(seat)
        found = tariff(job.prices, backend.provider, dict(backend.settings), model)
        tariffs[model] = found if in_batches is None else found._replace(batch=in_batches)

    def cost(entry: AnswerEntry) -> float | None:
        if in_batches is None and entry.cost_usd is not None:
            return entry.cost_usd
        found = tariffs.get(entry.answer.model)
        return None if found is None else found.cost(entry.answer.usage)

    return cost


class Asked(NamedTuple):
    """What a ledger holds of the first briefs of each genre: their receipts, their angle rounds, and every answer to
    either, by unit. Answers no step could use count too."""

    receipts: Mapping[str, Receipt]
    rounds: Sequence[RoundReceipt]
    answers: Mapping[str, Sequence[AnswerEntry]]
    n_answers: int


def read_asked(job: Job, run_dir: RunDir, n: int, reused: Sequence[RunDir] = ()) -> Asked:
    """Of the first `n` briefs of each genre. An answer that was copied from one of `reused` counts as it was paid
    there: the copy says that it cost nothing."""
    plan, view = Plan(job), read_ledger(run_dir)
    paid = {entry.key: entry for other in reused for entry in _all_answers(other, read_ledger(other))}
    answers: dict[str, list[AnswerEntry]] = {}
    for entry in _all_answers(run_dir, view):
        answers.setdefault(entry.unit, []).append(paid.get(entry.key, entry))
    receipts = {plan.brief(receipt.genre, receipt.index).id: receipt for receipt in view.receipts if receipt.index < n}
    return Asked(receipts, view.rounds, answers, view.n_answers)


def _all_answers(run_dir: RunDir, view: LedgerView) -> list[AnswerEntry]:
    return read_answers(run_dir, [location for _, location in view.keys])


def forecast(job: Job, asked: Asked, cost_of: CostOf, expected: Mapping[str, int] = NOTHING) -> Forecast:
    """From what was asked. `expected` are rows of sources that are not made yet, by genre."""
    plan, total = Plan(job, expected), sum(job.recipe.mix.values())
    genres: list[GenreForecast] = []
    for genre in job.genres:
        target = None if job.recipe.tokens == ALL else job.recipe.tokens * job.recipe.mix[genre.key] / total
        genres.append(_genre_forecast(plan, genre.key, target, asked, cost_of))
    return Forecast(
        job.hash,
        job.recipe.tokens,
        tuple(genres),
        together([each.n_briefs for each in genres]),
        together([each.n_output for each in genres]),
        together([each.cost_usd for each in genres]),
    )


def _genre_forecast(plan: Plan, key: str, target: float | None, asked: Asked, cost_of: CostOf) -> GenreForecast:
    receipts = {unit: receipt for unit, receipt in asked.receipts.items() if receipt.genre == key}
    samples = [
        _sample(0 if receipt.reason else receipt.n_tokens, asked.answers.get(unit, ()), cost_of)
        for unit, receipt in receipts.items()
        if not (receipt.reason or "").startswith(NO_ANGLE)
    ]
    n_accepted, n_there = sum(each.n_tokens > 0 for each in samples), plan.n_briefs(key)
    wanted = ALL if target is None else round(target)
    has_angle = _angles_found(asked.rounds) if plan.genres[key].round_step is not None else None
    found = drawn(samples, target, plan.job.recipe.seed, n_there, has_angle)
    if found is None:
        accepted = _interval(_shares(np.random.default_rng(0), Found(0, len(receipts))))
        return GenreForecast(key, len(receipts), 0, wanted, None, accepted, None, None, None, n_there)
    rounds = [_sample(0, asked.answers.get(each.round, ()), cost_of) for each in asked.rounds if each.key.genre == key]
    briefs, output, cost = _with_rounds(plan, key, found, rounds)
    return GenreForecast(
        key, len(receipts), n_accepted, wanted, found.length, found.accepted, briefs, output, cost, n_there
    )


def _sample(n_tokens: int, answers: Sequence[AnswerEntry], cost_of: CostOf) -> Sample:
    costs = [cost_of(entry) for entry in answers]
    known = [cost for cost in costs if cost is not None]
    cost = sum(known) if len(known) == len(costs) else None
    return Sample(n_tokens, sum(entry.answer.usage.output_tokens for entry in answers), cost)


class Found(NamedTuple):
    """So many of so many: what a share is estimated from. `n` may count what is independent, `of` be a part of it."""

    of: float
    n: int


def _angles_found(rounds: Sequence[RoundReceipt]) -> Found | None:
    """The angles that were found, of all genres, as a number of rounds: those of one round come and fail together."""
    angles = [angle is not None for each in rounds for angle in each.angles]
    return Found(len(rounds) * sum(angles) / len(angles), len(rounds)) if angles else None


class Drawn(NamedTuple):
    """What a genre takes to reach its tokens, but for its angle rounds. `cost` None where a price is not known."""

    length: Interval
    accepted: Interval
    briefs: Interval
    output: Interval
    cost: Interval | None


def drawn(
    samples: Sequence[Sample],
    target: float | None,
    seed: int,
    n_there: int | None = None,
    has_angle: Found | None = None,
) -> Drawn | None:
    """For `target` accepted tokens, or with None of all briefs; never of more briefs than there are. None when no
    sample was accepted."""
    kept, lost = [each for each in samples if each.n_tokens], [each for each in samples if not each.n_tokens]
    if not kept:
        return None
    dice = np.random.default_rng(seed % 2**63)
    asked = np.ones(N_DRAWS + 1) if has_angle is None else _shares(dice, has_angle)
    accepted = _shares(dice, Found(len(kept), len(samples)))
    # A document that costs more is longer too: both are of the same draw.
    picked, missed = _picks(dice, len(kept)), _picks(dice, len(lost))
    length = _means([each.n_tokens for each in kept], picked)
    # A draw of next to nothing is no number of briefs.
    per_brief = np.maximum(asked * accepted, 1e-3) * length
    wanted = np.full(N_DRAWS + 1, math.inf) if target is None else target / per_brief
    n_briefs = wanted if n_there is None else np.minimum(wanted, n_there)

    def total(of: Callable[[Sample], float]) -> Interval:
        good = _means([of(each) for each in kept], picked)
        # Where none was rejected yet, one takes what the others do.
        bad = _means([of(each) for each in lost], missed) if lost else good
        return _interval(n_briefs * asked * (accepted * good + (1 - accepted) * bad))

    is_priced = all(each.cost_usd is not None for each in samples)
    return Drawn(
        _interval(length),
        _interval(asked * accepted),
        _interval(n_briefs),
        total(lambda each: each.n_output),
        total(lambda each: each.cost_usd or 0.0) if is_priced else None,
    )


def _with_rounds(
    plan: Plan, key: str, found: Drawn, rounds: Sequence[Sample]
) -> tuple[Interval, Interval, Interval | None]:
    """Briefs, output and cost with the angle rounds that so many briefs take, at the mean of those that were asked."""
    if not rounds:
        return found.briefs, found.output, found.cost
    n_cells = len(plan.job.constitution.principles)
    n_of_one = Interval(
        *(n_rounds(plan.genres[key], plan, math.ceil(each), n_cells) / len(rounds) for each in found.briefs)
    )
    costs = [each.cost_usd for each in rounds if each.cost_usd is not None]
    is_priced = found.cost is not None and len(costs) == len(rounds)
    return (
        found.briefs,
        found.output.plus(n_of_one.times(sum(each.n_output for each in rounds))),
        found.cost.plus(n_of_one.times(sum(costs))) if is_priced and found.cost is not None else None,
    )


def _shares(dice: np.random.Generator, found: Found) -> Floats:
    """Shares that what was found leaves open, by Jeffreys' prior; the first is the share itself."""
    draws = dice.beta(found.of + 0.5, found.n - found.of + 0.5, N_DRAWS)
    return np.concatenate(([found.of / max(1, found.n)], draws))


def _picks(dice: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
    """Resamples of n places; the first is the sample itself."""
    if not n:
        return np.empty((0, 0), np.int64)
    picks = dice.integers(0, n, size=(N_DRAWS + 1, n))
    picks[0] = np.arange(n)
    return picks


def _means(values: Sequence[float], picks: npt.NDArray[np.int64]) -> Floats:
    """Of each resample, spread as the mean of so few is: resampling alone would spread it too little."""
    given = np.array(values, np.float64)
    means = given[picks].mean(axis=1)
    return np.clip(means[0] + (means - means[0]) * _widening(len(given)), given.min() / 2, given.max() * 2)


def _widening(n: int) -> float:
    """The root of n / (n - 1), times Student's 95 % quantile over the normal one (by its series in 1 / (n - 1))."""
    if n < 2:
        return 1.0
    z, freedom = 1.645, n - 1
    student = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return math.sqrt(n / freedom) * student / z


def _interval(draws: Floats) -> Interval:
    """The first is the estimate, and never outside of its interval."""
    low, high = np.percentile(draws, [LOW, HIGH])
    return Interval(float(draws[0]), float(min(low, draws[0])), float(max(high, draws[0])))


def together(parts: Sequence[Interval | None]) -> Interval | None:
    """The sum of estimates that are independent of each other; None where one of them is not known."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    mean = math.fsum(each.mean for each in known)
    below = math.hypot(*(each.mean - each.low for each in known))
    above = math.hypot(*(each.high - each.mean for each in known))
    return Interval(mean, mean - below, mean + above)


# --- kept beside the ledger, for the run to compare itself with ------------------------------------------------


_ADAPTER = TypeAdapter(Forecast)


def keep(run_dir: RunDir, found: Forecast) -> None:
    run_dir.write(PATH, _ADAPTER.dump_json(found, indent=1) + b"\n")


def kept(run_dir: RunDir) -> Forecast | None:
    """The forecast that was made in this directory. DamagedError when the file is not one."""
    try:
        return _ADAPTER.validate_json(run_dir.read(PATH))
    except Missing:
        return None
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise DamagedError(
            f"{run_dir.root}/{PATH}: not a forecast as sdf writes it ({first}); delete the file"
        ) from None
