from __future__ import annotations

import pickle

import numpy as np
import pytest
from datasketch import MinHash
from plain_shingles import shingles

from sdf import dedup
from sdf.dedup import Index, bands, jaccard, signatures
from sdf.words import runs, words


def reference(text: str) -> np.ndarray:
    sketch = MinHash(num_perm=120, seed=1, hashfunc=hash_of)
    sketch.update_batch([shingle.encode() for shingle in shingles(text)])
    return sketch.hashvalues


def hash_of(shingle: bytes) -> int:
    """Of its words alone, wherever they stand."""
    [hashed] = runs(shingle.decode(), shingle.count(b" ") + 1) if shingle else [0]
    return int(hashed) >> 32


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 32, (n, 120), dtype=np.uint32)


def test_words_lose_case_punctuation_and_compatibility_forms() -> None:
    assert words("The *Straße* — it’s ﬁne, ２０ｋｍ!") == ["the", "strasse", "it", "s", "fine", "20km"]


def test_a_character_is_a_word_where_no_spaces_are_written() -> None:
    assert words("AI助手 在 2024年") == ["ai", "助", "手", "在", "2024", "年"]


def test_a_word_keeps_its_vowel_signs() -> None:
    assert words("हिन्दी में शब्द। cafe\u0301") == ["हिन्दी", "में", "शब्द", "café"]


def test_jaccard_is_shared_over_all() -> None:
    assert jaccard("a b c d e f", "b c d e f g") == 1 / 3
    assert jaccard("Same words, other case", "same WORDS other case!") == 1.0
    assert jaccard("", "a") == 0.0
    assert jaccard("", "...") == 1.0
    assert jaccard("One two.", "one two") == 1.0
    assert jaccard("a a a a a a a", "a a a a a") == 1.0


TEXTS = [
    "",
    "short",
    "exactly five words stand here",
    "a b c d e f g " * 400,
    "Zażółć gęślą jaźń " * 9,
    "未雨绸缪的故事",
    "“Don’t,” SHE said – and_then… 2 K‘s—gone! " * 3,
    "it’s so\x1f– café, ﬁve ‘Kelvin’ days",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_signature_is_that_of_datasketch(text: str) -> None:
    assert signatures([text]).dtype == np.uint32
    np.testing.assert_array_equal(signatures([text])[0], reference(text))


def test_signatures_stand_in_order_and_span_blocks() -> None:
    long = " ".join(str(n) for n in range(2500))
    texts = [long, "short", long + " more words than before"]
    np.testing.assert_array_equal(signatures(texts), [reference(text) for text in texts])
    assert signatures([]).shape == (0, 120)


def test_bands_at_the_default_threshold() -> None:
    assert bands(0.8) == (20, 6)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_bands_propose_a_pair_at_the_threshold_and_no_more_rows_would(threshold: float) -> None:
    n_bands, n_rows = bands(threshold)
    assert n_bands * n_rows == 120
    assert dedup._proposed(threshold, n_bands, n_rows) >= 0.99
    wider = [rows for rows in range(n_rows + 1, 121) if 120 % rows == 0]
    assert all(dedup._proposed(threshold, 120 // rows, rows) < 0.99 for rows in wider)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        Index(threshold)


def test_a_text_proposes_its_copy() -> None:
    index = Index(0.8)
    first, second = signatures(["the keeper lit the lamp at dusk", "nobody came to the island that year"])
    index.add(7, first)
    index.add(3, second)
    assert index.candidates(second) == [3]
    assert index.candidates(first.tobytes()) == [7]


@pytest.mark.parametrize("n", [1, 255, 256, 257, 3000])
def test_a_copy_is_found_wherever_its_keys_lie(n: int) -> None:
    index, rows = Index(0.8), noise(n)
    for handle, signature in enumerate(rows):
        index.add(handle * 10, signature)
    for place in {0, n // 2, n - 1}:
        assert index.candidates(rows[place]) == [place * 10]
    assert index.candidates(noise(1, seed=9)[0]) == []


def test_candidates_come_in_insertion_order() -> None:
    index, signature = Index(0.8), noise(1)[0]
    handles = [50, 10, *range(1000, 1600), 30]
    for handle in handles:
        index.add(handle, signature)
    assert index.candidates(signature) == handles


def test_candidates_span_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "_CHUNK", 4)
    index, rows = Index(0.8), noise(12)
    for handle, signature in enumerate([*rows, *rows]):
        index.add(handle, signature)
    assert [index.candidates(signature) for signature in rows] == [[n, n + 12] for n in range(12)]


def test_a_handle_is_inserted_once() -> None:
    index, rows = Index(0.8), noise(2)
    index.add(1, rows[0])
    index.add(1, rows[1])
    index.add(1, rows[0])
    assert len(index) == 1
    assert index.candidates(rows[0]) == [1]
    assert index.candidates(rows[1]) == []


@pytest.mark.parametrize(("agreeing", "proposed"), [(120, True), (78, True), (77, False), (6, False)])
def test_a_shared_band_is_not_enough(agreeing: int, proposed: bool) -> None:
    """0.8 - 0.15 of 120 hashes is 78."""
    index, (old, other) = Index(0.8), noise(2)
    index.add(0, old)
    new = np.concatenate((old[:agreeing], other[agreeing:]))
    assert index.candidates(new) == ([0] if proposed else [])


def test_no_band_shared_no_candidate() -> None:
    index, (old, other) = Index(0.8), noise(2)
    index.add(0, old)
    new = old.copy()
    new[::6] = other[::6]
    assert index.candidates(new) == []


def test_the_same_hashes_in_another_band_do_not_meet() -> None:
    index, signature = Index(0.1), noise(1)[0]
    index.add(0, signature)
    assert index.candidates(np.roll(signature, 1)) == []


def test_a_signature_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a signature of 119 hashes; expected 120"):
        Index(0.8).candidates(noise(1)[0][:119])


def test_an_index_pickles() -> None:
    index, rows = Index(0.8), noise(300)
    for handle, signature in enumerate(rows):
        index.add(handle, signature)
    copy = pickle.loads(pickle.dumps(index))
    copy.add(300, rows[7])
    assert copy.candidates(rows[7]) == [7, 300]
    assert index.candidates(rows[7]) == [7]
