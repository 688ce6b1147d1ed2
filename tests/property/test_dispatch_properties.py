"""A crew that is slow, dies, repeats itself and reorders everything ends with the corpus of a patient loop."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make_job

from sdf.assemble import Fold
from sdf.dispatch import Dispatch
from sdf.job import Job
from sdf.orders import BriefOrder, Order, RoundOrder, name_of
from sdf.plan import Plan
from sdf.records import Location, Receipt, RoundKey, RoundReceipt, stream
from sdf.story import terms_of

MIXES = (
    {"note": 1.0},
    {"talk": 2.0, "letter": 1.0},
    {"note": 3.0, "letter": 1.0, "question": 1.0},
    {"quiz": 1.0, "talk": 1.0, "note": 2.0},
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"))


def settled(order: Order, seed: int, plan: Plan) -> Receipt | RoundReceipt:
    """How an order ends is a function of what it is, as with a model that answers alike each time."""
    if isinstance(order, RoundOrder):
        n_items = {"note": 4, "talk": 2}[order.key.genre]
        angles = [f"{order.key} {stream(*order.taken)} {place}" for place in range(n_items)]
        kept = [None if stream(seed, angle) % 7 == 0 else angle for angle in angles]
        return RoundReceipt(order.key, Location("000001/w", 0), tuple(kept))
    dice = stream(seed, order.genre, order.index, order.angle or "")
    reason = "no_angle" if order.angle is None and order.genre in ("note", "talk") else None
    reason = reason or ("refused" if dice % 5 == 0 else None)
    # The brief's name carries its angle: documents of another angle are other documents.
    name = f"{order.genre}-{order.index}-{order.angle}"
    return Receipt(name, order.genre, order.index, Location(order.genre, order.index), reason, 20 + dice % 90, b"")


@dataclass
class Crew:
    """Workers with orders in hand; every order taken is recorded with what was known when it was given."""

    plan: Plan
    fold: Fold
    dispatch: Dispatch
    seed: int
    hands: list[list[Order]]
    given: Counter[tuple[object, ...]] = field(default_factory=Counter)
    lost: Counter[tuple[object, ...]] = field(default_factory=Counter)
    known: dict[RoundKey, RoundReceipt] = field(default_factory=dict)
    told: list[Receipt | RoundReceipt] = field(default_factory=list)

    def give(self, hand: int, room: int) -> None:
        for order in self.dispatch.orders(room - len(self.hands[hand])):
            self.check(order)
            self.given[name_of(order)] += 1
            self.hands[hand].append(order)

    def check(self, order: Order) -> None:
        if isinstance(order, RoundOrder):
            earlier = [order.key._replace(number=number) for number in range(order.key.number)]
            assert all(key in self.known for key in earlier), "a round before the earlier ones of its lane"
            taken = [angle for key in earlier for angle in self.known[key].angles if angle is not None]
            assert list(order.taken) == taken
            assert order.key not in self.known
        else:
            assert not self.dispatch.is_settled(order.genre, order.index)
            place = self.plan.round_of(order.genre, order.index)
            assert order.angle == (None if place is None else self.known[place[0]].angles[place[1]])

    def tell(self, receipt: Receipt | RoundReceipt) -> None:
        """As the story does: the first word counts."""
        self.told.append(receipt)
        if isinstance(receipt, RoundReceipt):
            if not self.dispatch.knows(receipt.key):
                self.known[receipt.key] = receipt
                self.dispatch.learn(receipt)
        elif not self.dispatch.is_settled(receipt.genre, receipt.index):
            self.dispatch.settle(receipt)
            self.fold.offer(receipt)
        assert self.fold.advance() == []

    def lose(self, hand: int, n_flushed: int) -> None:
        """The worker dies; what it flushed is read back, the rest is given again."""
        orders, self.hands[hand] = self.hands[hand], []
        for order in orders[:n_flushed]:
            self.tell(settled(order, self.seed, self.plan))
        self.lost.update(name_of(order) for order in orders[n_flushed:])
        self.dispatch.again(orders)


def oracle(job: Job, seed: int) -> Fold:
    """One order at a time, each settled before the next is given."""
    plan = Plan(job)
    fold = Fold(terms_of(job, plan))
    crew = Crew(plan, fold, Dispatch(plan, fold), seed, [[]])
    for _ in range(20_000):
        if fold.finished:
            return fold
        crew.give(0, 1)
        assert crew.hands[0], "nothing is ordered, and the corpus is not finished"
        crew.tell(settled(crew.hands[0].pop(), seed, plan))
    raise AssertionError("it does not end")


def corpus(fold: Fold) -> object:
    return [*fold.take_full(), *fold.short()], fold.rejections


@settings(max_examples=40, deadline=None)
@given(
    mix=st.sampled_from(MIXES),
    tokens=st.integers(1, 6_000),
    seed=st.integers(0, 10**6),
    n_hands=st.integers(1, 4),
    room=st.integers(1, 60),
    luck=st.integers(0, 2**32),
)
def test_any_crew_reaches_the_corpus_of_the_oracle(
    whole: Job, mix: dict[str, float], tokens: int, seed: int, n_hands: int, room: int, luck: int
) -> None:
    dice = random.Random(luck)
    genres = tuple(sorted((g for g in whole.genres if g.key in mix), key=lambda genre: list(mix).index(genre.key)))
    job = replace(whole, genres=genres, recipe=whole.recipe.changed({"mix": mix, "tokens": tokens, "seed": seed}))
    plan = Plan(job)
    fold = Fold(terms_of(job, plan))
    crew = Crew(plan, fold, Dispatch(plan, fold), seed, [[] for _ in range(n_hands)])
    for _ in range(20_000):
        if fold.finished:
            break
        hand = dice.randrange(n_hands)
        crew.give(hand, room)
        assert any(crew.hands), "nothing is ordered, and the corpus is not finished"
        event = dice.random()
        if event < 0.05:
            crew.lose(hand, dice.randint(0, len(crew.hands[hand])))
        elif event < 0.15 and crew.told:
            crew.tell(dice.choice(crew.told))
        elif crew.hands[hand]:
            place = dice.randrange(len(crew.hands[hand]))
            crew.tell(settled(crew.hands[hand].pop(place), seed, plan))
    assert fold.finished
    assert corpus(fold) == corpus(oracle(job, seed))
    for name, n_given in crew.given.items():
        assert n_given <= 1 + crew.lost[name], f"{name} was ordered {n_given} times and lost {crew.lost[name]} times"


@settings(max_examples=40, deadline=None)
@given(
    mix=st.sampled_from(MIXES),
    tokens=st.integers(500, 6_000),
    seed=st.integers(0, 10**6),
    luck=st.integers(0, 2**32),
)
def test_a_resume_from_any_part_of_what_was_settled_ends_alike(
    whole: Job, mix: dict[str, float], tokens: int, seed: int, luck: int
) -> None:
    """A damaged ledger may have kept any of the settlements, rounds and briefs alike."""
    dice = random.Random(luck)
    genres = tuple(sorted((g for g in whole.genres if g.key in mix), key=lambda genre: list(mix).index(genre.key)))
    job = replace(whole, genres=genres, recipe=whole.recipe.changed({"mix": mix, "tokens": tokens, "seed": seed}))
    plan = Plan(job)
    first = Fold(terms_of(job, plan))
    crew = Crew(plan, first, Dispatch(plan, first), seed, [[]])
    while not first.finished:
        crew.give(0, 30)
        crew.tell(settled(crew.hands[0].pop(), seed, plan))
    fold = Fold(terms_of(job, plan))
    resumed = Crew(plan, fold, Dispatch(plan, fold), seed, [[]])
    for receipt in dice.sample(crew.told, dice.randint(0, len(crew.told))):
        resumed.tell(receipt)
    kept = {(each.genre, each.index) for each in resumed.told if isinstance(each, Receipt)}
    for _ in range(20_000):
        if fold.finished:
            break
        resumed.give(0, 30)
        assert resumed.hands[0], "nothing is ordered, and the corpus is not finished"
        order = resumed.hands[0].pop()
        assert not (isinstance(order, BriefOrder) and (order.genre, order.index) in kept)
        resumed.tell(settled(order, seed, plan))
    assert corpus(fold) == corpus(first)
