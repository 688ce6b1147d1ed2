"""What a corpus will cost, from a few of its documents written for real: tokens, yield, dollars, hours, with intervals.

The documents are the first of each genre, so the run that follows finds them paid. Intervals are 90 %, by resampling
the briefs of each genre (seeded): they hold what differs from document to document, not what a larger corpus meets
that a small one cannot: near-duplicates grow with size, and a cache is warm more often than here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from sdf.errors import DamagedError, Missing
from sdf.job import Job
from sdf.ledger import LedgerView, read_answers
from sdf.manifest import ALL
from sdf.money.prices import Tariff, tariff
from sdf.plan import Plan, n_rounds
from sdf.records import AnswerEntry
from sdf.storage import RunDir

PATH = "forecast.json"

N_RESAMPLES = 2_000
# The 5th and the 95th of a hundred.
LOW, HIGH = 5, 95

# Dollars of an answer; None where the price is not known.
CostOf = Callable[[AnswerEntry], float | None]
Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with its 90 % interval; the bounds are equal to it where one sample says nothing of spread."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What one brief took: accepted tokens (0 when it was rejected), tokens the model wrote for it, dollars."""

    n_tokens: int
    n_output: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class GenreForecast:
    """What a genre's share of the target takes. None where no sampled brief was accepted, or no price is known."""

    key: str
    n_sampled: int
    n_accepted: int
    target_tokens: int
    tokens_per_document: Interval | None
    accepted: Interval
    n_briefs: Interval | None
    n_output: Interval | None
    cost_usd: Interval | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """The whole corpus. `cost_usd` is at the prices that were paid (online, or in batches); hours come from `Pace`."""

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


def forecast(job: Job, run_dir: RunDir, view: LedgerView, n: int, cost_of: CostOf) -> Forecast:
    """From the first `n` briefs of each genre, which the ledger holds."""
    plan = Plan(job)
    samples, round_costs = _sampled(plan, run_dir, view, n, cost_of)
    total = sum(job.recipe.mix.values())
    drawn: list[_Drawn] = []
    for genre in job.genres:
        target = None if job.recipe.tokens == ALL else job.recipe.tokens * job.recipe.mix[genre.key] / total
        drawn.append(_draw(job, plan, genre.key, target, samples[genre.key], round_costs[genre.key]))
    whole = all(each.n_briefs is not None for each in drawn)
    return Forecast(
        job.hash,
        job.recipe.tokens,
        tuple(each.forecast for each in drawn),
        _summed([each.n_briefs for each in drawn]) if whole else None,
        _summed([each.n_output for each in drawn]) if whole else None,
        _summed([each.cost for each in drawn]),
    )


def _sampled(
    plan: Plan, run_dir: RunDir, view: LedgerView, n: int, cost_of: CostOf
) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
    """The briefs' samples, and those of angle rounds, by genre. Every answer counts, those no step could use too."""
    genres = {plan.brief(receipt.genre, receipt.index).id: receipt for receipt in view.receipts if receipt.index < n}
    units: dict[str, list[AnswerEntry]] = {}
    for entry in read_answers(run_dir, [location for _, location in view.keys]):
        units.setdefault(entry.unit, []).append(entry)
    samples: dict[str, list[Sample]] = {key: [] for key in plan.genres}
    rounds: dict[str, list[Sample]] = {key: [] for key in plan.genres}
    for unit, receipt in genres.items():
        accepted = 0 if receipt.reason else receipt.n_tokens
        samples[receipt.genre].append(_sample(accepted, units.get(unit, ()), cost_of))
    for each in view.rounds:
        if each.key.genre in rounds:
            rounds[each.key.genre].append(_sample(0, units.get(each.round, ()), cost_of))
    return samples, rounds


def _sample(n_tokens: int, answers: Sequence[AnswerEntry], cost_of: CostOf) -> Sample:
    costs = [cost_of(entry) for entry in answers]
    known = [cost for cost in costs if cost is not None]
    cost = sum(known) if len(known) == len(costs) else None
    return Sample(n_tokens, sum(entry.answer.usage.output_tokens for entry in answers), cost)


class _Drawn(NamedTuple):
    """A genre's forecast, and its resampled totals."""

    forecast: GenreForecast
    n_briefs: Floats | None
    n_output: Floats | None
    cost: Floats | None


class Totals(NamedTuple):
    """What a genre takes to reach its tokens. The arrays are resampled; their first is of the samples themselves."""

    briefs: Interval
    of_briefs: Floats
    of_output: Floats
    of_cost: Floats | None

    @property
    def cost(self) -> Interval | None:
        return None if self.of_cost is None else _interval(self.of_cost)


def sampled_totals(
    samples: Sequence[Sample], target: float | None, seed: int, n_rows: int | None = None
) -> Totals | None:
    """Of `target` accepted tokens, or with None of all `n_rows` briefs; without angle rounds. None when no sample was
    accepted."""
    n_tokens = np.array([each.n_tokens for each in samples], dtype=np.float64)
    if not n_tokens.any():
        return None
    picks = _picks(seed, len(samples))
    # A resample without one accepted document says that none will come; the shortest real one stands in for it.
    per_brief = np.maximum(_mean(n_tokens, picks), n_tokens[n_tokens > 0].min() / len(samples))
    n_briefs = np.full_like(per_brief, n_rows or 0) if target is None else target / per_brief
    n_output = n_briefs * _mean(np.array([each.n_output for each in samples], dtype=np.float64), picks)
    costs = _costs(samples)
    return Totals(_interval(n_briefs), n_briefs, n_output, None if costs is None else n_briefs * _mean(costs, picks))


def _draw(
    job: Job, plan: Plan, key: str, target: float | None, samples: Sequence[Sample], rounds: Sequence[Sample]
) -> _Drawn:
    wanted = ALL if target is None else round(target)
    seed = job.recipe.seed
    lengths = np.array([each.n_tokens for each in samples if each.n_tokens], dtype=np.float64)
    accepted = wilson(len(lengths), len(samples))
    totals = sampled_totals(samples, target, seed, plan.n_briefs(key))
    if totals is None:
        bare = GenreForecast(key, len(samples), 0, wanted, None, accepted, None, None, None)
        return _Drawn(bare, None, None, None)
    n_of_rounds = n_rounds(plan.genres[key], plan, math.ceil(totals.briefs.mean), len(job.constitution.principles))
    of_rounds = _costs(rounds)
    cost = None
    if totals.of_cost is not None and of_rounds is not None:
        cost = totals.of_cost + n_of_rounds * (of_rounds.mean() if len(of_rounds) else 0.0)
    found = GenreForecast(
        key,
        len(samples),
        len(lengths),
        wanted,
        _interval(_mean(lengths, _picks(seed, len(lengths)))),
        accepted,
        totals.briefs,
        _interval(totals.of_output),
        _interval(cost) if cost is not None else None,
    )
    return _Drawn(found, totals.of_briefs, totals.of_output, cost)


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


def _summed(parts: Sequence[Floats | None]) -> Interval | None:
    """Genres are resampled independently of each other."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    rng = np.random.default_rng(0)
    mixed = [np.concatenate([part[:1], rng.permutation(part[1:])]) for part in known]
    return _interval(np.sum(mixed, axis=0))


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
