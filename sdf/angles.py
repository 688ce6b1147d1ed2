"""The similarity gate on short texts: is this idea too close to one already taken?

Integer arithmetic on sets of hashed character 4-grams, so that every machine decides alike. Gated are the
one-sentence angles, never documents: similarity depends on length, and bodies have MinHash.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

GRAM = 4

# Two angles are one when the cosine of their gram sets is at least 0.6, compared as
# 100 * shared^2 >= 36 * size * size. Paraphrases that keep the nouns score 0.6-0.9, siblings 0.1-0.4.
COSINE_SQUARED_PERCENT = 36


# The angles taken in a lane come again with each of its rounds: half of what a gate costs to build.
@lru_cache(maxsize=8_192)
def grams(text: str) -> np.ndarray:
    """Distinct hashes of the 4-grams of the normalised text, ascending, uint32; read only."""
    folded = " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
    padded = f" {folded} ".encode()
    starts = range(max(1, len(padded) - GRAM + 1))
    found = np.unique(np.fromiter((zlib.crc32(padded[i : i + GRAM]) for i in starts), dtype=np.uint32))
    found.flags.writeable = False
    return found


class Gate:
    """Admits a text unless it resembles one admitted before; order of admission matters, nothing else."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._sizes: list[int] = []
        self._postings: dict[int, list[int]] = {}
        for text in taken:
            self._take(grams(text))

    def admit(self, text: str) -> bool:
        """True, and remembered, when the text is new; False when it resembles an admitted one."""
        found = grams(text)
        if self._resembles(found):
            return False
        self._take(found)
        return True

    def _take(self, found: np.ndarray) -> None:
        for gram in found.tolist():
            self._postings.setdefault(gram, []).append(len(self._sizes))
        self._sizes.append(len(found))

    def _resembles(self, found: np.ndarray) -> bool:
        holders = [holder for gram in found.tolist() for holder in self._postings.get(gram, ())]
        if not holders:
            return False
        shared = np.bincount(np.asarray(holders), minlength=len(self._sizes)).astype(np.int64)
        sizes = np.asarray(self._sizes, dtype=np.int64)
        return bool(np.any(100 * shared * shared >= COSINE_SQUARED_PERCENT * len(found) * sizes))
