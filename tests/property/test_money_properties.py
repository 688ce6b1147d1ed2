"""The purse and the books of grants over random lives: crashes, lost and repeated messages, late words, recalls.

A world of workers with real purses and one driver's books. At every moment the true spending (what a server would have
billed, lost attempts included) stays within the cap, in this epoch and over those that follow a crash.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sdf.grants.dollars import Grants
from sdf.grants.permits import Permits, shared_out
from sdf.money.allowance import Account, LaneReport
from sdf.money.budget import Purse, Stopped

CENT = 1e-6

worsts = st.floats(0.01, 3.0, allow_nan=False)
# What an attempt comes to, as a part of its worst case, and whether anyone learns of it.
fates = st.tuples(st.floats(0.0, 1.0), st.sampled_from(["answered", "refused", "lost"]))


@dataclass
class Life:
    """A worker: its purse, its requests in flight, and whether the driver can hear it."""

    name: str
    purse: Purse
    out: list[tuple[float, float, str]] = field(default_factory=list[tuple[float, float, str]])
    tasks: list[asyncio.Task[None]] = field(default_factory=list[Any])


class World:
    """`left`: what earlier epochs set aside for each request that they left at the API, all of it billed already."""

    def __init__(self, cap: float, n_workers: int, left: Sequence[tuple[float, float]] = ()) -> None:
        self.cap, self.n_workers = cap, n_workers
        self.left = list(left)
        self.billed = math.fsum(worst * part for worst, part in left)
        self.now = 0.0
        self.n_hired = 0
        self.open_epoch(math.fsum(worst for worst, _ in left))

    def open_epoch(self, before: float) -> None:
        self.grants = Grants(self.cap, before)
        self.durable = self.grants.granted()
        self.record: dict[str, Any] = {"workers": {}}
        self.before = before
        self.lives: list[Life] = []
        self.dead: list[Life] = []
        for _ in range(self.n_workers):
            self.hire()

    def hire(self) -> None:
        name = f"w{self.n_hired}"
        self.n_hired += 1
        self.grants.hire(name)
        self.lives.append(Life(name, Purse(0.0)))

    async def ask(self, life: Life, worst: float, fate: tuple[float, str]) -> None:
        try:
            await life.purse.reserve(worst)
        except Stopped:
            return
        life.out.append((worst, worst * fate[0], fate[1]))
        # Billed at once, whatever the client learns of it, and when.
        if fate[1] != "refused":
            self.billed += worst * fate[0]

    def collect(self, life: Life, fate: str) -> None:
        """Waits for one of those that were left."""
        worst, part = self.left.pop()
        life.purse.inherit(worst)
        life.out.append((worst, worst * part, fate))

    def settle(self, life: Life, which: int) -> None:
        if life.out:
            worst, cost, fate = life.out.pop(which % len(life.out))
            if fate == "answered":
                life.purse.settle(worst, cost)
            elif fate == "refused":
                life.purse.settle(worst, 0.0)
            else:
                life.purse.settle(worst, worst, proved=False)

    def decide(self) -> None:
        if self.grants.decide():
            # On record before anyone hears of it.
            self.durable, self.record = self.grants.granted(), self.grants.record()

    def exchange(self, life: Life, *, request_lost: bool, reply_lost: bool) -> None:
        if not request_lost:
            life.purse.allow(self.durable.get(life.name, 0.0), recall=self.grants.recall)
            if not reply_lost:
                self.grants.hear(life.name, life.purse.account(), self.now)

    def outstanding(self) -> float:
        """What a driver that opens the next epoch finds on record."""
        granted = math.fsum(each["granted"] - each["returned"] for each in self.record["workers"].values())
        return self.before + granted


# How often each thing happens: money moves a lot, and now and then something dies.
CHANCES = {
    "exchange": 40,
    "decide": 25,
    "ask": 25,
    "settle": 20,
    "lose": 2,
    "close": 2,
    "cancel": 1,
    "crash": 1,
    "collect": 3,
}


def action(random: Random) -> tuple[Any, ...]:
    kind = random.choices(list(CHANCES), list(CHANCES.values()))[0]
    which = random.randrange(10)
    if kind == "ask":
        fate = (random.random(), random.choice(["answered", "answered", "refused", "lost"]))
        return kind, which, random.uniform(0.01, 3.0), fate
    if kind == "exchange":
        return kind, which, random.random() < 0.1, random.random() < 0.1
    return kind, which, random.randrange(10)


async def play(world: World, action: tuple[Any, ...]) -> None:
    kind, *rest = action
    if kind == "decide":
        world.decide()
    elif kind == "crash":
        await crash(world)
    elif world.lives:
        life = world.lives[rest[0] % len(world.lives)]
        if kind == "ask":
            life.tasks.append(asyncio.ensure_future(world.ask(life, rest[1], rest[2])))
        elif kind == "collect" and world.left:
            world.collect(life, "lost" if rest[1] < 3 else "answered")
        elif kind == "settle":
            world.settle(life, rest[1])
        elif kind == "exchange":
            world.now += 0.1
            world.exchange(life, request_lost=rest[1], reply_lost=rest[2])
        elif kind == "cancel" and life.tasks:
            life.tasks[-1].cancel()
        elif kind == "lose":
            # It lives on, unheard, and spends what it was granted.
            world.lives.remove(life)
            world.dead.append(life)
            world.grants.lose(life.name)
            world.hire()
        elif kind == "close":
            world.lives.remove(life)
            await end(world, life)
            world.grants.close(life.name, life.purse.account())
            world.hire()
    for _ in range(3):
        await asyncio.sleep(0)


async def end(world: World, life: Life) -> None:
    life.purse.close()
    while life.out:
        world.settle(life, 0)
    await asyncio.gather(*life.tasks, return_exceptions=True)
    while life.out:
        world.settle(life, 0)


async def crash(world: World) -> None:
    """The driver dies with everything it knew; its workers go on for a moment with what they have."""
    orphans = [*world.lives, *world.dead]
    before = world.outstanding()
    for life in orphans:
        await end(world, life)
    world.open_epoch(before)


@settings(max_examples=150, deadline=None)
@given(
    st.floats(0.5, 30.0),
    st.integers(1, 4),
    st.lists(st.tuples(st.floats(0.01, 3.0), st.floats(0.0, 1.0)), max_size=12),
    st.integers(0, 2**32),
)
def test_the_bill_never_passes_the_cap(
    spare: float, n_workers: int, left: list[tuple[float, float]], seed: int
) -> None:
    random = Random(seed)
    cap = spare + math.fsum(worst for worst, _ in left)

    async def test() -> None:
        world = World(cap, n_workers, left)
        for _ in range(250):
            await play(world, action(random))
            assert world.billed <= cap + CENT
            for life in [*world.lives, *world.dead]:
                purse = life.purse
                held = purse.spent + purse.reserved + purse.returned
                assert held <= (purse.granted or 0.0) + purse.inherited + CENT
            assert world.grants.free >= -CENT
            for life in world.dead:
                # Nobody hears it, and it goes on.
                world.settle(life, 0)
        for life in [*world.lives, *world.dead]:
            await end(world, life)
        assert world.billed <= cap + CENT

    asyncio.run(test())


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.5, 20.0),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 9), worsts, fates), min_size=1, max_size=40),
    st.integers(0, 2**32),
)
def test_nothing_starves_while_money_remains(
    cap: float, n_workers: int, asked: list[tuple[int, float, tuple[float, str]]], seed: int
) -> None:
    """Whatever the order of events, either all is asked, or the smallest that waits costs more than what is left."""
    random = Random(seed)

    async def test() -> None:
        world = World(cap, n_workers)
        for which, worst, fate in asked:
            life = world.lives[which % n_workers]
            life.tasks.append(asyncio.ensure_future(world.ask(life, worst, fate)))
        for n_round in range(5_000):
            await asyncio.sleep(0)
            waiting = [life for life in world.lives if life.purse.is_short or life.out]
            if n_round and not waiting:
                break
            life = random.choice(world.lives)
            if life.out and random.random() < 0.5:
                world.settle(life, random.randrange(10))
            world.now += 0.1
            world.exchange(life, request_lost=random.random() < 0.2, reply_lost=random.random() < 0.2)
            world.decide()
            if world.grants.needed is not None:
                left = cap - math.fsum(each.purse.spent for each in world.lives)
                assert world.grants.needed > left - CENT and not any(each.out for each in world.lives)
                break
        else:
            raise AssertionError("some wait for ever")
        if world.grants.needed is None:
            assert all(task.done() for each in world.lives for task in each.tasks)
        for each in world.lives:
            await end(world, each)

    asyncio.run(test())


@settings(max_examples=200, deadline=None)
@given(st.lists(worsts, min_size=1, max_size=20), st.floats(0.0, 5.0), st.data())
def test_a_purse_holds_what_it_holds_wherever_requests_are_cancelled(
    asked: list[float], granted: float, data: st.DataObject
) -> None:
    async def test() -> None:
        purse = Purse(granted)
        tasks = [asyncio.ensure_future(purse.reserve(worst)) for worst in asked]
        for task in tasks:
            for _ in range(data.draw(st.integers(0, 2))):
                await asyncio.sleep(0)
            if data.draw(st.booleans()):
                task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        taken = [w for w, task in zip(asked, tasks, strict=True) if task.done() and not task.cancelled()]
        assert math.isclose(purse.reserved, math.fsum(taken), abs_tol=CENT) and purse.n_out == len(taken)
        purse.close()
        for worst in taken:
            purse.settle(worst, 0.0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert purse.reserved == 0.0 and not purse.is_short

    asyncio.run(test())


@given(
    st.floats(1, 500), st.dictionaries(st.text("abc", min_size=1), st.integers(0, 80), min_size=1), st.integers(1, 64)
)
def test_permits_are_shared_out_whole_and_by_demand(limit: float, demands: dict[str, int], each: int) -> None:
    found = shared_out(limit, demands, each)
    assert found.keys() == demands.keys() and all(1 <= share <= each for share in found.values())
    assert sum(found.values()) <= max(int(limit), len(demands)) or limit >= each * len(demands)
    # Nobody goes without while another has what it did not ask for.
    unmet = [name for name in demands if found[name] < min(demands[name], each)]
    spare = [name for name in demands if found[name] > max(1, demands[name])]
    assert not (unmet and spare)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 4)), max_size=40))
def test_a_burst_cuts_a_lane_once_however_often_and_late_it_is_reported(
    words: list[tuple[int, int, int]],
) -> None:
    permits, heard = Permits(64), dict.fromkeys(range(4), 0)
    for worker in range(4):
        permits.hire(f"w{worker}")
    n_answers, turn = dict.fromkeys(range(4), 0), 0
    for worker, more, lag in words:
        # The turn in which the limited request was sent: the worker's present one, or one before it.
        sent_in = max(0, heard[worker] - lag)
        n_answers[worker] += more
        for _ in range(2):
            permits.hear(f"w{worker}", {"lane": LaneReport(4, 4, n_answers[worker], sent_in)})
        turn += sent_in == turn
        heard[worker] = permits.shares(f"w{worker}")["lane"].turn
        assert heard[worker] == turn


def test_what_a_run_left_is_collected_with_nothing_to_spare() -> None:
    """Its money was set aside when it was sent."""

    world = World(6.0, 2, [(3.0, 0.4), (2.0, 0.1), (1.0, 1.0)])
    assert world.grants.free == 0.0
    for life in (*world.lives, world.lives[0]):
        world.collect(life, "answered")
    for life in world.lives:
        world.exchange(life, request_lost=False, reply_lost=False)
    assert world.grants.free == world.grants.before == 0.0
    for life in world.lives:
        while life.out:
            world.settle(life, 0)
        world.exchange(life, request_lost=False, reply_lost=False)
    assert math.isclose(world.grants.spent, 0.4 * 3 + 0.1 * 2 + 1.0), "what it cost, and no longer its worst case"


def test_an_old_word_that_comes_late_changes_nothing() -> None:
    grants = Grants(10.0, 0.0)
    grants.hire("w")
    grants.hear("w", Account(granted=5.0, spent=3.0, returned=1.0), 1.0)
    grants.hear("w", Account(granted=5.0, spent=2.0, returned=0.0), 2.0)
    assert grants.spent == 3.0
