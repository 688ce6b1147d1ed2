"""Which sequence comes next: one corpus, or several by weights in tokens.

Sequences, not documents, are mixed: each holds pieces of one corpus, and the next one comes from the corpus that is
furthest behind its weight in tokens given so far. All is planned from lengths, so every rank and worker walks the same
schedule and fetches its own sequences alone; where it stands is a few numbers for each corpus.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np

from sdf.errors import StreamError
from sdf.stream.corpus import Corpus
from sdf.stream.ids import Documents
from sdf.stream.order import Shuffle, Spot
from sdf.stream.packing import Packing, Piece, Plan, best_fit, wrapped
from sdf.stream.states import Weights

Exhausted = Literal["stop", "repeat", "renormalise"]


class Mix:
    """Corpora by name, each read at its weight of the tokens.

    exhausted   when a corpus has had its epochs: "stop" ends the stream; "repeat" reads it again until all have had
                theirs; "renormalise" goes on with the others
    epochs      passes over each corpus, for all or by name; None for no end
    tags        a text put before each document of a corpus, its tokens never learnt
    schedule    other weights from a step on: {1000: {"sdf": 0.5, "web": 0.5}}
    """

    def __init__(
        self,
        corpora: Mapping[str, Corpus],
        *,
        weights: Weights,
        exhausted: Exhausted,
        epochs: int | Mapping[str, int | None] | None = 1,
        tags: Mapping[str, str] | None = None,
        schedule: Mapping[int, Weights] | None = None,
    ) -> None:
        self.corpora, self.exhausted, self.tags = dict(corpora), exhausted, dict(tags or {})
        if not self.corpora:
            raise StreamError("a Mix needs at least one corpus")
        for name, corpus in self.corpora.items():
            check_type(corpus, Corpus, f"corpus {name!r}", "give Corpus(...)")
        if exhausted not in ("stop", "repeat", "renormalise"):
            raise StreamError(f"exhausted={exhausted!r}: give 'stop', 'repeat' or 'renormalise'")
        given = epochs if isinstance(epochs, Mapping) else dict.fromkeys(self.corpora, epochs)
        for name in (*given, *self.tags):
            self._check_name(name)
        for name, n in given.items():
            check_type(n, int | None, f"epochs of {name!r}", "give a whole number from 1, or None for no end")
        self.epochs = {name: given.get(name, 1) for name in self.corpora}
        if bad := [name for name, n in self.epochs.items() if n is not None and n < 1]:
            raise StreamError(f"epochs of {bad[0]!r}: give a whole number from 1, or None for no end")
        self.schedule = {
            0: self.checked(weights),
            **{step: self.checked(each) for step, each in (schedule or {}).items()},
        }
        if min(self.schedule) < 0:
            raise StreamError(f"schedule: there is no step {min(self.schedule)}")

    def checked(self, weights: Weights) -> dict[str, float]:
        """The weight of each corpus, 0 for one that is not named; StreamError for what is no weighting."""
        for name, weight in weights.items():
            self._check_name(name)
            check_type(weight, int | float, f"weight of {name!r}", "give a number from 0")
            if not 0 <= weight < math.inf:
                raise StreamError(f"weight of {name!r} is {weight!r}; give a number from 0")
        if not sum(weights.values()) > 0:
            raise StreamError(f"the weights of {', '.join(map(repr, self.corpora))} sum to zero; give one of them more")
        return {name: float(weights.get(name, 0.0)) for name in self.corpora}

    def _check_name(self, name: str) -> None:
        if name not in self.corpora:
            near = get_close_matches(name, self.corpora, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(map(repr, self.corpora))}"
            raise StreamError(f"no corpus {name!r} in this mix; {hint}")


def check_type(given: Any, kind: Any, what: str, way_out: str) -> None:
    """StreamError for what no type checker kept away."""
    if not isinstance(given, kind):
        raise StreamError(f"{what} is {given!r}; {way_out}")


@dataclass(slots=True)
class Cursor:
    """Where a corpus stands: at `sequence` of the plan of the window at `spot`, which `carry` opens.

    The counts are of what was given since the start (`n_tokens`, `n_padding`), and of what went into plans.
    """

    spot: Spot
    sequence: int = 0
    carry: tuple[Piece, ...] = ()
    n_tokens: int = 0
    n_padding: int = 0
    n_documents: int = 0
    n_truncated: int = 0
    n_empty: int = 0

    def to_state(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"spot": asdict(self.spot), "carry": [list(piece) for piece in self.carry]}

    @classmethod
    def from_state(cls, values: Mapping[str, Any]) -> Cursor:
        carry = tuple(Piece(*piece) for piece in values["carry"])
        found: dict[str, Any] = {**values, "spot": Spot(**values["spot"]), "carry": carry}
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Rules:
    """How documents become sequences."""

    seq_len: int
    packing: Packing
    truncate: bool
    pad_tail: bool
    shuffle: Shuffle


@dataclass(frozen=True, slots=True)
class Sequence:
    """Pieces of documents of corpus `source`, rows of manifest `version`."""

    source: int
    version: int
    pieces: list[Piece]


class Walk:
    """The sequences of one corpus, one after another, over its epochs.

    `n_frame` tokens are put around each document. Where it is over depends on the cursor alone, never on what was
    planned before, so that a walk that resumes goes on as one that never stopped.
    """

    def __init__(
        self, corpus: Corpus, documents: Documents, rules: Rules, n_frame: int, last_epoch: int | None, cursor: Cursor
    ) -> None:
        self.cursor = cursor
        self._corpus, self._documents, self._rules, self._n_frame = corpus, documents, rules, n_frame
        self._last_epoch = last_epoch
        self._plan: Plan | None = None
        self._sizes: list[int] = []
        self._n_barren = 0

    @property
    def had_its_epochs(self) -> bool:
        return self._last_epoch is not None and self.cursor.spot.epoch >= self._last_epoch

    def has_next(self, may_repeat: Callable[[], bool]) -> bool:
        """Whether there is a sequence, which is then planned; False after the epochs, unless it may repeat."""
        cursor = self.cursor
        while True:
            if self._plan is not None and cursor.sequence >= len(self._sizes):
                if self.had_its_epochs and not may_repeat():
                    return False
                cursor.spot = replace(cursor.spot, window=cursor.spot.window + 1)
                cursor.sequence, cursor.carry, self._plan = 0, self._plan.rest, None
            if self._plan is None:
                cursor.spot = self._corpus.settled(cursor.spot, self._rules.shuffle)
            if self.had_its_epochs and not may_repeat():
                return self._rest()
            if self._plan is None:
                self._set_plan(self._planned())
            if cursor.sequence < len(self._sizes):
                return True

    def take(self, source: int, most: int, want: bool) -> tuple[int, int, list[Sequence]]:
        """After `has_next`, up to `most` sequences of the plan: how many, their tokens, and themselves when wanted."""
        assert self._plan is not None
        cursor, first = self.cursor, self.cursor.sequence
        last = min(first + most, len(self._sizes))
        n_tokens = sum(self._sizes[first:last])
        cursor.sequence = last
        cursor.n_tokens += n_tokens
        cursor.n_padding += self._rules.seq_len * (last - first) - n_tokens
        pieces = self._plan.pieces(first, last) if want else []
        return last - first, n_tokens, [Sequence(source, cursor.spot.version, each) for each in pieces]

    def _planned(self) -> Plan:
        cursor, rules = self.cursor, self._rules
        rows = self._corpus.rows(cursor.spot, rules.shuffle)
        lengths = self._documents.lengths(cursor.spot.version, rows)
        full = lengths > 0
        self._check_barren(bool(full.any()))
        plan = self._packed(rows[full], lengths[full] + self._n_frame)
        if cursor.sequence == 0:
            cursor.n_documents += int(full.sum())
            cursor.n_empty += int((~full).sum())
            cursor.n_truncated += plan.truncated
        return plan

    def _packed(self, rows: Any, lengths: Any) -> Plan:
        rules, spot = self._rules, self.cursor.spot
        if rules.packing == "wrapped":
            return wrapped(rows, lengths, rules.seq_len, self.cursor.carry)
        purpose = ("bins", rules.shuffle.seed, spot.epoch, spot.first, spot.window) if rules.shuffle.on else ()
        return best_fit(rows, lengths, rules.seq_len, truncate=rules.truncate, purpose=purpose)

    def _rest(self) -> bool:
        """What the epochs left over, as one short sequence."""
        carry = self.cursor.carry
        if not (self._rules.pad_tail and carry) or self.cursor.sequence:
            return False
        rows, starts, stops = (np.array(values, np.int64) for values in zip(*carry, strict=True))
        self._set_plan(Plan(rows, starts, stops, np.array([0, len(carry)])))
        return True

    def _set_plan(self, plan: Plan) -> None:
        self._plan, self._sizes = plan, plan.n_tokens.tolist()

    def _check_barren(self, has_documents: bool) -> None:
        """An endless search ends: after a pass that began at its first window and gave nothing."""
        spot = self.cursor.spot
        if has_documents:
            self._n_barren = 0
        elif (spot.window, spot.first) == (0, 0):
            self._n_barren += 1
        if self._n_barren > 1:
            raise StreamError(f"{self._corpus!r}: a whole pass gave no document; where= may let none through")


class Schedule:
    """The walks of a mix, and the weights that decide between them."""

    def __init__(
        self, mix: Mix, walks: list[Walk], weights: Mapping[int, Weights], step: int, given: list[int]
    ) -> None:
        self.walks, self.step = walks, step
        self._mix, self._weights = mix, weights
        # Tokens of each corpus since the weights last changed.
        self.given = given
        # Rows of the last step that no sequence was left for.
        self.n_blank = 0
        self._set_weights()

    def draw(self, n: int, want: bool) -> tuple[int, list[Sequence]]:
        """How many of `n` sequences there were (fewer at the end), and the sequences themselves when wanted."""
        count, found = 0, list[Sequence]()
        while count < n and (source := self._next()) is not None:
            # One corpus has nobody to take turns with.
            most = n - count if len(self._active) == 1 else 1
            n_taken, n_tokens, sequences = self.walks[source].take(source, most, want)
            self.given[source] += n_tokens
            count += n_taken
            found += sequences
        return count, found

    def end_step(self) -> None:
        self.step += 1
        if self.step in self._weights:
            self.given = [0] * len(self.given)
            self._set_weights()

    def _set_weights(self) -> None:
        weights = self._weights[max(step for step in self._weights if step <= self.step)]
        self._active = [(source, weights[name]) for source, name in enumerate(self._mix.corpora) if weights[name] > 0]

    def _next(self) -> int | None:
        """The corpus that is furthest behind and has a sequence."""
        behind = sorted((self.given[source] / weight, source) for source, weight in self._active)
        for _, source in behind:
            if self.walks[source].has_next(self._may_repeat):
                return source
            if self._mix.exhausted != "renormalise":
                return None
        return None

    def _may_repeat(self) -> bool:
        return self._mix.exhausted == "repeat" and not all(self.walks[each].had_its_epochs for each, _ in self._active)
