"""Rejections before the first answer: held, since a server that rejects everything is no fault of each request.

Settled one by one, they would end a whole corpus as failed. They wait for any answer of their lane, which shows that
the server can; or until so many have come that the server must be at fault; or until nothing else is under way.
"""

from __future__ import annotations

from dataclasses import dataclass

# Requests rejected with none answered, after which the fault is taken for the recipe's or the server's.
N_REJECTED = 16
# Seconds between two looks at whether there is anything else to wait for.
LOOK = 5.0


@dataclass(slots=True)
class Crowd:
    """All requests of a worker, of whatever lane: how many are unsettled, and how many of those are held.

    `has_answered`: the ledger holds answers already, so a lone rejection is its request's own fault.
    """

    has_answered: bool = False
    n_unsettled: int = 0
    n_held: int = 0

    @property
    def is_all_held(self) -> bool:
        """Whether nothing is under way that could be answered."""
        return self.n_held >= self.n_unsettled
