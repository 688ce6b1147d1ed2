"""The words of a text, and 64-bit hashes of runs of them: what duplicates, leaks and contamination are found by.

A run is hashed as the bytes between two offsets of the normalised text, from prefix sums, so that a document costs a
few passes of numpy whatever the length of a run. Equal runs have equal hashes on every machine; different ones collide
with p < 1e-12 among ten million.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sdf.records import stream

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

# Scripts written without spaces: Thai, Lao, Burmese, Khmer, kana, ideographs. There each character is a word. A Chinese
# copy with one character in sixty changed has Jaccard 0.83 so, and 0.06 if each clause were one word, as `\w+` has it.
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and points, which `\w` leaves out: without them a word of Hindi or Hebrew falls to pieces.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(rf"[{_SPACELESS}]|(?:[^\W{_SPACELESS}]+|[{_MARKS}]+)+")
# Where none of these stands, `\w+` finds the same words in half the time.
_SPECIAL, _PLAIN_WORD = re.compile(f"[{_SPACELESS}{_MARKS}]"), re.compile(r"\w+")

# None is part of a word, composes with a letter or has a compatibility form that is.
_TYPOGRAPHY = "‘’“”–—…"
_SPACE = ord(" ")
_ASCII_WORDS = bytes(n if chr(n).isalnum() or chr(n) == "_" else _SPACE for n in range(128)).lower() + bytes(128)


def words(text: str) -> list[str]:
    """The words of a text, without case, compatibility forms and punctuation."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return (_WORD if _SPECIAL.search(plain) else _PLAIN_WORD).findall(plain)


def spaced_words(text: str) -> bytes:
    """`words` as UTF-8, a space on both sides of each: of a text without words, one space."""
    plain = text
    for mark in _TYPOGRAPHY:
        plain = plain.replace(mark, " ")
    if not plain.isascii():
        return _spaced(word.encode("utf-8", "surrogatepass") for word in words(text))
    # In a twentieth of the time: what is ASCII holds no compatibility form, and no case but that of its letters.
    data = np.frombuffer(b" " + plain.encode().translate(_ASCII_WORDS) + b" ", np.uint8)
    is_space = data == _SPACE
    return b" " + data[1:][~(is_space[1:] & is_space[:-1])].tobytes()


def encoded_words(text: str) -> list[bytes]:
    """`words` as UTF-8."""
    return spaced_words(text).split()


def _spaced(found: Iterable[bytes]) -> bytes:
    return b" ".join((b"", *found, b""))


def runs(text: str, n_words: int) -> Hashes:
    """A hash of every run of `n_words` words, in order; none when the text has fewer words."""
    sums, starts = _hashed(text)
    return _runs(sums, starts[:-n_words], starts[n_words:])


def runs_within(texts: Sequence[Sequence[bytes]], n_words: int) -> Hashes:
    """Those of all the texts, given as their words, in order; no run goes across two. One pass for many short ones."""
    sums, starts = _sums(_spaced(word for words in texts for word in words))
    ends = np.cumsum([len(words) for words in texts])
    own_end = np.repeat(ends, [len(words) for words in texts])
    first = np.flatnonzero(np.arange(len(own_end)) + n_words <= own_end)
    return _runs(sums, starts[first], starts[first + n_words])


def _runs(sums: Hashes, first: Places, end: Places) -> Hashes:
    # The end is the start of the next word: the space before it is hashed along, for every run alike.
    return _mixed((sums[end] - sums[first]) * _powers(len(sums))[1][first]) if len(first) else np.empty(0, np.uint64)


def n_words(text: str) -> int:
    """As `runs` counts them."""
    return len(_hashed(text)[1]) - 1


@lru_cache(maxsize=1)  # Duplicates, leaks and contamination ask for runs of the same text, one after the other.
def _hashed(text: str) -> tuple[Hashes, Places]:
    return _sums(spaced_words(text))


def _sums(spaced: bytes) -> tuple[Hashes, Places]:
    """Prefix sums over the words, each followed by a space, and where words start; one start more than words."""
    data = np.frombuffer(spaced, np.uint8)
    sums = np.zeros(len(data), np.uint64)
    np.cumsum(_BYTES.take(data[1:]) * _powers(len(data))[0][: len(data) - 1], out=sums[1:])
    # A space before each word: counted without the first of them, where it starts.
    return sums, np.flatnonzero(data == _SPACE)


def _powers(n: int) -> tuple[Hashes, Hashes]:
    """Powers of the base and of its inverse modulo 2**64, at least `n` of each."""
    return _powers_to(max(1 << 14, 1 << (n - 1).bit_length()))


@lru_cache(maxsize=4)
def _powers_to(n: int) -> tuple[Hashes, Hashes]:
    both: list[Hashes] = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        row = np.full(n, np.uint64(base))
        row[0] = 1
        both.append(np.cumprod(row))
    return both[0], both[1]


def _mixed(hashes: Hashes) -> Hashes:
    """MurmurHash3's finaliser: the low bits of a polynomial modulo 2**64 are weak."""
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return hashes ^ (hashes >> np.uint64(33))


# Odd, so that it has an inverse.
_BASE = stream("runs", "base") | 1
_BYTES = np.array([stream("runs", byte) for byte in range(256)], np.uint64)
