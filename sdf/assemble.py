"""The fold: plan + receipts -> what each shard holds. Pure: no clock, no files, no notion of who generated.

Next comes the genre with the least accepted tokens / share (ties in recipe order), and of it the next brief.
The order never looks at the target, so a smaller corpus is a prefix of a larger one. The fold stops where a
receipt or an exact similarity is missing, says which, and goes on when it is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from sdf.decontaminate import CONTAMINATED
from sdf.dedup import Index
from sdf.manifest import ALL
from sdf.records import Location, Receipt, Rejection

# A genre whose last 500 briefs were all rejected has nothing left to say; it leaves the merge.
HOPELESS = 500

# Reason of a brief that the caller left out; it says nothing about the genre.
EXCLUDED = "excluded"

# Receipts looked at beyond the one the fold waits for, so that exact comparisons are fetched in batches.
WINDOW = 256

Pair = tuple[Location, Location]


@dataclass(frozen=True, slots=True)
class GenreTerms:
    """What the fold must know of a genre's sequence; `n_briefs` None when it is endless, `end` says why it ends."""

    genre: str
    share: float
    config: str
    compared: bool
    n_twins: int = 1
    n_briefs: int | None = None
    end: str = "source exhausted"


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides a corpus beside the receipts.

    `split_of(genre, index)` names the split; `keeps(receipt)` False passes a brief over as if it were not in
    the plan. `exactly` takes what `keeps` lets through without checks and dedup, as a matched arm needs.
    """

    sequences: tuple[GenreTerms, ...]
    target_tokens: int
    shard_tokens: int
    threshold: float
    split_of: Callable[[str, int], str]
    keeps: Callable[[Receipt], bool] | None = None
    exactly: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """The documents of one shard, in fold order: the receipts they were accepted by."""

    config: str
    split: str
    number: int
    receipts: tuple[Receipt, ...]

    @property
    def n_tokens(self) -> int:
        return sum(receipt.n_tokens for receipt in self.receipts)


@dataclass(slots=True)
class Tally:
    """Where one genre's sequence stands in the fold."""

    share: float
    next: int = 0
    n_tokens: int = 0
    n_documents: int = 0
    rejected: Counter[str] = field(default_factory=Counter[str])
    streak: int = 0
    gone: str | None = None
    waiting: dict[int, Receipt] = field(default_factory=dict[int, Receipt])


@dataclass(slots=True)
class _Open:
    """A shard being filled."""

    number: int = 0
    receipts: list[Receipt] = field(default_factory=list[Receipt])
    n_tokens: int = 0


class Fold:
    """Give receipts with `offer`, in any order and as often as you like; `advance` folds as far as it can."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.tallies: dict[str, Tally] = {each.genre: Tally(each.share) for each in terms.sequences}
        self.n_tokens = 0
        self.rejections: list[Rejection] = []
        self._sequences: Mapping[str, GenreTerms] = {each.genre: each for each in terms.sequences}
        self._open: dict[tuple[str, str], _Open] = {}
        self._full: list[Cut] = []
        self._index: dict[str, Index] = {}
        self._kept: dict[str, list[tuple[str, Location]]] = {}
        self._verdicts: dict[Pair, bool] = {}
        # Of receipts that wait: how many were kept when they were looked up, and what was found.
        self._looked_up: dict[Location, tuple[int, list[tuple[str, Pair]]]] = {}

    @property
    def finished(self) -> bool:
        """The target is reached, or every genre has left the merge."""
        return self.n_tokens >= self.terms.target_tokens or self.turn() is None

    def turn(self) -> str | None:
        """The genre whose brief comes next; None when all have left."""
        active = [genre for genre, tally in self.tallies.items() if tally.gone is None]
        return min(active, key=lambda genre: self.tallies[genre].n_tokens / self.tallies[genre].share, default=None)

    @property
    def unmet(self) -> dict[str, str]:
        """Genres that left the merge before the target, and why. Where all is wanted, to end is no shortfall; to end
        with nothing is."""
        gone = {genre: tally for genre, tally in self.tallies.items() if tally.gone is not None}
        return {genre: why for genre, tally in gone.items() if (why := self._shortfall(genre, tally)) is not None}

    def _shortfall(self, genre: str, tally: Tally) -> str | None:
        if self.terms.target_tokens != ALL or tally.gone != self._sequences[genre].end:
            return tally.gone
        if tally.n_documents:
            return None
        return f"none of its {tally.next:,} briefs was accepted" if tally.next else "it has no row to be made from"

    def offer(self, receipt: Receipt) -> None:
        """Idempotent: the first receipt of a brief counts, and what is folded stays folded."""
        tally = self.tallies[receipt.genre]
        if receipt.index >= tally.next:
            tally.waiting.setdefault(receipt.index, receipt)

    def learn(self, jaccards: Mapping[Pair, float]) -> None:
        """Exact similarities of pairs that `advance` asked for."""
        for pair, similarity in jaccards.items():
            self._verdicts[pair] = similarity >= self.terms.threshold

    def advance(self) -> list[Pair]:
        """Fold on. Returns the pairs whose exact similarity is missing: empty when a receipt is, or nothing."""
        while self.n_tokens < self.terms.target_tokens and (genre := self.turn()) is not None:
            unit = self._unit(genre)
            if unit is None:
                return []
            if not unit:
                continue
            if unknown := self._unknown(unit):
                return unknown + self._ahead(genre, set(unknown))
            self._settle(genre, unit)
        return []

    def take_full(self) -> list[Cut]:
        """Shards that filled up since the last call, in fold order."""
        full, self._full = self._full, []
        return full

    def short(self) -> list[Cut]:
        """What the open shards hold now: the last, short shard of each config and split."""
        return [_cut(config, split, part) for (config, split), part in self._open.items() if part.receipts]

    def _unit(self, genre: str) -> list[Receipt] | None:
        """The next brief with its twins; None while receipts are missing; [] when the genre just left."""
        tally, sequence = self.tallies[genre], self._sequences[genre]
        if sequence.n_briefs is not None and tally.next >= sequence.n_briefs:
            tally.gone = sequence.end
            return []
        places = range(tally.next, tally.next + sequence.n_twins)
        if all(place in tally.waiting for place in places):
            return [tally.waiting[place] for place in places]
        return None

    def _settle(self, genre: str, unit: list[Receipt]) -> None:
        tally = self.tallies[genre]
        for receipt in unit:
            del tally.waiting[receipt.index]
        tally.next += len(unit)
        standing = [receipt for receipt in unit if self._is_kept(receipt)]
        rejections = self._rejections(standing if self.terms.exactly else unit) if standing else []
        for receipt in unit:
            self._forget(receipt)
        if rejections:
            self._reject(tally, rejections)
            return
        left_out = [receipt for receipt in unit if receipt not in standing]
        self._reject(tally, [Rejection(receipt.brief, receipt.genre, EXCLUDED) for receipt in left_out])
        for receipt in standing:
            tally.streak = 0
            self._accept(tally, receipt)

    def _rejections(self, unit: list[Receipt]) -> list[Rejection]:
        """One rejection for every receipt of the unit, or none at all: twins stand and fall together, also where the
        caller wants one of them alone, so that arms cut along a twin axis hold the same briefs."""
        found = [self._rejection(receipt) for receipt in unit]
        if not any(found):
            return []
        return [
            own or Rejection(receipt.brief, receipt.genre, "twin") for own, receipt in zip(found, unit, strict=True)
        ]

    def _is_kept(self, receipt: Receipt) -> bool:
        return self.terms.keeps is None or self.terms.keeps(receipt)

    def _rejection(self, receipt: Receipt) -> Rejection | None:
        if receipt.reason is not None and not (self._takes_whatever(receipt) and receipt.n_tokens):
            return Rejection(receipt.brief, receipt.genre, receipt.reason)
        original = self._original(receipt)
        return None if original is None else Rejection(receipt.brief, receipt.genre, "duplicate", original)

    def _takes_whatever(self, receipt: Receipt) -> bool:
        """A matched arm holds what the other one does, but never a piece of an evaluation set."""
        return self.terms.exactly and not (receipt.reason or "").startswith(CONTAMINATED)

    def _reject(self, tally: Tally, rejections: list[Rejection]) -> None:
        self.rejections += rejections
        tally.rejected.update(rejection.reason for rejection in rejections)
        if all(rejection.reason != EXCLUDED for rejection in rejections):
            tally.streak += len(rejections)
        if tally.streak >= HOPELESS:
            tally.gone = f"the last {tally.streak} briefs were all rejected"

    def _accept(self, tally: Tally, receipt: Receipt) -> None:
        tally.n_tokens += receipt.n_tokens
        tally.n_documents += 1
        self.n_tokens += receipt.n_tokens
        sequence = self._sequences[receipt.genre]
        if self._is_compared(receipt):
            kept = self._kept.setdefault(sequence.config, [])
            self._index_of(sequence.config).add(len(kept), _signature(receipt))
            kept.append((receipt.brief, receipt.location))
        self._place(sequence.config, receipt)

    def _place(self, config: str, receipt: Receipt) -> None:
        split = self.terms.split_of(receipt.genre, receipt.index)
        part = self._open.setdefault((config, split), _Open())
        # The index holds the signature; an open shard need not.
        part.receipts.append(replace(receipt, signature=b""))
        part.n_tokens += receipt.n_tokens
        if part.n_tokens >= self.terms.shard_tokens:
            self._full.append(_cut(config, split, part))
            self._open[config, split] = _Open(part.number + 1)

    def _is_compared(self, receipt: Receipt) -> bool:
        return self._sequences[receipt.genre].compared and bool(receipt.signature) and not self.terms.exactly

    def _index_of(self, config: str) -> Index:
        if config not in self._index:
            self._index[config] = Index(self.terms.threshold)
        return self._index[config]

    def _pairs(self, receipt: Receipt) -> list[tuple[str, Pair]]:
        """Kept documents that may be near-duplicates of this one, oldest first, each with its pair."""
        if not self._is_compared(receipt):
            return []
        config = self._sequences[receipt.genre].config
        kept = self._kept.get(config, [])
        n_kept, found = self._looked_up.get(receipt.location, (-1, []))
        if n_kept == len(kept):
            return found
        handles = self._index_of(config).candidates(_signature(receipt))
        found = [(kept[handle][0], (kept[handle][1], receipt.location)) for handle in handles]
        self._looked_up[receipt.location] = len(kept), found
        return found

    def _forget(self, receipt: Receipt) -> None:
        """What was found for a receipt before is among what was found last: an index only grows."""
        _, found = self._looked_up.pop(receipt.location, (0, []))
        for _, pair in found:
            self._verdicts.pop(pair, None)

    def _original(self, receipt: Receipt) -> str | None:
        return next((brief for brief, pair in self._pairs(receipt) if self._verdicts[pair]), None)

    def _unknown(self, receipts: Iterable[Receipt]) -> list[Pair]:
        found = (pair for receipt in receipts if receipt.reason is None for _, pair in self._pairs(receipt))
        return [pair for pair in found if pair not in self._verdicts]

    def _ahead(self, genre: str, known: set[Pair]) -> list[Pair]:
        """Pairs that the next receipts of every genre will ask for, as far as can be told now."""
        found: list[Pair] = []
        for name, tally in self.tallies.items():
            first = tally.next + (self._sequences[name].n_twins if name == genre else 0)
            places = range(first, first + WINDOW)
            found += self._unknown(tally.waiting[place] for place in places if place in tally.waiting)
        return [pair for pair in dict.fromkeys(found) if pair not in known]


def _signature(receipt: Receipt) -> np.ndarray:
    return np.frombuffer(receipt.signature, dtype="<u4")


def _cut(config: str, split: str, part: _Open) -> Cut:
    return Cut(config, split, part.number, tuple(part.receipts))
