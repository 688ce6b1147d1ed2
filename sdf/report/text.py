"""Reports as text for a terminal: plain lines and aligned columns, no colour, nothing that steers a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sdf.genres import Genre, Step
from sdf.grants.spent import cost_line, dollars
from sdf.manifest import ALL
from sdf.providers.batch_log import UnderWay
from sdf.records import Answer, Usage
from sdf.report.corpus import Count, GenreStatus, Inspection, Status
from sdf.report.costs import cache_line
from sdf.report.plans import AxisPlan, PlanReport, axes_of
from sdf.report.terminal import plain, plain_line
from sdf.report.trace import StepTrace, Trace

Row = Sequence[object]

# Principles that `inspect` prints; --json has all.
N_PRINCIPLES = 12

# Genres up to which a plan prints their axes; --json has all.
N_GENRES = 4


def table(rows: Iterable[Row]) -> str:
    """Columns two spaces apart; numbers to the right, with thousands separated."""
    shown = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))] if shown else []
    numeric = [all(map(_is_number, (row[column] for row in shown[1:]))) for column in range(len(widths))]
    return "\n".join(
        "  ".join(_padded(*cell) for cell in zip(row, widths, numeric, strict=True)).rstrip() for row in shown
    )


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else plain_line(str(value))


def _is_number(text: str) -> bool:
    return text[:1].isdigit()


def _padded(text: str, width: int, numeric: bool) -> str:
    return text.rjust(width) if numeric else text.ljust(width)


def percent(share: float) -> str:
    return f"{share:.1%}"


def plan_text(report: PlanReport) -> str:
    if report.stages:
        head = table([("recipe", report.recipe), ("stages", len(report.stages)), *_expected(report)])
        return "\n\n".join([head, *(plan_text(stage) for stage in report.stages)])
    head = table(
        [
            ("recipe", report.recipe),
            (
                "constitution",
                f"{report.constitution} ({report.n_principles} principles, {report.constitution_hash[:12]})",
            ),
            ("models", _models_text(report)),
            ("tokenizer", report.tokenizer),
            *_expected(report),
        ]
    )
    genres: list[Row] = [("genre", "kind", "share", "tokens", "documents", "requests", "words", "prefix", "sequence")]
    for each in report.genres:
        words = f"{each.n_words[0]:,} to {each.n_words[1]:,}"
        sequence = "endless" if each.n_rows is None else f"{each.n_rows:,} briefs at most"
        counts = (each.n_tokens, each.n_documents, each.n_requests, words, f"{each.prefix_tokens:,} tokens", sequence)
        genres.append((each.key, each.kind, percent(each.share), *counts))
    if len(report.genres) > N_GENRES:
        axes = ["`sdf genres show NAME` lists the axes of a genre"]
    else:
        axes = ["axes, with the exact share of each value"]
        axes += [f"  {each.key}.{axis.name}: {_shares_text(axis)}" for each in report.genres for axis in each.axes]
    steps = [_steps_table(report), ""] if report.steps else []
    return "\n".join([head, "", table(genres), "", *steps, *axes])


def _models_text(report: PlanReport) -> str:
    """Each seat with its model; with its provider too, where they have several."""
    if len(set(report.providers.values())) == 1:
        models = ", ".join(f"{seat} {model}" for seat, model in report.models.items())
        return f"{models} ({report.providers[next(iter(report.providers))]})"
    return ", ".join(f"{seat} {model} ({report.providers[seat]})" for seat, model in report.models.items())


def _expected(report: PlanReport) -> list[Row]:
    counts = f"{report.n_documents:,} documents, {report.n_requests:,} requests, before rejections"
    target = f"all there is, about {report.n_tokens:,} tokens" if report.is_all else f"{report.n_tokens:,} tokens"
    return [("target", target), ("expected", counts)]


def _steps_table(report: PlanReport) -> str:
    about = "" if report.is_exact else "about "
    rows: list[Row] = [("genre", "step", "prompt", *(("answered", "to pay") if report.is_reusing else ()))]
    for each in report.steps:
        effect = f"left out: {each.stands} stands in its place" if each.stands is not None else each.effect
        rows.append((each.genre, each.step, effect, *((each.n_free, each.n_paid) if report.is_reusing else ())))
    if not any(each.effect == "asked anew" for each in report.steps) and any(each.stands for each in report.steps):
        return (
            f"{table(rows)}\nNo step reads what is left out: `sdf assemble DIR --ablate …` makes this arm for nothing."
        )
    if not report.is_reusing:
        return table(rows)
    n_free, n_paid = sum(each.n_free for each in report.steps), sum(each.n_paid for each in report.steps)
    paid = f"of the briefs that are settled there, {about}{n_free:,} requests are answered and {about}{n_paid:,} to pay"
    return f"{table(rows)}\n{paid}"


def _shares_text(axis: AxisPlan) -> str:
    return plain_line("; ".join(f"{value} {percent(share)}" for value, share in axis.shares.items()))


def status_text(status: Status) -> str:
    if status.stages:
        share = status.n_tokens / max(1, status.target_tokens)
        held = f"{status.n_tokens:,} of {status.target_tokens:,} tokens ({percent(share)}) of the stages begun"
        rows: list[Row] = [("directory", status.directory), ("stages", status.recipe), ("state", status.state)]
        of_stages = [batch for each in status.stages for batch in each.uncollected]
        rows += [("committed", held), *_cost_row(status)]
        rows += _uncollected([each for each in status.uncollected if each not in of_stages])
        return "\n\n".join([table(rows), *(status_text(_without_cap(each)) for each in status.stages)])
    facts: list[Row] = [
        ("directory", status.directory),
        ("recipe", status.recipe),
        ("state", f"{status.state}, {'held by ' + status.holder if status.holder else 'no run is writing it'}"),
        ("committed", _committed(status)),
        ("documents", f"{status.n_documents:,}, and {status.uncommitted:,} briefs settled beyond them"),
        ("rejected", _counts_text(status.rejected)),
        ("epoch", status.epoch),
    ]
    facts += [("answered", f"{model}: {_usage_text(usage)}") for model, usage in status.usage.items()]
    if status.rebilled != Usage():
        again = f" ({dollars(status.rebilled_usd)})" if status.rebilled_usd else ""
        facts.append(("re-billed", _usage_text(status.rebilled) + again))
    if (cached := cache_line(sum(status.usage.values(), Usage()))) is not None:
        facts.append(("cache", cached))
    facts += [*_cost_row(status), *_uncollected(status.uncollected)]
    facts += [("damaged", f"{path}; `sdf run` makes what it held again") for path in status.damaged]
    genres: list[Row] = [("genre", "share", "tokens", "target", "documents", "settled")]
    genres += [
        (each.key, percent(each.share), each.n_tokens, _wanted(each), each.n_documents, each.n_settled)
        for each in status.genres
    ]
    return f"{table(facts)}\n\n{table(genres)}"


def _without_cap(stage: Status) -> Status:
    """One cap binds all stages together."""
    return stage if stage.cost is None else replace(stage, cost=replace(stage.cost, cap=None))


def _cost_row(status: Status) -> list[Row]:
    if status.cost is None or not status.cost.is_worth_saying:
        return []
    return [("cost", cost_line(status.cost).removeprefix("cost "))]


def _uncollected(batches: Sequence[UnderWay]) -> list[Row]:
    return [
        ("batch", f"{each.batch or each.name}: {each.n_requests:,} requests not collected; `sdf run` collects them")
        for each in batches
    ]


def _committed(status: Status) -> str:
    if status.target_tokens == ALL:
        return f"{status.n_tokens:,} tokens of all there is"
    share = status.n_tokens / max(1, status.target_tokens)
    return f"{status.n_tokens:,} of {status.target_tokens:,} tokens ({percent(share)})"


def _wanted(genre: GenreStatus) -> str | int:
    return "all" if genre.target_tokens == ALL else genre.target_tokens


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def _usage_text(usage: Usage) -> str:
    cached = f", {usage.cache_read_tokens:,} read from a cache" if usage.cache_read_tokens else ""
    return f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out"


def inspection_text(inspection: Inspection) -> str:
    return "\n\n".join(_inspection_parts(inspection))


def _inspection_parts(inspection: Inspection) -> Iterator[str]:
    total = inspection.total
    if inspection.stages:
        yield plain_line(
            f"{inspection.directory}: {total.n_documents:,} documents, {total.n_tokens:,} tokens in stages"
        )
        for stage in inspection.stages:
            yield from _inspection_parts(stage)
        return
    yield plain_line(f"{inspection.directory}: {total.n_documents:,} documents, {total.n_tokens:,} tokens")
    yield _count_table("genre", inspection.genres, total)
    quantiles: list[Row] = [("tokens of a document", *map(percent, next(iter(inspection.quantiles.values()), {})))]
    quantiles += [(genre, *lengths.values()) for genre, lengths in inspection.quantiles.items()]
    if inspection.quantiles:
        yield table(quantiles)
    principles = sorted(inspection.principles.items(), key=lambda item: -item[1].n_tokens)
    n_empty = sum(not count.n_documents for _, count in principles)
    yield _count_table("principle", dict(principles[:N_PRINCIPLES]), total) + (
        f"\n… {len(principles)} principles in all, {n_empty} without a document; --json lists them"
    )
    for genre, axes in inspection.axes.items():
        for axis, values in axes.items():
            yield _count_table(f"{genre}.{axis}", values, inspection.genres[genre])
    rejected: list[Row] = [("rejected", "briefs", "for example")]
    rejected += [(reason, each.count, " ".join(each.examples)) for reason, each in inspection.rejected.items()]
    yield table(rejected) if inspection.rejected else "rejected: none"


def _count_table(what: str, counts: Mapping[str, Count], whole: Count) -> str:
    rows: list[Row] = [(what, "documents", "tokens", "of the tokens")]
    for name, count in counts.items():
        rows.append((name, count.n_documents, count.n_tokens, percent(count.n_tokens / max(1, whole.n_tokens))))
    return table(rows)


def trace_text(trace: Trace) -> str:
    """The story of a brief, in the order it happened."""
    facts: list[Row] = [
        ("id", trace.id),
        ("brief", f"{trace.genre} {trace.index:,}, {trace.n_words:,} words asked for"),
        ("principle", f"{trace.principle_title} ({trace.principle})"),
        *((f"axis {name}", value) for name, value in trace.axes.items()),
    ]
    if trace.row is not None:
        facts.append(("row", json.dumps(trace.row, ensure_ascii=False, default=str)))
    if trace.angle is not None:
        facts.append(("angle", trace.angle))
    facts.append(("outcome", _outcome(trace)))
    return "\n\n".join([table(facts), *map(_step_text, trace.steps), *_columns_text(trace)])


def _outcome(trace: Trace) -> str:
    if trace.shard is not None:
        return f"accepted, {trace.n_tokens:,} tokens, in {trace.shard}"
    if trace.reason is not None:
        return f"rejected: {trace.reason}" + (f" ({trace.detail})" if trace.detail else "")
    return f"usable, {trace.n_tokens:,} tokens; in no shard (not committed, or a duplicate)"


def _step_text(step: StepTrace) -> str:
    redraw = f", redraw {step.redraw}" if step.redraw else ""
    head = f"── {step.step}{redraw}: asked {step.model}, request {step.key[:12]}"
    prefix = f"[prefix {step.prefix_hash[:12]}, {step.n_prefix:,} characters]"
    messages = [f"{prefix}\n\n{message.role}:\n{message.content}" for message in step.messages[:1]]
    messages += [f"{message.role}:\n{message.content}" for message in step.messages[1:]]
    answer = _answer_text(step.answer, step.used) if step.answer else "── no answer was kept"
    return plain("\n\n".join([head, *messages, answer]))


def _answer_text(answer: Answer, used: bool) -> str:
    head = f"── {answer.model} answered ({answer.finish_reason}; {_usage_text(answer.usage)})"
    parts = [head + ("" if used else ", not usable"), answer.text]
    return "\n\n".join(parts + ([f"tool calls: {answer.tool_calls}"] if answer.tool_calls else []))


def _columns_text(trace: Trace) -> Iterator[str]:
    for name, value in (trace.columns or {}).items():
        text = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
        yield plain(f"── column {name}\n\n{text}")


def genre_text(genre: Genre) -> str:
    facts: list[Row] = [
        ("key", genre.key),
        ("kind", f"{genre.kind}, in the config {genre.config}"),
        ("about", genre.about),
        ("file", genre.path),
        ("words", f"{genre.n_words[0]:,} to {genre.n_words[1]:,}"),
        ("compared on", genre.dedup),
        *((f"axis {axis.name}", _shares_text(axis)) for axis in axes_of(genre)),
        ("emits", ", ".join(f"{column} from {origin}" for column, origin in genre.emit.items())),
    ]
    if genre.source is not None:
        facts.append(("reads", f"{', '.join(genre.source.columns)} of {genre.source.path or 'what the recipe names'}"))
    facts += [(name, value) for name, value in (("cell size", genre.cell_size), ("opt in", genre.opt_in)) if value]
    steps = [
        f"── step {step.name}: one per {step.per}, {step.role}, {step.form}, context {step.context}, "
        f"returns {step.returns}{_relations(step)}\n\n{step.body.source.strip()}"
        for step in genre.steps
    ]
    columns = [f"── column {name}\n\n{each.source.strip()}" for name, each in genre.emit_templates.items()]
    return "\n\n".join([table(facts), *map(plain, [*steps, *columns])])


def _relations(step: Step) -> str:
    said = {"rewrites": step.rewrites, "quotes": step.quotes, "follows": step.follows, "sample": step.sample}
    return "".join(f", {name} {value}" for name, value in said.items() if value is not None)


def genres_text(genres: Mapping[str, Genre]) -> str:
    rows: list[Row] = [("genre", "kind", "words", "steps", "about")]
    for genre in genres.values():
        words = f"{genre.n_words[0]:,} to {genre.n_words[1]:,}"
        rows.append((genre.key, genre.kind, words, ", ".join(step.name for step in genre.steps), genre.about))
    return table(rows)


def json_of(value: Any) -> Any:
    """A record as JSON data: fields by name, tuples as lists, keys as text."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: json_of(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(key): json_of(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_of(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
