"""What a genre is once its file was found free of faults: frozen records, and the one hash that names its texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sdf.genres.files import GenreChecks
from sdf.genres.templates import Template
from sdf.records import Returns, Role, canonical_json, digest

Kind = Literal["document", "chat", "prompt", "item"]
Dedup = Literal["body", "assistant", "user", "scenario", "none"]

CONFIGS: Mapping[Kind, str] = {"document": "documents", "chat": "chats", "prompt": "prompts", "item": "items"}

# The values of `emit` that name no step.
TEMPLATE = "template"
ROW = "row."

# What a source's path says that is an earlier stage of its recipe.
STAGE = "stage:"


@dataclass(frozen=True, slots=True)
class Axis:
    """A variable dealt from `deck`: each value as often as its weight says, in the order of `values`."""

    name: str
    values: tuple[str, ...]
    deck: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a brief, or of an angle round. `n_items` is 0 where no list is asked for; `schema` and `tools`
    are JSON texts; `line` is that of the step in the front matter.

    `rewrites` names the step whose answer this one's may stand for, `quotes` the one its answer must quote, `follows`
    the one whose conversation it goes on with; of a step with `sample` only that share of the briefs is asked. An
    answer ends before the first of `stop`.
    """

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
    rewrites: str | None = None
    quotes: str | None = None
    sample: float | None = None
    follows: str | None = None
    stop: tuple[str, ...] = ()

    @property
    def reads(self) -> frozenset[str]:
        """Names of the variables its prompts use, and of the steps that it quotes and follows."""
        injected = self.inject.names if self.inject is not None else frozenset[str]()
        return self.body.names | injected | {other for other in (self.quotes, self.follows) if other is not None}


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that become part of the briefs. `path` is relative to the genre file, None when a recipe names it;
    `sha256` pins it; `line` is that of the source in the front matter. `lineage` stays the same while a corpus
    that is read grows."""

    path: str | None
    sha256: str | None
    columns: tuple[str, ...]
    line: int = 1
    lineage: str | None = None


@dataclass(frozen=True, slots=True)
class Genre:
    """A genre file that was found free of faults. `hash` names all that decides text: prompts, declarations of the
    steps, axes, lengths; not what happens to the text later (`about`, checks, dedup, emit), nor where the file lies.

    `lanes` None leaves it to the number of cells how many series of angle rounds each has (`Plan.round_of`).
    `emit` maps a column to a step, to `row.COLUMN` or to `template`, whose text is in `emit_templates`. `left_out`
    are the steps of an ablation, which no one asks.
    """

    key: str
    kind: Kind
    about: str
    path: str
    n_words: tuple[int, int]
    dedup: Dedup
    redraws: int
    lanes: int | None
    twin: str | None
    axes: tuple[Axis, ...]
    steps: tuple[Step, ...]
    emit: Mapping[str, str]
    source: Source | None
    checks: GenreChecks
    preamble: Template | None
    instructions: Template | None
    hash: str
    emit_templates: Mapping[str, Template] = field(default_factory=dict[str, Template])
    cell_size: int | None = None
    opt_in: str | None = None
    left_out: tuple[Step, ...] = ()

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

    @property
    def declared(self) -> tuple[Step, ...]:
        """The steps of the file, those that are left out last."""
        return (*self.steps, *self.left_out)

    def conversation(self, step: Step) -> tuple[Step, ...]:
        """The steps whose questions and answers stand before that of `step`, and `step`, the last."""
        before = next((each for each in self.declared if each.name == step.follows), None)
        return (step,) if before is None else (*self.conversation(before), step)

    @property
    def ablated(self) -> Mapping[str, str]:
        """A step that is left out -> the one whose answer stands in its place."""
        rewrites = {step.name: step.rewrites for step in self.left_out if step.rewrites is not None}
        return {name: standing(rewrites, name) for name in rewrites}

    @property
    def asks_with(self) -> frozenset[str]:
        """Names of the variables that the prompts of the file use."""
        shared = [part.names for part in (self.preamble, self.instructions) if part is not None]
        return frozenset[str]().union(*shared, *(step.reads for step in self.declared))


def standing(rewrites: Mapping[str, str], name: str) -> str:
    """The step whose answer is there under `name`: a rewrite of a rewrite leads to the first version."""
    while name in rewrites:
        name = rewrites[name]
    return name


def hash_of(genre: Genre) -> str:
    """What a genre file may say beyond its first form enters only where it says it: older hashes stay as they are."""
    steps = [
        [
            *(step.name, step.per, step.role, step.form, step.context, step.returns, step.tag, step.n_items),
            *(step.lowest, step.highest, step.max_tokens, step.schema, step.tools),
            *(step.inject and step.inject.source, step.body.source),
            *([["quotes", step.quotes]] if step.quotes is not None else []),
            *([["sample", step.sample]] if step.sample is not None else []),
            *([["follows", step.follows]] if step.follows is not None else []),
            *([["stop", *step.stop]] if step.stop else []),
        ]
        for step in genre.steps
    ]
    axes = sorted([axis.name, axis.deck] for axis in genre.axes)
    columns = genre.source.columns if genre.source else None
    shared = [part and part.source for part in (genre.preamble, genre.instructions)]
    # Where nothing is said the hash is what it was when that meant one lane.
    lanes = {None: 1, 1: "1"}.get(genre.lanes, genre.lanes)
    decided = [genre.key, genre.n_words, genre.redraws, lanes, genre.twin, axes, steps, columns, shared]
    decided += [["cell_size", genre.cell_size]] if genre.cell_size is not None else []
    return digest("genre", canonical_json(decided))
