"""Weights that a person wrote -> the deck of cards they mean, with exact counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# Fractions are read to the percent; 1,000 cards serve any whole weights that a person writes down.
FRACTION_DECK = 100
MAX_DECK = 1000


def deck(weights: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(values, cards), both in the order written.

    A list: one card each. Whole weights: counts divided by their common divisor. Fractions: 100 cards by largest
    remainder, and they add up to 1. ValueError says what is wrong.
    """
    counts = _counts(weights)
    if not counts:
        raise ValueError("no values")
    cards = tuple(value for value, n_cards in counts.items() for _ in range(n_cards))
    return tuple(counts), cards


def _counts(weights: Any) -> Mapping[str, int]:
    if isinstance(weights, Mapping):
        return _weighted({_text(value): _weight(value, weight) for value, weight in weights.items()})
    if not isinstance(weights, list):
        raise ValueError("an axis is a list of values, or a mapping from values to weights")  # noqa: TRY004
    return _equal([_text(value) for value in weights])


def _equal(values: Sequence[str]) -> Mapping[str, int]:
    repeated = [value for value, n in Counter(values).items() if n > 1]
    if repeated:
        raise ValueError(f"{repeated[0]!r} stands there twice; give it a weight instead, as in {{a: 2, b: 1}}")
    if len(values) > MAX_DECK:
        raise ValueError(f"{len(values):,} values; at most {MAX_DECK:,}")
    return dict.fromkeys(values, 1)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"the value {value!r} is not text; put it in quotes")
    return value


def _weight(value: str, weight: Any) -> int | float:
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not 0 < weight < math.inf:
        raise ValueError(f"the weight of {value!r} is a number above 0; found {weight!r}: drop a value by removing it")
    return weight


def _weighted(weights: Mapping[str, int | float]) -> Mapping[str, int]:
    whole = {value: weight for value, weight in weights.items() if isinstance(weight, int)}
    return _reduced(whole) if len(whole) == len(weights) else _of_fractions(weights)


def _reduced(weights: Mapping[str, int]) -> Mapping[str, int]:
    divisor = math.gcd(*weights.values()) or 1
    n_cards = sum(weights.values()) // divisor
    if n_cards > MAX_DECK:
        raise ValueError(f"these weights need a deck of {n_cards:,} cards; at most {MAX_DECK:,}: use smaller numbers")
    return {value: weight // divisor for value, weight in weights.items()}


def _of_fractions(weights: Mapping[str, int | float]) -> Mapping[str, int]:
    total = math.fsum(weights.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"fractions add up to 1; these add up to {total:g} (or use whole numbers)")
    # Rounded first: 0.29 * 100 = 28.999999999999996 is 29 cards, not 28 and a remainder.
    shares = {value: round(weight * FRACTION_DECK, 6) for value, weight in weights.items()}
    counts = {value: int(share) for value, share in shares.items()}
    by_remainder = sorted(counts, key=lambda value: counts[value] - shares[value])
    for value in by_remainder[: FRACTION_DECK - sum(counts.values())]:
        counts[value] += 1
    undealt = [value for value, n_cards in counts.items() if n_cards == 0]
    if undealt:
        raise ValueError(f"{undealt[0]!r} is too rare to be dealt one card in {FRACTION_DECK}; use whole numbers")
    return counts
