"""Does a text hold a piece of an evaluation set? By runs of thirteen words, and by near-duplicates of whole texts.

A run in common is enough: thirteen words in a row are no accident. Runs that the constitution holds too are left out,
since both quote it. Kept of a set are 24 bytes a run and 640 a text; the files are read once by each process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from sdf.decontaminate.evaluations import fingerprint, items
from sdf.dedup import Index, Words32, signatures
from sdf.errors import SourceError
from sdf.words import Hashes, encoded_words, n_words, runs, runs_within

RUN_WORDS = 13
# A shorter text is compared as one run; below this it is an answer like "Paris", which stands everywhere.
FEWEST_WORDS = 8
# A copy at Jaccard 0.75 is found with p > 0.99; 0.15 less is refused as no copy (dedup.SLACK).
NEAR = 0.75

# How a rejection begins whose text was found in a set; the set's name follows.
CONTAMINATED = "contaminated"

# Places of a table for each run: about one in eight that are not in the set is looked for all the same.
TABLE_PER_RUN = 8
# Words gathered before they are hashed and merged: some 20 MB.
_MERGE = 1 << 18


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A set as a job pins it. `n_short` texts have too few words to be found by words."""

    name: str
    path: str
    sha256: str
    n_items: int
    n_runs: int
    n_short: int

    @property
    def reason(self) -> str:
        """Why a document is rejected that holds a piece of it."""
        return f"{CONTAMINATED}: {self.name}"


@dataclass(frozen=True)
class _Read:
    """What is kept of a set: runs by their length, ascending; whole texts as signatures."""

    runs: dict[int, Hashes]
    copies: Index
    n_items: int
    n_short: int


def pin(paths: Sequence[str]) -> tuple[Evaluation, ...]:
    """Reads every set whole, so that whatever is wrong with one is known now. SourceError names file and line."""
    found: list[Evaluation] = []
    for path in paths:
        sha256 = fingerprint(path)
        read = _read(path, sha256)
        n_runs = sum(map(len, read.runs.values()))
        found.append(
            Evaluation(_name(path, [each.name for each in found]), path, sha256, read.n_items, n_runs, read.n_short)
        )
    return tuple(found)


def _name(path: str, taken: Sequence[str]) -> str:
    stem = Path(path).stem or "evaluation"
    return next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)


class Decontaminator:
    """The sets of a job. Reads them when it is built; SourceError when one is no longer what was pinned."""

    def __init__(self, evaluations: Sequence[Evaluation], constitution: str) -> None:
        # By the reason that a match gives.
        self._sets: list[tuple[str, dict[int, _Known], Index]] = []
        for each in evaluations:
            if fingerprint(each.path) != each.sha256:
                raise SourceError(f"{each.path}: the evaluation set is not the one this job was made with; restore it")
            read = _read(each.path, each.sha256)
            own = {n: _Known(np.setdiff1d(hashes, runs(constitution, n))) for n, hashes in read.runs.items()}
            self._sets.append((each.reason, own, read.copies))
        self._lengths = sorted({n for _, own, _ in self._sets for n in own}, reverse=True)

    def reason(self, texts: Sequence[str], signature: Words32 | None = None) -> str | None:
        """Why a document of these texts (its turns, or the one it is) is rejected: the first set that it holds.

        `signature` is that of the one text, where it is known already.
        """
        if not self._sets or not texts:
            return None
        by_text = [[runs(text, n) for n in self._lengths] for text in texts]
        hashes = dict(zip(self._lengths, map(np.concatenate, zip(*by_text, strict=True)), strict=True))
        if signature is None:
            rows = signatures([text for text in texts if n_words(text) >= RUN_WORDS])
        else:
            rows = signature.reshape(1, -1)
        for reason, own, copies in self._sets:
            if any(known.holds_any(hashes[n]) for n, known in own.items()) or any(
                copies.candidates(row) for row in rows
            ):
                return reason
        return None


class _Known:
    """The runs of a set. A table by their first bits answers for nearly all that are not in it: a search through a
    million sorted hashes misses the cache at every step, and takes ten times as long."""

    def __init__(self, hashes: Hashes) -> None:
        self._hashes = hashes
        bits = max(3, (TABLE_PER_RUN * len(hashes)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, np.bool_)
        self._table[hashes >> self._shift] = True

    def holds_any(self, found: Hashes) -> bool:
        likely = found[self._table[found >> self._shift]]
        if not len(likely):
            return False
        places = self._hashes.searchsorted(likely).clip(max=len(self._hashes) - 1)
        return bool(np.any(self._hashes[places] == likely))


@lru_cache(maxsize=8)
def _read(path: str, sha256: str) -> _Read:  # noqa: ARG001  part of the key
    """`sha256` stands for what the files hold: a file that changed is read again."""
    reading = _Reading()
    for texts in items(path):
        reading.add(texts)
    return reading.end()


class _Reading:
    """A set while it is read: texts are hashed together, since most are short."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[list[bytes]]] = {}
        self._merged: dict[int, Hashes] = {}
        self._copies = Index(NEAR)
        self._n_waiting = self._n_items = self._n_short = self._n_copies = 0

    def add(self, texts: Iterable[str]) -> None:
        self._n_items += 1
        for text in texts:
            words = encoded_words(text)
            if len(words) < FEWEST_WORDS:
                self._n_short += 1
                continue
            self._waiting.setdefault(min(len(words), RUN_WORDS), []).append(words)
            self._n_waiting += len(words)
            if len(words) >= RUN_WORDS:
                self._copies.add(self._n_copies, signatures([text])[0])
                self._n_copies += 1
        if self._n_waiting > _MERGE:
            self._merge()

    def _merge(self) -> None:
        for n, texts in self._waiting.items():
            known = self._merged.get(n, np.empty(0, np.uint64))
            self._merged[n] = np.unique(np.concatenate([known, runs_within(texts, n)]))
        self._waiting.clear()
        self._n_waiting = 0

    def end(self) -> _Read:
        self._merge()
        return _Read(self._merged, self._copies, self._n_items, self._n_short)
