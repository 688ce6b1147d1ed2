"""What must hold between the parts of a genre's front matter, and which names each prompt may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sdf.checks import NAMES as CHECKS
from sdf.frontmatter import Fault, Marked, near
from sdf.genres.files import FrontMatter, StepEntry
from sdf.genres.template_shapes import ANY, NAME_CALLS, NUMBER, TEXT, Absent, ListOf, Shape
from sdf.records import Returns

# Known to every template, the preamble included.
NAMED: Mapping[str, Shape] = {"assistant": TEXT, "maker": TEXT}

_PRINCIPLE: Mapping[str, Shape] = {"id": TEXT, "title": TEXT, "text": TEXT}
_NAMES: Mapping[str, Shape] = dict.fromkeys(NAME_CALLS, TEXT)
_ANSWERS: Mapping[Returns, Shape] = {
    "text": TEXT,
    "list": ListOf(TEXT),
    "score": NUMBER,
    "messages": ListOf({"role": TEXT, "content": TEXT}),
    "json": ANY,
}

_VARIABLES = ("assistant", "maker", "brief", "principle", "taken", "n_items", "names", "loop", "range")
_WORDS = ("and", "elif", "else", "false", "for", "if", "in", "is", "none", "not", "or", "recursive", "true")
# A step of one of these names could not be read, or would hide what its templates need.
_TAKEN_NAMES = frozenset((*_VARIABLES, *_WORDS, "self", "super", "caller"))

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
    ("tools", lambda e: e.tools is None or e.form == "chat", "tools belong to form: chat"),
)


def _check_emit(front: FrontMatter, marked: Marked) -> None:
    for column, step in front.emit.items():
        line = marked.line("emit", column)
        per_brief = [name for name, entry in front.steps.items() if entry.per == "brief"]
        if step in front.steps and step not in per_brief:
            raise Fault(line, f"emit.{column}: {step!r} is a round; name a step that is asked per brief")
        if step not in per_brief:
            raise Fault(line, f"emit.{column}: no step {step!r}{near(step, per_brief)}")
    if front.kind in _COLUMNS:
        _check_columns(front, marked)


def _check_columns(front: FrontMatter, marked: Marked) -> None:
    sets = _COLUMNS[front.kind]
    columns = next((each for each in sets if _fits(front.emit, each)), None)
    if columns is None:
        known = " or ".join(_shown(each) for each in sets)
        raise Fault(marked.line("emit"), f"emit: a {front.kind} emits {known}; found {', '.join(front.emit)}")
    for column, step in front.emit.items():
        found = front.steps[step].returns
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
        elif is_earlier:
            found[other] = _ANSWERS[front.steps[other].returns]
        else:
            found[other] = Absent(why)
            why = f"it is answered after {name!r}; a step reads earlier steps"
    return found


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
