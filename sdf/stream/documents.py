"""One pass over a corpus as plain dicts, dealt to ranks row by row.

Rank `r` of `w` takes rows r, r + w, r + 2w, … of the global order, so the state, a position in it, is the same on every
rank and goes on under any other number of ranks. Every rank reads the window it takes rows of (Arrow decodes about
a gigabyte a second) and turns into Python values only its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

from sdf.errors import StreamError
from sdf.stream.order import WINDOW_ROWS, Rows, Shuffle, Spot
from sdf.stream.rows import decoding, stack_of
from sdf.stream.states import FORMAT, check_kind, check_same

if TYPE_CHECKING:
    from sdf.stream.corpus import Corpus


class Documents:
    """An iterator of rows; `state_dict` at any point, `load_state_dict` before the first row.

    columns      the columns to read, all by default
    shuffle      False for the order on disk
    window_rows  rows that are shuffled together; memory holds that many, and one row group more
    tail         what becomes of the last rows when they are fewer than ranks: "drop" gives all ranks equally many,
                 "keep" loses none
    """

    def __init__(
        self,
        corpus: Corpus,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        epoch: int = 0,
        *,
        columns: Sequence[str] | None = None,
        shuffle: bool = True,
        window_rows: int = WINDOW_ROWS,
        tail: Literal["drop", "keep"] = "drop",
    ) -> None:
        if not 0 <= rank < world_size:
            raise StreamError(f"rank {rank} of world_size {world_size}: ranks go from 0 to world_size - 1")
        if tail not in ("drop", "keep"):
            raise StreamError(f"tail={tail!r}: give 'drop' or 'keep'")
        if corpus.is_tokens:
            raise StreamError(f"{corpus.place}: holds token ids, no texts; read the corpus it was exported from")
        self._corpus, self._rank, self._world_size = corpus, rank, world_size
        self._epoch, self._tail = epoch, tail
        self._columns = list(columns) if columns is not None else None
        self._shuffle = Shuffle(seed, window_rows, shuffle)
        self._spot, self._offset = replace(corpus.start, epoch=epoch), 0
        self._rows: Iterator[dict[str, Any]] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._rows is None:
            self._rows = self._dealt()
        return self._rows

    def __next__(self) -> dict[str, Any]:
        return next(iter(self))

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values: where all ranks are after as many rows as this one has read."""
        return {
            "format": FORMAT,
            "kind": "documents",
            "corpus": self._identity(self._spot.version),
            "order": asdict(self._shuffle),
            "spot": asdict(self._spot),
            "offset": self._offset,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """StreamError says what differs when the state belongs to another corpus, seed or order."""
        check_kind(state, "documents")
        spot = Spot(**state["spot"])
        check_same("order", state["order"], asdict(self._shuffle))
        check_same("corpus", state["corpus"], self._identity(spot.version))
        self._spot, self._offset, self._epoch, self._rows = spot, state["offset"], spot.epoch, None

    def _identity(self, version: int) -> dict[str, Any]:
        return {**self._corpus.identity, "sha256": self._corpus.snapshot(version).sha256}

    def _dealt(self) -> Iterator[dict[str, Any]]:
        """The rows of this rank. A row is given once it is known that every rank gets one."""
        held: dict[str, Any] | None = None
        n_open = 0  # rows of the open group, which holds one row for each rank, in the windows before
        while (rows := self._window()) is not None:
            offset = self._offset
            if held is not None and n_open + len(rows) >= self._world_size:
                self._offset = offset + self._world_size - n_open
                yield held
                held = None
            first = (self._rank - n_open) % self._world_size
            given = self._plain(rows[first :: self._world_size])
            # Where the group of each row ends, as far as that is in this window.
            ends = range(first + self._world_size - self._rank, len(rows) + 1, self._world_size)
            for end, row in zip(ends, given, strict=False):
                self._offset = offset + end
                yield row
            held = next(given, held)
            n_open = (n_open + len(rows)) % self._world_size
            self._spot, self._offset = replace(self._spot, window=self._spot.window + 1), 0
        if held is not None and self._tail == "keep":
            yield held

    def _window(self) -> Rows | None:
        """What is left of the window at the spot, or of the next one that has rows; None when the pass is over."""
        while True:
            self._spot = self._corpus.settled(self._spot, self._shuffle)
            if self._spot.epoch != self._epoch:
                return None
            rows = self._corpus.rows(self._spot, self._shuffle)
            if self._offset < len(rows):
                return rows[self._offset :]
            # A state may lie beyond its window: its group of rows ended in a later one.
            self._spot = replace(self._spot, window=self._spot.window + 1)
            self._offset -= len(rows)

    def _plain(self, rows: Rows) -> Iterator[dict[str, Any]]:
        table = self._corpus.snapshot(self._spot.version).table
        chunks = table.chunks.holding(rows)
        local = rows - table.chunks.starts[chunks]
        stacks: dict[int, list[dict[str, Any]]] = {}
        for chunk in chunks.tolist():
            if chunk not in stacks:
                found = table.read(chunk, self._columns)
                with decoding(table.where(chunk)):
                    stacks[chunk] = stack_of(found, local[chunks == chunk])
            yield stacks[chunk].pop()
