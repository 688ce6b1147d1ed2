"""Whatever fails, waits or is cancelled, permits are never lost and never exceeded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from sdf.errors import RateLimited, RequestRejected, Unavailable
from sdf.providers.crowd import Crowd
from sdf.providers.governor import Governor
from sdf.records import Answer, Message, Prefix, Request, Sampling, Wants

PREFIX = Prefix.of("the same for all")
FATES = st.lists(st.sampled_from(["answer", "limit", "outage", "reject"]), max_size=4)


def request(draw: int) -> Request:
    return Request("m", PREFIX, (Message("user", "say it"),), Sampling(100), Wants("text"), draw)


@dataclass
class Fated:
    """Each request meets its own fates in order, one a call, then is answered; every call takes some turns."""

    fates: list[list[str]]
    n_active: int = 0
    most_active: int = 0
    n_calls: dict[int, int] = field(default_factory=dict[int, int])

    async def answer(self, request: Request) -> Answer:
        n_call = self.n_calls.get(request.draw, 0)
        self.n_calls[request.draw] = n_call + 1
        self.n_active += 1
        self.most_active = max(self.most_active, self.n_active)
        try:
            for _ in range(request.draw % 3):
                await asyncio.sleep(0)
        finally:
            self.n_active -= 1
        fate = (self.fates[request.draw] + ["answer"] * (n_call + 1))[n_call]
        if fate == "limit":
            raise RateLimited("slow down", float(n_call))
        if fate == "outage":
            raise Unavailable("down")
        if fate == "reject":
            raise RequestRejected("bad request")
        return Answer(str(request.draw), "stop", "m")

    async def close(self) -> None:
        pass


def governed(provider: Fated, max_in_flight: int) -> Governor:
    now = [0.0]

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)
        now[0] += seconds

    crowd = Crowd(has_answered=True)
    return Governor(provider, max_in_flight=max_in_flight, clock=lambda: now[0], sleep=sleep, patience=1e9, crowd=crowd)


@settings(max_examples=60, deadline=None)
@given(st.lists(FATES, min_size=1, max_size=12), st.integers(1, 5))
def test_each_request_ends_as_its_own_fates_say(fates: list[list[str]], max_in_flight: int) -> None:
    async def test() -> None:
        provider = Fated(fates)
        governor = governed(provider, max_in_flight)
        asked = (governor.answer(request(draw)) for draw in range(len(fates)))
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        for draw, outcome in enumerate(outcomes):
            fate = next((fate for fate in fates[draw] if fate in {"answer", "reject"}), "answer")
            if isinstance(outcome, Answer):
                assert (fate, outcome.text) == ("answer", str(draw))
            else:
                assert isinstance(outcome, RequestRejected)
                assert fate == "reject" or fates[draw].count("outage") == 4
        assert provider.most_active <= max_in_flight
        assert governor.in_flight == 0

    asyncio.run(test())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(FATES, min_size=2, max_size=12),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 25)), max_size=12),
)
def test_cancelling_anything_at_any_moment_loses_no_permit(
    fates: list[list[str]], max_in_flight: int, cancellings: list[tuple[int, int]]
) -> None:
    async def test() -> None:
        provider = Fated(fates)
        governor = governed(provider, max_in_flight)
        tasks = [asyncio.ensure_future(governor.answer(request(draw))) for draw in range(len(fates))]
        for turn in range(26):
            for draw, at in cancellings:
                if at == turn and draw < len(tasks):
                    tasks[draw].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        assert governor.in_flight == 0
        assert provider.n_active == 0
        provider.fates = [[] for _ in fates]
        again = await asyncio.gather(*(governor.answer(request(draw)) for draw in range(len(fates))))
        assert [answer.text for answer in again] == [str(draw) for draw in range(len(fates))]
        assert provider.most_active <= max_in_flight

    asyncio.run(test())
