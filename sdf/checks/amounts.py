"""How much of a text there is, and how much of it again and again. Holds in any language."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from sdf.checks.subject import Checks
from sdf.records import stream

# How far a text may miss the words asked for: models commonly miss by a third either way.
SHORTEST = 0.5
LONGEST = 2.0

# Gopher's limits for repeated lines (by characters) and for repeated five-word runs; real documents reach 0.06.
MAX_REPEATED_LINES = 0.2
MAX_REPEATED_RUNS = 0.15
# With fewer a refrain or a table already reaches the limit.
FEWEST_LINES = 6
FEWEST_RUNS = 50


@lru_cache(maxsize=1)  # Two checks ask for the same text, one after the other.
def n_words(text: str) -> int:
    """Words as a reader counts them: between spaces; each ideograph or kana; four letters where no spaces stand."""
    if not text.isascii():
        return len(text.split()) + _n_unspaced(text)
    # Where a space ends, in a quarter of the time that a list of words takes.
    is_space = np.frombuffer(b" " + text.encode().translate(_ASCII_SPACES), np.uint8) == ord(" ")
    return int(np.count_nonzero(is_space[:-1] & ~is_space[1:]))


_ASCII_SPACES = bytes(ord(" ") if chr(n).isspace() else ord("x") for n in range(128)) + bytes(128)


def _n_unspaced(text: str) -> int:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    codes = codes[codes >= 0xE00]
    ideographs = (codes >= 0x3040) & (codes < 0xA000) | (codes >= 0xF900) & (codes < 0xFB00) | (codes >= 0x20000)
    letters = (codes < 0xF00) | (codes >= 0x1000) & (codes < 0x10A0) | (codes >= 0x1780) & (codes < 0x1800)
    return int(np.count_nonzero(ideographs)) + int(np.count_nonzero(letters)) // 4


def empty(text: str, _: Checks) -> bool:
    """No letter and no digit."""
    return re.search(r"[^\W_]", text) is None


def too_short(text: str, checks: Checks) -> bool:
    return n_words(text) < checks.n_words[0] * SHORTEST


def too_long(text: str, checks: Checks) -> bool:
    most = checks.n_words[1]
    return most > 0 and n_words(text) > most * LONGEST


def repetition(text: str, _: Checks) -> bool:
    """Says the same again and again: whole lines, or runs of 32 bytes (five words of English, ten ideographs)."""
    lines = text.split("\n")
    repeated = len(text) - len(lines) + 1 - sum(map(len, set(lines)))
    if len(lines) >= FEWEST_LINES and repeated > MAX_REPEATED_LINES * len(text):
        return True
    return _repeated_runs(text.encode("utf-8", "surrogatepass")) > MAX_REPEATED_RUNS


def _repeated_runs(data: bytes) -> float:
    """The share of runs that occurred before; they start at words, or at characters where no spaces stand.

    Runs are compared by a 64-bit hash of their four 8-byte words: several times as fast as a set of tuples of words.
    """
    bytes_ = np.frombuffer(data, np.uint8)
    starts = np.flatnonzero(bytes_ <= ord(" ")) + 1
    if len(starts) * 24 < len(data):
        starts = np.flatnonzero((bytes_ & 0xC0) != 0x80)
    starts = starts[: starts.searchsorted(len(data) - RUN_BYTES, side="right")]
    if len(starts) < FEWEST_RUNS:
        return 0.0
    # Gathered whole: as numbers, which lie unaligned, they take five times as long.
    every_run = np.ndarray(len(data) - RUN_BYTES + 1, f"V{RUN_BYTES}", data, strides=1)
    hashes = every_run[starts].view("<u8").reshape(-1, len(_FACTORS)) @ _FACTORS
    hashes.sort()
    return np.count_nonzero(hashes[1:] == hashes[:-1]) / len(hashes)


RUN_BYTES = 32
_FACTORS = np.array([stream("repetition", at) | 1 for at in range(RUN_BYTES // 8)], np.uint64)
