from __future__ import annotations

import numpy as np
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st
from plain_shingles import shingles

from sdf.dedup import Index, jaccard, signatures
from sdf.words import runs, spaced_words, words

TEXTS = st.text(alphabet="abc ß助é.\n", max_size=120)
ENGLISH = st.text(alphabet="abZ_9 .’“—…\t\x1f\u2028\u00a0", max_size=120)


def hash_of(shingle: bytes) -> int:
    [hashed] = runs(shingle.decode(errors="surrogatepass"), shingle.count(b" ") + 1) if shingle else [0]
    return int(hashed) >> 32


@given(st.lists(TEXTS | ENGLISH | st.text(), max_size=6))
def test_signatures_equal_datasketch_text_by_text(texts: list[str]) -> None:
    for text, row in zip(texts, signatures(texts), strict=True):
        sketch = MinHash(num_perm=120, seed=1, hashfunc=hash_of)
        sketch.update_batch([shingle.encode() for shingle in shingles(text)])
        np.testing.assert_array_equal(row, sketch.hashvalues)


@given(TEXTS, TEXTS)
def test_jaccard_is_that_of_the_shingles(a: str, b: str) -> None:
    ours, theirs = shingles(a), shingles(b)
    assert jaccard(a, b) == len(ours & theirs) / len(ours | theirs)
    assert jaccard(a, a) == 1.0


ROWS = [np.random.default_rng(seed).integers(0, 1 << 32, 120, dtype=np.uint32) for seed in range(4)]


@given(st.lists(st.tuples(st.integers(-5, 20), st.integers(0, 3)), max_size=30), st.integers(0, 3), st.randoms())
def test_candidates_are_those_of_a_plain_scan(added: list[tuple[int, int]], asked: int, random) -> None:
    """The first signature of a handle counts; repeats and their order change nothing."""
    index = Index(0.8)
    first: dict[int, int] = {}
    for handle, number in added:
        index.add(handle, ROWS[number])
        first.setdefault(handle, number)
        again = random.choice(list(first))
        index.add(again, ROWS[random.randrange(4)])
    assert len(index) == len(first)
    assert index.candidates(ROWS[asked]) == [handle for handle, number in first.items() if number == asked]


@given(st.text())
def test_the_fast_way_to_words_finds_the_same(text: str) -> None:
    """A Thai letter sends all of a text the slow way."""
    assert words(text + " \u0e01") == [*words(text), "\u0e01"]


@given(ENGLISH | st.text())
def test_spaced_words_are_the_words_with_spaces_around_them(text: str) -> None:
    assert spaced_words(text) == " ".join(["", *words(text), ""]).encode("utf-8", "surrogatepass")
