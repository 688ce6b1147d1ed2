"""Orders by example: each brief once, rounds before their documents, what is lost again, what a resume still owes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support import NOTE, make_job, receipt, write_recipe

from sdf.assemble import Fold
from sdf.dispatch import Dispatch
from sdf.job import Job, compile_job
from sdf.orders import BriefOrder, Order, RoundOrder
from sdf.plan import BLOCK, Plan, n_lanes
from sdf.recipe import load
from sdf.records import Location, RoundKey, RoundReceipt
from sdf.story import terms_of

NOWHERE = Location("000001/w", 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"))


def dispatch_of(job: Job, mix: dict[str, float], tokens: int = 100_000) -> Dispatch:
    genres = tuple(genre for genre in job.genres if genre.key in mix)
    job = replace(job, recipe=job.recipe.changed({"mix": mix, "tokens": tokens}), genres=genres)
    plan = Plan(job)
    return Dispatch(plan, Fold(terms_of(job, plan)))


def briefs(orders: Sequence[Order]) -> list[tuple[str, int]]:
    return [(order.genre, order.index) for order in orders if isinstance(order, BriefOrder)]


def rounds(orders: Sequence[Order]) -> list[RoundKey]:
    return [order.key for order in orders if isinstance(order, RoundOrder)]


def angles(key: RoundKey, n: int = 4, missing: Sequence[int] = ()) -> RoundReceipt:
    found = [None if place in missing else f"{key.principle} {key.lane} {key.number} {place}" for place in range(n)]
    return RoundReceipt(key, NOWHERE, tuple(found))


def test_a_genre_without_angles_is_ordered_in_sequence_and_in_blocks(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"quiz": 1})
    assert briefs(dispatch.orders(20)) == [("quiz", index) for index in range(20)]
    assert briefs(dispatch.orders(4)) == [("quiz", index) for index in range(20, 24)]


def test_no_more_orders_than_there_is_room_for(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"quiz": 1, "note": 1})
    assert [len(dispatch.orders(room)) for room in (0, -3, 1, 5)] == [0, 0, 1, 5]


def test_a_round_comes_before_its_documents_and_each_takes_its_own_angle(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"note": 1})
    plan = Plan(whole)
    first = dispatch.orders(1_000)
    # One for each lane of a cell: what follows depends on their answers.
    assert briefs(first) == [] and {key.number for key in rounds(first)} == {0} and len(first) == 3 * n_lanes(3)
    key = rounds(first)[0]
    dispatch.learn(angles(key, missing=[2]))
    second = dispatch.orders(1_000)
    assert rounds(second) == [key._replace(number=1)]
    asked = {order.index: order.angle for order in second if isinstance(order, BriefOrder)}
    expected = {i: place for i in range(600) if (place := plan.round_of("note", i)) is not None and place[0] == key}
    assert asked == {
        index: None if place == 2 else f"{key.principle} 0 0 {place}" for index, (_, place) in expected.items()
    }


def test_a_round_is_shown_all_earlier_angles_of_its_lane_in_order(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"note": 1})
    key = rounds(dispatch.orders(1_000))[0]
    dispatch.learn(angles(key, missing=[1]))
    second = next(order for order in dispatch.orders(1_000) if isinstance(order, RoundOrder))
    assert second.taken == tuple(f"{key.principle} 0 0 {place}" for place in (0, 2, 3))
    dispatch.learn(angles(second.key))
    third = next(order for order in dispatch.orders(1_000) if isinstance(order, RoundOrder))
    assert third.key.number == 2 and third.taken == second.taken + angles(second.key).angles


def test_lanes_are_asked_side_by_side_and_see_nothing_of_each_other(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"talk": 1})
    first = rounds(dispatch.orders(1_000))
    assert {(key.lane, key.number) for key in first} == {(0, 0), (1, 0)} and len(first) == 6
    key = first[0]
    dispatch.learn(angles(key, 2))
    (follower,) = [order for order in dispatch.orders(1_000) if isinstance(order, RoundOrder)]
    assert follower.key == key._replace(number=1) and follower.taken == angles(key, 2).angles


def test_the_genre_that_is_furthest_behind_its_share_comes_first(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"quiz": 3, "help": 1})
    found = briefs(dispatch.orders(12 * BLOCK))
    n_quiz = sum(genre == "quiz" for genre, _ in found)
    # Quizzes are shorter, so that even more of them are needed.
    assert n_quiz > 2.5 * (len(found) - n_quiz)


def test_the_target_bounds_what_is_asked_for(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"quiz": 1}, tokens=1_000)
    assert 10 < len(dispatch.orders(10_000)) < 100
    assert dispatch.orders(10_000) == []


def test_a_poor_yield_asks_for_more(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"quiz": 1}, tokens=1_000)
    first = briefs(dispatch.orders(10_000))
    for genre, index in first:
        each = receipt(genre, index, 50, reason="link")
        dispatch.settle(each)
        dispatch._fold.offer(each)
    dispatch._fold.advance()
    assert len(briefs(dispatch.orders(10_000))) > len(first)


def test_a_source_is_ordered_to_its_end_and_no_further(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"question": 1})
    assert briefs(dispatch.orders(10_000)) == [("question", index) for index in range(12)]
    assert dispatch.orders(10_000) == []


def test_twins_are_ordered_together(whole: Job) -> None:
    found = briefs(dispatch_of(whole, {"letter": 1, "quiz": 1}).orders(10_000))
    letters = [index for genre, index in found if genre == "letter"]
    assert len(letters) % 2 == 0 and letters == list(range(len(letters)))


def test_what_is_settled_is_not_ordered(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"quiz": 1})
    for index in (0, 2, 3, 7):
        dispatch.settle(receipt("quiz", index))
    assert dispatch.is_settled("quiz", 2) and not dispatch.is_settled("quiz", 1)
    assert briefs(dispatch.orders(5)) == [("quiz", index) for index in (1, 4, 5, 6, 8)]


def test_what_is_settled_while_it_waits_is_not_ordered_any_more(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"quiz": 1})
    assert briefs(dispatch.orders(1)) == [("quiz", 0)]
    dispatch.settle(receipt("quiz", 3))
    assert ("quiz", 3) not in briefs(dispatch.orders(50))


def test_no_round_is_asked_for_briefs_that_are_settled(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"note": 1}, tokens=500)
    for index in range(60):
        dispatch.settle(receipt("note", index))
    assert dispatch.orders(1_000) == []


def test_orders_of_a_lost_worker_come_next_unless_they_were_settled(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"quiz": 1})
    lost = dispatch.orders(6)
    dispatch.settle(receipt("quiz", 1))
    dispatch.again(lost)
    found = briefs(dispatch.orders(8))
    assert sorted(found[:5]) == [("quiz", index) for index in (0, 2, 3, 4, 5)]
    assert found[5:] == [("quiz", index) for index in (6, 7, 8)]


def test_a_lost_round_is_asked_again_with_what_it_was_shown(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"note": 1})
    dispatch.learn(angles(rounds(dispatch.orders(1_000))[0]))
    lost = [order for order in dispatch.orders(1_000) if isinstance(order, RoundOrder)]
    dispatch.again(lost)
    assert [order for order in dispatch.orders(1_000) if isinstance(order, RoundOrder)] == lost
    dispatch.again(lost)
    dispatch.learn(angles(lost[0].key))
    assert lost[0].key not in rounds(dispatch.orders(1_000))


def settled_rounds(dispatch: Dispatch, plan: Plan, key: RoundKey) -> None:
    """Every brief of a round is settled, as a resume may find it."""
    for index in range(200):
        place = plan.round_of(key.genre, index)
        if place is not None and place[0] == key:
            dispatch.settle(receipt(key.genre, index))


@pytest.mark.parametrize("n_lost", [1, 2])
def test_a_round_that_was_lost_with_its_part_is_found_again_for_what_comes_after_it(whole: Job, n_lost: int) -> None:
    """A damaged part may have held a round whose documents are all settled elsewhere; later rounds depend on it."""
    dispatch, plan = dispatch_of(whole, {"note": 1}), Plan(whole)
    cells = [principle.id for principle in whole.constitution.principles]
    for number in range(n_lost):
        settled_rounds(dispatch, plan, RoundKey("note", cells[0], 0, number))
    for number in range(n_lost):
        lost = RoundKey("note", cells[0], 0, number)
        asked = rounds(dispatch.orders(1_000))
        assert lost in asked and lost._replace(number=number + 1) not in asked
        dispatch.learn(angles(lost))
    assert RoundKey("note", cells[0], 0, n_lost) in rounds(dispatch.orders(1_000))


def test_a_later_round_that_survived_an_earlier_one_is_not_asked_again(whole: Job) -> None:
    dispatch, plan = dispatch_of(whole, {"note": 1}), Plan(whole)
    first = RoundKey("note", whole.constitution.principles[0].id, 0, 0)
    settled_rounds(dispatch, plan, first)
    settled_rounds(dispatch, plan, first._replace(number=1))
    dispatch.learn(angles(first._replace(number=1)))
    assert first in rounds(dispatch.orders(1_000))
    dispatch.learn(angles(first))
    (third,) = [o for o in dispatch.orders(1_000) if isinstance(o, RoundOrder) and o.key.principle == first.principle]
    assert third.key.number == 2
    assert third.taken == angles(first).angles + angles(first._replace(number=1)).angles


def test_nothing_is_ordered_for_a_corpus_that_is_finished(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"quiz": 1}, tokens=90)
    for index in range(3):
        dispatch._fold.offer(receipt("quiz", index))
    dispatch._fold.advance()
    assert dispatch.orders(100) == []


@pytest.mark.parametrize(("n_cells", "in_flight"), [(1, 128), (5, 128), (5, 512), (40, 512)])
def test_a_recipe_of_few_cells_fills_an_engine(tmp_path: Path, n_cells: int, in_flight: int) -> None:
    """As many documents have their angle after one answer of each round that is asked at once, whatever the cells."""
    recipe = write_recipe(tmp_path, {"note": NOTE.replace("n_items: 4", "n_items: 16")})
    told = "".join(
        f"## Rule {n}\n\nThe assistant keeps rule {n}, because it matters to people.\n\n" for n in range(n_cells)
    )
    (tmp_path / "constitution.md").write_text(told)
    dispatch = dispatch_of(compile_job(load(recipe, {})), {"note": 1}, tokens=1_000_000)
    for key in rounds(dispatch.orders(10_000)):
        dispatch.learn(angles(key, 16))
    assert len(briefs(dispatch.orders(10_000))) >= in_flight


def test_a_brief_without_an_angle_is_told_why(whole: Job) -> None:
    dispatch = dispatch_of(whole, {"note": 1})
    first, *_ = rounds(dispatch.orders(100))
    dispatch.learn(replace(angles(first, missing=(1,)), reason="refused (policy)"))
    told = [order for order in dispatch.orders(100) if isinstance(order, BriefOrder)]
    assert [(order.angle is None, order.why) for order in told] == [
        (False, None),
        (True, "refused (policy)"),
        (False, None),
        (False, None),
    ]
