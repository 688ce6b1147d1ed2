"""Money and rates of a run: who is hired, heard, and lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import NOTE, make_job

from sdf.grants.dollars import Grants
from sdf.grants.spending import Spending
from sdf.ledger import read_ledger
from sdf.money.allowance import Account
from sdf.money.budget import Purse, Till
from sdf.money.prices import builtin, tariff
from sdf.records import Message, Prefix, Request, Sampling, Usage, Wants
from sdf.storage import RunDir


@pytest.mark.parametrize("cap", [{}, {"max_cost": 1.0}])
def test_a_worker_that_died_while_it_started_is_none_that_is_lost(tmp_path: Path, cap: dict[str, Any]) -> None:
    run_dir = RunDir(tmp_path / "out")
    spending = Spending(make_job(tmp_path, {"note": NOTE}, **cap), run_dir, 1, read_ledger(run_dir))
    spending.hire("w0000-000")
    spending.lose("w0001-000")
    spending.lose("w0000-000")
    assert spending.cost.spent == 0


def test_a_cap_that_binds_tells_apart_what_is_spent_and_what_is_presumed(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "out")
    spending = Spending(make_job(tmp_path, {"note": NOTE}, max_cost=0.9), run_dir, 1, read_ledger(run_dir))
    spending.hire("w0000-000")
    found = spending.hear("w0000-000", Account(0.9, spent=0.8499, assumed=0.79, wanted=0.2, least=0.2), {})
    assert str(found).startswith(
        "--max-cost: $0.0599 of $0.9000 spent, up to $0.7900 more presumed, and the next request may cost up to $0."
    )


def test_what_a_worker_gets_ahead_of_need_leaves_the_others_theirs() -> None:
    grants = Grants(100.0, 0.0)
    for worker in ("a", "b"):
        grants.hire(worker)
    grants.hear("a", Account(0.0, wanted=16.0, least=16.0), 0.0)
    assert grants.decide() and grants.granted() == {"a": 16.0, "b": 0.0}
    # Eight dollars a second: it would take 20 ahead, and a quarter of the 84 that are free is for two.
    grants.hear("a", Account(16.0, spent=16.0), 1.0)
    assert grants.decide() and grants.granted() == {"a": 26.5, "b": 0.0}


def test_an_answer_that_does_not_tell_what_was_read_counts_in_full() -> None:
    till = Till(Purse(2.0), tariff(builtin(), "anthropic", {}, "claude-sonnet-5-5"))
    request = Request("m", Prefix.of("x" * 400_000), (Message("user", "Why?"),), Sampling(1_000), Wants("text"), 1)
    worst = till.worst(request)
    assert till.cost(request, Usage()) == till.cost(request, Usage(0, 50)) == worst
    for told in (Usage(7, 50), Usage(0, 50, 7), Usage(0, 50, 0, 7), Usage(7, 0)):
        cost = till.cost(request, told)
        assert cost is not None and 0 < cost < worst / 100
