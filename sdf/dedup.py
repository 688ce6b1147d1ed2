"""Near-duplicates: a MinHash signature per text, an index that proposes pairs, exact Jaccard that decides.

Signatures equal those of `datasketch.MinHash(num_perm=120, seed=1)` (2.0 and later) bit for bit, given the same hash of
a shingle. They are computed here because a call per shingle takes many times as long, and because its default scheme
changed between versions while signatures are kept in ledgers.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sdf.records import stream
from sdf.words import n_words, runs

NUM_PERM = 120
# Another name for every change of what a signature is: measures in a ledger that were taken by another are taken anew.
SCHEME = "words-5 x 120"
SIGNATURE = np.dtype("<u4")
SHINGLE_WORDS = 5

# An estimate from 120 hashes has a standard deviation of at most 0.046 (0.037 at 0.8): a pair at the threshold falls
# 0.15 below it with p < 0.001 (0.00002 at 0.8), and every candidate refused here spares fetching two texts.
SLACK = 0.15

Words32 = npt.NDArray[np.uint32]
Words64 = npt.NDArray[np.uint64]


def jaccard(a: str, b: str) -> float:
    """Shared shingles / all shingles, from 0.0 to 1.0: exact, but for hashes of 64 bits that collide. Two texts without
    a word are equal."""
    ours, theirs = _distinct_shingles(a), _distinct_shingles(b)
    shared = len(np.intersect1d(ours, theirs, assume_unique=True))
    return shared / (len(ours) + len(theirs) - shared)


def signatures(texts: Sequence[str]) -> Words32:
    """One row of 120 hashes per text, in order; shape (n, 120). `row.tobytes()` is what a receipt carries."""
    return np.array(list(signed(texts)), SIGNATURE).reshape(len(texts), NUM_PERM)


def signed(texts: Iterable[str]) -> Iterator[Words32]:
    """The same, one by one: what else is asked of a text's runs of words meanwhile finds them hashed."""
    scratch = np.empty((_BLOCK, NUM_PERM), np.uint32)
    for text in texts:
        row = np.full(NUM_PERM, 0xFFFFFFFF, SIGNATURE)
        hashes = _hashes(text).reshape(-1, 1)
        for start in range(0, len(hashes), _BLOCK):
            block = hashes[start : start + _BLOCK]
            permuted = np.multiply(block, _FACTORS, out=scratch[: len(block)])
            permuted += _OFFSETS
            np.minimum(row, permuted.min(axis=0), out=row)
        yield row


class Index:
    """Signatures under handles; proposes which earlier texts a new one may duplicate.

    Bands are chosen so that a pair exactly at the threshold is proposed with p >= 0.99, and as few others as that
    allows: 20 x 6 at 0.8, where a pair at 0.8 is proposed with p = 0.998, at 0.5 with 0.27, at 0.1 with 0.00002.

    A signature costs 480 bytes and its band keys 160: 300,000 texts take about 220 MB. Keys lie in sorted runs that
    are merged when their sizes come within a factor of four; the newest 256 rows are searched directly.
    """

    def __init__(self, threshold: float) -> None:
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"dedup threshold {threshold}: must be above 0 and at most 1")
        self.n_bands, self.n_rows = bands(threshold)
        self._least = round((threshold - SLACK) * NUM_PERM, 9)
        self._factors, self._offsets = _band_hash(self.n_bands, self.n_rows)
        self._handles = array("q")
        self._known: set[int] = set()
        self._chunks: list[Words32] = []
        self._runs: list[Words64] = []
        self._tail: Words64 = np.empty((_TAIL, self.n_bands), np.uint64)
        self._n_tail = 0

    def __len__(self) -> int:
        return len(self._handles)

    def add(self, handle: int, signature: bytes | Words32) -> None:
        """Insert; a handle already present is left as it is, whatever its signature."""
        if handle in self._known:
            return
        row = _row(signature)
        place = len(self._handles)
        if place % _CHUNK == 0:
            self._chunks.append(np.empty((_CHUNK, NUM_PERM), SIGNATURE))
        self._chunks[-1][place % _CHUNK] = row
        self._tail[self._n_tail] = self._keys(row) | np.uint64(place)
        self._n_tail += 1
        self._handles.append(handle)
        self._known.add(handle)
        if self._n_tail == _TAIL:
            self._freeze()

    def candidates(self, signature: bytes | Words32) -> list[int]:
        """Handles that share a band and whose estimated Jaccard is at least threshold - 0.15, in insertion order."""
        row = _row(signature)
        places = self._places(self._keys(row))
        return [self._handles[place] for place in self._similar(places, row)] if len(places) else []

    def _similar(self, places: Words64, row: Words32) -> list[int]:
        similar: list[int] = []
        numbers = places // _CHUNK
        for number in np.unique(numbers).tolist():
            inside = places[numbers == number]
            agreeing = np.count_nonzero(self._chunks[number][inside % _CHUNK] == row, axis=1)
            similar += inside[agreeing >= self._least].tolist()
        return similar

    def _keys(self, row: Words32) -> Words64:
        """One key per band: 36 bits of hash, and room for the place below them."""
        parts = row.reshape(self.n_bands, self.n_rows) * self._factors
        return (parts.sum(axis=1) + self._offsets) & ~_PLACE

    def _places(self, keys: Words64) -> Words64:
        """Places that share a band, ascending. An entry and a key of one band differ in the place bits alone."""
        tail = self._tail[: self._n_tail]
        found = [tail[(tail ^ keys) <= _PLACE]]
        for run in self._runs:
            firsts = run.searchsorted(keys)
            hits = np.flatnonzero((run.take(firsts, mode="clip") ^ keys) <= _PLACE)
            found += [run[firsts[band] : run.searchsorted(keys[band] | _PLACE)] for band in hits]
        # np.unique sorts, and costs as much as a run's search when there is nothing to sort.
        entries = np.concatenate(found)
        return np.unique(entries & _PLACE) if len(entries) else entries

    def _freeze(self) -> None:
        run = np.sort(self._tail, axis=None)
        while self._runs and len(run) * 4 > len(self._runs[-1]) and len(run) + len(self._runs[-1]) <= _LONGEST_RUN:
            run = np.concatenate((self._runs.pop(), run))
            run.sort()
        self._runs.append(run)
        self._n_tail = 0


def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows): the most rows that divide 120 and still propose a pair at the threshold with p >= 0.99."""
    shapes = [(NUM_PERM // rows, rows) for rows in range(NUM_PERM, 0, -1) if NUM_PERM % rows == 0]
    return next((shape for shape in shapes if _proposed(threshold, *shape) >= 0.99), shapes[-1])


def _proposed(similarity: float, n_bands: int, n_rows: int) -> float:
    return 1.0 - (1.0 - similarity**n_rows) ** n_bands


def _shingles(text: str) -> Words64:
    """A hash of every run of five words, in order; a text of fewer words is one shingle, so there is always one."""
    found = runs(text, min(SHINGLE_WORDS, n_words(text)) or 1)
    return found if len(found) else np.zeros(1, np.uint64)


def _distinct_shingles(text: str) -> Words64:
    return np.unique(_shingles(text))


def _hashes(text: str) -> Words32:
    """One for every shingle, in order; of a shingle said twice, twice. Mixed by MurmurHash3's finaliser, as datasketch
    has it."""
    hashes = (_shingles(text) >> np.uint64(32)).astype(np.uint32)
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


def _permutations() -> tuple[Words32, Words32]:
    """datasketch's draw for seed 1; `RandomState` is frozen across versions of numpy."""
    draw = np.random.RandomState(1)
    factors = draw.randint(0, 1 << 31, NUM_PERM, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    offsets = draw.randint(0, 1 << 32, NUM_PERM, dtype=np.uint32)
    return factors, offsets


def _band_hash(n_bands: int, n_rows: int) -> tuple[Words64, Words64]:
    """Multilinear hashing in 64 bits, other factors for every band: the high bits are universal."""
    draws = np.array([stream("band", place) for place in range(n_bands * (n_rows + 1))], np.uint64)
    return draws[n_bands:].reshape(n_bands, n_rows), draws[:n_bands]


def _row(signature: Any) -> Words32:
    row = np.frombuffer(signature, SIGNATURE)
    if len(row) != NUM_PERM:
        raise ValueError(f"a signature of {len(row)} hashes; expected {NUM_PERM}")
    return row


_FACTORS, _OFFSETS = _permutations()
# 1024 x 120 hashes stay in a core's second-level cache: four times as fast as whole documents at once.
_BLOCK = 1024
_CHUNK = 8192
_TAIL = 256
# 32 MB: bounds what a merge holds twice.
_LONGEST_RUN = 1 << 22
# The low 28 bits of a key are the row's place: 268 million rows.
_PLACE = np.uint64((1 << 28) - 1)
