"""Request key -> where its answer lies, in sorted numpy columns.

24 bytes a key and one pickle buffer per column, against some 250 bytes and an object each in a dict; in
exchange a look-up takes microseconds and the index never changes once it is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from sdf.records import Location

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class KeyIndex:
    """Immutable; iterates over (key, Location) in the order of keys."""

    __slots__ = ("_high", "_low", "_part", "_parts", "_row")

    def __init__(self, words: Words, part: Ints, row: Ints, parts: tuple[str, ...]) -> None:
        """`words` is (n, 2), keys as `key_words` makes them, sorted, each once; `part` counts in `parts`."""
        self._high, self._low = np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])
        self._part, self._row = part.astype(np.uint32), row.astype(np.uint32)
        self._parts = parts

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Location]]) -> KeyIndex:
        """Of a key's locations the smallest (epoch, part, row) counts."""
        smallest: dict[str, Location] = {}
        for key, location in pairs:
            smallest[key] = min(smallest.get(key, location), location)
        parts = tuple(sorted({location.part for location in smallest.values()}))
        number = {part: i for i, part in enumerate(parts)}
        part = np.array([number[location.part] for location in smallest.values()], dtype=np.int64)
        row = np.array([location.row for location in smallest.values()], dtype=np.int64)
        words = key_words("".join(smallest))
        order = firsts(words)
        return cls(words[order], part[order], row[order], parts)

    def __len__(self) -> int:
        return len(self._high)

    def __iter__(self) -> Iterator[tuple[str, Location]]:
        for high, low, part, row in zip(self._high, self._low, self._part, self._row, strict=True):
            yield f"{high:016x}{low:016x}", Location(self._parts[part], int(row))

    def find(self, key: str) -> Location | None:
        """Where the answer to `key` (32 hex digits) lies; None when it was never paid for."""
        high, low = np.uint64(int(key[:16], 16)), np.uint64(int(key[16:], 16))
        start, end = np.searchsorted(self._high, high, "left"), np.searchsorted(self._high, high, "right")
        place = int(start + np.searchsorted(self._low[start:end], low))
        if place == end or self._low[place] != low:
            return None
        return Location(self._parts[self._part[place]], int(self._row[place]))


def key_words(keys: str) -> Words:
    """Keys of 32 hex digits, joined -> (n, 2) words that sort as the keys do."""
    return np.frombuffer(bytes.fromhex(keys), dtype=">u8").astype(np.uint64).reshape(-1, 2)


def firsts(words: Words) -> Ints:
    """Of each distinct key the first place in `words`, in the order of keys."""
    order = np.lexsort((words[:, 1], words[:, 0]))
    ordered = words[order]
    is_first = np.ones(len(ordered), dtype=bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order[is_first]
