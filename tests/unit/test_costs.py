"""Dollars as a person reads them."""

from __future__ import annotations

import pytest

from sdf.grants.spent import Cost, cost_line
from sdf.records import Usage
from sdf.report.costs import cache_line, outcome_lines
from sdf.story import Outcome


@pytest.mark.parametrize(
    ("cost", "line"),
    [
        (Cost(12.3, 0, 12.3, 0, None), "$12.30 spent"),
        (Cost(12.3, 0.41, 12.3, 0, 50), "$12.30 of $50.00 spent, up to $0.4100 more presumed"),
        (Cost(0.0123, 1e-9, 0, 0, 1), "$0.0123 of $1.00 spent"),
        (Cost(0, 0, 0, 7, None), "cost unknown"),
        (Cost(0, 0, 0, 0, None, ("m",)), "cost unknown"),
        (Cost(2, 0, 2, 7, None), "$2.00 spent, and what has no known price"),
    ],
)
def test_a_cost_is_never_said_to_be_nothing_when_nobody_knows_it(cost: Cost, line: str) -> None:
    assert cost_line(cost) == line


def outcome(cost: Cost, usage: Usage = Usage(), rebilled: Usage = Usage()) -> Outcome:  # noqa: B008
    return Outcome(None, True, {}, 3, usage, 0, rebilled, cost=cost)


def test_the_end_of_a_run_says_what_it_cost_and_what_caches_saved() -> None:
    lines = outcome_lines(outcome(Cost(12.3, 0, 2.5, 0, 50), Usage(100, 50, 800, 100), Usage(10, 5)))
    assert lines == [
        "$12.30 of $50.00 spent in all, $2.50 of it by this run",
        "15 tokens billed again, after replies or workers that were lost",
        "80.0% of the prompt tokens read from a cache, 10.0% written to it",
    ]


def test_a_run_whose_price_is_unknown_says_so_and_how_to_know_it() -> None:
    lines = outcome_lines(outcome(Cost(0, 0, 0, 7, None)))
    assert lines == ["cost unknown", "the price of 7 answers is not known; a file given with --prices tells it"]


def test_where_nobody_bills_nothing_is_said() -> None:
    assert outcome_lines(outcome(Cost(0, 0, 0, 0, None))) == []
    assert cache_line(Usage(100, 10)) is None
