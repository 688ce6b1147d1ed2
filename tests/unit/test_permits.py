"""A lane's limit, shared out: what is told of it binds all workers together, and less where little is left."""

from __future__ import annotations

import pytest

from sdf.grants.permits import LITTLE_LEFT, Permits
from sdf.money.allowance import LaneReport, Limits, Told


@pytest.mark.parametrize(("left", "pace"), [(1.0, 1.0), (LITTLE_LEFT, 1.0), (LITTLE_LEFT / 2, 0.5), (0.0, 0.5)])
def test_what_a_server_allows_is_paced_by_shares_and_halved_where_little_is_left(left: float, pace: float) -> None:
    permits = Permits(8)
    for worker in ("a", "b"):
        permits.hire(worker)
    permits.hear("a", {"lane": LaneReport(told=Told(Limits(requests=600.0), left))})
    shares = [permits.shares(worker)["lane"] for worker in ("a", "b")]
    assert [each.permits for each in shares] == [8, 8]
    assert sum(each.limits.requests or 0.0 for each in shares) == pytest.approx(600.0 * pace)


def test_a_burst_of_rate_limits_cuts_a_lane_once_and_answers_raise_it_again() -> None:
    permits = Permits(8)
    for worker in ("a", "b"):
        permits.hire(worker)
    # Both met the same burst: what was sent in an earlier turn cuts nothing.
    for worker in ("a", "b"):
        permits.hear(worker, {"lane": LaneReport(in_flight=8, limited_at=0)})
    shares = [permits.shares(worker)["lane"] for worker in ("a", "b")]
    assert ([each.permits for each in shares], shares[0].turn) == ([4, 4], 1)
    permits.hear("a", {"lane": LaneReport(in_flight=4, n_answers=16, limited_at=0)})
    assert sum(permits.shares(worker)["lane"].permits for worker in ("a", "b")) == 10
    permits.lose("b")
    assert permits.shares("a")["lane"].permits == 8
