"""Do the accepted texts hold what was dealt? Axes against their decks, principles against each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from sdf.audit.findings import FEWEST, Finding, Scale
from sdf.audit.sample import Census
from sdf.genres import Axis, Genre

# The usual rule for the chi-square distribution to hold.
FEWEST_EXPECTED = 5.0
# Blocks of siblings make counts uneven until every principle had a few.
FEWEST_PER_PRINCIPLE = 16

_SKEW = Scale(
    0.5, 1.0, "checks and judges that reject some values more often than others skew what was dealt evenly; a value at "
    "half or double its share is no longer what the deck says"
)  # fmt: skip
_REACH = Scale(
    0.1, 0.3, "a principle that every tenth is missing of is not taught; with few documents none can be expected"
)
# Below this p a deviation is no accident, however many axes are looked at.
SURE = 0.001


def axes(census: Census, genres: Sequence[Genre]) -> Finding:
    """The value furthest from its share among those whose axis deviates for sure (chi-square, p < 0.001)."""
    worst, example, n_judged = 0.0, "", 0
    for genre in genres:
        for axis in genre.axes:
            counts = census.axes.get((genre.key, axis.name), Counter[str]())
            if axis.name == genre.twin or sum(counts.values()) < FEWEST:
                continue
            n_judged += 1
            deviation, text = _deviation(axis, counts)
            if deviation > worst:
                worst, example = deviation, f"{genre.key}, {axis.name}: {text}"
    return _SKEW.finding("axes", "all", worst if n_judged else None, unit="deviation", n=FEWEST, example=example)


def _deviation(axis: Axis, counts: Mapping[str, int]) -> tuple[float, str]:
    n = sum(counts.values())
    weights = Counter(axis.deck)
    expected = {value: n * weights[value] / len(axis.deck) for value in axis.values}
    judged = {value: share for value, share in expected.items() if share >= FEWEST_EXPECTED}
    square = sum((counts.get(value, 0) - share) ** 2 / share for value, share in judged.items())
    if len(judged) < 2 or chi_square_p(square, len(judged) - 1) >= SURE:
        return 0.0, ""
    value = max(judged, key=lambda each: _factor(counts.get(each, 0), judged[each]))
    text = f"{value!r} in {counts.get(value, 0)} texts, {judged[value]:.0f} dealt"
    return _factor(counts.get(value, 0), judged[value]), text


def _factor(found: int, expected: float) -> float:
    """0 for as dealt, 1 for half or double; 4 at most."""
    return min(4.0, max(found / expected, expected / found) - 1) if found else 4.0


def principles(census: Census, known: Sequence[str]) -> Finding:
    """The share of the principles without one document."""
    missing = [principle for principle in known if not census.principles[principle]]
    is_due = census.n_documents >= FEWEST_PER_PRINCIPLE * len(known)
    value = len(missing) / len(known) if known else None
    example = f"{len(known) - len(missing)} of {len(known)} have a document"
    if missing:
        example += f"; none: {', '.join(missing[:5])}"
    return _REACH.finding("principles", "all", value, n=FEWEST if is_due else 0, example=example)


def chi_square_p(square: float, degrees: int) -> float:
    """The upper tail, by Wilson and Hilferty's cube root: within 0.001 of exact from three degrees on."""
    if square <= 0:
        return 1.0
    spread = 2 / (9 * degrees)
    deviate = ((square / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(deviate / math.sqrt(2))
