"""Documents of a tokens export by row number: mapped files, so that a document is a slice and costs no copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdf.errors import DamagedError, Missing
from sdf.manifest import Shard
from sdf.stream.cache import ShardCache
from sdf.stream.order import Rows
from sdf.stream.places import Place
from sdf.stream.tables import ROWS_PER_GROUP, Recent, chunks_of, identity_of
from sdf.stream.tokens_format import (
    INDEX,
    LABEL,
    OFFSET,
    TOKEN,
    Ids,
    Mask,
    TokenFile,
    TokenIndex,
    TokenShard,
    map_array,
)

# Mappings cost addresses, not memory: the pages in use are the kernel's.
OPEN_SHARDS = 256


def read_index(place: Place) -> TokenIndex | None:
    """None when there is none; DamagedError names a torn one."""
    try:
        return TokenIndex.from_json(place.read(INDEX), source=f"{place}/{INDEX}")
    except Missing:
        return None


class _Open:
    """A shard's arrays. What holds a cached file in place lives as long."""

    def __init__(self, table: TokenTable, shard: TokenShard) -> None:
        self.held = [table.fetched(file) for file in (shard.tokens, shard.offsets, shard.labels) if file]
        names = [f"{table.place}/{file.path}" for file in (shard.tokens, shard.offsets, shard.labels) if file]
        self.tokens = map_array(self.held[0].path, TOKEN, shard.n_tokens, names[0])
        # Offsets are read, since every window asks for many of them.
        self.offsets = np.array(map_array(self.held[1].path, OFFSET, shard.n_documents + 1, names[1]), np.int64)
        self.labels = map_array(self.held[2].path, LABEL, shard.n_tokens, names[2]) if shard.labels else None
        steps = np.diff(self.offsets)
        if self.offsets[0] != 0 or self.offsets[-1] != shard.n_tokens or (steps < 0).any():
            raise DamagedError(
                f"{names[1]}: its offsets do not rise from 0 to {shard.n_tokens}; export the corpus again"
            )


class TokenTable:
    """The shards of a tokens export, in order; chunks are runs of 1,000 documents."""

    def __init__(self, url: str, index: TokenIndex, shards: Sequence[TokenShard], cache: ShardCache) -> None:
        self.place, self._url, self._cache, self._shards = Place(url), url, cache, shards
        sizes = [_runs(shard.n_documents) for shard in shards]
        self.chunks = chunks_of(sizes)
        self.keys = [shard.tokens.sha256 for shard in shards]
        self.identity = identity_of([index.tokenizer_hash, *self.keys])
        self._firsts = np.concatenate([[0], np.cumsum([shard.n_documents for shard in shards])]).astype(np.int64)
        self._open = Recent(OPEN_SHARDS)

    def where(self, chunk: int) -> str:
        return f"{self.place}/{self._shards[int(self.chunks.files[chunk])].tokens.path}"

    def lengths(self, rows: Rows) -> Rows:
        """Tokens of each document."""
        found = np.empty(len(rows), np.int64)
        shards = self._shard_of(rows)
        for number in np.unique(shards).tolist():
            here = shards == number
            local, offsets = rows[here] - self._firsts[number], self._opened(number).offsets
            found[here] = offsets[local + 1] - offsets[local]
        return found

    def ids(self, rows: Sequence[int]) -> dict[int, tuple[Ids, Mask | None]]:
        """The token ids of each document, and which of them are learnt (None: all)."""
        found: dict[int, tuple[Ids, Mask | None]] = {}
        numbers = np.array(rows, np.int64)
        shards = self._shard_of(numbers)
        for number in np.unique(shards).tolist():
            here, opened = numbers[shards == number], self._opened(number)
            local, tokens, labels = here - self._firsts[number], opened.tokens, opened.labels
            bounds = (here.tolist(), opened.offsets[local].tolist(), opened.offsets[local + 1].tolist())
            for row, start, stop in zip(*bounds, strict=True):
                found[row] = tokens[start:stop], None if labels is None else labels[start:stop]
        return found

    def fetched(self, file: TokenFile) -> Any:
        """The file on this machine."""
        as_shard = Shard("documents", "train", 0, file.path, 0, 0, file.size_bytes, file.sha256, file.sha256)
        return self._cache.path(self._url, as_shard)

    def _shard_of(self, rows: Rows) -> Rows:
        return np.searchsorted(self._firsts, rows, side="right") - 1

    def _opened(self, number: int) -> _Open:
        return self._open.get(number, lambda: _Open(self, self._shards[number]))


def _runs(n: int) -> list[int]:
    full, rest = divmod(n, ROWS_PER_GROUP)
    return [ROWS_PER_GROUP] * full + ([rest] if rest else [])
