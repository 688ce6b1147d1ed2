"""Who may spend how much: a cap on dollars that holds over all workers, all crashes and all runs of a directory.

    cap = spent before + what workers hold (granted or inherited, and not given back) + free

What was granted and never given back counts as spent from then on, unless the ledger proves more: a kill costs the
worst case of what was in flight, and some seconds of spending granted ahead. Amounts are cumulative, so messages may be
lost or repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from sdf.money.allowance import Account
from sdf.money.budget import TOLERANCE

# Seconds of a worker's spending that are granted ahead: enough to last until the next write.
AHEAD = 2.5
# Its part of what is free that a worker may get ahead of need, at most.
AHEAD_OF_FREE = 0.25


@dataclass(slots=True)
class _Holder:
    """A worker, as far as its money goes. `short_since`: the number of the decision since which it is short."""

    granted: float = 0.0
    account: Account = field(default_factory=Account)
    is_open: bool = True
    is_lost: bool = False
    rate: float = 0.0
    heard_at: float | None = None
    short_since: int | None = None

    @property
    def held(self) -> float:
        """What counts against the cap."""
        if not self.is_open and not self.is_lost:
            return self.account.spent
        return max(self.granted + self.account.inherited - self.account.returned, self.account.spent)

    @property
    def is_short(self) -> bool:
        return self.is_open and self.account.least is not None


class Grants:
    """The books: pure, no clock and no disk. `before` was spent by earlier epochs, or set aside for what they left at
    an API; of this, workers inherit what they wait for themselves."""

    def __init__(self, cap: float, before: float) -> None:
        self.cap, self._before = cap, before
        self._holders: dict[str, _Holder] = {}
        self._n_decisions = 0
        self.recall = False

    def hire(self, worker: str) -> None:
        self._holders[worker] = _Holder()

    def hear(self, worker: str, account: Account, now: float) -> None:
        """A worker's newest word. Older words that arrive late change nothing."""
        holder = self._holders[worker]
        newest = holder.account
        if account.spent < newest.spent or account.returned < newest.returned or account.inherited < newest.inherited:
            return
        if holder.heard_at is not None and now > holder.heard_at:
            spent = (account.spent - holder.account.spent) / (now - holder.heard_at)
            holder.rate += (spent - holder.rate) / 2
        holder.account, holder.heard_at = account, now

    def close(self, worker: str, account: Account) -> None:
        """The worker has ended, and this was its last word: what it did not spend comes back."""
        self._holders[worker].account = account
        self._holders[worker].is_open = False

    def lose(self, worker: str) -> None:
        """The worker is gone without a last word: what it was granted is spent."""
        self._holders[worker].is_open = False
        self._holders[worker].is_lost = True

    @property
    def before(self) -> float:
        """What nobody inherited."""
        return self._before - math.fsum(each.account.inherited for each in self._all)

    @property
    def spent(self) -> float:
        """What is known to be spent, or taken for it; what workers hold besides is not in it."""
        return self.before + math.fsum(each.held if each.is_lost else each.account.spent for each in self._all)

    @property
    def assumed(self) -> float:
        """What of it no usage proves."""
        return math.fsum(each.account.assumed for each in self._all)

    @property
    def free(self) -> float:
        return self.cap - self.before - math.fsum(each.held for each in self._all)

    @property
    def _all(self) -> list[_Holder]:
        return list(self._holders.values())

    def decide(self) -> bool:
        """Grants what is needed and what will be, as far as the cap allows; whether any grant was raised."""
        self._n_decisions += 1
        had = {worker: holder.granted for worker, holder in self._holders.items()}
        for holder in self._all:
            if not holder.is_short:
                holder.short_since = None
            elif holder.short_since is None:
                holder.short_since = self._n_decisions
        self.recall = False
        short = [each for each in self._all if each.is_short]
        for holder in sorted(short, key=lambda each: each.short_since or 0):
            self._give_needed(holder)
        if not self.recall:
            for holder in self._all:
                self._give_ahead(holder)
        return any(holder.granted > had[worker] for worker, holder in self._holders.items())

    def _give_needed(self, holder: _Holder) -> None:
        """Money for what waits; else for some of it; else what others do not use is asked back."""
        account = holder.account
        # What is on its way already.
        coming = holder.granted - (account.granted or 0.0)
        wanted, least = account.wanted - coming, (account.least or 0.0) - coming
        if wanted <= 0:
            return
        self.recall |= wanted > self.free
        if max(least, 0.0) <= self.free + TOLERANCE:
            holder.granted += max(0.0, min(wanted, self.free))

    def _give_ahead(self, holder: _Holder) -> None:
        if not holder.is_open:
            return
        idle = holder.account.idle + holder.granted - (holder.account.granted or 0.0)
        n_open = sum(each.is_open for each in self._all)
        missing = min(holder.rate * AHEAD - max(0.0, idle), self.free * AHEAD_OF_FREE / n_open)
        # Crumbs are not worth a write.
        if missing > holder.rate * AHEAD / 4:
            holder.granted += missing

    def granted(self) -> dict[str, float]:
        return {worker: holder.granted for worker, holder in self._holders.items()}

    @property
    def needed(self) -> float | None:
        """Dollars of the smallest request that waits and can never be paid; None while any may yet be."""
        open_ = [each for each in self._all if each.is_open]
        waiting = [each.account.least + max(0.0, each.account.idle) for each in open_ if each.account.least is not None]
        if not waiting or any(each.account.reserved > TOLERANCE for each in open_):
            return None
        if any(each.granted > (each.account.granted or 0.0) for each in open_):
            return None
        pot = self.free + math.fsum(max(0.0, each.account.idle) for each in open_)
        return min(waiting) if min(waiting) > pot + TOLERANCE else None

    def record(self) -> dict[str, Any]:
        """What a later run needs: of each worker what it was granted, what came back of that and of what it inherited,
        and what it spent unproved."""
        return {
            "workers": {
                worker: {
                    "granted": holder.granted,
                    "returned": holder.granted + holder.account.inherited - holder.held,
                    "assumed": holder.account.assumed,
                }
                for worker, holder in sorted(self._holders.items())
                if holder.granted or holder.account.inherited or holder.account.assumed
            }
        }
