"""Estimates from few briefs: what the intervals hold, and what is said where nothing can be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from sdf.estimates import Drawn, Found, Interval, Sample, drawn


def of(samples: Sequence[Sample], target: float | None = 1_000_000, seed: int = 0, **more: Any) -> Drawn:
    found = drawn(samples, target, seed, **more)
    assert found is not None
    return found


ACCEPTED, REJECTED = Sample(500, 600, 0.01), Sample(0, 600, 0.01)


def test_a_share_of_few_stays_open_and_so_does_what_it_takes() -> None:
    three = of([ACCEPTED] * 3)
    assert three.accepted.mean == three.accepted.high == 1.0 and 0.45 < three.accepted.low < 0.75
    assert three.briefs.mean == three.briefs.low == 2_000 and three.briefs.high == pytest.approx(
        2_000 / three.accepted.low
    )
    assert three.cost is not None and three.cost.high > 25, "what is rejected is paid too"
    ten = of([ACCEPTED] * 10)
    assert 0.75 < ten.accepted.low < 0.95
    half = of([ACCEPTED, REJECTED])
    assert half.briefs.low < 3_000 and half.briefs.mean == 4_000 and half.briefs.high > 8_000
    many = of([ACCEPTED, REJECTED] * 500)
    assert many.accepted.high - many.accepted.low < 0.06


def samples(seed: int, n: int) -> list[Sample]:
    """Documents of 300 to 1,700 tokens, a fifth of them rejected, each token a thousandth of a cent."""
    dice = random.Random(seed)
    found: list[Sample] = []
    for _ in range(n):
        written = dice.randint(300, 1_700)
        found.append(Sample(0 if dice.random() < 0.2 else written, written, written * 1e-5))
    return found


@pytest.mark.parametrize("n", [5, 10, 40])
def test_the_intervals_hold_the_truth_about_as_often_as_they_say(n: int) -> None:
    # On average 1,000 tokens a brief are written and 800 accepted, so 1,000,000 take 1,250 briefs and 12.5 dollars.
    n_held_briefs = n_held_cost = n_held_length = 0
    for seed in range(200):
        found = of(samples(seed, n), seed=seed)
        assert found.cost is not None
        n_held_briefs += found.briefs.low <= 1_250 <= found.briefs.high
        n_held_cost += found.cost.low <= 12.5 <= found.cost.high
        n_held_length += found.length.low <= 1_000 <= found.length.high
    assert all(155 <= each <= 198 for each in (n_held_briefs, n_held_cost, n_held_length))


def test_angles_that_come_and_fail_by_rounds_count_as_rounds() -> None:
    few, many = (of([ACCEPTED] * 24, has_angle=Found(n, n)) for n in (3, 100))
    assert few.briefs.mean == many.briefs.mean == 2_000
    assert few.briefs.high > 1.3 * many.briefs.high
    # A round in four fails, and its briefs are asked nothing: more briefs, and no more of what is asked.
    quarter = of([ACCEPTED] * 24, has_angle=Found(75, 100))
    assert quarter.briefs.mean == pytest.approx(2_000 / 0.75) and quarter.accepted.mean == 0.75
    assert quarter.cost is not None and quarter.cost.mean == pytest.approx(20.0)


def test_what_hangs_together_is_drawn_together() -> None:
    """A price by the token: however long documents are, so many tokens cost the same."""
    dear = [Sample(n, n, n * 1e-5) for n in (100, 500, 2_000, 4_000)] * 5
    cost = of(dear).cost
    assert cost is not None and cost.high < 1.2 * cost.mean
    assert of(dear).briefs.high > 1.3 * of(dear).briefs.mean


def test_more_samples_narrow_the_interval() -> None:
    few, many = (of(samples(1, n)).briefs for n in (10, 400))
    assert many.high - many.low < (few.high - few.low) / 3


def test_briefs_end_where_there_are_no_more() -> None:
    assert of([ACCEPTED] * 4, n_there=30).briefs == Interval(30, 30, 30)
    assert of([ACCEPTED] * 4, None, n_there=30).output.mean == pytest.approx(30 * 600)


def test_a_sample_that_was_rejected_whole_says_nothing() -> None:
    assert drawn([REJECTED] * 5, 1_000_000, 0) is None


def test_one_unknown_price_makes_the_cost_unknown_and_nothing_else() -> None:
    found = of([ACCEPTED, Sample(500, 600, None)], 1_000)
    assert found.cost is None and found.briefs.mean == 2
