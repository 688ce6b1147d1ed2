"""Answers: the tolerant readings that are plain, and the unclear ones that are not made up."""

from __future__ import annotations

from typing import Any

import pytest

from sdf.answers import value
from sdf.records import Answer, FinishReason, Wants


def answer(text: str, finish_reason: FinishReason = "stop") -> Answer:
    return Answer(text, finish_reason, "model")


TEXT = Wants("text", tag="document")
LIST = Wants("list", n_items=3, tag="ideas")
SCORE = Wants("score", tag="score", lowest=1, highest=10)
MESSAGES = Wants("messages", tag="chat")
JSON = Wants("json", tag="plan")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<document>\nOne.\n\nTwo.\n</document>", "One.\n\nTwo."),
        ("Notes first.\n<document>One.</document>\nHope this helps.", "One."),
        ("<document>\nNever closed", "Never closed"),
        ("No tags at all.", None),
        ("Only the end.</document> Done.", None),
        ("I write into <document> tags.\n<document>\nReal.\n</document>", "Real."),
        ("<document>\nReal: one writes <document> first.\n</document>", "Real: one writes <document> first."),
        ("It goes into <document> or <document>\nReal.", "Real."),
        ("<document>First.</document>\nBetter:\n<document>Second.</document>", "Second."),
        ("<document>He typed </document> twice.</document>", "He typed </document> twice."),
        ("  <document>Indented.</document>", "Indented."),
        ("<document>\n \n</document>", None),
        ("<documents>One.</documents>", None),
        ("", None),
        (" \n ", None),
    ],
)
def test_text_is_what_stands_in_the_tag(text: str, expected: str | None) -> None:
    assert value(TEXT, answer(text)) == expected


def test_text_without_a_tag_is_the_whole_answer() -> None:
    assert value(Wants("text"), answer(" <b>x</b> ")) == "<b>x</b>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<ideas>\n1. one\n2. two\n</ideas>", ["one", "two"]),
        ("1) one\n2) two", ["one", "two"]),
        ("(1) one\n(2) two", ["one", "two"]),
        ("Here:\n\n- one\n* two\n• three", ["one", "two", "three"]),
        ("1. one\n2. two\n3. three\n4. four", ["one", "two", "three"]),
        ("1. one\n   goes on\n\n2. two", ["one goes on", "two"]),
        ("1. one\n- a detail\n2. two", ["one - a detail", "two"]),
        ("- one\n- two\n2020. a year", ["one", "two 2020. a year"]),
        ("## Work\n1. one\n## Home\n2. two\n\nThat is all.", ["one", "two"]),
        ("**1. A clinic.** A nurse asks.\n**2.** A bakery", ["A clinic. A nurse asks.", "A bakery"]),
        ("<item>one</item><item>two</item>", ["one", "two"]),
        ("<item>one\n<item>two", ["one", "two"]),
        ('["one", "two"]', ["one", "two"]),
        ('```json\n["one", " ", "two"]\n```', ["one", "two"]),
        ("```\n1. one\n2. two\n```", ["one", "two"]),
        ("[1] is a citation\n1. one", ["one"]),
        ('[{"idea": "one"}]', None),
        ('["one", 2]', None),
        ("I would rather not.", None),
        ("<ideas></ideas>", None),
        ("1.\n2.", None),
    ],
)
def test_lists_in_every_form_that_models_write(text: str, expected: list[str] | None) -> None:
    assert value(LIST, answer(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<score>7</score>", 7),
        ("Reasons …\n<score> 7/10 </score>", 7),
        ("<score>10", 10),
        ("<score>7</score> that is <score>7</score>", 7),
        ("<score>7</score>\n<score>8</score>", None),
        ("At first <score>3</score>, but then:\n<score>8</score>", None),
        ("It goes into <score> tags.\n<score>8</score>", 8),
        ("<score>7/5</score>", None),
        ("<score>0</score>", None),
        ("<score>11</score>", None),
        ("<score>-7</score>", None),
        ("<score>7.5</score>", None),
        ("<score>7-8</score>", None),
        ("<score>seven</score>", None),
        ("<score>7 or 8</score>", None),
        ("<score></score>", None),
        ("7", None),
        ("The score is 7.", None),
        ("<score>" + "9" * 5000 + "</score>", None),
        ("<score>٧</score>", 7),
    ],
)
def test_scores_fail_closed(text: str, expected: int | None) -> None:
    assert value(SCORE, answer(text)) == expected


def test_a_score_without_a_tag_is_a_bare_number() -> None:
    bare = Wants("score", lowest=0, highest=5)
    assert [value(bare, answer(text)) for text in ("0", " 5/5\n", "6", "about 3")] == [0, 5, None, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '<chat>[{"role": "user", "content": "hi", "id": 3}, {"role": "assistant", "content": "yes"}]</chat>',
            [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}],
        ),
        ('```json\n[{"role": "system", "content": "be"}]\n```', [{"role": "system", "content": "be"}]),
        ('[{"role": "tool", "content": "x"}]', None),
        ('[{"role": "user", "content": " "}]', None),
        ('[{"role": "user", "content": 3}]', None),
        ('[{"role": ["user"], "content": "x"}]', None),
        ('["hi"]', None),
        ("[]", None),
        ('{"role": "user", "content": "x"}', None),
        ('[{"role": "user", "content": "\\ud800"}]', None),
        ("[" * 100_000, None),
    ],
)
def test_messages_are_whole_or_nothing(text: str, expected: Any) -> None:
    assert value(MESSAGES, answer(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<plan>{"goal": "x", "n": 1}</plan>', {"goal": "x", "n": 1}),
        ('Sure:\n```json\n{"goal": "x"}\n```\nDone.', {"goal": "x"}),
        ('{"goal": "x"} trailing words', {"goal": "x"}),
        ("{}", None),
        ("[1]", None),
        ('{"goal": NaN}', None),
        ('{"goal": ' + "9" * 5000 + "}", None),
        ('{"goal": "\\udc00"}', None),
        ('{"a": ' * 63 + "1" + "}" * 63, ...),
        ('{"a": ' * 64 + "1" + "}" * 64, None),
        ('{"a": ' * 5000, None),
        ('{"goal": "x"', None),
        ("", None),
    ],
)
def test_json_is_one_object(text: str, expected: Any) -> None:
    found = value(JSON, answer(text))
    assert isinstance(found, dict) if expected is ... else found == expected


@pytest.mark.parametrize("reason", ["length", "refusal", "error"])
def test_what_was_refused_or_cut_is_unusable_however_it_looks(reason: FinishReason) -> None:
    assert value(TEXT, answer("<document>Fine.</document>", reason)) is None
    assert value(SCORE, answer("<score>7</score>", reason)) is None


def test_a_reply_that_calls_a_tool_may_still_say_something() -> None:
    assert value(Wants("text"), answer("Let me look.", "tool_use")) == "Let me look."
    assert value(Wants("text"), answer("", "tool_use")) is None
