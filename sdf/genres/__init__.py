"""A genre file -> Genre: one Markdown file that says how a kind of text is made, one section per prompt.

Everything that can be wrong is found here, before a model is asked: names, order, axes, prompts, bounds. So a
run never fails on its thousandth document over a typo; the price is that a file is refused whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from sdf.errors import GenreError
from sdf.frontmatter import Fault, Marked, near
from sdf.genres import files as genre_files
from sdf.genres import rules as genre_rules
from sdf.genres.decks import deck
from sdf.genres.files import FrontMatter, GenreChecks, Section, Sections, StepEntry
from sdf.genres.templates import Template
from sdf.records import Returns, Role, canonical_json, digest

Kind = Literal["document", "chat", "prompt", "item"]
Dedup = Literal["body", "assistant", "user", "scenario", "none"]

CONFIGS: Mapping[Kind, str] = {"document": "documents", "chat": "chats", "prompt": "prompts", "item": "items"}

# Half of the 64 a round may ask for: more in one answer repeat themselves, fewer pay for more rounds.
ROUND_ITEMS = 32

PREAMBLE = "preamble.md"
NOT_GENRES = (PREAMBLE, "README.md")

_PACKAGED = Path(__file__).parents[1] / "data" / "genres"
# A wheel carries the genres beside the code, a checkout beside the package.
BUILTIN_DIR = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "genres"


@dataclass(frozen=True, slots=True)
class Axis:
    """A variable dealt from `deck`: each value as often as its weight says, in the order of `values`."""

    name: str
    values: tuple[str, ...]
    deck: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a brief, or of an angle round. `n_items` is 0 where no list is asked for; `schema` and `tools`
    are JSON texts; `line` is that of the step in the front matter."""

    name: str
    per: Literal["brief", "round"]
    role: Role
    form: Literal["chat", "completion"]
    context: Literal["full", "principle", "none"]
    returns: Returns
    tag: str | None
    n_items: int
    lowest: int
    highest: int
    max_tokens: int | None
    schema: str | None
    tools: str | None
    inject: Template | None
    body: Template
    line: int


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that become part of the briefs. `path` is relative to the genre file; `sha256` pins it."""

    path: str
    sha256: str | None
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Genre:
    """A genre file that was found free of faults. `hash` names all that decides text: prompts, declarations of the
    steps, axes, lengths; not what happens to the text later (`about`, checks, dedup, emit), nor where the file lies."""

    key: str
    kind: Kind
    about: str
    path: str
    n_words: tuple[int, int]
    dedup: Dedup
    redraws: int
    lanes: int
    twin: str | None
    axes: tuple[Axis, ...]
    steps: tuple[Step, ...]
    emit: Mapping[str, str]
    source: Source | None
    checks: GenreChecks
    preamble: Template | None
    instructions: Template | None
    hash: str

    def __hash__(self) -> int:
        return hash((self.key, self.hash))

    @property
    def config(self) -> str:
        return CONFIGS[self.kind]

    @property
    def round_step(self) -> Step | None:
        return next((step for step in self.steps if step.per == "round"), None)

    @property
    def brief_steps(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.per == "brief")


def load(path: str | Path) -> Genre:
    """Raises GenreError, with file and line, for the first thing that is wrong."""
    path = Path(path)
    try:
        front, marked, sections = genre_files.parse(genre_files.read_text(path))
        genre_rules.check(front, marked)
        steps = _steps(path, front, marked, sections)
        genre = _genre(path, front, marked, steps, sections.instructions)
    except Fault as fault:
        raise GenreError(f"{path}:{fault.line}: {fault.message}") from fault
    _check_templates(genre, front)
    return genre


def discover(dirs: Sequence[str | Path]) -> dict[str, Genre]:
    """Genres by key: the built-in ones, then those of `dirs`, where a later directory overrides an earlier one.

    A genre is any `*.md` in the directory itself but preamble.md and README.md. Raises GenreError.
    """
    found: dict[str, Genre] = {}
    for directory in (BUILTIN_DIR, *dirs):
        found.update(_in_directory(Path(directory)))
    return found


def dump(genre: Genre) -> dict[str, Any]:
    """The genre as JSON data; `restore` gives an equal one where the file is not at hand."""
    return _ADAPTER.dump_python(genre, mode="json")


def restore(data: Mapping[str, Any]) -> Genre:
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise GenreError(f"a stored genre cannot be read: {where}: {first['msg']}") from error


_ADAPTER: TypeAdapter[Genre] = TypeAdapter(Genre)


def _in_directory(directory: Path) -> dict[str, Genre]:
    if not directory.is_dir():
        raise GenreError(f"{directory}: not a directory; genre files are looked for there")
    found: dict[str, Genre] = {}
    for path in sorted(directory.glob("*.md")):
        if path.name in NOT_GENRES:
            continue
        genre = load(path)
        if genre.key in found:
            raise GenreError(f"{path}:2: the key {genre.key!r} is that of {found[genre.key].path} too; change one")
        found[genre.key] = genre
    return found


def _genre(
    path: Path, front: FrontMatter, marked: Marked, steps: tuple[Step, ...], instructions: Section | None
) -> Genre:
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
        steps=steps,
        emit=front.emit,
        source=Source(front.source.path, front.source.sha256, tuple(front.source.columns)) if front.source else None,
        checks=front.checks,
        preamble=None if front.preamble == "none" else _preamble(path),
        instructions=_template(path, instructions) if instructions else None,
        hash="",
    )
    return dataclasses.replace(genre, hash=_hash(genre))


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
    for name, section in sections.steps.items():
        if name not in front.steps:
            raise Fault(section.heading_line, f"no step {name!r} in the front matter{near(name, front.steps)}")
    for name in front.steps:
        if name not in sections.steps:
            raise Fault(marked.line("steps", name), f"step {name!r} has no prompt; add a section `## step: {name}`")
    if list(front.steps) != list(sections.steps):
        wanted = ", ".join(front.steps)
        raise Fault(marked.line("steps"), f"the sections stand in another order than the steps: {wanted}")
    return tuple(_step(path, name, entry, marked, sections.steps[name]) for name, entry in front.steps.items())


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
        step.body.check(scope, mentions=f"<{step.tag}>" if step.tag else "")


def _hash(genre: Genre) -> str:
    steps = [
        [
            *(step.name, step.per, step.role, step.form, step.context, step.returns, step.tag, step.n_items),
            *(step.lowest, step.highest, step.max_tokens, step.schema, step.tools),
            *(step.inject and step.inject.source, step.body.source),
        ]
        for step in genre.steps
    ]
    axes = sorted([axis.name, axis.deck] for axis in genre.axes)
    columns = genre.source.columns if genre.source else None
    shared = [part and part.source for part in (genre.preamble, genre.instructions)]
    decided = [genre.key, genre.n_words, genre.redraws, genre.lanes, genre.twin, axes, steps, columns, shared]
    return digest("genre", canonical_json(decided))
