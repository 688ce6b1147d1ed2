"""Shingles as texts: what the hashes of `sdf.dedup` stand for."""

from __future__ import annotations

from sdf.dedup import SHINGLE_WORDS
from sdf.words import words


def shingles(text: str) -> frozenset[str]:
    """The distinct runs of five words; a text of fewer words is one shingle, so the set is never empty."""
    found = words(text)
    n_runs = max(1, len(found) - SHINGLE_WORDS + 1)
    return frozenset(" ".join(found[start : start + SHINGLE_WORDS]) for start in range(n_runs))
