"""Whatever the seed: decks are exact, cells are visited in turn, ids are distinct, rounds serve each place once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import GENRES, make_job

from sdf.genres import Axis
from sdf.job import Job
from sdf.plan import BLOCK, Plan, card, length
from sdf.records import Slot

ENDLESS = [key for key in GENRES if key != "question"]
seeds = st.integers(0, 2**63)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"))


def seeded(job: Job, seed: int, n_principles: int = 3) -> Plan:
    constitution = replace(job.constitution, principles=job.constitution.principles[:n_principles])
    return Plan(replace(job, recipe=job.recipe.model_copy(update={"seed": seed}), constitution=constitution))


@given(seed=seeds, counts=st.lists(st.integers(1, 5), min_size=1, max_size=6), number=st.integers(0, 10**6))
def test_each_pass_through_a_deck_deals_every_card(seed: int, counts: list[int], number: int) -> None:
    values = tuple(f"v{place}" for place in range(len(counts)))
    deck = tuple(value for value, n in zip(values, counts, strict=True) for _ in range(n))
    axis = Axis("axis", values, deck)
    first = number * len(deck)
    dealt = Counter(card(axis, Slot(seed, "g", "p", first + place)) for place in range(len(deck)))
    assert dealt == Counter(deck)


@given(seed=seeds, low=st.integers(1, 5_000), more=st.integers(0, 5_000), ordinal=st.integers(0, 10**9))
def test_lengths_stay_within_their_bounds(seed: int, low: int, more: int, ordinal: int) -> None:
    assert low <= length((low, low + more), Slot(seed, "g", "p", ordinal)) <= low + more


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n_principles=st.integers(1, 3), turn=st.integers(0, 10**6), genre=st.sampled_from(ENDLESS))
def test_every_turn_gives_every_cell_one_block(job: Job, seed: int, n_principles: int, turn: int, genre: str) -> None:
    plan = seeded(job, seed, n_principles)
    n_twins = max(1, len(plan.twins(genre)))
    first = turn * n_principles * BLOCK * n_twins
    slots = [plan.brief(genre, first + place).slot for place in range(n_principles * BLOCK * n_twins)]
    assert Counter(slot.principle for slot in slots) == dict.fromkeys(
        [principle.id for principle in plan.job.constitution.principles], BLOCK * n_twins
    )
    assert {slot.ordinal for slot in slots} == set(range(turn * BLOCK, (turn + 1) * BLOCK))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, start=st.integers(0, 10**9))
def test_no_two_briefs_of_a_job_share_an_id(job: Job, seed: int, start: int) -> None:
    plan = seeded(job, seed)
    ids = [plan.brief(genre, start + place).id for genre in ENDLESS for place in range(50)]
    assert len(set(ids)) == len(ids)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, genre=st.sampled_from(["note", "talk"]), n=st.integers(1, 300))
def test_rounds_serve_each_brief_once_and_need_only_earlier_ones(job: Job, seed: int, genre: str, n: int) -> None:
    plan = seeded(job, seed)
    places = [place for index in range(n) if (place := plan.round_of(genre, index)) is not None]
    assert len(set(places)) == n
    reached: dict[tuple[str, int], int] = {}
    for index, (key, _) in enumerate(places):
        assert key.principle == plan.brief(genre, index).principle.id
        highest = reached.get((key.principle, key.lane), -1)
        assert key.number <= highest + 1
        reached[key.principle, key.lane] = max(highest, key.number)
