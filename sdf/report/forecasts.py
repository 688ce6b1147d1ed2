"""A forecast as a person reads it: dollars and hours by each road, with intervals; and afterwards, how it held."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sdf.estimates import Interval, together
from sdf.forecast import NOTHING, Asked, Forecast, GenreForecast, costs_of, forecast
from sdf.job import Job
from sdf.manifest import ALL, Manifest
from sdf.plan import Plan
from sdf.providers import BATCHED
from sdf.recipe import IN_FLIGHT
from sdf.report.plans import PlanReport
from sdf.report.terminal import plain_line
from sdf.report.text import Row, table

HOUR = 3_600.0

ONLINE, IN_BATCHES = "online", "in batches"


@dataclass(frozen=True, slots=True)
class Unsampled:
    """A stage of which nothing could be asked yet, and why; its plan tells what the genres' declared lengths do."""

    why: str
    plan: PlanReport


@dataclass(frozen=True, slots=True)
class ForecastReport:
    """A forecast with the roads it may go. `cost_usd` maps "online" and "in batches" to dollars, None where the price
    is not known; `hours` is of the road that was sampled, None when some answers were there already; `own_hours` is of
    engines that write `tokens_per_second` together.

    `stages` holds the forecast of each stage that was sampled, whose sum this is, and is empty without stages.
    """

    forecast: Forecast
    n_per_genre: int
    n_requests: int
    cost_usd: Mapping[str, Interval | None]
    hours: Interval | None
    n_in_flight: int
    n_batches: int
    tokens_per_second: float | None
    own_hours: Interval | None
    stages: Mapping[str, ForecastReport] = field(default_factory=dict[str, "ForecastReport"])
    unsampled: Mapping[str, Unsampled] = field(default_factory=dict[str, Unsampled])


@dataclass(frozen=True, slots=True)
class Effort:
    """What it took to have the first `n` briefs of each genre: so many requests asked just now, in so many seconds."""

    n: int
    n_requests: int
    seconds: float


def forecast_report(
    job: Job, asked: Asked, effort: Effort, speed: float | None, expected: Mapping[str, int] = NOTHING
) -> ForecastReport:
    """From what was asked. `speed` is what own engines write together, in tokens a second; `expected` are rows of
    sources that are not made yet, by genre."""
    found = forecast(job, asked, costs_of(job), expected)
    roads = {ONLINE: False, IN_BATCHES: True} if _sells_batches(job) else {ONLINE: None}
    n_in_flight = job.recipe.n_in_flight * job.recipe.workers
    # The pace is only known of answers that were all waited for just now, by a road that answers at once.
    paced = effort.n_requests == asked.n_answers and not _asks_in_batches(job)
    return ForecastReport(
        found,
        effort.n,
        effort.n_requests,
        {road: forecast(job, asked, costs_of(job, in_batches=kind), expected).cost_usd for road, kind in roads.items()},
        _hours(found, effort.seconds, n_in_flight) if paced else None,
        n_in_flight,
        _n_batches(job, found),
        speed,
        found.n_output.times(1 / speed / HOUR) if speed and found.n_output else None,
    )


def report_of_stages(
    stages: Mapping[str, ForecastReport], unsampled: Mapping[str, Unsampled], n: int, speed: float | None
) -> ForecastReport:
    """The sum of the stages that were sampled, made one after another."""
    every = list(stages.values())

    def total(part: Callable[[ForecastReport], Interval | None]) -> Interval | None:
        return together([part(each) for each in every])

    roads = [road for road in (ONLINE, IN_BATCHES) if every and all(road in each.cost_usd for each in every)]
    return ForecastReport(
        Forecast(
            recipe_hash="",
            target_tokens=sum(each.forecast.target_tokens for each in every),
            genres=tuple(genre for each in every for genre in each.forecast.genres),
            n_briefs=total(lambda each: each.forecast.n_briefs),
            n_output=total(lambda each: each.forecast.n_output),
            cost_usd=total(lambda each: each.forecast.cost_usd),
        ),
        n,
        sum(each.n_requests for each in every),
        {road: together([each.cost_usd[road] for each in every]) for road in roads},
        total(lambda each: each.hours),
        max((each.n_in_flight for each in every), default=0),
        sum(each.n_batches for each in every),
        speed,
        total(lambda each: each.own_hours),
        dict(stages),
        dict(unsampled),
    )


def _sells_batches(job: Job) -> bool:
    return all(job.recipe.backend_of(seat).provider.startswith("anthropic") for seat in job.seats)


def _asks_in_batches(job: Job) -> bool:
    return any(job.recipe.backend_of(seat).provider in BATCHED for seat in job.seats)


def _n_batches(job: Job, foretold: Forecast) -> int:
    """How many batches follow one another, were all asked in batches: the rounds of a lane, then the steps of a
    document, of as many documents as fit at once."""
    at_once = (job.recipe.in_flight or max(IN_FLIGHT.values())) * job.recipe.workers
    n_briefs = 0 if foretold.n_briefs is None else foretold.n_briefs.mean
    plan, depth = Plan(job), 1
    for genre, each in zip(job.genres, foretold.genres, strict=True):
        last = 0 if each.n_briefs is None else math.ceil(each.n_briefs.mean) - 1
        place = plan.round_of(genre.key, last)
        depth = max(depth, len(genre.brief_steps) + (place[0].number + 1 if place is not None else 0))
    n_steps = max(len(genre.brief_steps) for genre in job.genres)
    return depth + n_steps * max(0, math.ceil(n_briefs / at_once) - 1)


def _hours(found: Forecast, seconds: float, n_in_flight: int) -> Interval | None:
    """Of all briefs, `n_in_flight` at once, when those that were sampled took so many seconds at once."""
    if found.n_briefs is None:
        return None
    n_sampled = sum(each.n_sampled for each in found.genres)
    return found.n_briefs.times(seconds * min(n_sampled, n_in_flight) / n_sampled / n_in_flight / HOUR)


def forecast_text(report: ForecastReport) -> str:
    found = report.forecast
    head = (
        f"forecast for {_wanted(found)}, from the first {report.n_per_genre} documents of each genre "
        f"({report.n_requests:,} requests; intervals hold 90 %)"
    )
    end = "\n".join([*_roads(report), *_remarks(found.genres)])
    if report.stages or report.unsampled:
        return "\n\n".join([head, *_stages_text(report), end]).rstrip()
    return "\n\n".join([head, table([*_genre_rows(found), ("all", "", "", "", *_totals(found))]), end])


def _stages_text(report: ForecastReport) -> Iterator[str]:
    for name, each in report.stages.items():
        yield f"stage {name}, {_wanted(each.forecast)}\n{table(_genre_rows(each.forecast))}"
    for name, each in report.unsampled.items():
        yield _unsampled_text(name, each)
    if report.stages:
        without = f" but {', '.join(report.unsampled)}" if report.unsampled else ""
        rows: list[Row] = [(f"all stages{without}", "briefs", "written tokens", "cost")]
        rows += [(name, *_totals(each.forecast)) for name, each in report.stages.items()]
        yield table([*rows, ("all", *_totals(report.forecast))])


def _genre_rows(found: Forecast) -> list[Row]:
    rows: list[Row] = [("genre", "sampled", "accepted", "tokens a document", "briefs", "written tokens", "cost")]
    for each in found.genres:
        accepted = f"{each.accepted.mean:.0%} ({each.accepted.low:.0%} to {each.accepted.high:.0%})"
        lengths, briefs, written = map(number, (each.tokens_per_document, each.n_briefs, each.n_output))
        rows.append((each.key, str(each.n_sampled), accepted, lengths, briefs, written, dollars(each.cost_usd)))
    return rows


def _totals(found: Forecast) -> tuple[str, str, str]:
    return number(found.n_briefs), number(found.n_output), dollars(found.cost_usd)


def _unsampled_text(name: str, found: Unsampled) -> str:
    plan = found.plan
    return plain_line(
        f"stage {name}, {plan.n_tokens:,} tokens: not sampled ({found.why}); by declared lengths alone "
        f"{plan.n_documents:,} documents and {plan.n_requests:,} requests, at a cost that is not known"
    )


def _roads(report: ForecastReport) -> list[str]:
    lines: list[str] = []
    for road, cost in report.cost_usd.items():
        time = ""
        if road == ONLINE and report.hours is not None:
            time = f", {number(report.hours)} hours with {report.n_in_flight:,} documents in flight"
        if road == IN_BATCHES:
            time = f", {report.n_batches} batches one after another: mostly an hour each, a day at most"
        lines.append(f"{road}: {dollars(cost)}{time}")
    if report.own_hours is not None:
        lines.append(
            f"own engines at {report.tokens_per_second:,.0f} tokens a second: {number(report.own_hours)} hours"
        )
    return lines


def _remarks(genres: Sequence[GenreForecast]) -> list[str]:
    lines = [
        f"{each.key} will probably fall short: its {each.n_there:,} briefs end before its {each.target_tokens:,} tokens"
        for each in genres
        if each.falls_short
    ]
    if any(each.n_accepted == 0 for each in genres):
        lines.append(
            "a genre without one accepted document has no forecast: `sdf show` tells what became of its briefs"
        )
    return lines


def number(found: Interval | None) -> str:
    if found is None:
        return "unknown"
    digits = 1 if found.mean < 100 else 0
    return f"{found.mean:,.{digits}f} ({found.low:,.{digits}f} to {found.high:,.{digits}f})"


def dollars(found: Interval | None) -> str:
    return "cost unknown" if found is None else f"${found.mean:,.2f} ({found.low:,.2f} to {found.high:,.2f})"


def _wanted(found: Forecast) -> str:
    return "all there is" if found.target_tokens == ALL else f"{found.target_tokens:,} tokens"


def comparison(foretold: Forecast, manifest: Manifest, spent_usd: float | None) -> str:
    """How a finished corpus compares with what was forecast for it."""
    if foretold.target_tokens != manifest.target_tokens:
        return f"forecast: made for {_wanted(foretold)}, so there is nothing to compare with"
    if foretold.n_briefs is None:
        return "forecast: of a genre no sample was accepted, so there is nothing to compare with"
    n_briefs = manifest.n_documents + sum(manifest.rejected.values())
    cost = "" if spent_usd is None else f"; {dollars(foretold.cost_usd)} forecast, ${spent_usd:,.2f} spent"
    return f"briefs: {number(foretold.n_briefs)} forecast, {n_briefs:,} taken{cost}"
