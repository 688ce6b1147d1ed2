"""The commands that make a corpus, or look ahead at one."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from sdf.cli.app import Directory, Out, Recipe_, Result, Reuse, command
from sdf.cli.flags import FLAGS, FOLDING, Overrides
from sdf.cli.stopping import EXIT_SIGNAL, leaving, say, signals

if TYPE_CHECKING:
    from sdf.manifest import Manifest
    from sdf.story import Outcome

EXIT_UNMET = 3
PACE = "--tokens-per-second"


@command(FLAGS)
def plan(
    recipe: Recipe_,
    overrides: Overrides,
    reuse: Reuse = None,
    forecast: Annotated[
        int | None,
        typer.Option(min=1, max=1_000, help="Write so many documents of each genre, and tell what all take."),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="Where a forecast keeps what it wrote, for the run.")] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(help="What engines of your own write together, for the hours of a forecast.")
    ] = None,
) -> Result:
    """What would be made: genres, shares, documents, tokens. Free, but for what --forecast writes."""
    from sdf import api
    from sdf.report.text import plan_text

    _check_pace(tokens_per_second, forecast)
    _check_forecast(out, reuse, forecast)
    if forecast is not None:
        return _forecast(recipe, forecast, out, tokens_per_second, overrides)
    report = api.plan(recipe, reuse=reuse or [], **overrides)
    return Result(report, plan_text(report))


@command(FLAGS)
def run(
    recipe: Recipe_,
    out: Out,
    overrides: Overrides,
    reuse: Reuse = None,
) -> Result:
    """Makes a corpus, or goes on with it; the same command again resumes."""
    from sdf import api
    from sdf.report.progress import reporter

    stop = api.Stop()
    with leaving(out) as last, signals(stop, last) as caught, reporter(sys.stderr) as watched:
        last.tells = watched.tell
        outcome = api.run(recipe, out, reuse=reuse or [], stop=stop, on_progress=last.tell, say=say, **overrides)
    found = _outcome(out, outcome, EXIT_SIGNAL + caught[0] if caught else None)
    if outcome.finished and (held := api.compared(out)):
        found = replace(found, text=f"{found.text}\n{held}")
    return found


@command(FLAGS)
def preflight(
    recipe: Recipe_,
    overrides: Overrides,
    out: Annotated[str | None, typer.Option("--out", help="The directory to look at too.")] = None,
) -> Result:
    """What can be found out before paying: keys, models, endpoints, context lengths, the directory. Free."""
    from sdf import api
    from sdf.report.terminal import plain

    found = api.preflight(recipe, out=out, **overrides)
    lines = [f"{'ok  ' if each.error is None else 'FAIL'}  {each.text}" for each in found]
    failed = [each.error for each in found if each.error is not None]
    data = [{"text": each.text, "ok": each.error is None} for each in found]
    text = "\n".join(lines) or "nothing to look at: the offline provider needs no key, model or network"
    return Result({"findings": data}, plain(text), failed[0].exit_code if failed else 0)


@command(FOLDING)
def assemble(
    directory: Directory,
    out: Out,
    overrides: Overrides,
    exclude: Annotated[
        list[str] | None, typer.Option(help="genre=…, principle=…, model=… or axis.NAME=…; repeatable.")
    ] = None,
    match: Annotated[str | None, typer.Option(help="Keep exactly the briefs that this corpus accepted.")] = None,
) -> Result:
    """Another corpus from the answers of DIR, free: other checks, mix, shard size, tokenizer."""
    from sdf import api

    outcome = api.assemble(directory, out, exclude=exclude or [], match=match, **overrides)
    if match is not None or (exclude and "tokens" not in overrides):
        # What matches another corpus, or is cut from one, has no quota of its own.
        outcome = replace(outcome, finished=True, unmet={})
    result = _outcome(out, outcome, None)
    if outcome.finished:
        return result
    short = "the ledger ends before the target: `sdf run` takes it further, --tokens asks for less"
    return replace(result, text=f"{result.text}\n{short}")


def _check_pace(tokens_per_second: float | None, forecast: int | None) -> None:
    if tokens_per_second is None:
        return
    if not (math.isfinite(tokens_per_second) and tokens_per_second > 0):
        raise typer.BadParameter(f"{tokens_per_second:g} is no pace; write tokens above 0", param_hint=PACE)
    if forecast is None:
        raise typer.BadParameter("only a forecast tells hours; add --forecast 3 --out DIR", param_hint=PACE)


def _check_forecast(out: str | None, reuse: list[str] | None, forecast: int | None) -> None:
    """No flag without a word that what was asked for does not listen to."""
    if out is not None and forecast is None:
        raise typer.BadParameter("only a forecast writes anything; add --forecast 3", param_hint="--out")
    if reuse and forecast is not None:
        raise typer.BadParameter("a forecast asks for all anew; leave --reuse or --forecast out", param_hint="--reuse")


def _forecast(recipe: str, n: int, out: str | None, tokens_per_second: float | None, overrides: Overrides) -> Result:
    from sdf import api
    from sdf.report.forecasts import forecast_text

    if out is None:
        raise typer.BadParameter("a forecast writes documents; name the directory of the run", param_hint="--out")
    stop = api.Stop()
    with leaving(out) as last, signals(stop, last) as caught:
        report = api.forecast(
            recipe, n, out, tokens_per_second=tokens_per_second, stop=stop, on_progress=last.tell, say=say, **overrides
        )
    if caught:
        text = "stopped before it was whole; what was written is kept, and the same command goes on"
        return Result(report, text, EXIT_SIGNAL + caught[0])
    return Result(report, forecast_text(report))


def _outcome(out: str, outcome: Outcome, exit_code: int | None) -> Result:
    if exit_code is None:
        exit_code = EXIT_UNMET if outcome.unmet or not outcome.finished else 0
    lines = [_committed(f"{out}: {stage}", each.manifest) for stage, each in outcome.stages.items()]
    lines = lines or [_committed(out, outcome.manifest)]
    if outcome.manifest is not None or outcome.stages:
        lines.append(f"{outcome.n_requests:,} requests; {outcome.n_overshoot:,} briefs kept for a larger target")
    lines += [f"{genre} fell short: {reason}" for genre, reason in outcome.unmet.items()]
    from sdf.report.costs import outcome_lines
    from sdf.report.terminal import plain

    lines += outcome_lines(outcome)

    return Result(outcome, plain("\n".join(lines)), exit_code)


def _committed(what: str, made: Manifest | None) -> str:
    if made is None:
        return f"{what}: nothing is committed yet"
    counts = f"{made.n_tokens:,} tokens, {made.n_documents:,} documents, {len(made.shards)} shards"
    return f"{what}: {counts}, {made.state}"


@command(FLAGS)
def preview(
    recipe: Recipe_,
    overrides: Overrides,
    genre: Annotated[str, typer.Option(help="The genre to look at.")],
    n: Annotated[int, typer.Option("-n", min=1, max=100, help="How many briefs.")] = 3,
    out: Annotated[str | None, typer.Option("--out", help="Keep the answers there, for `sdf run` to use.")] = None,
) -> Result:
    """The first briefs of a genre for real: prompts as rendered, and what comes back."""
    from sdf import api
    from sdf.report.text import trace_text

    traces = api.preview(recipe, genre, n, out=out, **overrides)
    return Result({"briefs": traces}, "\n\n".join(map(trace_text, traces)))
