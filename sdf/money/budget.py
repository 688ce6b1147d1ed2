"""A worker's purse: no request leaves before what it can cost at most lies aside for it.

An attempt reserves its worst case, and its answer's usage then says what it cost. One that the server refused costs
nothing; one whose outcome nobody knows (a timeout, a dropped connection, half a reply) counts as spent in full. The
trade-off: a worst case is some five times what an answer costs, so near the cap fewer requests fly at once.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sdf.money.allowance import Account
from sdf.money.prices import Tariff
from sdf.records import Request, Usage

# Dollars; sums of floats differ in their last digits.
TOLERANCE = 1e-9
# Tokens that a server adds: to a message for its role, and once to describe tools or a schema to the model.
PER_MESSAGE, PER_STRUCTURE = 16, 1_024
# Prefixes whose tokens are remembered: a job has one per genre, and one per cell where the context is a principle.
N_PREFIXES = 4_096


class Stopped(Exception):  # noqa: N818  not a failure
    """The run ends: nothing that waits for money is sent any more."""


@dataclass(slots=True, eq=False)
class _Waiter:
    worst: float
    turn: asyncio.Future[None]


@dataclass
class Purse:
    """Money of one worker, in dollars; `granted` None: no cap, and only counted. For one event loop.

    Holds at every moment: spent + reserved + returned <= granted + inherited, unless an answer cost more than its worst
    case.
    `on_short` is called when requests begin to wait for money.
    """

    granted: float | None = None
    on_short: Callable[[], None] = lambda: None
    spent: float = 0.0
    assumed: float = 0.0
    reserved: float = 0.0
    returned: float = 0.0
    inherited: float = 0.0
    n_unpriced: int = 0
    n_out: int = 0
    _waiting: deque[_Waiter] = field(default_factory=deque[_Waiter])
    _closed: bool = False

    @property
    def available(self) -> float:
        if self.granted is None:
            return math.inf
        return self.granted + self.inherited - self.spent - self.reserved - self.returned

    @property
    def is_short(self) -> bool:
        """Whether anything waits for money."""
        return bool(self._waiting)

    async def reserve(self, worst: float) -> None:
        """Returns once `worst` lies aside, first come, first served; every call needs its `settle`. Raises Stopped."""
        if self._closed:
            raise Stopped
        if worst <= 0 or (not self._waiting and self._fits(worst)):
            self._take(worst)
            return
        waiter = _Waiter(worst, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            self.on_short()
        self._serve()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self._put_back(worst)
            self._serve()
            raise

    def inherit(self, amount: float) -> None:
        """Dollars that an earlier run set aside for a request lie aside for it here; needs a `settle` too."""
        self.inherited += amount
        self._take(amount)

    def settle(self, worst: float, cost: float | None, *, proved: bool = True) -> None:
        """Ends a reservation: `cost` is what it came to, None where no price is known; unless `proved`, assumed."""
        self._put_back(worst)
        if cost is None:
            self.n_unpriced += proved
        else:
            self.spent += cost
            self.assumed += 0.0 if proved else cost
        self._serve()

    def allow(self, granted: float | None, *, recall: bool = False) -> None:
        """`granted` so far, in all: an older message never lowers it. On `recall`, what lies idle is given back."""
        if granted is not None and self.granted is not None:
            self.granted = max(self.granted, granted)
        self._serve()
        # Requests that wait would have been served, if what lies here were enough.
        if recall and self.granted is not None and self.available > 0:
            self.returned += self.available

    def close(self) -> None:
        """Whatever waits raises Stopped; what is out may still be settled."""
        self._closed = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.turn.done():
                waiter.turn.set_exception(Stopped())

    def account(self) -> Account:
        worst = [waiter.worst for waiter in self._waiting if not waiter.turn.done()]
        available = self.available
        return Account(
            granted=self.granted,
            spent=self.spent,
            assumed=self.assumed,
            returned=self.returned,
            reserved=self.reserved,
            wanted=max(0.0, math.fsum(worst) - available) if worst else 0.0,
            least=max(0.0, min(worst) - available) if worst else None,
            n_unpriced=self.n_unpriced,
            inherited=self.inherited,
        )

    def _fits(self, worst: float) -> bool:
        return worst <= self.available + TOLERANCE

    def _take(self, worst: float) -> None:
        self.reserved += worst
        self.n_out += 1

    def _put_back(self, worst: float) -> None:
        self.n_out -= 1
        # Exactly nothing when nothing is out, whatever the sums have lost on the way.
        self.reserved = max(0.0, self.reserved - worst) if self.n_out else 0.0

    def _serve(self) -> None:
        """Whoever came first; while nothing is out that could make room for them, the first that fits."""
        while self._waiting:
            waiter = self._waiting[0]
            if not waiter.turn.done() and not self._fits(waiter.worst) and self.reserved <= TOLERANCE:
                waiter = next((each for each in self._waiting if self._fits(each.worst)), waiter)
            if waiter.turn.done():
                self._waiting.remove(waiter)
            elif self._fits(waiter.worst):
                self._waiting.remove(waiter)
                self._take(waiter.worst)
                waiter.turn.set_result(None)
            else:
                return


class Till:
    """What the requests of one lane cost, paid from the worker's purse."""

    def __init__(self, purse: Purse, tariff: Tariff) -> None:
        self.purse, self.tariff = purse, tariff
        # By prefix: its bytes, or fewer tokens that a reply counted in all. It has no more tokens than these.
        self._most: OrderedDict[str, int] = OrderedDict()

    async def reserve(self, request: Request) -> float:
        """Dollars set aside for one attempt: its worst case. Raises Stopped."""
        worst = self.worst(request)
        await self.purse.reserve(worst)
        return worst

    def worst(self, request: Request) -> float:
        return self.tariff.worst(self._most_input(request), request.sampling.max_tokens)

    def inherit(self, amount: float) -> None:
        """As of `Purse.inherit`; the request's attempt is settled as if it had been reserved."""
        self.purse.inherit(amount)

    def paid(self, request: Request, worst: float, usage: Usage) -> None:
        """The attempt was answered."""
        self.purse.settle(worst, self.cost(request, usage))
        if n_input := _n_input(usage):
            self._most[request.prefix.hash] = min(self._most_of_prefix(request), n_input)

    def cost(self, request: Request, usage: Usage) -> float | None:
        """Dollars of an answer. One that does not tell what was read counts in full: no prompt is of no tokens, and
        what nobody knows must not pass under a cap."""
        if not _n_input(usage) and self.tariff.price is not None:
            return self.worst(request)
        return self.tariff.cost(usage)

    def refused(self, worst: float) -> None:
        """The attempt was never taken up: nothing is billed."""
        self.purse.settle(worst, 0.0)

    def lost(self, worst: float) -> None:
        """Nobody knows what became of the attempt."""
        self.purse.settle(worst, worst if self.tariff.price is not None else None, proved=False)

    def _most_input(self, request: Request) -> int:
        """A token stands for a byte at least, so a text has no more tokens than bytes."""
        texts = [*(each.content for each in request.messages), request.prompt or "", request.tools or ""]
        texts.append(request.schema or "")
        extra = PER_MESSAGE * (len(request.messages) + 2)
        if request.tools or request.schema:
            extra += PER_STRUCTURE
        return self._most_of_prefix(request) + sum(len(text.encode()) for text in texts) + extra

    def _most_of_prefix(self, request: Request) -> int:
        known = self._most.get(request.prefix.hash)
        if known is None:
            known = self._most[request.prefix.hash] = len(request.prefix.text.encode())
            if len(self._most) > N_PREFIXES:
                self._most.popitem(last=False)
        return known


def _n_input(usage: Usage) -> int:
    return usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
