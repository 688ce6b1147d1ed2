"""Estimates from few briefs: what the intervals hold, and what is said where nothing can be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sdf.errors import DamagedError
from sdf.forecast import PATH, Forecast, GenreForecast, Interval, Sample, keep, kept, sampled_totals, wilson
from sdf.storage import RunDir


def test_a_share_of_few_stays_open() -> None:
    all_of_ten, none_of_ten = wilson(10, 10), wilson(0, 10)
    assert all_of_ten.mean == 1.0 and 0.7 < all_of_ten.low < 0.9 and all_of_ten.high == pytest.approx(1.0)
    assert none_of_ten.mean == 0.0 and none_of_ten.low == 0.0 and 0.1 < none_of_ten.high < 0.3
    assert wilson(0, 0) == Interval(0.0, 0.0, 1.0)
    assert wilson(500, 1_000).high - wilson(500, 1_000).low < 0.06


def samples(seed: int, n: int) -> list[Sample]:
    """Documents of 300 to 1,700 tokens, a fifth of them rejected, each token a thousandth of a cent."""
    dice = random.Random(seed)
    found: list[Sample] = []
    for _ in range(n):
        written = dice.randint(300, 1_700)
        found.append(Sample(0 if dice.random() < 0.2 else written, written, written * 1e-5))
    return found


def test_the_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    # On average 1,000 tokens a brief are written and 800 accepted, so 1,000,000 take 1,250 briefs and 12.5 dollars.
    n_held_briefs = n_held_cost = 0
    for seed in range(100):
        totals = sampled_totals(samples(seed, 40), 1_000_000, seed)
        assert totals is not None and totals.cost is not None
        n_held_briefs += totals.briefs.low <= 1_250 <= totals.briefs.high
        n_held_cost += totals.cost.low <= 12.5 <= totals.cost.high
    assert 78 <= n_held_briefs <= 98 and 78 <= n_held_cost <= 98


def test_more_samples_narrow_the_interval() -> None:
    few, many = (sampled_totals(samples(1, n), 1_000_000, 1) for n in (10, 400))
    assert few is not None and many is not None
    assert (many.briefs.high - many.briefs.low) < (few.briefs.high - few.briefs.low) / 3


def test_a_sample_that_was_rejected_whole_says_nothing() -> None:
    assert sampled_totals([Sample(0, 900, 0.1)] * 5, 1_000_000, 0) is None


def test_one_unknown_price_makes_the_cost_unknown_and_nothing_else() -> None:
    totals = sampled_totals([Sample(500, 600, 0.01), Sample(500, 600, None)], 1_000, 0)
    assert totals is not None and totals.cost is None and totals.briefs.mean == 2


def test_it_is_kept_beside_the_ledger_and_read_again(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert kept(run_dir) is None
    genre = GenreForecast("note", 4, 3, 900, Interval(300, 250, 350), wilson(3, 4), Interval(4, 3, 5), None, None)
    found = Forecast("hash", 900, (genre,), Interval(4, 3, 5), None, Interval(1.5, 1.0, 2.0))
    keep(run_dir, found)
    assert kept(run_dir) == found
    (tmp_path / PATH).write_text('{"recipe_hash": 3}')
    with pytest.raises(DamagedError, match=r"forecast.json: not a forecast.*delete the file"):
        kept(run_dir)
