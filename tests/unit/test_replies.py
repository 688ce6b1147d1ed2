"""What the protocols share: who answered, which counts are counts, what a call was given."""

from __future__ import annotations

import pytest

from sdf.providers.replies import MOST_TOKENS, answered_by, arguments_of, counts


@pytest.mark.parametrize(
    ("asked", "reported", "recorded"),
    [
        ("m-5", "m-5", "m-5"),
        ("m-5", "m-5-20260901", "m-5"),
        ("m-5", "m-5@20260901", "m-5"),
        ("m-5", "m-5-mini", "m-5-mini"),
        ("m-5", "n-5", "n-5"),
        ("m-5-latest", "m-5-20260901", "m-5-latest"),
        ("m-5-latest", "m-5", "m-5-latest"),
        ("m-5-latest", "m-5-mini", "m-5-mini"),
        ("m-5", "", "m-5"),
        ("m-5", None, "m-5"),
        ("m-5", 7, "m-5"),
    ],
)
def test_a_version_of_a_model_is_the_one_that_was_asked(asked: str, reported: object, recorded: str) -> None:
    assert answered_by(asked, reported) == recorded


@pytest.mark.parametrize(
    ("told", "count"), [(7, 7), (MOST_TOKENS, MOST_TOKENS), (MOST_TOKENS + 1, 0), (-7, 0), ("7", 0)]
)
def test_a_count_is_one_that_can_be_kept(told: object, count: int) -> None:
    assert counts({"n": told})("n") == count
    assert counts([told])("n") == 0


@pytest.mark.parametrize(
    ("written", "arguments"),
    [('{"a": [1]}', {"a": [1]}), ("7", 7), ("{half", "{half"), ("", ""), ({"a": 1}, {"a": 1}), (None, None)],
)
def test_arguments_are_what_their_text_holds_or_the_text(written: object, arguments: object) -> None:
    assert arguments_of(written) == arguments
