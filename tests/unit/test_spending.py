"""Money and rates of a run: who is hired, heard, and lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import NOTE, make_job

from sdf.grants.spending import Spending
from sdf.ledger import read_ledger
from sdf.storage import RunDir


@pytest.mark.parametrize("cap", [{}, {"max_cost": 1.0}])
def test_a_worker_that_died_while_it_started_is_none_that_is_lost(tmp_path: Path, cap: dict[str, Any]) -> None:
    run_dir = RunDir(tmp_path / "out")
    spending = Spending(make_job(tmp_path, {"note": NOTE}, **cap), run_dir, 1, read_ledger(run_dir))
    spending.hire("w0000-000")
    spending.lose("w0001-000")
    spending.lose("w0000-000")
    assert spending.cost.spent == 0
