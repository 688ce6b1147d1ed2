"""What must hold between the parts of a genre's front matter, and which names each prompt may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sdf.checks import NAMES as CHECKS
from sdf.frontmatter import Fault, Marked, near
from sdf.genres.files import FrontMatter, StepEntry
from sdf.genres.model import ROW, TEMPLATE
from sdf.genres.template_shapes import ANY, NAME_CALLS, NUMBER, TEXT, Absent, ListOf, Shape
from sdf.records import Returns

# Known to every template, the preamble included.
NAMED: Mapping[str, Shape] = {"assistant": TEXT, "maker": TEXT, "worry": TEXT, "bans": ListOf(TEXT)}

_PRINCIPLE: Mapping[str, Shape] = {"id": TEXT, "title": TEXT, "text": TEXT}
_NAMES: Mapping[str, Shape] = dict.fromkeys(NAME_CALLS, TEXT)
_ANSWERS: Mapping[Returns, Shape] = {
    "text": TEXT,
    "list": ListOf(TEXT),
    "score": NUMBER,
    "messages": ListOf({"role": TEXT, "content": TEXT}),
    "json": ANY,
}

_VARIABLES = (*NAMED, "brief", "principle", "taken", "n_items", "names", "row", "loop", "range")
_WORDS = ("and", "elif", "else", "false", "for", "if", "in", "is", "none", "not", "or", "recursive", "true")
# A step of one of these names could not be read, or would hide what its templates need.
_TAKEN_NAMES = frozenset((*_VARIABLES, *_WORDS, "self", "super", "caller", TEMPLATE))
# What a step can quote from or write anew: answers that are text, or hold it.
_QUOTABLE: tuple[Returns, ...] = ("text", "list", "messages", "json")

_TURNS: Mapping[str, Returns] = {"system": "text", "user": "text", "assistant": "text", "tools": "json"}
# kind -> the columns it may emit and what each is made of; of several sets, one.
_COLUMNS: Mapping[str, tuple[Mapping[str, Returns], ...]] = {
    "document": ({"text": "text"},),
    "chat": ({"messages": "messages", "tools": "json"}, _TURNS),
    "prompt": ({"messages": "messages", "tools": "json"}, {"system": "text", "user": "text", "tools": "json"}),
}
_OPTIONAL_COLUMNS = ("system", "tools")

_DEDUP: Mapping[str, tuple[str, ...]] = {
    "document": ("body", "scenario", "none"),
    "chat": ("assistant", "user", "body", "scenario", "none"),
    "prompt": ("user", "body", "scenario", "none"),
    "item": ("body", "scenario", "none"),
}


def check(front: FrontMatter, marked: Marked) -> None:
    """Raises Fault for the first rule that is broken, in the order of the file."""
    for name, entry in front.steps.items():
        _check_step(name, entry, marked)
        _check_relations(front, name, entry, marked)
    rounds = [name for name, entry in front.steps.items() if entry.per == "round"]
    if len(rounds) > 1:
        raise Fault(marked.line("steps", rounds[1]), f"{rounds[0]!r} is the round already; a genre has at most one")
    if len(rounds) == len(front.steps):
        raise Fault(marked.line("steps"), "every step is a round; add one that is asked per brief")
    _check_emit(front, marked)
    _check_rest(front, marked)


def _check_step(name: str, entry: StepEntry, marked: Marked) -> None:
    for key, holds, reason in _RULES:
        if not holds(entry):
            raise Fault(marked.line("steps", name, key), f"step {name!r}: {reason}")
    if name in _TAKEN_NAMES or (name == "angle" and entry.per == "brief"):
        raise Fault(marked.line("steps", name), f"step {name!r}: the name means something else; rename it")


# (the key at fault, what must hold, what to say)
_RULES: tuple[tuple[str, Callable[[StepEntry], bool], str], ...] = (
    ("role", lambda e: e.per == "round" or e.role is not None, "names no role; one of write, rewrite, judge, angle"),
    ("returns", lambda e: e.per == "brief" or e.returns == "list", "a round returns a list: one angle for each brief"),
    ("n_items", lambda e: e.n_items is None or e.returns == "list", "n_items belongs to returns: list"),
    (
        "returns",
        lambda e: e.per == "round" or e.returns != "list" or e.n_items is not None,
        "a list needs n_items: how many to ask for",
    ),
    (
        "lowest",
        lambda e: e.returns == "score" or not e.model_fields_set & {"lowest", "highest"},
        "lowest and highest belong to returns: score",
    ),
    ("lowest", lambda e: e.lowest < e.highest, "lowest is not below highest"),
    ("schema", lambda e: e.schema_ is None or e.returns in ("json", "messages"), "a schema belongs to returns: json"),
    ("inject", lambda e: e.inject is None or e.form == "chat", "inject belongs to form: chat"),
    ("quotes", lambda e: e.quotes is None or e.returns == "score", "quotes belongs to returns: score"),
    (
        "quotes",
        lambda e: e.quotes is None or e.tag not in (None, "quote"),
        "a verdict beside its quotations needs a tag to be found by, and that is not `quote`",
    ),
    ("sample", lambda e: e.sample is None or e.per == "brief", "a round is not sampled; leave sample out"),
    ("rewrites", lambda e: e.rewrites is None or e.returns != "score", "a verdict is not rewritten"),
    (
        "rewrites",
        lambda e: e.rewrites is None or e.sample is None,
        "a sampled step rewrites nothing: documents without it would lack the new version",
    ),
    ("tools", lambda e: e.tools is None or e.form == "chat", "tools belong to form: chat"),
    ("follows", lambda e: e.follows is None or e.form == "chat", "follows belongs to form: chat"),
    (
        "inject",
        lambda e: e.inject is None or e.follows is None,
        "a conversation has one system text, that of the step it follows; leave inject out",
    ),
    ("stop", lambda e: not e.stop or e.returns == "text", "stop belongs to returns: text"),
)


def _check_relations(front: FrontMatter, name: str, entry: StepEntry, marked: Marked) -> None:
    """`rewrites`, `quotes` and `follows` name an earlier step that every brief asks, of a fitting kind."""
    for key, other in (("rewrites", entry.rewrites), ("quotes", entry.quotes), ("follows", entry.follows)):
        if other is None:
            continue
        line = marked.line("steps", name, key)
        earlier = _asked_before(front, name)
        if other not in front.steps:
            raise Fault(line, f"step {name!r}: {key}: no step {other!r}{near(other, earlier)}")
        if other not in earlier:
            raise Fault(line, f"step {name!r}: {key}: {_absence(front, name, other)}{near(other, earlier)}")
        found = front.steps[other].returns
        if key == "quotes" and found not in _QUOTABLE:
            raise Fault(line, f"step {name!r}: quotes: {other!r} returns {found}, which holds no words to quote")
        if key == "follows":
            _check_followed(name, other, front.steps[other], entry, line)
        if key == "rewrites" and found != entry.returns:
            raise Fault(line, f"step {name!r} returns {entry.returns}, and {other!r}, which it rewrites, {found}")


def _check_followed(name: str, other: str, followed: StepEntry, entry: StepEntry, line: int) -> None:
    """One conversation: what stands in front of it is the same, and each answer is a turn."""
    if (followed.form, followed.returns) != ("chat", "text"):
        raise Fault(line, f"step {name!r}: follows: {other!r} is no turn of a chat; it needs returns: text, form: chat")
    if followed.context != entry.context:
        raise Fault(
            line, f"step {name!r} has context {entry.context}, and {other!r}, which it follows, {followed.context}"
        )


def _asked_before(front: FrontMatter, name: str) -> list[str]:
    """Earlier steps whose answers every brief has."""
    names = list(front.steps)
    return [each for each in names[: names.index(name)] if _is_always_asked(front.steps[each])]


def _is_always_asked(entry: StepEntry) -> bool:
    return entry.per == "brief" and entry.sample is None


def _absence(front: FrontMatter, name: str, other: str) -> str:
    """Why `other` has no answer that step `name` could work with."""
    if front.steps[other].per == "round":
        return f"{other!r} is a round"
    if front.steps[other].sample is not None:
        return _SAMPLED.format(other)
    return f"{other!r} is this very step" if other == name else f"{other!r} is answered after {name!r}"


_SAMPLED = "{!r} is asked for a sample of the documents alone, so nothing may depend on it"


def _check_emit(front: FrontMatter, marked: Marked) -> None:
    for column, origin in front.emit.items():
        line = marked.line("emit", column)
        if origin == TEMPLATE:
            continue
        if origin.startswith(ROW):
            _check_row_column(front, column, origin.removeprefix(ROW), line)
        else:
            _check_emitted_step(front, column, origin, line)
    if front.kind in _COLUMNS:
        _check_columns(front, marked)


def _check_row_column(front: FrontMatter, column: str, name: str, line: int) -> None:
    columns = front.source.columns if front.source else []
    if front.source is None:
        raise Fault(
            line, f"emit.{column}: the genre has no source, and so no row; declare source: {{columns: [{name}]}}"
        )
    if name not in columns:
        raise Fault(line, f"emit.{column}: the source declares no column {name!r}{near(name, columns)}")


def _check_emitted_step(front: FrontMatter, column: str, step: str, line: int) -> None:
    per_brief = [name for name, entry in front.steps.items() if _is_always_asked(entry)]
    if step in front.steps and front.steps[step].per == "round":
        raise Fault(line, f"emit.{column}: {step!r} is a round; name a step that is asked per brief")
    if step in front.steps and front.steps[step].sample is not None:
        raise Fault(line, f"emit.{column}: {_SAMPLED.format(step)}")
    if step not in per_brief:
        known = [*per_brief, TEMPLATE, *(f"{ROW}{each}" for each in (front.source.columns if front.source else ()))]
        raise Fault(line, f"emit.{column}: no step {step!r}{near(step, known)}")


def _check_columns(front: FrontMatter, marked: Marked) -> None:
    sets = _COLUMNS[front.kind]
    columns = next((each for each in sets if _fits(front.emit, each)), None)
    if columns is None:
        known = " or ".join(_shown(each) for each in sets)
        raise Fault(marked.line("emit"), f"emit: a {front.kind} emits {known}; found {', '.join(front.emit)}")
    for column, step in front.emit.items():
        found = front.steps[step].returns if step in front.steps else columns[column]
        if found != columns[column]:
            raise Fault(marked.line("emit", column), f"emit.{column} takes {columns[column]}; {step!r} returns {found}")


def _shown(columns: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{column}?" if column in _OPTIONAL_COLUMNS else column for column in columns) + "}"


def _fits(emit: Mapping[str, str], columns: Mapping[str, Any]) -> bool:
    needed = {column for column in columns if column not in _OPTIONAL_COLUMNS}
    return needed <= set(emit) <= set(columns)


def _check_rest(front: FrontMatter, marked: Marked) -> None:
    if front.twin is not None and front.twin not in front.axes:
        raise Fault(marked.line("twin"), f"twin: no axis {front.twin!r}{near(front.twin, front.axes)}")
    if front.dedup not in _DEDUP[front.kind]:
        raise Fault(marked.line("dedup"), f"dedup: of a {front.kind}: {', '.join(_DEDUP[front.kind])}")
    if front.dedup == "scenario" and not _has_round(front):
        raise Fault(marked.line("dedup"), "dedup: scenario compares angles; add a step with per: round")
    for place, name in enumerate(front.checks.off):
        if name not in CHECKS:
            raise Fault(marked.line("checks", "off", place), f"checks.off: no check {name!r}{near(name, CHECKS)}")
    for step, score in front.checks.min_score.items():
        _check_min_score(front, step, score, marked.line("checks", "min_score", step))


def _check_min_score(front: FrontMatter, step: str, score: int, line: int) -> None:
    scores = {name: entry for name, entry in front.steps.items() if entry.returns == "score"}
    if step not in scores:
        raise Fault(line, f"min_score: no step {step!r} that returns a score{near(step, scores)}")
    if scores[step].sample is not None:
        raise Fault(line, f"min_score: {_SAMPLED.format(step)}")
    if not scores[step].lowest <= score <= scores[step].highest:
        raise Fault(line, f"min_score.{step}: {score} is not within {scores[step].lowest} to {scores[step].highest}")


def scope_of_instructions(front: FrontMatter) -> Mapping[str, Shape]:
    """Instructions are part of the prefix, so they may hold only what all requests with that prefix share."""
    if all(entry.context == "principle" for entry in front.steps.values()):
        return {**NAMED, "principle": _PRINCIPLE}
    why = "instructions are shared by all principles unless every step has context: principle; use it in a step"
    return {
        **NAMED,
        "principle": Absent(why),
        "brief": Absent("instructions are shared by all briefs; use it in a step"),
    }


def scope_of_step(front: FrontMatter, name: str) -> Mapping[str, Shape]:
    entry = front.steps[name]
    scope: dict[str, Shape] = {**NAMED, "principle": _PRINCIPLE}
    is_list = entry.returns == "list"
    scope["n_items"] = NUMBER if is_list else Absent("this step does not return a list")
    if entry.per == "round":
        why = "a round is asked ahead of its briefs; it knows principle, taken and n_items"
        others = dict.fromkeys([*front.steps, "brief", "names", "angle"], Absent(why))
        return {**others, **scope, "taken": ListOf(TEXT)}
    scope["taken"] = Absent("only a step with per: round is shown what is taken")
    scope["angle"] = TEXT if _has_round(front) else Absent("no step of this genre has per: round")
    return {**_answers(front, name), **scope, "brief": _brief(front), "names": _NAMES}


def _answers(front: FrontMatter, name: str) -> dict[str, Shape]:
    """The answers of earlier steps; those of later ones by the reason why they are not there."""
    found: dict[str, Shape] = {}
    why = "it is the answer to this very prompt"
    for other in front.steps:
        is_earlier = list(front.steps).index(other) < list(front.steps).index(name)
        if front.steps[other].per == "round":
            found[other] = Absent("a round's answer reaches a brief as `angle`")
        elif front.steps[other].sample is not None:
            found[other] = Absent(_SAMPLED.format(other))
        elif is_earlier:
            found[other] = _ANSWERS[front.steps[other].returns]
        else:
            found[other] = Absent(why)
            why = f"it is answered after {name!r}; a step reads earlier steps"
    return found


def scope_of_emit(front: FrontMatter) -> Mapping[str, Shape]:
    """A column's template sees all that the brief came to: every answer, the row, the names."""
    scope: dict[str, Shape] = {**NAMED, "principle": _PRINCIPLE, "brief": _brief(front), "names": _NAMES}
    scope["row"] = _brief(front)["row"]
    scope["angle"] = TEXT if _has_round(front) else Absent("no step of this genre has per: round")
    for name, entry in front.steps.items():
        if entry.sample is not None:
            scope[name] = Absent(_SAMPLED.format(name))
        elif entry.per == "brief":
            scope[name] = _ANSWERS[entry.returns]
    return scope


def _brief(front: FrontMatter) -> Mapping[str, Shape]:
    row = dict.fromkeys(front.source.columns, ANY) if front.source else None
    return {
        "axes": dict.fromkeys(front.axes, TEXT),
        "n_words": NUMBER,
        "principle": _PRINCIPLE,
        "row": Absent("the genre has no source") if row is None else row,
        "twin": TEXT if front.twin else Absent("the genre names no twin axis"),
    }


def _has_round(front: FrontMatter) -> bool:
    return any(entry.per == "round" for entry in front.steps.values())
