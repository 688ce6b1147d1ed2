"""What a corpus will cost, from a few of its documents written for real: tokens, yield, dollars, hours, with intervals.

The documents are the first of each genre, so the run that follows finds them paid. Intervals are 90 %, by resampling
the briefs of each genre (seeded): they hold what differs from document to document, not what a larger corpus meets
that a small one cannot: near-duplicates grow with size, and a cache is warm more often than here.
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
from sdf.job import Job
from sdf.ledger import LedgerView, read_answers, read_ledger
from sdf.manifest import ALL
from sdf.money.prices import Tariff, tariff
from sdf.plan import Plan, n_rounds
from sdf.records import AnswerEntry, Receipt, RoundReceipt
from sdf.storage import RunDir

PATH = "forecast.json"

N_RESAMPLES = 2_000
# The 5th and the 95th of a hundred.
LOW, HIGH = 5, 95

# Dollars of an answer; None where the price is not known.
CostOf = Callable[[AnswerEntry], float | None]
Floats = npt.NDArray[np.float64]

NOTHING: Mapping[str, int] = {}


class Interval(NamedTuple):
    """An estimate with its 90 % interval; the bounds are equal to it where one sample says nothing of spread."""

    mean: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        return Interval(*(each * factor for each in self))

    def plus(self, amount: float) -> Interval:
        return Interval(*(each + amount for each in self))


@dataclass(frozen=True, slots=True)
class Sample:
    """What one brief took: accepted tokens (0 when it was rejected), tokens the model wrote for it, dollars."""

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
    samples = [
        _sample(0 if receipt.reason else receipt.n_tokens, asked.answers.get(unit, ()), cost_of)
        for unit, receipt in asked.receipts.items()
        if receipt.genre == key
    ]
    lengths = np.array([each.n_tokens for each in samples if each.n_tokens], dtype=np.float64)
    wanted, accepted = ALL if target is None else round(target), wilson(len(lengths), len(samples))
    n_there, seed = plan.n_briefs(key), plan.job.recipe.seed
    totals = sampled_totals(samples, target, seed, n_there)
    if totals is None:
        return GenreForecast(key, len(samples), 0, wanted, None, accepted, None, None, None, n_there)
    rounds = [_sample(0, asked.answers.get(each.round, ()), cost_of) for each in asked.rounds if each.key.genre == key]
    totals = _with_rounds(plan, key, totals, rounds)
    return GenreForecast(
        key,
        len(samples),
        len(lengths),
        wanted,
        _interval(_mean(lengths, _picks(seed, len(lengths)))),
        accepted,
        totals.briefs,
        totals.output,
        totals.cost,
        n_there,
    )


def _sample(n_tokens: int, answers: Sequence[AnswerEntry], cost_of: CostOf) -> Sample:
    costs = [cost_of(entry) for entry in answers]
    known = [cost for cost in costs if cost is not None]
    cost = sum(known) if len(known) == len(costs) else None
    return Sample(n_tokens, sum(entry.answer.usage.output_tokens for entry in answers), cost)


class Totals(NamedTuple):
    """What a genre takes to reach its tokens. `cost` None where a price is not known."""

    briefs: Interval
    output: Interval
    cost: Interval | None


def sampled_totals(
    samples: Sequence[Sample], target: float | None, seed: int, n_there: int | None = None
) -> Totals | None:
    """Of `target` accepted tokens, or with None of all briefs; never of more briefs than there are. Without angle
    rounds. None when no sample was accepted."""
    n_tokens = np.array([each.n_tokens for each in samples], dtype=np.float64)
    if not n_tokens.any():
        return None
    picks = _picks(seed, len(samples))
    # A resample without one accepted document says that none will come; the shortest real one stands in for it.
    per_brief = np.maximum(_mean(n_tokens, picks), n_tokens[n_tokens > 0].min() / len(samples))
    wanted = np.full_like(per_brief, math.inf) if target is None else target / per_brief
    n_briefs = np.minimum(wanted, math.inf if n_there is None else n_there)
    n_output = n_briefs * _mean(np.array([each.n_output for each in samples], dtype=np.float64), picks)
    costs = _costs(samples)
    cost = None if costs is None else _interval(n_briefs * _mean(costs, picks))
    return Totals(_interval(n_briefs), _interval(n_output), cost)


def _with_rounds(plan: Plan, key: str, totals: Totals, rounds: Sequence[Sample]) -> Totals:
    """With the angle rounds that so many briefs take, at the mean of those that were asked."""
    if not rounds:
        return totals
    n_briefs, n_cells = math.ceil(totals.briefs.mean), len(plan.job.constitution.principles)
    n_of_one = n_rounds(plan.genres[key], plan, n_briefs, n_cells) / len(rounds)
    costs = _costs(rounds)
    return Totals(
        totals.briefs,
        totals.output.plus(n_of_one * sum(each.n_output for each in rounds)),
        totals.cost.plus(n_of_one * float(costs.sum())) if totals.cost is not None and costs is not None else None,
    )


def _costs(samples: Sequence[Sample]) -> Floats | None:
    """Dollars of each; None when one of them is not known."""
    known = [each.cost_usd for each in samples if each.cost_usd is not None]
    return np.array(known, dtype=np.float64) if len(known) == len(samples) else None


def _picks(seed: int, n: int) -> npt.NDArray[np.int64]:
    """Resamples of n places; the first is the sample itself."""
    picks = np.random.default_rng(seed % 2**63).integers(0, n, size=(N_RESAMPLES + 1, n))
    picks[0] = np.arange(n)
    return picks


def _mean(values: Floats, picks: npt.NDArray[np.int64]) -> Floats:
    return values[picks].mean(axis=1)


def _interval(resampled: Floats) -> Interval:
    low, high = np.percentile(resampled, [LOW, HIGH])
    return Interval(float(resampled[0]), float(low), float(high))


def together(parts: Sequence[Interval | None]) -> Interval | None:
    """The sum of estimates that are independent of each other; None where one of them is not known."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    mean = math.fsum(each.mean for each in known)
    below = math.hypot(*(each.mean - each.low for each in known))
    above = math.hypot(*(each.high - each.mean for each in known))
    return Interval(mean, mean - below, mean + above)


def wilson(n_accepted: int, n: int) -> Interval:
    """A share and its 90 % interval, which stays open where all or none of a few were accepted."""
    if not n:
        return Interval(0.0, 0.0, 1.0)
    z, share = 1.645, n_accepted / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


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
