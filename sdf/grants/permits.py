"""One limit per lane (a provider and a model), shared out over all workers: what servers count by is the account.

Every worker slows down by itself at once; here the slowing is made the cluster's, once per burst of rate limits: a cut
opens a new turn of its lane, and only a request that was sent in the present turn can cause the next. Shares follow
demand. The trade-off: every worker keeps one permit, so that no document waits for ever, and a lane that allows less
than one request per worker is limited by the workers' own waiting alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sdf.money.allowance import LaneReport, LaneShare, Told

# Of what a server has left below which requests are sent at half the pace it allows.
LITTLE_LEFT = 0.05


@dataclass(slots=True)
class _Lane:
    """`limit` is of requests in flight, of all workers; without one nothing has been cut yet."""

    limit: float = math.inf
    turn: int = 0
    told: Told | None = None
    reports: dict[str, LaneReport] = field(default_factory=dict[str, LaneReport])

    def hear(self, worker: str, report: LaneReport, most: int) -> None:
        before = self.reports.get(worker, LaneReport())
        self.reports[worker] = report
        self.told = report.told or self.told
        n_answers = max(0, report.n_answers - before.n_answers)
        if report.limited_at >= self.turn:
            self.turn += 1
            self.limit = max(1.0, min(self.limit, most) / 2)
        elif self.limit < most:
            self.limit += n_answers / self.limit
        if self.limit >= most:
            self.limit = math.inf


class Permits:
    """`each` is how many requests a worker may have in flight at most."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._workers: list[str] = []
        self._lanes: dict[str, _Lane] = {}

    def hire(self, worker: str) -> None:
        self._workers.append(worker)

    def lose(self, worker: str) -> None:
        """The worker is gone, well or not; its share is the others'."""
        self._workers.remove(worker)
        for lane in self._lanes.values():
            lane.reports.pop(worker, None)

    def hear(self, worker: str, reports: Mapping[str, LaneReport]) -> None:
        for name, report in reports.items():
            self._lanes.setdefault(name, _Lane()).hear(worker, report, self._each * len(self._workers))

    def shares(self, worker: str) -> dict[str, LaneShare]:
        """The worker's part of every lane that anyone has spoken of."""
        return {name: self._share(lane, worker) for name, lane in self._lanes.items()}

    def _share(self, lane: _Lane, worker: str) -> LaneShare:
        demands = {each: _demand(lane.reports.get(each)) for each in self._workers}
        permits = shared_out(lane.limit, demands, self._each)
        if lane.told is None:
            return LaneShare(permits[worker], lane.turn)
        part = permits[worker] / sum(permits.values()) * (0.5 if lane.told.left < LITTLE_LEFT else 1.0)
        return LaneShare(permits[worker], lane.turn, lane.told.limits.part(part))


def _demand(report: LaneReport | None) -> int:
    return report.in_flight + report.waiting if report is not None else 0


def shared_out(limit: float, demands: Mapping[str, int], each: int) -> dict[str, int]:
    """At most `limit` in all and `each` for one, by demand, what nobody asks for evenly; and one at least for each."""
    if limit >= each * len(demands):
        return dict.fromkeys(demands, each)
    found: dict[str, int] = {}
    left = int(limit)
    for n_done, worker in enumerate(sorted(demands, key=lambda name: (demands[name], name))):
        fair = left // (len(demands) - n_done)
        found[worker] = max(1, min(fair, demands[worker], each))
        left = max(0, left - found[worker])
    for n_done, worker in enumerate(sorted(found, key=lambda name: (-found[name], name))):
        spare = min(math.ceil(left / (len(found) - n_done)), each - found[worker])
        found[worker] += spare
        left -= spare
    return found
