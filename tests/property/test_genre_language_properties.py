"""Finite cells, samples and arms, for any size, share and choice of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from genre_texts import BANK, FRAME
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make_job

from sdf.genres import Genre, Step, ablated, depending
from sdf.genres.templates import Template
from sdf.job import Job
from sdf.plan import BLOCK, Plan, steps_of


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"), {"bank": BANK, "frame": FRAME})


def of(job: Job, key: str, **changes: object) -> Job:
    genres = tuple(replace(each, **changes) if each.key == key else each for each in job.genres)
    return replace(job, genres=genres)


@given(size=st.integers(1, 5 * BLOCK))
def test_cells_are_filled_to_their_size_each_place_once_in_the_order_of_endless_ones(job: Job, size: int) -> None:
    plan, endless = Plan(of(job, "bank", cell_size=size)), Plan(of(job, "bank", cell_size=None))
    n_cells = len(job.constitution.principles)
    n_briefs = plan.n_briefs("bank")
    assert n_briefs == size * n_cells and endless.n_briefs("bank") is None
    slots = [plan.brief("bank", index).slot for index in range(n_briefs)]
    assert set(Counter(slot.principle for slot in slots).values()) == {size}
    assert {(slot.principle, slot.ordinal) for slot in slots} == {
        (principle.id, ordinal) for principle in job.constitution.principles for ordinal in range(size)
    }
    whole = size // BLOCK * BLOCK * n_cells
    assert slots[:whole] == [endless.brief("bank", index).slot for index in range(whole)]
    with pytest.raises(IndexError):
        plan.brief("bank", n_briefs)


@given(low=st.floats(0.01, 0.98), more=st.floats(0.01, 0.98))
@settings(max_examples=20)
def test_a_sample_is_its_share_of_the_briefs_and_grows_by_adding(job: Job, low: float, more: float) -> None:
    def sampled(share: float) -> set[int]:
        genre = next(each for each in job.genres if each.key == "frame")
        steps = tuple(replace(each, sample=share) if each.sample else each for each in genre.steps)
        genre, plan = replace(genre, steps=steps), Plan(job)
        return {index for index in range(400) if len(steps_of(genre, plan.brief("frame", index))) == 3}

    small, large = sorted((low, more))
    assert sampled(small) <= sampled(large)
    assert abs(len(sampled(large)) / 400 - large) < 0.12


def chain(genre: Genre, reads: list[set[int]]) -> Genre:
    """A genre of text steps; step n rewrites the one before it and reads those of `reads`."""
    base = genre.steps[0]

    def step(n: int) -> Step:
        body = Template(" ".join(f"{{{{ s{each} }}}}" for each in sorted(reads[n]) if each < n) or "x")
        return replace(base, name=f"s{n}", rewrites=f"s{n - 1}" if n else None, body=body, quotes=None)

    steps = tuple(step(n) for n in range(len(reads)))
    return replace(genre, steps=steps, emit={"text": f"s{len(reads) - 1}"}, emit_templates={})


@given(
    reads=st.lists(st.sets(st.integers(0, 4)), min_size=2, max_size=5),
    names=st.sets(st.integers(1, 4).map(lambda n: f"s{n}")),
)
def test_an_arm_asks_no_one_about_what_is_left_out(job: Job, reads: list[set[int]], names: set[str]) -> None:
    genre = chain(next(each for each in job.genres if each.key == "frame"), reads)
    arm = ablated(genre, names)
    left = {step.name for step in arm.steps}
    assert left == {step.name for step in genre.steps} - names
    assert set(arm.ablated.values()) <= left and arm.emit["text"] in left
    anew = depending(arm, arm.ablated)
    # A genre is another where, and only where, somebody is asked something else.
    assert (arm.hash == genre.hash) == (not anew)
    one_by_one: Callable[[Genre, str], Genre] = lambda made, name: ablated(made, {name})  # noqa: E731
    stepwise = genre
    for name in sorted(names):
        stepwise = one_by_one(stepwise, name)
    assert (stepwise.steps, stepwise.emit, stepwise.ablated) == (arm.steps, arm.emit, arm.ablated)
