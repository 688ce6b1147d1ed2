"""Answers: any text gives a usable value or None, and what a good answer wraps comes back whole."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sdf.answers import value
from sdf.records import Answer, Returns, Wants

RETURNS: list[Returns] = ["text", "list", "score", "messages", "json"]
PIECES = ["<t>", "</t>", "\n", "1. ", "- ", "[", "]", "{", "}", '"', ":", ",", "7", "/10", "```", "<item>", " ", "a"]
NOISE = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join)
PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="<>*"), min_size=1)
WORDS = PLAIN.map(str.strip).filter(bool)


def read(returns: Returns, text: str, **wanted: Any) -> Any:
    return value(Wants(returns, **wanted), Answer(text, "stop", "model"))


@given(st.sampled_from(RETURNS), NOISE, st.sampled_from([None, "t"]))
def test_any_text_is_a_value_of_its_kind_or_none(returns: Returns, text: str, tag: str | None) -> None:
    found = read(returns, text, tag=tag, n_items=4)
    if found is None:
        return
    if returns == "text":
        assert found == found.strip() != ""
    elif returns == "list":
        assert 1 <= len(found) <= 4
        assert all(isinstance(item, str) and item == item.strip() != "" for item in found)
    elif returns == "score":
        assert 1 <= found <= 10
    elif returns == "messages":
        assert all(set(message) == {"role", "content"} for message in found)
    else:
        assert isinstance(found, dict)


@given(WORDS, st.text(st.characters(exclude_characters="<>")))
def test_a_tagged_text_comes_back_whole(text: str, around: str) -> None:
    assert read("text", f"{around}\n<t>\n{text}\n</t>\n{around}", tag="t") == text


@given(st.lists(WORDS, min_size=1, max_size=10), st.sampled_from(["{}. ", "{}) ", "({}) ", "**{}.** "]))
def test_a_numbered_list_comes_back_whole(items: list[str], mark: str) -> None:
    text = "\n".join(mark.format(i) + item for i, item in enumerate(items, 1))
    assert read("list", f"Ideas:\n\n{text}\n", n_items=10) == items


@given(st.lists(WORDS, min_size=1, max_size=10), st.booleans())
def test_a_json_list_comes_back_whole(items: list[str], fenced: bool) -> None:
    text = json.dumps(items)
    assert read("list", f"```json\n{text}\n```" if fenced else text, n_items=10) == items


@given(st.dictionaries(WORDS, WORDS | st.integers() | st.lists(WORDS), min_size=1))
def test_a_json_object_comes_back_whole(data: dict[str, Any]) -> None:
    assert read("json", f"Here it is.\n<t>\n{json.dumps(data)}\n</t>", tag="t") == data


@given(st.integers(-5, 20))
def test_scores_are_those_in_range(score: int) -> None:
    assert read("score", f"<t>{score}</t>", tag="t") == (score if 1 <= score <= 10 else None)
