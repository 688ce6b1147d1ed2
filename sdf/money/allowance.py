"""What a driver lets a worker spend, and what the worker tells of it: plain values that travel with every exchange.

Whatever counts is cumulative over a worker's life, so a message that is lost or comes twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server lets an account do in a minute; None where it names no limit. Fields are also rates of a worker's
    share of it. `input_tokens` excludes what a cache reads."""

    requests: float | None = None
    tokens: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None

    def part(self, share: float) -> Limits:
        """The limits of one who may use this share of them."""
        parts = (
            None if each is None else each * share
            for each in (self.requests, self.tokens, self.input_tokens, self.output_tokens)
        )
        return Limits(*parts)


@dataclass(frozen=True, slots=True)
class Told:
    """A server's headers: its limits a minute, and the least share of any of them that was left (1.0: all)."""

    limits: Limits
    left: float = 1.0


@dataclass(frozen=True, slots=True)
class LaneReport:
    """A worker's word on one lane. `limited_at` is the newest turn in which a request was sent that met a rate limit
    (-1: none was); `n_answers` is of the worker's whole life."""

    in_flight: int = 0
    waiting: int = 0
    n_answers: int = 0
    limited_at: int = -1
    told: Told | None = None


@dataclass(frozen=True, slots=True)
class LaneShare:
    """A worker's part of a lane: requests in flight, and a minute's limits. `turn` counts the cuts of the lane."""

    permits: int
    turn: int = 0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Account:
    """A worker's word on its money, in dollars.

    granted: what it has heard of so far; None: no cap.
    inherited: besides, what earlier runs had set aside for requests that it waits for now; of its whole life.
    spent, returned: of its whole life. `assumed` is the part of spent that no usage proves: attempts whose outcome
        is unknown, at their worst case.
    reserved: for what is in flight. wanted: beyond all that, what the requests that wait for money need; `least` is
        what the first of them to fit would need, None when none waits.
    n_unpriced: answers whose price is not known, of its whole life.
    """

    granted: float | None = None
    spent: float = 0.0
    assumed: float = 0.0
    returned: float = 0.0
    reserved: float = 0.0
    wanted: float = 0.0
    least: float | None = None
    n_unpriced: int = 0
    inherited: float = 0.0

    @property
    def idle(self) -> float:
        """What lies neither spent nor reserved, nor was given back."""
        return (self.granted or 0.0) + self.inherited - self.spent - self.reserved - self.returned


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a worker may do from now on. `granted` is in dollars, of its whole life; None: no cap.

    `recall` asks for what is neither spent nor reserved: others wait for it.
    """

    granted: float | None = None
    recall: bool = False
    lanes: Mapping[str, LaneShare] = field(default_factory=dict[str, LaneShare])


FREELY = Allowance()
