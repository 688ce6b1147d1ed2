"""A forecast as a person reads it: dollars and hours by each road, with intervals; and afterwards, how it held."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sdf.forecast import Forecast, Interval, costs_of, forecast
from sdf.job import Job
from sdf.ledger import read_ledger
from sdf.manifest import ALL, Manifest
from sdf.plan import Plan
from sdf.providers import BATCHED
from sdf.recipe import IN_FLIGHT
from sdf.report.text import Row, table
from sdf.storage import RunDir

HOUR = 3_600.0


@dataclass(frozen=True, slots=True)
class ForecastReport:
    """A forecast with the roads it may go. `cost_usd` maps "online" and "in batches" to dollars, None where the price
    is not known; `hours` is of the road that was sampled, None when some answers were there already; `own_hours` is of
    engines that write `tokens_per_second` together."""

    forecast: Forecast
    n_per_genre: int
    n_requests: int
    cost_usd: Mapping[str, Interval | None]
    hours: float | None
    n_in_flight: int
    n_batches: int
    tokens_per_second: float | None
    own_hours: Interval | None


def forecast_report(
    job: Job, run_dir: RunDir, n: int, n_requests: int, seconds: float, tokens_per_second: float | None
) -> ForecastReport:
    """From the first `n` briefs of each genre, which the ledger holds; `n_requests` of theirs were asked just now, in
    so many seconds."""
    view = read_ledger(run_dir)
    found = forecast(job, run_dir, view, n, costs_of(job))
    roads = {"online": False, "in batches": True} if _sells_batches(job) else {"online": None}
    n_in_flight = job.recipe.n_in_flight * job.recipe.workers
    n_sampled = sum(each.n_sampled for each in found.genres)
    # The pace is only known of answers that were all waited for just now, by a road that answers at once.
    paced = n_requests == view.n_answers and not _asks_in_batches(job)
    return ForecastReport(
        found,
        n,
        n_requests,
        {
            road: forecast(job, run_dir, view, n, costs_of(job, in_batches=kind)).cost_usd
            for road, kind in roads.items()
        },
        hours(seconds, n_sampled, n_in_flight, found.n_briefs.mean) if paced and found.n_briefs else None,
        n_in_flight,
        n_batches(job, found),
        tokens_per_second,
        own_hours(found, tokens_per_second) if tokens_per_second else None,
    )


def _sells_batches(job: Job) -> bool:
    return all(job.recipe.backend_of(seat).provider.startswith("anthropic") for seat in job.seats)


def _asks_in_batches(job: Job) -> bool:
    return any(job.recipe.backend_of(seat).provider in BATCHED for seat in job.seats)


def n_batches(job: Job, foretold: Forecast) -> int:
    """How many batches follow one another, were all asked in batches: the rounds of a lane, then the steps of a
    document, of as many documents as fit at once."""
    at_once = (job.recipe.in_flight or max(IN_FLIGHT.values())) * job.recipe.workers
    n_briefs = 0 if foretold.n_briefs is None else foretold.n_briefs.mean
    plan, depth = Plan(job), 1
    for genre, each in zip(job.genres, foretold.genres, strict=True):
        n_of_genre = math.ceil(each.n_briefs.mean) if each.n_briefs is not None else 1
        place = plan.round_of(genre.key, min(n_of_genre, plan.n_briefs(genre.key) or n_of_genre) - 1)
        depth = max(depth, len(genre.brief_steps) + (place[0].number + 1 if place is not None else 0))
    n_steps = max(len(genre.brief_steps) for genre in job.genres)
    return depth + n_steps * max(0, math.ceil(n_briefs / at_once) - 1)


def hours(seconds: float, n_documents: int, n_in_flight: int, n_briefs: float) -> float:
    """Of a corpus, when `n_documents` at once took so many seconds, `n_in_flight` fit at once, and it takes
    `n_briefs`."""
    at_once = min(n_documents, n_in_flight)
    return seconds * at_once / n_documents * n_briefs / n_in_flight / HOUR


def own_hours(foretold: Forecast, tokens_per_second: float) -> Interval | None:
    found = foretold.n_output
    return None if found is None else Interval(*(each / tokens_per_second / HOUR for each in found))


def forecast_text(report: ForecastReport) -> str:
    found = report.forecast
    rows: list[Row] = [("genre", "sampled", "accepted", "tokens a document", "briefs", "written tokens", "cost")]
    for each in found.genres:
        accepted = f"{each.accepted.mean:.0%} ({each.accepted.low:.0%} to {each.accepted.high:.0%})"
        lengths, briefs, written = map(number, (each.tokens_per_document, each.n_briefs, each.n_output))
        rows.append((each.key, str(each.n_sampled), accepted, lengths, briefs, written, dollars(each.cost_usd)))
    rows.append(("all", "", "", "", number(found.n_briefs), number(found.n_output), dollars(found.cost_usd)))
    head = (
        f"forecast for {_wanted(found)}, from the first {report.n_per_genre} documents of each genre "
        f"({report.n_requests:,} requests; intervals hold 90 %)"
    )
    return "\n".join([head, "", table(rows), "", *_roads(report)])


def _roads(report: ForecastReport) -> list[str]:
    lines: list[str] = []
    for road, cost in report.cost_usd.items():
        time = ""
        if road == "online" and report.hours is not None:
            time = f", about {report.hours:,.1f} hours with {report.n_in_flight:,} documents in flight"
        if road == "in batches":
            time = f", {report.n_batches} batches one after another: mostly an hour each, a day at most"
        lines.append(f"{road}: {dollars(cost)}{time}")
    if report.own_hours is not None:
        lines.append(
            f"own engines at {report.tokens_per_second:,.0f} tokens a second: {number(report.own_hours)} hours"
        )
    if any(each.n_accepted == 0 for each in report.forecast.genres):
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
    if foretold.target_tokens != manifest.target_tokens or foretold.n_briefs is None:
        return f"forecast: made for {_wanted(foretold)}, so there is nothing to compare with"
    n_briefs = manifest.n_documents + sum(manifest.rejected.values())
    cost = "" if spent_usd is None else f"; {dollars(foretold.cost_usd)} forecast, ${spent_usd:,.2f} spent"
    return f"briefs: {number(foretold.n_briefs)} forecast, {n_briefs:,} taken{cost}"
