"""A genre file's parts -> Genre: what the front matter declares and the sections say, put together and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sdf.errors import GenreError
from sdf.frontmatter import Fault, Marked, near
from sdf.genres import files as genre_files
from sdf.genres import rules as genre_rules
from sdf.genres.decks import deck
from sdf.genres.files import FrontMatter, Section, Sections, StepEntry
from sdf.genres.model import TEMPLATE, Axis, Genre, Source, Step, hash_of
from sdf.genres.templates import Template
from sdf.records import canonical_json

# Half of the 64 a round may ask for: more in one answer repeat themselves, fewer pay for more rounds.
ROUND_ITEMS = 32

PREAMBLE = "preamble.md"

_PACKAGED = Path(__file__).parents[1] / "data" / "genres"
# A wheel carries the genres beside the code, a checkout beside the package.
BUILTIN_DIR = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "genres"


def load(path: str | Path) -> Genre:
    """Raises GenreError, with file and line, for the first thing that is wrong."""
    path = Path(path)
    try:
        text = genre_files.read_text(path)
    except Fault as fault:
        raise GenreError(f"{path}:{fault.line}: {fault.message}") from fault
    beside = next((each for each in (path.parent / PREAMBLE, BUILTIN_DIR / PREAMBLE) if each.is_file()), None)
    return _loaded(path, text, beside and beside.read_bytes())


# A recipe looks at every genre there is, one in stages once for each of them; reading fifty takes a second.
@lru_cache(maxsize=512)
def _loaded(path: Path, text: str, _: bytes | None) -> Genre:
    """By what the files hold, the preamble included: an edited one is read anew."""
    try:
        front, marked, sections = genre_files.parse(text)
        genre_rules.check(front, marked)
        genre = _genre(path, front, marked, sections)
    except Fault as fault:
        raise GenreError(f"{path}:{fault.line}: {fault.message}") from fault
    _check_templates(genre, front)
    return genre


def _genre(path: Path, front: FrontMatter, marked: Marked, sections: Sections) -> Genre:
    genre = Genre(
        key=front.key,
        kind=front.kind,
        about=front.about,
        path=str(path),
        n_words=_n_words(front, marked),
        dedup=front.dedup,
        redraws=front.redraws,
        lanes=front.lanes,
        twin=front.twin,
        axes=tuple(_axis(name, weights, marked) for name, weights in front.axes.items()),
        steps=_steps(path, front, marked, sections),
        emit=front.emit,
        source=_source(front, marked),
        checks=front.checks,
        preamble=None if front.preamble == "none" else _preamble(path),
        instructions=_template(path, sections.instructions) if sections.instructions else None,
        hash="",
        emit_templates=_emit_templates(path, front, marked, sections),
        cell_size=front.cell_size,
        opt_in=front.opt_in,
    )
    return dataclasses.replace(genre, hash=hash_of(genre))


def _n_words(front: FrontMatter, marked: Marked) -> tuple[int, int]:
    found = front.n_words
    if not (isinstance(found, list) and len(found) == 2 and all(type(n) is int for n in found)):
        raise Fault(marked.line("n_words"), f"n_words: two whole numbers, as in [400, 1800]; found {found!r}")
    low, high = found
    if not 1 <= low <= high:
        raise Fault(marked.line("n_words"), f"n_words: [{low}, {high}] runs from a positive number to one no smaller")
    return low, high


def _axis(name: str, weights: Any, marked: Marked) -> Axis:
    try:
        values, cards = deck(weights)
    except ValueError as error:
        raise Fault(marked.line("axes", name), f"axes.{name}: {error}") from error
    return Axis(name, values, cards)


def _source(front: FrontMatter, marked: Marked) -> Source | None:
    if front.source is None:
        return None
    return Source(front.source.path, front.source.sha256, tuple(front.source.columns), marked.line("source"))


def _preamble(path: Path) -> Template:
    for candidate in (path.parent / PREAMBLE, BUILTIN_DIR / PREAMBLE):
        if candidate.is_file():
            try:
                return Template(genre_files.read_text(candidate).rstrip(), str(candidate))
            except Fault as fault:
                raise GenreError(f"{candidate}:{fault.line}: {fault.message}") from fault
    raise Fault(1, f"no {PREAMBLE} beside this file; write one, or `preamble: none` into the front matter")


def _template(path: Path, section: Section) -> Template:
    return Template(section.text, str(path), section.line)


def _steps(path: Path, front: FrontMatter, marked: Marked, sections: Sections) -> tuple[Step, ...]:
    _check_sections("step", sections.steps, front.steps, marked, "steps")
    if list(front.steps) != list(sections.steps):
        wanted = ", ".join(front.steps)
        raise Fault(marked.line("steps"), f"the sections stand in another order than the steps: {wanted}")
    return tuple(_step(path, name, entry, marked, sections.steps[name]) for name, entry in front.steps.items())


def _emit_templates(path: Path, front: FrontMatter, marked: Marked, sections: Sections) -> dict[str, Template]:
    wanted = [column for column, source in front.emit.items() if source == TEMPLATE]
    _check_sections("emit", sections.emits, wanted, marked, "emit")
    return {column: _template(path, sections.emits[column]) for column in wanted}


def _check_sections(
    kind: str, sections: Mapping[str, Section], declared: Iterable[str], marked: Marked, at: str
) -> None:
    """One section for each name that the front matter declares, and none beside them."""
    what = "step {!r}" if kind == "step" else "column {!r} from a `template`"
    for name, section in sections.items():
        if name not in declared:
            raise Fault(section.heading_line, f"no {what.format(name)} in the front matter{near(name, declared)}")
    for name in declared:
        if name not in sections:
            lacks = "has no prompt" if kind == "step" else "has no text"
            raise Fault(marked.line(at, name), f"{what.format(name)} {lacks}; add a section `## {kind}: {name}`")


def _step(path: Path, name: str, entry: StepEntry, marked: Marked, section: Section) -> Step:
    line = marked.line("steps", name)
    role = entry.role or ("angle" if entry.per == "round" else None)
    if role is None:
        raise Fault(line, f"step {name!r} names no role; write role: write, rewrite, judge or angle")
    inject = Template(entry.inject.strip(), str(path), marked.line("steps", name, "inject")) if entry.inject else None
    return Step(
        name=name,
        per=entry.per,
        role=role,
        form=entry.form,
        context=entry.context,
        returns=entry.returns,
        tag=entry.tag,
        n_items=entry.n_items or (ROUND_ITEMS if entry.per == "round" else 0),
        lowest=entry.lowest,
        highest=entry.highest,
        max_tokens=entry.max_tokens,
        schema=canonical_json(entry.schema_) if entry.schema_ else None,
        tools=canonical_json(entry.tools) if entry.tools else None,
        inject=inject,
        body=_template(path, section),
        line=line,
        rewrites=entry.rewrites,
        quotes=entry.quotes,
        sample=entry.sample,
        follows=entry.follows,
        stop=entry.stop,
    )


def _check_templates(genre: Genre, front: FrontMatter) -> None:
    if genre.preamble is not None:
        genre.preamble.check(genre_rules.NAMED)
    if genre.instructions is not None:
        genre.instructions.check(genre_rules.scope_of_instructions(front))
    for step in genre.steps:
        scope = genre_rules.scope_of_step(front, step.name)
        if step.inject is not None:
            step.inject.check(scope)
        asked_for = [f"<{step.tag}>"] if step.tag else []
        step.body.check(scope, mentions=(*asked_for, *(["<quote>"] if step.quotes else [])))
    for template in genre.emit_templates.values():
        template.check(genre_rules.scope_of_emit(front))
