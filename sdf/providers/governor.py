"""The one retry layer: how many requests fly at once, when to wait, and when to stop.

Every provider raises at the first failure; here alone is it decided what happens next. A request that fails
by shared trouble waits without a permit and goes again, for as long as it takes: only its own fault settles
it. An attempt is paid for from the worker's purse, and goes no faster than the driver's share of the lane allows.
The trade-off: a rate limit pauses every request of this governor, not just the one that met it, since
sending more into a limit only prolongs it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

from sdf.errors import CircuitOpen, ProviderError, RateLimited, RequestRejected, SdfError, Unauthorized, Unavailable
from sdf.money.allowance import LaneReport, LaneShare, Told
from sdf.money.budget import Purse, Stopped, Till
from sdf.money.prices import UNKNOWN
from sdf.providers import Batched, Provider
from sdf.providers.crowd import LOOK, N_REJECTED, Crowd
from sdf.providers.pace import Pace
from sdf.records import Answer, Request, stream

# Seconds: the first wait, doubled at each failure up to the longest, which also caps what a server may ask for.
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
# Failures after which a request may be found at fault: four of them among a healthy provider's successes.
N_FAILURES = 4
# A provider that drops one call in three fails some request four times running by chance alone, so a request is
# at fault only when chance would do this to one in a thousand million.
CHANCE = 1e-9
# The share of requests that fail at first is judged over about this many of them.
N_REMEMBERED = 200
# Seconds, of the event loop's own clock, after which a request that has not ended counts as lost.
TIMEOUT = 600.0
# Seconds without any success, while requests fail, after which the provider counts as dead.
# Longer than an answer may take: a provider that is busy with long answers is not dead.
PATIENCE = 900.0


@dataclass(slots=True)
class _Trials:
    """What one request has been through. `after` is the number of successes when it last failed."""

    n_failures: int = 0
    n_own: int = 0
    after: int = -1


class Governor:
    """Sends requests through `provider`, at most `max_in_flight` at once and fewer while it limits the rate.

    `clock` returns seconds and never goes back; `sleep` waits for as many. A request unanswered for `timeout`
    seconds is abandoned and sent again (None: never). `till` pays, and `crowd` counts the requests of all lanes of
    the worker. `batched` is the provider when its requests go on without us. One governor serves one event loop.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        max_in_flight: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience: float = PATIENCE,
        timeout: float | None = TIMEOUT,
        till: Till | None = None,
        crowd: Crowd | None = None,
        batched: Batched | None = None,
    ) -> None:
        self._batched = batched
        self._provider, self._clock, self._sleep = provider, clock, sleep
        self._till = till or Till(Purse(), UNKNOWN)
        self._crowd = crowd or Crowd()
        self._pace = Pace()
        self._permits, self._turn, self._limited_at = max_in_flight, 0, -1
        self._patience, self._timeout = patience, timeout
        self._ceiling = max_in_flight
        self._limit = float(max_in_flight)
        self._in_flight = self._n_unsettled = 0
        self._n_cuts = self._n_successes = self._n_rejected = 0
        self._resume_at = -math.inf
        self._failing_since: float | None = None
        # A prior of one healthy call: with no evidence, four failures are enough.
        self._n_first, self._n_first_failed = 1.0, 0.01
        self._queue: deque[asyncio.Future[None]] = deque()
        self._naps: set[asyncio.Future[None]] = set()
        self._broken: SdfError | None = None

    @property
    def in_flight(self) -> int:
        """Requests that hold a permit now."""
        return self._in_flight

    @property
    def limit(self) -> int:
        """Permits there are now: halved once by a burst of rate limits, raised by one per `limit` successes, and never
        more than the share that the driver gives."""
        return min(int(self._limit), self._permits)

    def follow(self, share: LaneShare) -> None:
        """The driver's share of the lane, from now on."""
        self._permits, self._turn = share.permits, share.turn
        self._pace.follow(share.limits, self._clock())
        self._admit()

    def report(self, told: Told | None) -> LaneReport:
        """What the driver shares the lane out by; `told` is the server's last word on its limits."""
        waiting = self._n_unsettled - self._in_flight
        return LaneReport(self._in_flight, waiting, self._n_successes, self._limited_at, told)

    async def answer(self, request: Request) -> Answer:
        """The answer, however long shared trouble lasts.

        Raises RequestRejected for this request's own fault, Unauthorized at once and for everyone, and CircuitOpen
        once requests have failed for `patience` seconds without a success, or when the first N_REJECTED were all
        rejected; Stopped when the purse is closed before it was sent. Cancelling it gives its permit back.
        """
        self._n_unsettled += 1
        self._crowd.n_unsettled += 1
        try:
            return await self._until_settled(request)
        finally:
            self._n_unsettled -= 1
            self._crowd.n_unsettled -= 1
            # While nothing is asked, no silence is the provider's.
            if not self._n_unsettled:
                self._failing_since = None

    async def close(self) -> None:
        await self._provider.close()

    async def _inherit(self, request: Request) -> float:
        """Dollars that lie aside for the request since an earlier run, and are this worker's from now on."""
        if self._batched is None:
            return 0.0
        amount = await self._batched.take_over(request, self._till.worst(request))
        if amount:
            self._till.inherit(amount)
        return amount

    async def _until_settled(self, request: Request) -> Answer:
        trials = _Trials()
        rejection, wait = None, 0.0
        inherited = await self._inherit(request)
        while True:
            try:
                worst = await self._permit(request, inherited)
            except BaseException:
                if inherited:
                    self._till.lost(inherited)
                raise
            inherited = 0.0
            n_cuts, turn = self._n_cuts, self._turn
            try:
                answer = await self._paid(request, worst)
            except RateLimited as error:
                self._limited_at = max(self._limited_at, turn)
                self._slow_down(error, n_cuts, trials, request)
                wait = 0.0
            except Unavailable as error:
                wait = self._wait_after(error, trials, request)
            except Unauthorized as error:
                self._break(error)
                raise
            except RequestRejected as error:
                self._failing_since = None
                rejection = error
            else:
                self._succeeded(trials)
                return answer
            finally:
                self._release()
            if rejection is not None:
                await self._hold(rejection)
                raise rejection
            await self._nap(wait)

    # --- what an outcome changes ---

    async def _hold(self, error: RequestRejected) -> None:
        """Returns once it is clear that the rejection is the request's own fault; else raises CircuitOpen."""
        self._n_rejected += 1
        self._crowd.n_held += 1
        try:
            while not self._n_successes:
                if self._n_rejected >= N_REJECTED:
                    self._all_rejected(error)
                await self._nap(LOOK)
                if self._crowd.is_all_held and not self._n_successes:
                    if self._crowd.has_answered:
                        return
                    self._all_rejected(error)
        finally:
            self._crowd.n_held -= 1

    def _all_rejected(self, error: RequestRejected) -> NoReturn:
        opened = CircuitOpen(
            f"all {self._n_rejected} requests so far were rejected, the last with: {error}; nothing else is sent, and "
            "nothing is settled by it"
        )
        self._break(opened)
        raise opened from None

    def _succeeded(self, trials: _Trials) -> None:
        self._n_successes += 1
        self._failing_since = None
        self._limit = min(self._ceiling, self._limit + 1 / self._limit)
        if not trials.n_failures:
            self._remember_first(failed=False)

    def _slow_down(self, error: RateLimited, n_cuts: int, trials: _Trials, request: Request) -> None:
        """Pauses everyone; cuts the limit if no request sent beside this one has done so already."""
        wait = self._backoff(trials, request) if error.retry_after is None else min(error.retry_after, LONGEST_WAIT)
        trials.n_failures += 1
        self._resume_at = max(self._resume_at, self._clock() + wait)
        if n_cuts == self._n_cuts:
            self._n_cuts += 1
            self._limit = max(1.0, self._limit / 2)
        self._check_patience(error)

    def _wait_after(self, error: Unavailable, trials: _Trials, request: Request) -> float:
        """Seconds to wait; raises when the request itself is to blame, or the provider is dead."""
        wait = self._backoff(trials, request)
        if not trials.n_failures:
            self._remember_first(failed=True)
        trials.n_failures += 1
        if self._n_successes > trials.after:
            trials.n_own += 1
            trials.after = self._n_successes
        if self._is_at_fault(trials):
            raise RequestRejected(
                f"failed {trials.n_own} times while others succeeded, at last with: {error}"
            ) from error
        self._check_patience(error)
        return wait

    def _is_at_fault(self, trials: _Trials) -> bool:
        # Its own first failure is no evidence against the provider.
        share = max(self._n_first_failed - 1, 0.01) / self._n_first
        return trials.n_own >= N_FAILURES and share**trials.n_own < CHANCE

    def _remember_first(self, *, failed: bool) -> None:
        keep = 1 - 1 / N_REMEMBERED
        self._n_first = self._n_first * keep + 1
        self._n_first_failed = self._n_first_failed * keep + failed

    def _backoff(self, trials: _Trials, request: Request) -> float:
        """Doubling, with up to half taken off so that requests which failed together do not return together."""
        off = stream("backoff", request.draw, trials.n_failures) / 2**65
        return min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(trials.n_failures, 10)) * (1 - off)

    # --- the breaker ---

    def _check_patience(self, error: Unavailable) -> None:
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since >= self._patience:
            opened = CircuitOpen(
                f"no request has succeeded for {now - self._failing_since:.0f} s, at last: {error}; "
                "every answer so far is kept: run the same command once the provider is back"
            )
            self._break(opened)
            raise opened from error

    def _break(self, error: SdfError) -> None:
        """From now on every request, waiting or new, raises what `error` is; those in flight may still end well."""
        self._broken = self._broken or error
        for nap in self._naps:
            nap.cancel()
        while self._queue:
            permit = self._queue.popleft()
            if not permit.done():
                permit.set_exception(_again(self._broken))

    def _check_broken(self) -> None:
        if self._broken is not None:
            raise _again(self._broken)

    # --- permits and waiting ---

    async def _permit(self, request: Request, inherited: float) -> float:
        """Returns with a permit and the dollars for one attempt, never during a pause, nor before the pace allows it;
        while a pause lasts it holds neither, but what is `inherited`."""
        while True:
            await self._nap(self._resume_at - self._clock())
            await self._take()
            try:
                await self._nap(self._pace.wait(self._clock()))
                worst = inherited or await self._till.reserve(request)
            except BaseException:
                self._release()
                raise
            if self._broken is None and self._resume_at <= self._clock() and not self._pace.wait(self._clock()):
                self._pace.sent()
                return worst
            if not inherited:
                self._till.refused(worst)
            self._release()

    async def _take(self) -> None:
        """A permit, first come, first served."""
        if not self._queue and self._in_flight < self.limit:
            self._in_flight += 1
            return
        permit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(permit)
        self._admit()
        try:
            await permit
        except asyncio.CancelledError:
            if permit.done() and not permit.cancelled() and permit.exception() is None:
                self._release()
            raise

    def _release(self) -> None:
        self._in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._in_flight < self.limit:
            permit = self._queue.popleft()
            if not permit.done():
                self._in_flight += 1
                permit.set_result(None)

    async def _nap(self, seconds: float) -> None:
        """Sleeps, unless the breaker opens meanwhile; raises what opened it."""
        self._check_broken()
        if seconds <= 0:
            return
        nap = asyncio.ensure_future(self._sleep(seconds))
        self._naps.add(nap)
        try:
            await asyncio.wait({nap})
        finally:
            self._naps.discard(nap)
            nap.cancel()
        self._check_broken()
        nap.result()

    async def _paid(self, request: Request, worst: float) -> Answer:
        """Sends the request, and settles what lies aside for it by what became of it."""
        try:
            answer = await self._send(request, worst)
        except BaseException as error:
            if self._may_be_billed(request, error):
                self._till.lost(worst)
            else:
                self._till.refused(worst)
            raise
        self._till.paid(request, worst, answer.usage)
        self._pace.answered(answer.usage)
        return answer

    def _may_be_billed(self, request: Request, error: BaseException) -> bool:
        """What a batch holds may be as long as nothing came of it, whatever ended the waiting."""
        if self._batched is not None:
            return self._batched.is_at_stake(request)
        if isinstance(error, ProviderError):
            return isinstance(error, Unavailable) and error.maybe_billed
        return not isinstance(error, Stopped)

    async def _send(self, request: Request, worst: float) -> Answer:
        asking = self._batched.answer(request, worst) if self._batched else self._provider.answer(request)
        sending = asyncio.ensure_future(asking)
        try:
            await asyncio.wait({sending}, timeout=self._timeout)
            if not sending.done():
                raise Unavailable(f"no answer within {self._timeout:g} s")
            return sending.result()
        finally:
            sending.cancel()


def _again(error: SdfError) -> SdfError:
    """A fresh error of the same kind and words, so that no two tasks share a traceback."""
    return type(error)(*error.args)
