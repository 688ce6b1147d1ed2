"""The governor in a world with its own time: real asyncio, scripted providers, no waiting."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from sdf.errors import RateLimited, RequestRejected, Unauthorized, Unavailable
from sdf.money.allowance import LaneShare, Limits
from sdf.money.budget import Purse, Till
from sdf.money.prices import Price, Tariff
from sdf.providers.crowd import LOOK, N_REJECTED, Crowd
from sdf.providers.governor import LONGEST_WAIT, N_FAILURES, PATIENCE, Governor
from sdf.records import Answer, Message, Prefix, Request, Sampling, Wants

PREFIX = Prefix.of("the same for all")


def request(draw: int) -> Request:
    return Request("m", PREFIX, (Message("user", "say it"),), Sampling(100), Wants("text"), draw)


class World:
    """A clock that stands still while anything can run, then jumps to the next alarm."""

    def __init__(self) -> None:
        self.now = 0.0
        self._alarms: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        alarm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._alarms, (self.now + seconds, next(self._order), alarm))
        await alarm

    async def settle(self) -> None:
        """Lets every task run until all of them wait for time, or are done."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def tick(self) -> bool:
        """Moves to the next alarm; False when there is none."""
        while self._alarms:
            at, _, alarm = heapq.heappop(self._alarms)
            if not alarm.done():
                self.now = at
                alarm.set_result(None)
                return True
        return False

    async def run(self, *tasks: asyncio.Task[Any]) -> list[Any]:
        """The results (or errors) of `tasks`, time passing as it must."""
        await self.settle()
        n_idle = 0
        while not all(task.done() for task in tasks):
            n_idle = 0 if await self.tick() else n_idle + 1
            assert n_idle < 100, "everything waits and no alarm is set"
            await self.settle()
        return await asyncio.gather(*tasks, return_exceptions=True)


Script = Callable[[int, Request], Awaitable[None] | None]


class Scripted:
    """Answers after what `script(n_call, request)` does: raise, wait, or nothing."""

    def __init__(self, world: World, script: Script) -> None:
        self._world, self._script = world, script
        self.calls: list[tuple[float, int]] = []
        self.n_active = self.most_active = 0
        self.closed = False

    async def answer(self, request: Request) -> Answer:
        self.calls.append((self._world.now, request.draw))
        self.n_active += 1
        self.most_active = max(self.most_active, self.n_active)
        try:
            waiting = self._script(len(self.calls), request)
            if waiting is not None:
                await waiting
        finally:
            self.n_active -= 1
        return Answer(f"answer {request.draw}", "stop", "m")

    async def close(self) -> None:
        self.closed = True


class Setup:
    def __init__(self, script: Script, max_in_flight: int = 4, **options: Any) -> None:
        self.world = World()
        self.provider = Scripted(self.world, script)
        self.governor = Governor(
            self.provider, max_in_flight=max_in_flight, clock=self.world.clock, sleep=self.world.sleep, **options
        )

    def ask(self, draw: int) -> asyncio.Task[Answer]:
        return asyncio.ensure_future(self.governor.answer(request(draw)))

    async def outcomes(self, draws: Sequence[int]) -> list[Any]:
        return await self.world.run(*(self.ask(draw) for draw in draws))

    def calls_of(self, draw: int) -> list[float]:
        return [at for at, asked in self.provider.calls if asked == draw]


def play(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def texts(outcomes: list[Any]) -> list[str]:
    return [outcome.text if isinstance(outcome, Answer) else type(outcome).__name__ for outcome in outcomes]


def failing_while(is_failing: Callable[[int, Request], bool], error: Exception) -> Script:
    def script(n_call: int, request: Request) -> None:
        if is_failing(n_call, request):
            raise error

    return script


def test_as_many_fly_as_permitted_and_no_more() -> None:
    async def test() -> None:
        setup = Setup(lambda n, r: setup.world.sleep(1), max_in_flight=3)
        assert texts(await setup.outcomes(range(10))) == [f"answer {n}" for n in range(10)]
        assert setup.provider.most_active == 3
        assert setup.world.now == 4
        assert setup.governor.in_flight == 0

    play(test)


def test_requests_are_sent_in_the_order_they_came() -> None:
    async def test() -> None:
        setup = Setup(lambda n, r: setup.world.sleep(1), max_in_flight=2)
        await setup.outcomes(range(9))
        assert [draw for _, draw in setup.provider.calls] == list(range(9))

    play(test)


def test_no_permit_is_held_while_a_request_waits() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: n == 1, Unavailable("down")), max_in_flight=1)
        tasks = [setup.ask(draw) for draw in range(4)]
        await setup.world.settle()
        assert setup.world.now == 0
        assert [task.done() for task in tasks] == [False, True, True, True]
        assert setup.governor.in_flight == 0
        assert texts(await setup.world.run(*tasks)) == [f"answer {n}" for n in range(4)]

    play(test)


@pytest.mark.parametrize(("asked", "kept"), [(7.0, 7.0), (0.0, 0.0), (4_290_000.0, LONGEST_WAIT)])
def test_retry_after_is_honoured_by_everyone_and_capped(asked: float, kept: float) -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: n == 1, RateLimited("slow down", asked)), max_in_flight=1)
        outcomes = await setup.outcomes(range(5))
        assert texts(outcomes) == [f"answer {n}" for n in range(5)]
        assert [at for at, _ in setup.provider.calls] == [0.0, *[kept] * 5]

    play(test)


def test_a_rate_limit_without_a_wait_backs_off() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: n <= 3, RateLimited("slow down")), max_in_flight=1)
        await setup.outcomes([1])
        times = setup.calls_of(1)
        waits = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert 0.25 <= waits[0] <= 0.5 < waits[1] <= 1 < waits[2] <= 2

    play(test)


def test_a_burst_of_rate_limits_cuts_once() -> None:
    async def test() -> None:
        async def burst() -> None:
            await setup.world.sleep(1)
            raise RateLimited("slow down", 5.0)

        setup = Setup(lambda n, r: burst() if n <= 24 else setup.world.sleep(1), max_in_flight=16)
        tasks = [setup.ask(draw) for draw in range(40)]
        await setup.world.settle()
        assert setup.governor.in_flight == 16
        for _ in range(16):
            await setup.world.tick()
        await setup.world.settle()
        assert setup.governor.limit == 8
        assert setup.governor.in_flight == 0
        await setup.world.run(*tasks)
        second_burst = [at for at, _ in setup.provider.calls[16:24]]
        third = [at for at, _ in setup.provider.calls[24:28]]
        assert second_burst == [6.0] * 8
        assert third == [12.0] * 4
        assert setup.provider.calls[28][0] == 13.0

    play(test)


def test_the_limit_rises_by_one_per_limit_of_successes_and_stays_under_the_ceiling() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: n == 1, RateLimited("slow down", 0.0)), max_in_flight=16)
        await setup.outcomes(range(8))
        assert setup.governor.limit == 8
        await setup.outcomes(range(2))
        assert setup.governor.limit == 9
        await setup.outcomes(range(400))
        assert setup.governor.limit == 16

    play(test)


def test_an_outage_does_not_cut_the_limit() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: n <= 5, Unavailable("down")), max_in_flight=4)
        await setup.outcomes(range(4))
        assert setup.governor.limit == 4

    play(test)


@pytest.mark.parametrize("error", [Unavailable("down"), RateLimited("slow down"), RateLimited("slow down", 20.0)])
def test_shared_trouble_never_settles_a_request(error: Exception) -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: setup.world.now < PATIENCE - 70, error))
        assert texts(await setup.outcomes(range(12))) == [f"answer {n}" for n in range(12)]

    play(test)


def test_a_request_that_fails_among_others_that_succeed_is_rejected() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: r.draw == 99, Unavailable("engine died")))
        poison = setup.ask(99)
        for draw in itertools.count():
            if poison.done():
                break
            await setup.outcomes([draw])
            await setup.world.tick()
            await setup.world.settle()
        with pytest.raises(RequestRejected, match=r"failed 4 times while others succeeded, at last with: engine died"):
            await poison
        assert len(setup.calls_of(99)) == N_FAILURES

    play(test)


def test_a_lone_request_is_never_blamed_for_an_outage() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: n <= 6, Unavailable("down")))
        assert texts(await setup.outcomes([1])) == ["answer 1"]
        assert len(setup.calls_of(1)) == 7

    play(test)


def test_rate_limits_alone_never_blame_a_request() -> None:
    async def test() -> None:
        fails = failing_while(lambda n, r: r.draw == 99 and len(setup.calls_of(99)) < 12, RateLimited("slow down", 1.0))
        setup = Setup(fails)
        assert texts(await setup.outcomes([99, *range(200)]))[0] == "answer 99"

    play(test)


@pytest.mark.parametrize("share", [0.1, 0.34, 0.5])
def test_a_flaky_provider_never_makes_a_request_look_at_fault(share: float) -> None:
    async def test() -> None:
        chance = random.Random(1)

        async def script() -> None:
            await setup.world.sleep(chance.random())
            if chance.random() < share:
                raise Unavailable("flaky")

        setup = Setup(lambda n, r: script(), max_in_flight=50)
        assert texts(await setup.outcomes(range(1500))) == [f"answer {n}" for n in range(1500)]

    play(test)


def test_backoff_grows_and_is_bounded_and_differs_between_requests() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: setup.world.now < 250, Unavailable("down")))
        await setup.outcomes([1, 2])
        waits = [later - earlier for earlier, later in itertools.pairwise(setup.calls_of(1))]
        assert all(0.25 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(waits[:7]))
        assert all(LONGEST_WAIT / 2 <= wait <= LONGEST_WAIT for wait in waits[7:])
        assert setup.calls_of(1) != setup.calls_of(2)

    play(test)


def test_the_breaker_opens_when_nothing_succeeds_for_too_long() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: True, Unavailable("engine died")), max_in_flight=2)
        outcomes = await setup.outcomes(range(20))
        assert texts(outcomes) == ["CircuitOpen"] * 20
        assert all("engine died" in str(outcome) and "same command" in str(outcome) for outcome in outcomes)
        assert PATIENCE <= setup.world.now <= PATIENCE + LONGEST_WAIT
        n_calls = len(setup.provider.calls)
        assert texts(await setup.outcomes([21])) == ["CircuitOpen"]
        assert len(setup.provider.calls) == n_calls
        assert setup.governor.in_flight == 0

    play(test)


def test_a_success_starts_the_window_anew() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: r.draw == 1 and setup.world.now < 1.5 * PATIENCE, Unavailable("down")))

        async def lively() -> None:
            await setup.world.sleep(0.9 * PATIENCE)
            await setup.governor.answer(request(2))

        outcomes = await setup.world.run(setup.ask(1), asyncio.ensure_future(lively()))
        assert texts(outcomes)[0] == "answer 1"

    play(test)


def test_a_silence_in_which_nothing_was_asked_does_not_open_it() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: n <= 2, Unavailable("down")))
        abandoned = setup.ask(1)
        await setup.world.settle()
        abandoned.cancel()
        await setup.world.settle()
        setup.world.now += 10 * PATIENCE
        assert texts(await setup.outcomes([2])) == ["answer 2"]

    play(test)


def test_unauthorized_stops_everyone_at_once() -> None:
    async def test() -> None:
        async def slow_then_fine() -> None:
            await setup.world.sleep(50)

        def script(n_call: int, request: Request) -> Awaitable[None] | None:
            if request.draw == 0:
                return slow_then_fine()
            if request.draw == 1:
                raise Unavailable("down")
            if request.draw == 2:
                raise Unauthorized("the key was revoked")
            return None

        setup = Setup(script, max_in_flight=2)
        tasks = [setup.ask(draw) for draw in range(8)]
        await setup.world.settle()
        assert setup.world.now == 0
        assert [task.done() for task in tasks] == [False] + [True] * 7
        n_calls = len(setup.provider.calls)
        assert texts(await setup.world.run(*tasks)) == ["answer 0"] + ["Unauthorized"] * 7
        assert len(setup.provider.calls) == n_calls == 3
        assert all("the key was revoked" in str(task.exception()) for task in tasks[1:])
        assert texts(await setup.outcomes([9])) == ["Unauthorized"]

    play(test)


def test_each_waiter_gets_its_own_error() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: True, Unauthorized("no")), max_in_flight=1)
        outcomes = await setup.outcomes(range(3))
        assert len({id(outcome) for outcome in outcomes}) == 3

    play(test)


@pytest.mark.parametrize("error", [RequestRejected("too long"), ValueError("a bug")])
def test_other_errors_pass_through_at_once_and_give_the_permit_back(error: Exception) -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: r.draw == 1, error), max_in_flight=1)
        assert texts(await setup.outcomes([1, 2])) == [type(error).__name__, "answer 2"]
        assert len(setup.calls_of(1)) == 1
        assert setup.governor.in_flight == 0

    play(test)


def rejecting(error: str, until: float = float("inf")) -> Script:
    return failing_while(lambda n, r: r.draw < until, RequestRejected(error))


@pytest.mark.parametrize("max_in_flight", [1, 4, 64])
def test_when_every_request_is_rejected_none_is_settled_by_it(max_in_flight: int) -> None:
    async def test() -> None:
        setup = Setup(rejecting("context too short"), max_in_flight=max_in_flight)
        assert texts(await setup.outcomes(range(N_REJECTED + 5))) == ["CircuitOpen"] * (N_REJECTED + 5)
        assert len(setup.provider.calls) <= N_REJECTED + max_in_flight

    play(test)


def test_rejections_are_held_until_the_first_answer_shows_whose_fault_they_are() -> None:
    async def test() -> None:
        setup = Setup(rejecting("too long", until=5), max_in_flight=2)
        held = [setup.ask(draw) for draw in range(5)]
        late = setup.ask(100)
        await setup.world.run(late)
        found = await setup.world.run(*held)
        assert texts(found) == ["RequestRejected"] * 5 and setup.world.now <= LOOK
        assert setup.governor.in_flight == 0, "what is held holds no permit"

    play(test)


def test_when_all_there_is_was_rejected_an_empty_ledger_stops_the_run_and_an_older_one_goes_on() -> None:
    async def test() -> None:
        for has_answered, outcome in ((False, "CircuitOpen"), (True, "RequestRejected")):
            setup = Setup(rejecting("too long"), crowd=Crowd(has_answered))
            assert texts(await setup.outcomes(range(3))) == [outcome] * 3

    play(test)


def test_what_another_lane_is_still_asked_keeps_rejections_held() -> None:
    async def test() -> None:
        crowd = Crowd()
        setup = Setup(rejecting("too long"), crowd=crowd)
        crowd.n_unsettled += 1
        rejected = setup.ask(1)
        for _ in range(20):
            await setup.world.settle()
            await setup.world.tick()
        assert not rejected.done()
        crowd.n_unsettled -= 1
        assert texts(await setup.world.run(rejected)) == ["CircuitOpen"]

    play(test)


def test_rejections_after_an_answer_are_their_own_fault() -> None:
    async def test() -> None:
        setup = Setup(failing_while(lambda n, r: n > 1, RequestRejected("too long")), max_in_flight=1)
        assert texts(await setup.outcomes(range(50))) == ["answer 0"] + ["RequestRejected"] * 49

    play(test)


def test_a_request_that_hangs_is_abandoned_and_sent_again() -> None:
    async def test() -> None:
        def script(n_call: int, request: Request) -> Awaitable[None] | None:
            return asyncio.get_running_loop().create_future() if n_call == 1 else None

        setup = Setup(script, timeout=0.0)
        assert texts(await setup.outcomes([1])) == ["answer 1"]
        assert setup.provider.n_active == 0

    play(test)


def test_cancelling_gives_back_permits_wherever_the_request_stands() -> None:
    async def test() -> None:
        def script(n_call: int, request: Request) -> Awaitable[None] | None:
            if request.draw == 1:
                raise Unavailable("down")
            return setup.world.sleep(5) if request.draw < 100 else None

        setup = Setup(script, max_in_flight=2)
        asleep, flying, flying_too, queued = (setup.ask(draw) for draw in range(1, 5))
        await setup.world.settle()
        assert setup.governor.in_flight == 2
        for task in (queued, flying, asleep):
            task.cancel()
        await setup.world.settle()
        assert setup.governor.in_flight == 1
        flying_too.cancel()
        await setup.world.settle()
        assert setup.provider.n_active == 0
        assert texts(await setup.outcomes([100, 101, 102])) == ["answer 100", "answer 101", "answer 102"]
        assert setup.governor.in_flight == 0

    play(test)


def test_a_permit_handed_to_a_request_in_the_moment_of_its_cancelling_is_not_lost() -> None:
    async def test() -> None:
        release = asyncio.Event()

        async def held() -> None:
            await release.wait()

        setup = Setup(lambda n, r: held() if r.draw == 1 else None, max_in_flight=1)
        holder, queued = setup.ask(1), setup.ask(2)
        await setup.world.settle()
        holder.add_done_callback(lambda _: queued.cancel())
        release.set()
        await setup.world.settle()
        assert queued.cancelled()
        assert texts(await setup.outcomes([3])) == ["answer 3"]
        assert setup.governor.in_flight == 0

    play(test)


def test_closing_closes_the_provider() -> None:
    async def test() -> None:
        setup = Setup(lambda n, r: None)
        await setup.governor.close()
        assert setup.provider.closed

    play(test)


# --- what the driver allows -------------------------------------------------------------------------------------


def test_no_more_fly_than_the_driver_permits_and_more_as_soon_as_it_does() -> None:
    async def test() -> None:
        setup = Setup(lambda n, r: setup.world.sleep(1), max_in_flight=8)
        setup.governor.follow(LaneShare(permits=2))
        asked = [setup.ask(draw) for draw in range(12)]
        await setup.world.settle()
        assert setup.provider.n_active == 2
        setup.governor.follow(LaneShare(permits=5))
        await setup.world.settle()
        assert setup.provider.n_active == 5
        await setup.world.run(*asked)
        assert setup.provider.most_active == 5

    play(test)


def test_requests_are_paced_by_the_limits_of_the_share() -> None:
    async def test() -> None:
        setup = Setup(lambda n, r: None, max_in_flight=8)
        setup.governor.follow(LaneShare(permits=8, limits=Limits(requests=60)))
        await setup.outcomes(range(10))
        assert 7 <= setup.world.now <= 11

    play(test)


def test_a_rate_limit_is_reported_with_the_turn_in_which_its_request_was_sent() -> None:
    async def test() -> None:
        def script(n_call: int, request: Request) -> Awaitable[None] | None:
            if n_call > 2:
                return None

            async def limited() -> None:
                await setup.world.sleep(n_call)
                raise RateLimited("slow down", 0.1)

            return limited()

        setup = Setup(script, max_in_flight=2)
        asked = [setup.ask(1), setup.ask(2)]
        await setup.world.settle()
        await setup.world.tick()
        await setup.world.settle()
        assert setup.governor.report(None).limited_at == 0
        # The driver has cut the lane; the second limit comes from a request of the turn before.
        setup.governor.follow(LaneShare(permits=2, turn=1))
        await setup.world.run(*asked)
        assert setup.governor.report(None).limited_at == 0
        assert setup.governor.report(None).n_answers == 2

    play(test)


def priced(granted: float | None) -> tuple[Purse, Till]:
    purse = Purse(granted)
    return purse, Till(purse, Tariff(Price(input=0, output=10_000), "5m", batch=False))


def test_each_attempt_is_paid_for_by_what_became_of_it() -> None:
    async def test() -> None:
        purse, till = priced(10.0)
        errors = [RateLimited("slow down", 0.1), Unavailable("500", maybe_billed=False), Unavailable("lost"), None]

        def script(n_call: int, request: Request) -> None:
            error = errors[n_call - 1]
            if error is not None:
                raise error

        setup = Setup(script, till=till)
        assert texts(await setup.outcomes([1])) == ["answer 1"]
        assert purse.assumed == pytest.approx(1.0), "a hundred tokens of a cent: the lost attempt in full"
        assert purse.spent == pytest.approx(2.0) and purse.reserved == 0, "and so does the answer, which tells no usage"

    play(test)


def test_what_hangs_or_is_cancelled_after_it_was_sent_counts_in_full() -> None:
    async def test() -> None:
        purse, till = priced(10.0)
        setup = Setup(lambda n, r: setup.world.sleep(5), till=till)
        asked = setup.ask(1)
        await setup.world.settle()
        asked.cancel()
        await setup.world.settle()
        assert purse.assumed == pytest.approx(1.0) and purse.reserved == 0

    play(test)


def test_who_waits_for_money_is_woken_by_it_and_sent_home_at_the_end() -> None:
    async def test() -> None:
        purse, till = priced(1.5)
        setup = Setup(lambda n, r: setup.world.sleep(5), till=till)
        asked = [setup.ask(draw) for draw in range(3)]
        await setup.world.settle()
        assert setup.provider.n_active == 1 and purse.is_short
        purse.allow(2.0)
        await setup.world.settle()
        assert setup.provider.n_active == 2
        purse.close()
        outcomes = await setup.world.run(*asked)
        assert texts(outcomes) == ["answer 0", "answer 1", "Stopped"] and setup.governor.in_flight == 0

    play(test)
