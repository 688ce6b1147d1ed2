"""What passes between the driver and a worker: orders one way, receipts with money and news the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdf.errors import SdfError
from sdf.ledger import KeyIndex
from sdf.money.allowance import Account, LaneReport
from sdf.providers.batch_log import UnderWay
from sdf.records import Receipt, RoundKey, RoundReceipt, Usage
from sdf.storage import RunDir


@dataclass(frozen=True, slots=True)
class BriefOrder:
    """Settle a brief. `angle` None where its round found none, `why` what the round says of that."""

    genre: str
    index: int
    angle: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class RoundOrder:
    """Find the angles of a round; `taken` are those of the earlier rounds of its lane."""

    key: RoundKey
    taken: tuple[str, ...]


Order = BriefOrder | RoundOrder


def name_of(order: Order) -> tuple[str, ...] | tuple[str, int]:
    """What makes two orders the same order."""
    if isinstance(order, BriefOrder):
        return (order.genre, order.index)
    return tuple(str(part) for part in order.key)


@dataclass(frozen=True, slots=True)
class Batch:
    """Receipts since the acknowledged one. `number` acknowledges this batch; counts are of the worker's whole life."""

    number: int
    receipts: tuple[Receipt, ...]
    rounds: tuple[RoundReceipt, ...]
    n_open: int
    n_requests: int
    usage: Usage
    error: SdfError | None
    account: Account
    lanes: Mapping[str, LaneReport]
    under_way: tuple[UnderWay, ...] = ()
    # What its process warned of, where nobody else hears that.
    warned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers that are durable somewhere: in this run's own ledger (used in place) or another's (copied)."""

    run_dir: RunDir
    keys: KeyIndex
    own: bool
