"""Decks: the counts that weights mean, and the weights that mean nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sdf.genres.decks import deck


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        (["a", "b"], {"a": 1, "b": 1}),
        ({"a": 4, "b": 2}, {"a": 2, "b": 1}),
        ({"a": 3, "b": 2}, {"a": 3, "b": 2}),
        ({"a": 5}, {"a": 1}),
        ({"a": 0.5, "b": 0.5}, {"a": 50, "b": 50}),
        ({"a": 0.29, "b": 0.57, "c": 0.14}, {"a": 29, "b": 57, "c": 14}),
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, {"a": 34, "b": 33, "c": 33}),
        ({"a": 0.124, "b": 0.127, "c": 0.749}, {"a": 12, "b": 13, "c": 75}),
        ({"a": 0.995, "b": 0.005}, {"a": 100, "b": 0}),
        ({"a": 1.0}, {"a": 100}),
    ],
)
def test_counts(weights: Any, counts: dict[str, int]) -> None:
    if 0 in counts.values():
        with pytest.raises(ValueError, match="'b' is too rare to be dealt one card in 100"):
            deck(weights)
        return
    values, cards = deck(weights)
    assert values == tuple(counts)
    assert Counter(cards) == counts
    assert list(cards) == sorted(cards, key=values.index)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"a": 0.5, "b": 0.6}, "add up to 1.1"),
        ({"a": 0.5, "b": 1}, "add up to 1.5"),
        ({"a": 1000, "b": 1}, "1,001 cards; at most 1,000"),
        ([str(n) for n in range(1001)], "1,001 values; at most 1,000"),
        ({"a": 0}, "above 0; found 0"),
        ({"a": -1}, "above 0; found -1"),
        ({"a": True}, "above 0; found True"),
        ({"a": None}, "above 0; found None"),
        ({"a": float("nan")}, "above 0; found nan"),
        ({"a": float("inf")}, "above 0; found inf"),
        ({}, "no values"),
        ([], "no values"),
        ([""], "is not text"),
        ([3], "the value 3 is not text"),
        (["a", "a"], "'a' stands there twice"),
        ("a", "a list of values, or a mapping"),
        (None, "a list of values, or a mapping"),
    ],
)
def test_weights_that_mean_nothing(weights: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        deck(weights)
