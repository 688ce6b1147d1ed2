"""A quotation counts when its words stand in what was judged, whatever marks an editor put between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdf.answers import value
from sdf.quotes import proves, quotable
from sdf.records import Answer, Wants

JUDGED = "“I won’t do that — not today,” it said,\nand  then it\tasked the keeper… twice."


@pytest.mark.parametrize(
    "quote",
    [
        "I won't do that - not today,\" it said, and then",
        "“not today,” it said",
        "'and then it asked'",
        "keeper... twice.",
        "  then\n it  asked the ",
    ],
)
def test_typography_and_white_space_are_no_difference(quote: str) -> None:
    quote = quote if len(quote.split()) > 2 else f"the {quote}"
    assert proves(f"Because: <quote>{quote}</quote>", JUDGED)


@pytest.mark.parametrize(
    "answer",
    [
        "It says so: then it asked the keeper.",
        "<quote>then it told the keeper</quote>",
        "<quote>Then it asked the keeper</quote>",
        "<quote>the keeper…</quote>",
        "<quote></quote>",
        "<quote>then it asked",
        "<quote>then it asked</quote> and <quote>it lied to all</quote>",
    ],
    ids=["no quotation", "another word", "another case", "two words", "empty", "not closed", "one of two made up"],
)
def test_all_else_proves_nothing(answer: str) -> None:
    assert not proves(answer, JUDGED)


def test_a_short_quotation_may_stand_beside_a_long_one() -> None:
    assert proves("<quote>twice.</quote> <quote>then it asked</quote>", JUDGED)


def test_the_words_of_lists_messages_and_objects_can_be_quoted() -> None:
    messages = [{"role": "user", "content": "Where is it now?"}, {"role": "assistant", "content": "On the top shelf."}]
    assert proves("<quote>On the top shelf</quote>", quotable(messages))
    assert proves('<quote>say "no" to it</quote>', quotable({"plan": ["say “no” to it"], "n": 3}))


def test_a_verdict_without_its_proof_is_none() -> None:
    wants = Wants("score", tag="score", lowest=1, highest=5, quotes=JUDGED)
    assert value(wants, Answer("<quote>then it asked the</quote><score>4</score>", "stop", "m")) == 4
    assert value(wants, Answer("<quote>then it begged the</quote><score>4</score>", "stop", "m")) is None
    assert value(wants, Answer("<score>4</score>", "stop", "m")) is None


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1), min_size=3), st.data())
def test_any_run_of_words_proves(words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    found = text.split()
    start = data.draw(st.integers(0, max(0, len(found) - 3)))
    run = found[start : start + 3]
    if len(run) == 3 and all(any(sign.isalnum() for sign in word) for word in run):
        assert proves(f"<quote>{' '.join(run)}</quote>", text)
