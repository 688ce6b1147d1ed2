"""What a corpus will cost, from a few of its documents written for real: tokens, yield, dollars, hours, with intervals.

The documents are the first of each genre, so the run that follows finds them paid. The intervals of `estimates` hold
what differs from document to document, not what a larger corpus meets that a small one cannot: near-duplicates grow
with size, and a cache is warm more often than here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from sdf.errors import DamagedError, Missing
from sdf.estimates import Drawn, Found, Interval, Sample, drawn, share, together
from sdf.generate import NO_ANGLE
from sdf.job import Job
from sdf.ledger import read_answers, read_ledger
from sdf.manifest import ALL
from sdf.money.prices import Tariff, tariff
from sdf.plan import Plan, n_rounds
from sdf.records import AnswerEntry, Location, Receipt, RoundReceipt, Usage
from sdf.storage import RunDir

PATH = "forecast.json"

# Dollars of an answer; None where the price is not known.
CostOf = Callable[[AnswerEntry], float | None]

NOTHING: Mapping[str, int] = {}


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
    """Prices as they were paid, each answer by the road it came; or as they would be, all in batches or none. Where no
    usage was told, what was set aside and paid is all there is."""
    tariffs: dict[str, Tariff] = {}
    for seat in job.seats:
        backend, model = job.recipe.backend_of(seat), job.recipe.model_of(seat)
        found = tariff(job.prices, backend.provider, dict(backend.settings), model)
        tariffs[model] = found if in_batches is None else found._replace(batch=in_batches)

    def cost(entry: AnswerEntry) -> float | None:
        if entry.cost_usd is not None and (in_batches is None or entry.answer.usage == Usage()):
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
    receipts = {plan.brief(receipt.genre, receipt.index).id: receipt for receipt in view.receipts if receipt.index < n}
    units = receipts.keys() | {each.round for each in view.rounds}
    found = {entry.key: entry for entry in _answers(run_dir, [place for _, place in view.keys]) if entry.unit in units}
    for other in reused:
        paid = [place for key, place in read_ledger(other).keys if key in found]
        found |= {entry.key: replace(entry, unit=found[entry.key].unit) for entry in _answers(other, paid)}
    answers: dict[str, list[AnswerEntry]] = {}
    for entry in found.values():
        answers.setdefault(entry.unit, []).append(entry)
    return Asked(receipts, view.rounds, answers, view.n_answers)


def _answers(run_dir: RunDir, places: Sequence[Location]) -> Iterator[AnswerEntry]:
    """Part by part: where a run has gone on since, a ledger holds more than memory does."""
    for _, of_part in groupby(sorted(places), key=lambda place: place.part):
        yield from read_answers(run_dir, list(of_part))


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
        accepted = share(Found(0, len(receipts)))
        return GenreForecast(key, len(receipts), 0, wanted, None, accepted, None, None, None, n_there)
    rounds = [_sample(0, asked.answers.get(each.round, ()), cost_of) for each in asked.rounds if each.key.genre == key]
    briefs, output, cost = _with_rounds(plan, key, found, rounds)
    return GenreForecast(
        key, len(receipts), n_accepted, wanted, found.length, found.accepted, briefs, output, cost, n_there
    )


def _sample(n_tokens: int, answers: Sequence[AnswerEntry], cost_of: CostOf) -> Sample:
    costs = [cost_of(entry) for entry in answers]
    known = [cost for cost in costs if cost is not None]
    cost = math.fsum(known) if len(known) == len(costs) else None
    return Sample(n_tokens, sum(entry.answer.usage.output_tokens for entry in answers), cost)


def _angles_found(rounds: Sequence[RoundReceipt]) -> Found | None:
    """The angles that were found, of all genres, as a number of rounds: those of one round come and fail together."""
    angles = [angle is not None for each in rounds for angle in each.angles]
    return Found(len(rounds) * sum(angles) / len(angles), len(rounds)) if angles else None


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
