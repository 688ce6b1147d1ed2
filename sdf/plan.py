"""recipe -> the sequences of briefs: one endless, deterministic sequence per genre, stored nowhere.

`Plan.brief(genre, index)` is O(1) and pure: it depends on seed, genre and constitution, never on mix,
target or what was generated. Siblings of a cell come in blocks, so that a worker which takes a block
sends one prompt prefix. Every choice draws from the brief's slot, one stream per purpose.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from functools import lru_cache

from sdf.genres import Axis, Genre, Step
from sdf.job import Job
from sdf.names import Names
from sdf.records import Brief, Principle, RoundKey, Slot, canonical_json, digest, stream
from sdf.sources import Rows, Unmade, open_rows

# Siblings in a row. Eight keep a prefix warm in any cache while 200 documents of a genre still reach 25 principles.
BLOCK = 8

NOTHING: Mapping[str, int] = {}

# Angle rounds of a genre that can be asked at the same time: at sixteen angles each, work for 512 documents.
ROUNDS_AT_ONCE = 32

# English prose of models: about 1.35 tokens of a word. Estimates alone depend on it.
TOKENS_PER_WORD = 1.35


@lru_cache(maxsize=8_192)
def dealt(deck: tuple[str, ...], seed: int, genre: str, principle: str, axis: str, number: int) -> tuple[str, ...]:
    """The deck as shuffled for one cell and one round through it: exact counts, seeded order."""
    cards = list(deck)
    random.Random(stream(seed, genre, principle, "axis", axis, number)).shuffle(cards)
    return tuple(cards)


def card(axis: Axis, slot: Slot) -> str:
    number, place = divmod(slot.ordinal, len(axis.deck))
    return dealt(axis.deck, slot.seed, slot.genre, slot.principle, axis.name, number)[place]


@lru_cache(maxsize=4_096)
def order_of_cells(n_cells: int, seed: int, genre: str, turn: int) -> tuple[int, ...]:
    order = list(range(n_cells))
    random.Random(stream(seed, genre, "cells", turn)).shuffle(order)
    return tuple(order)


def length(bounds: tuple[int, int], slot: Slot) -> int:
    """Words to ask for, log-uniform within the bounds: real documents are mostly short and sometimes long."""
    low, high = bounds
    share = slot.stream("length") / 2**64
    return round(low * (high / low) ** share)


def expected_tokens(genre: Genre) -> float:
    """Tokens of a genre's average document, guessed from its declared lengths: the mean of the log-uniform draw."""
    low, high = genre.n_words
    return TOKENS_PER_WORD * (low if high == low else (high - low) / math.log(high / low))


def n_lanes(n_cells: int) -> int:
    """Lanes of each cell where a genre does not say: enough that all cells together have ROUNDS_AT_ONCE.

    Every round of a lane waits for the one before it, so with one lane each five cells would have five at once, and
    five times sixteen documents. Many cells need no second lane, which would see nothing of the first one's ideas.
    """
    return max(1, -(-ROUNDS_AT_ONCE // n_cells))


def names_of(brief: Brief) -> Names:
    return _names(brief.slot.stream("names"), brief.axes.get("locale"))


# Every step of a document asks anew, and dealing its names is half of what rendering a prompt costs.
@lru_cache(maxsize=256)
def _names(seed: int, locale: str | None) -> Names:
    return Names(seed, locale)


def steps_of(genre: Genre, brief: Brief) -> tuple[Step, ...]:
    """The steps a brief is asked, in file order: those that are sampled, when the brief is in their sample."""
    return tuple(step for step in genre.brief_steps if step.sample is None or _lot(step.name, brief) < step.sample)


def _lot(step: str, brief: Brief) -> float:
    return brief.slot.stream(f"sample {step}") / 2**64


class Plan:
    """The sequences of one job. Cheap to build, safe to rebuild in every process.

    `expected` stands for sources that are not made yet: genre -> how many rows are foreseen.
    """

    def __init__(self, job: Job, expected: Mapping[str, int] = NOTHING) -> None:
        self.job = job
        self.genres: Mapping[str, Genre] = {genre.key: genre for genre in job.genres}
        self._contents = {genre.key: content_hash(job, genre) for genre in job.genres}
        self._rows: dict[str, Rows] = {
            genre.key: Unmade(genre.source.columns, expected[genre.key])
            if genre.key in expected
            else open_rows(genre.source, genre.path)
            for genre in job.genres
            if genre.source is not None
        }

    def twins(self, genre: str) -> tuple[str, ...]:
        """Values of the twin axis, in order; empty when the genre has none."""
        twin = self.genres[genre].twin
        return () if twin is None else next(axis.values for axis in self.genres[genre].axes if axis.name == twin)

    def n_briefs(self, genre: str) -> int | None:
        """Length of a sequence that reads a source or fills cells of a size; None for an endless one."""
        rows, cell_size = self._rows.get(genre), self.genres[genre].cell_size
        ends = [len(rows)] if rows is not None else []
        ends += [cell_size * len(self.job.constitution.principles)] if cell_size is not None else []
        return min(ends) * max(1, len(self.twins(genre))) if ends else None

    def brief(self, genre: str, index: int) -> Brief:
        """The brief at `index` of a genre's sequence. IndexError past its end, where it has one."""
        twins = self.twins(genre)
        place, twin = divmod(index, len(twins)) if twins else (index, 0)
        declared = self.genres[genre]
        slot, principle = self._slot(genre, place)
        axes = {axis.name: card(axis, slot) for axis in declared.axes if axis.name != declared.twin}
        if declared.twin is not None:
            axes[declared.twin] = twins[twin]
        row = self._rows[genre].row(place) if genre in self._rows else None
        parts = [str(slot.seed), genre, principle.id, str(slot.ordinal), twins[twin] if twins else ""]
        parts += [self._contents[genre], principle.text, canonical_json(row)]
        return Brief(
            id=digest("brief", *parts),
            slot=slot,
            genre=genre,
            index=index,
            principle=principle,
            axes=axes,
            n_words=length(declared.n_words, slot),
            row=row,
            twin=twins[twin] if twins else None,
        )

    def _slot(self, genre: str, place: int) -> tuple[Slot, Principle]:
        """Block by block through the cells, every turn in a new seeded order; the last turn of cells that fill up has
        shorter blocks."""
        principles = self.job.constitution.principles
        turn, rest = divmod(place, BLOCK * len(principles))
        size = self._block_size(genre, turn)
        position, within = divmod(rest, size) if size else (len(principles), 0)
        if position >= len(principles):
            raise IndexError(place)
        principle = principles[order_of_cells(len(principles), self.job.recipe.seed, genre, turn)[position]]
        return Slot(self.job.recipe.seed, genre, principle.id, turn * BLOCK + within), principle

    def _block_size(self, genre: str, turn: int) -> int:
        cell_size = self.genres[genre].cell_size
        return BLOCK if cell_size is None else max(0, min(BLOCK, cell_size - turn * BLOCK))

    def principle_of(self, genre: str, index: int) -> str:
        """The id of a brief's principle, without the rest of the brief."""
        return self._slot(genre, index // max(1, len(self.twins(genre))))[0].principle

    def round_of(self, genre: str, index: int) -> tuple[RoundKey, int] | None:
        """The angle round that serves a brief, and the brief's place in it; None when the genre asks for no angles."""
        declared = self.genres[genre]
        if declared.round_step is None:
            return None
        slot, _ = self._slot(genre, index // max(1, len(self.twins(genre))))
        turn, place = divmod(slot.ordinal, declared.round_step.n_items)
        number, lane = divmod(turn, declared.lanes or n_lanes(len(self.job.constitution.principles)))
        return RoundKey(genre, slot.principle, lane, number), place


def n_rounds(genre: Genre, plan: Plan, n_documents: int, n_cells: int) -> int:
    """Angle rounds that serve the first documents: blocks go round the cells, a round serves `n_items` of one cell."""
    if genre.round_step is None:
        return 0
    n_blocks = math.ceil(n_documents / max(1, len(plan.twins(genre.key))) / BLOCK)
    turns, extra = divmod(n_blocks, n_cells)
    n_items = genre.round_step.n_items
    fewer, more = math.ceil(turns * BLOCK / n_items), math.ceil((turns + 1) * BLOCK / n_items)
    return (n_cells - extra) * fewer + extra * more


def content_hash(job: Job, genre: Genre) -> str:
    """Hash of all that decides a genre's texts beside the slot: prompts, names of model and maker, sampling."""
    recipe = job.recipe
    # Of the whole file: an arm that asks nothing else than the whole holds documents of the same names.
    full = any(step.context == "full" for step in genre.declared)
    models = {step.name: recipe.model_of(step.role) for step in genre.declared}
    if recipe.has_fallback:
        models["<fallback>"] = recipe.model_of("fallback")
    sampling = [recipe.temperature, recipe.top_p]
    constitution = job.constitution.hash if full else ""
    named = canonical_json([recipe.assistant, recipe.maker, models, sampling])
    return digest("content", genre.hash, constitution, named, *_said(job, genre))


def _said(job: Job, genre: Genre) -> list[str]:
    """What the recipe says to this genre alone, since its prompts show it."""
    said = {"worry": job.recipe.worry, "bans": list(job.bans)}
    return [canonical_json([name, value]) for name, value in said.items() if value and name in genre.asks_with]
