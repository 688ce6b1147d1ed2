from __future__ import annotations

import pytest

from sdf.words import encoded_words, n_words, runs, runs_within, spaced_words, words

PINNED = ["0x329308e7f28e826c", "0xc7864debf147aca7"]


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words("It’s “Tidy” — ﬁne, 42.") == ["it", "s", "tidy", "fine", "42"]
    assert words("未雨 ok") == ["未", "雨", "ok"]


@pytest.mark.parametrize("text", ["", "A plain line.", "it’s — “so”…", "Ünïcode Straße", "未雨绸缪", "हिन्दी में"])
def test_encoded_words_are_the_words(text: str) -> None:
    assert [word.decode() for word in encoded_words(text)] == words(text)
    assert spaced_words(text).decode() == " ".join(["", *words(text), ""])
    assert n_words(text) == len(words(text))


def test_equal_runs_have_equal_hashes_wherever_they_stand() -> None:
    run = "the lamp went out at nine"
    text = f"Some day {run.upper()}, and {run}!"
    found = runs(text, 6).tolist()
    assert len(found) == len(words(text)) - 5
    assert found[2] == found[9] == runs(run, 6)[0]
    assert len(set(found)) == len(found) - 1


def test_word_boundaries_count() -> None:
    assert runs("ab c", 2)[0] != runs("a bc", 2)[0]
    assert runs("a b", 2)[0] != runs("b a", 2)[0]


@pytest.mark.parametrize("text", ["", "one two", " \n"])
def test_too_few_words_have_no_run(text: str) -> None:
    assert runs(text, 3).tolist() == []


def test_a_long_text_is_hashed_like_its_parts() -> None:
    long = " ".join(f"w{n}" for n in range(40_000))
    assert runs(long, 5)[30_000] == runs("w30000 w30001 w30002 w30003 w30004", 5)[0]


def test_a_lone_surrogate_is_a_word_apart() -> None:
    assert len(runs("a \ud800 b", 1)) in (2, 3)


def test_runs_are_pinned() -> None:
    """A corpus is found clean or not alike on every machine."""
    assert [hex(each) for each in runs("the lamp went out", 3).tolist()] == PINNED


def test_runs_within_texts_are_those_of_each_and_of_none_across() -> None:
    texts = ["the lamp went out", "", "at nine", "in the house of the keeper"]
    together = runs_within([encoded_words(text) for text in texts], 3).tolist()
    assert together == [run for text in texts for run in runs(text, 3).tolist()]
