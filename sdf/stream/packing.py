"""Documents into sequences of `seq_len` tokens, planned from lengths alone.

A plan is made for a window of documents at a time, before anything is tokenised: whoever knows the lengths knows which
pieces of which documents every sequence holds, and fetches its own sequences only. Two packings:

    wrapped    documents end to end, cut every `seq_len` tokens; what a window leaves over opens the next one. No waste.
    best_fit   whole documents, placed into the fullest sequence that has room (longest first, a window at a time), the
               rest padded; a document longer than a sequence is split into pieces, or truncated when asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from sdf.stream.order import Rows, permutation

Packing = Literal["wrapped", "best_fit"]


class Piece(NamedTuple):
    """Tokens `start` to `stop` of the document in row `row`."""

    row: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Sequences of one window: sequence `i` holds pieces `bounds[i]` to `bounds[i + 1]`; `rest` opens the next window.

    `truncated` counts tokens that were cut away.
    """

    rows: Rows
    starts: Rows
    stops: Rows
    bounds: Rows
    rest: tuple[Piece, ...] = ()
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def n_tokens(self) -> Rows:
        """Tokens of each sequence, without its padding."""
        sums = np.concatenate([[0], np.cumsum(self.stops - self.starts)])
        return np.diff(sums[self.bounds])

    def pieces(self, first: int, last: int) -> list[list[Piece]]:
        """Those of the sequences `first` to `last`, a list for each."""
        low, high = int(self.bounds[first]), int(self.bounds[last])
        columns = (self.rows[low:high].tolist(), self.starts[low:high].tolist(), self.stops[low:high].tolist())
        found = [Piece(*values) for values in zip(*columns, strict=True)]
        bounds = (self.bounds[first : last + 1] - low).tolist()
        return [found[start:stop] for start, stop in itertools.pairwise(bounds)]


def wrapped(rows: Rows, lengths: Rows, seq_len: int, carry: Sequence[Piece] = ()) -> Plan:
    """`carry` (less than `seq_len` tokens), then the documents, cut every `seq_len` tokens."""
    rows = np.concatenate([[piece.row for piece in carry], rows]).astype(np.int64)
    offsets = np.concatenate([[piece.start for piece in carry], np.zeros(len(lengths))]).astype(np.int64)
    sizes = np.concatenate([[piece.stop - piece.start for piece in carry], lengths]).astype(np.int64)
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    n_sequences = total // seq_len
    cuts = np.arange(1, n_sequences + 1) * seq_len
    stops = np.union1d(ends[ends > 0], cuts)
    starts = np.concatenate([[0], stops[:-1]]).astype(np.int64)[: len(stops)]
    holder = np.searchsorted(ends, starts, side="right")
    shift = offsets[holder] - (ends[holder] - sizes[holder])
    bounds = np.concatenate([[0], np.searchsorted(stops, cuts) + 1]).astype(np.int64)
    pieces = (rows[holder], starts + shift, stops + shift)
    used = int(bounds[-1])
    rest = tuple(Piece(*map(int, values)) for values in zip(*(each[used:] for each in pieces), strict=True))
    return Plan(pieces[0][:used], pieces[1][:used], pieces[2][:used], bounds, rest)


def best_fit(rows: Rows, lengths: Rows, seq_len: int, *, truncate: bool, purpose: tuple[str | int, ...]) -> Plan:
    """Each piece into the fullest sequence that still has room for it, longest first; sequences then change places.

    Ties go to the earlier document. `purpose` seeds the order of the sequences; () leaves it as placed.
    """
    lengths = lengths.astype(np.int64)
    truncated = int(np.maximum(lengths - seq_len, 0).sum()) if truncate else 0
    pieces = _split(rows, np.minimum(lengths, seq_len) if truncate else lengths, seq_len)
    n_bins, bins = _placed(pieces[2] - pieces[1], seq_len)
    if purpose and n_bins:
        bins = np.argsort(permutation(n_bins, *purpose))[bins]
    order = np.argsort(bins, kind="stable")
    bounds = np.searchsorted(bins[order], np.arange(n_bins + 1))
    return Plan(pieces[0][order], pieces[1][order], pieces[2][order], bounds, truncated=truncated)


def _split(rows: Rows, lengths: Rows, seq_len: int) -> tuple[Rows, Rows, Rows]:
    """Documents as pieces of `seq_len` tokens and a shorter last one: rows, starts, stops."""
    counts = -(-lengths // seq_len)
    starts = (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)) * seq_len
    return np.repeat(rows, counts), starts, np.minimum(starts + seq_len, np.repeat(lengths, counts))


def _placed(sizes: Rows, seq_len: int) -> tuple[int, Rows]:
    """How many bins of `seq_len` there are, and the bin of each piece."""
    bins = np.empty(len(sizes), np.int64)
    order = np.argsort(-sizes, kind="stable")
    with_room: dict[int, list[int]] = {}
    # Bit r is set while a bin has room for exactly r more tokens: the tightest fit is one shift and one lowest bit.
    rooms, n_bins = 0, 0
    for position, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            number = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, number = seq_len, n_bins
            n_bins += 1
        bins[position] = number
        left = room - size
        if left:
            waiting = with_room.setdefault(left, [])
            if not waiting:
                rooms |= 1 << left
            waiting.append(number)
    return n_bins, bins
