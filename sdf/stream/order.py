"""The one global order of rows: a pure function of (rows, seed, epoch), whoever reads.

    files, shuffled -> their chunks (row groups), shuffled -> windows of about `window_rows` rows -> rows, shuffled

A row moves within its window and windows move through the corpus, so a reader holds one window at most and finds any
place of an epoch without what came before. The price is that two neighbours on disk stay within a window of each other.
Nothing here depends on numpy's generators, whose streams may change between versions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rows = Any  # an int64 array of row numbers, or of counts
WINDOW_ROWS = 8_000

_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def permutation(n: int, *purpose: str | int) -> Rows:
    """The numbers 0 to n - 1 in an order that is a pure function of `n` and `purpose`."""
    return np.argsort(_random_bits(n, *purpose), kind="stable")


def _random_bits(n: int, *purpose: str | int) -> Any:
    """splitmix64 from a start that hashes the purpose."""
    start = int.from_bytes(hashlib.blake2b(repr(purpose).encode(), digest_size=8).digest(), "little")
    with np.errstate(over="ignore"):
        bits = np.uint64(start) + _GOLDEN * np.arange(1, n + 1, dtype=np.uint64)
        bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
        bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
        return bits ^ (bits >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class Chunks:
    """How rows lie in files: chunk `i` holds rows `starts[i]` to `starts[i + 1]`, and is part of file `files[i]`."""

    starts: Rows
    files: Rows

    @property
    def n_rows(self) -> int:
        return int(self.starts[-1])

    def holding(self, rows: Rows) -> Rows:
        """The chunk of each row."""
        return np.searchsorted(self.starts, rows, side="right") - 1


@dataclass(frozen=True, slots=True)
class Shuffle:
    """How rows are ordered. `window_rows` bounds memory: a window ends with the chunk that reaches it."""

    seed: int
    window_rows: int = WINDOW_ROWS
    on: bool = True


@dataclass(frozen=True, slots=True)
class Spot:
    """A window in a corpus: of pass `epoch` over rows `first` and later of `version`, window `window`."""

    epoch: int
    version: int
    first: int = 0
    window: int = 0


@dataclass(frozen=True)
class EpochOrder:
    """The windows of one pass over rows `first` to `last` of a table.

    `window(n)` costs one window, wherever it lies in the pass.
    """

    chunks: Chunks
    first: int
    last: int
    epoch: int
    shuffle: Shuffle
    _order: Rows = field(init=False, repr=False)
    _bounds: Rows = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts = self.chunks.starts
        lowest = int(np.searchsorted(starts, self.first, side="right")) - 1
        order = np.arange(lowest, max(lowest, int(np.searchsorted(starts, self.last, side="left"))))
        if self.shuffle.on and len(order):
            order = order[self._shuffled(self.chunks.files[order])]
        sizes = np.minimum(starts[order + 1], self.last) - np.maximum(starts[order], self.first)
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_bounds", _bounds(sizes, self.shuffle.window_rows))

    @property
    def n_windows(self) -> int:
        return len(self._bounds) - 1

    def window(self, number: int) -> Rows:
        """The row numbers of a window, in order."""
        chunks = self._order[self._bounds[number] : self._bounds[number + 1]]
        starts = self.chunks.starts
        ranges = [np.arange(max(starts[each], self.first), min(starts[each + 1], self.last)) for each in chunks]
        rows = np.concatenate(ranges)
        return rows[permutation(len(rows), *self._purpose, "rows", number)] if self.shuffle.on else rows

    @property
    def _purpose(self) -> tuple[str | int, ...]:
        return "order", self.shuffle.seed, self.epoch, self.first

    def _shuffled(self, files: Rows) -> Rows:
        """Chunks by the rank of their file, in a file by their own."""
        names, file_of = np.unique(files, return_inverse=True)
        rank = np.argsort(permutation(len(names), *self._purpose, "files"))
        return np.lexsort((permutation(len(files), *self._purpose, "chunks"), rank[file_of]))


def _bounds(sizes: Rows, window_rows: int) -> Rows:
    """Where windows begin: each takes chunks until it holds `window_rows`."""
    bounds, held = [0], 0
    for position, size in enumerate(sizes.tolist(), start=1):
        held += size
        if held >= window_rows:
            bounds.append(position)
            held = 0
    if bounds[-1] != len(sizes):
        bounds.append(len(sizes))
    return np.array(bounds)
