"""Which orders to give next: bookkeeping over plan, fold and angle rounds. Pure, and never part of the result.

Each genre runs ahead of the fold by missing tokens / observed yield. The estimate decides how much is asked
for, never what a corpus holds; what it overshoots is kept in the ledger for a larger target.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from sdf.assemble import Fold
from sdf.orders import BriefOrder, Order, RoundOrder
from sdf.plan import BLOCK, Plan, expected_tokens
from sdf.records import Receipt, RoundKey, RoundReceipt

# The guess weighs as much as eight observed briefs.
PRIOR_BRIEFS = 8

# Briefs of a genre that may wait for angles while the sequence runs on: rounds are asked ahead, memory is bounded.
MAX_PARKED = 2_048


@dataclass(slots=True)
class _Front:
    """How far a genre's sequence was ordered. `seen` counts receipts and their accepted tokens."""

    guess: float
    n_twins: int
    n_briefs: int | None
    frontier: int = 0
    ready: deque[int] = field(default_factory=deque[int])
    settled: set[int] = field(default_factory=set[int])
    n_parked: int = 0
    n_seen: int = 0
    tokens_seen: int = 0


class Dispatch:
    """Tell it of receipts and angles; ask it for orders; give back the orders of a lost worker."""

    def __init__(self, plan: Plan, fold: Fold) -> None:
        self._plan, self._fold = plan, fold
        self._fronts = {
            key: _Front(expected_tokens(genre), each.n_twins, each.n_briefs)
            for each in fold.terms.sequences
            for key, genre in [(each.genre, plan.genres[each.genre])]
        }
        self._angles: dict[RoundKey, tuple[str | None, ...]] = {}
        self._reasons: dict[RoundKey, str | None] = {}
        self._parked: dict[RoundKey, list[tuple[str, int]]] = defaultdict(list)
        self._rounds_ready: deque[RoundKey] = deque()
        self._rounds_ordered: set[RoundKey] = set()
        # By lane (its round 0): how many rounds are known from the first on without a gap, and the last one waited for.
        self._n_known: dict[RoundKey, int] = defaultdict(int)
        self._last_parked: dict[RoundKey, int] = {}

    def knows(self, key: RoundKey) -> bool:
        return key in self._angles

    def is_settled(self, genre: str, index: int) -> bool:
        return index in self._fronts[genre].settled

    def settle(self, receipt: Receipt) -> None:
        front = self._fronts[receipt.genre]
        front.settled.add(receipt.index)
        front.n_seen += 1
        front.tokens_seen += receipt.n_tokens if receipt.reason is None else 0

    def learn(self, receipt: RoundReceipt) -> None:
        """Angles of a round: its briefs become ready, and so does the next round of its lane if one waits."""
        lane = receipt.key._replace(number=0)
        self._angles[receipt.key] = receipt.angles
        if receipt.reason is not None:
            self._reasons[receipt.key] = receipt.reason
        while lane._replace(number=self._n_known[lane]) in self._angles:
            self._n_known[lane] += 1
        for genre, index in self._parked.pop(receipt.key, []):
            self._fronts[genre].n_parked -= 1
            self._fronts[genre].ready.append(index)
        self._order_next_round(lane)

    def again(self, orders: Sequence[Order]) -> None:
        """Orders whose worker is gone: they come next, unless they were settled after all."""
        for order in orders:
            if isinstance(order, RoundOrder):
                if order.key not in self._angles:
                    self._rounds_ready.appendleft(order.key)
            elif not self.is_settled(order.genre, order.index):
                self._fronts[order.genre].ready.appendleft(order.index)

    def orders(self, room: int) -> list[Order]:
        """At most `room` orders, rounds first, then blocks of siblings from the genre that is furthest behind.

        Only to keep twins together it gives more: they may ask the same question, and one worker asks it once.
        """
        limits = {genre: self._limit(genre) for genre in self._fronts}
        found: list[Order] = []
        self._walk(limits)
        while len(found) < room and self._rounds_ready:
            key = self._rounds_ready.popleft()
            if key not in self._angles:
                found.append(RoundOrder(key, self._taken(key)))
        while len(found) < room:
            behind = [genre for genre, front in self._fronts.items() if front.ready]
            if not behind:
                break
            genre = min(behind, key=self._progress)
            found += self._block(genre, room - len(found))
        return found

    def _block(self, genre: str, room: int) -> list[Order]:
        front = self._fronts[genre]
        size = min(room, BLOCK * front.n_twins, len(front.ready))
        indices = [front.ready.popleft() for _ in range(size)]
        while front.ready and front.ready[0] // front.n_twins == indices[-1] // front.n_twins:
            indices.append(front.ready.popleft())
        return [self._order(genre, index) for index in indices if index not in front.settled]

    def _walk(self, limits: dict[str, int]) -> None:
        """Moves every frontier to its limit: what has its angle is ready, the rest is parked and its round ordered."""
        for genre, front in self._fronts.items():
            while front.frontier < limits[genre] and front.n_parked < MAX_PARKED:
                index, front.frontier = front.frontier, front.frontier + 1
                if index in front.settled:
                    continue
                place = self._plan.round_of(genre, index)
                if place is None or place[0] in self._angles:
                    front.ready.append(index)
                else:
                    self._park(place[0], genre, index)

    def _park(self, key: RoundKey, genre: str, index: int) -> None:
        self._parked[key].append((genre, index))
        self._fronts[genre].n_parked += 1
        lane = key._replace(number=0)
        self._last_parked[lane] = max(key.number, self._last_parked.get(lane, 0))
        self._order_next_round(lane)

    def _order_next_round(self, lane: RoundKey) -> None:
        """The earliest round that is not known, when a brief waits for it or for a later one.

        A damaged part may have held a round whose own briefs are all settled: what follows it still depends on it.
        """
        key = lane._replace(number=self._n_known[lane])
        if key.number <= self._last_parked.get(lane, -1) and key not in self._rounds_ordered:
            self._rounds_ordered.add(key)
            self._rounds_ready.append(key)

    def _order(self, genre: str, index: int) -> BriefOrder:
        place = self._plan.round_of(genre, index)
        if place is None:
            return BriefOrder(genre, index)
        angle = self._angles[place[0]][place[1]]
        return BriefOrder(genre, index, angle, None if angle is not None else self._reasons.get(place[0]))

    def _taken(self, key: RoundKey) -> tuple[str, ...]:
        earlier = (self._angles[key._replace(number=number)] for number in range(key.number))
        return tuple(angle for angles in earlier for angle in angles if angle is not None)

    def _per_brief(self, genre: str) -> float:
        """Accepted tokens that one more brief will bring, as seen so far."""
        front, tally = self._fronts[genre], self._fold.tallies[genre]
        duplicates = tally.rejected["duplicate"]
        kept = (tally.n_documents + PRIOR_BRIEFS) / (tally.n_documents + duplicates + PRIOR_BRIEFS)
        return kept * (front.tokens_seen + PRIOR_BRIEFS * front.guess) / (front.n_seen + PRIOR_BRIEFS)

    def _progress(self, genre: str) -> float:
        """Tokens per share, counting what is under way; the ready ones are not."""
        front, tally = self._fronts[genre], self._fold.tallies[genre]
        under_way = front.frontier - tally.next - len(front.ready) - front.n_parked
        return (tally.n_tokens + under_way * self._per_brief(genre)) / tally.share

    def _limit(self, genre: str) -> int:
        """The frontier may move up to here: what the fold still wants of the genre, in briefs; at least the next."""
        front, tally = self._fronts[genre], self._fold.tallies[genre]
        if tally.gone is not None or self._fold.finished:
            return front.frontier
        active = [each for each in self._fold.tallies.values() if each.gone is None]
        left = self._fold.terms.target_tokens - sum(each.n_tokens for each in self._fold.tallies.values() if each.gone)
        missing = left * tally.share / sum(each.share for each in active) - tally.n_tokens
        n_briefs = max(1, math.ceil(missing / self._per_brief(genre)))
        limit = tally.next + math.ceil(n_briefs / front.n_twins) * front.n_twins
        return limit if front.n_briefs is None else min(limit, front.n_briefs)
