"""One endless, deterministic sequence per genre: pure, exact in its shares, and blind to all that is not content."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support import GENRES, NOTE, QUESTION, ROWS, TALK, make_job

from sdf.genres import Axis
from sdf.job import Job
from sdf.plan import BLOCK, Plan, card, n_lanes, names_of
from sdf.records import Slot


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def plan(job: Job) -> Plan:
    return Plan(job)


def test_a_brief_is_the_same_whoever_asks_and_in_whatever_order(job: Job, plan: Plan) -> None:
    forward = [plan.brief("note", index) for index in range(60)]
    again = Plan(job)
    assert [again.brief("note", index) for index in reversed(range(60))][::-1] == forward


def test_mix_target_and_packaging_leave_every_brief_alone(job: Job, plan: Plan) -> None:
    other = job.recipe.changed(
        {
            "mix": {"note": 7.0},
            "tokens": 10**9,
            "shard_tokens": 17,
            "workers": 9,
            "in_flight": 3,
            "dedup_threshold": 0.5,
            "checks_off": ("link",),
            "holdout": 0.5,
            "name": "another",
        }
    )
    alone = Plan(replace(job, recipe=other, genres=job.genres[:1]))
    assert [alone.brief("note", index) for index in range(40)] == [plan.brief("note", index) for index in range(40)]


def test_siblings_come_in_blocks_and_every_turn_visits_every_cell(job: Job, plan: Plan) -> None:
    n_cells = len(job.constitution.principles)
    briefs = [plan.brief("note", index) for index in range(3 * n_cells * BLOCK)]
    blocks = [briefs[start : start + BLOCK] for start in range(0, len(briefs), BLOCK)]
    assert all(len({brief.principle.id for brief in block}) == 1 for block in blocks)
    visited = [block[0].principle.id for block in blocks]
    for turn in range(3):
        assert len(set(visited[turn * n_cells : (turn + 1) * n_cells])) == n_cells


def test_ordinals_count_up_within_each_cell(plan: Plan) -> None:
    seen: Counter[str] = Counter()
    for index in range(200):
        slot = plan.brief("note", index).slot
        assert slot.ordinal == seen[slot.principle]
        seen[slot.principle] += 1


def test_an_axis_is_dealt_exactly_and_reshuffled_for_every_deck(job: Job, plan: Plan) -> None:
    cell = job.constitution.principles[0].id
    briefs = [brief for index in range(800) if (brief := plan.brief("note", index)).principle.id == cell]
    stances = [brief.axes["stance"] for brief in briefs]
    decks = [tuple(stances[start : start + 4]) for start in range(0, 240, 4)]
    assert all(Counter(deck) == {"warm": 3, "cross": 1} for deck in decks)
    assert len(set(decks)) > 1


def test_axes_are_shuffled_independently_of_each_other() -> None:
    values = ("a", "b", "c", "d")
    slots = [Slot(0, "g", "p", ordinal) for ordinal in range(200)]
    pairs = {(card(Axis("one", values, values), slot), card(Axis("other", values, values), slot)) for slot in slots}
    assert len(pairs) == 16


def test_another_seed_is_another_sequence(job: Job, plan: Plan) -> None:
    other = Plan(replace(job, recipe=job.recipe.changed({"seed": 1})))
    assert not {plan.brief("note", i).id for i in range(50)} & {other.brief("note", i).id for i in range(50)}
    assert [other.brief("note", i).axes for i in range(50)] != [plan.brief("note", i).axes for i in range(50)]


def test_lengths_fill_the_range_that_was_asked_for(plan: Plan) -> None:
    lengths = [plan.brief("note", index).n_words for index in range(300)]
    assert min(lengths) >= 40 and max(lengths) <= 80
    assert len(set(lengths)) > 30
    # Log-uniform: half of them below the geometric mean of the bounds.
    assert 110 < sum(n < (40 * 80) ** 0.5 for n in lengths) < 190


def test_names_follow_the_locale_and_stay_the_same_in_every_step(plan: Plan) -> None:
    brief = plan.brief("note", 5)
    assert names_of(brief).person(1) == names_of(brief).person(1)
    people = {names_of(plan.brief("note", index)).person(1) for index in range(60)}
    assert len(people) > 50


@pytest.mark.parametrize(
    "change",
    [
        {"assistant": "Another"},
        {"maker": "Another"},
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"model": "another"},
        {"models": {"rewrite": "another"}},
    ],
)
def test_what_decides_text_names_another_document_of_the_same_slot(
    job: Job, plan: Plan, change: dict[str, object]
) -> None:
    changed = Plan(replace(job, recipe=job.recipe.changed(change)))
    before, after = plan.brief("note", 3), changed.brief("note", 3)
    assert after.id != before.id
    assert (after.slot, after.axes, after.n_words) == (before.slot, before.axes, before.n_words)


def edited(folder: Path, key: str, old: str, new: str) -> Plan:
    assert old in GENRES[key]
    return Plan(make_job(folder, {**GENRES, key: GENRES[key].replace(old, new)}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Write it anew", "Write it afresh"),
        ("These are notes", "These are short notes"),
        ("Think of", "Come up with"),
        ("redraws: 2", "redraws: 1"),
    ],
)
def test_an_edited_prompt_renames_the_documents_and_draws_nothing_anew(
    tmp_path: Path, plan: Plan, old: str, new: str
) -> None:
    changed = edited(tmp_path, "note", old, new)
    for index in range(30):
        before, after = plan.brief("note", index), changed.brief("note", index)
        assert after.id != before.id
        assert (after.slot, after.axes, after.n_words) == (before.slot, before.axes, before.n_words)
        assert names_of(after).person(1) == names_of(before).person(1)
        assert changed.brief("letter", index) == plan.brief("letter", index)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("about: A short note on a principle.", "about: Something else."),
        ("dedup: body", "dedup: none"),
        ("emit: {text: polish}", "emit: {text: draft}"),
        ("redraws: 2", "redraws: 2\nchecks: {off: [link], min_score: {verdict: 4}}"),
    ],
)
def test_what_only_assembles_renames_nothing(tmp_path: Path, plan: Plan, old: str, new: str) -> None:
    changed = edited(tmp_path, "note", old, new)
    assert [changed.brief("note", i) for i in range(30)] == [plan.brief("note", i) for i in range(30)]


def test_where_a_genre_file_lies_says_nothing(tmp_path: Path, plan: Plan) -> None:
    moved = Plan(
        make_job(
            tmp_path / "elsewhere",
            {**{k: v for k, v in GENRES.items() if k != "note"}, "renamed": NOTE},
            mix=dict.fromkeys(GENRES, 1),
        )
    )
    assert [moved.brief("note", i) for i in range(30)] == [plan.brief("note", i) for i in range(30)]


def test_an_edited_section_renames_only_what_was_shown_it(job: Job, plan: Plan) -> None:
    first, *rest = job.constitution.principles
    text = job.constitution.text.replace(first.text, first.text + "\n")
    principles = (replace(first, text=first.text + " More."), *rest)
    changed = Plan(replace(job, constitution=replace(job.constitution, text=text, hash="other", principles=principles)))
    for index in range(60):
        # `talk` is shown its own principle alone, `note` the whole constitution.
        same = plan.brief("talk", index).principle.id != first.id
        assert (changed.brief("talk", index).id == plan.brief("talk", index).id) is same
        assert changed.brief("note", index).id != plan.brief("note", index).id
        assert changed.brief("note", index).slot == plan.brief("note", index).slot


def test_twins_share_their_slot_and_differ_in_the_twin_axis_alone(plan: Plan) -> None:
    for index in range(0, 40, 2):
        left, right = plan.brief("letter", index), plan.brief("letter", index + 1)
        assert (left.twin, right.twin) == ("you", "the assistant") == (left.axes["voice"], right.axes["voice"])
        assert left.slot == right.slot and left.id != right.id
        assert left.axes["mood"] == right.axes["mood"] and left.n_words == right.n_words


def test_a_source_makes_the_sequence_finite_and_every_row_is_read_once(plan: Plan) -> None:
    assert plan.n_briefs("question") == len(ROWS) and plan.n_briefs("note") is None
    rows = [plan.brief("question", index).row for index in range(len(ROWS))]
    assert rows == [{"topic": row["topic"], "level": row["level"]} for row in ROWS]
    with pytest.raises(IndexError):
        plan.brief("question", len(ROWS))


def test_twins_share_a_row(tmp_path: Path) -> None:
    text = QUESTION.replace("steps:", "twin: tone\naxes: {tone: [soft, hard, flat]}\nsteps:")
    plan = Plan(make_job(tmp_path, {"question": text}))
    assert plan.n_briefs("question") == 3 * len(ROWS)
    assert [plan.brief("question", index).row["level"] for index in range(6)] == [0, 0, 0, 1, 1, 1]  # type: ignore[index]


def test_another_row_is_another_document(tmp_path: Path, plan: Plan) -> None:
    rows = [{**row, "topic": "changed"} if number == 4 else row for number, row in enumerate(ROWS)]
    changed = Plan(make_job(tmp_path, rows=rows))
    differ = [i for i in range(len(ROWS)) if changed.brief("question", i).id != plan.brief("question", i).id]
    assert differ == [4]


def test_every_document_has_its_own_place_in_a_round(plan: Plan) -> None:
    places = [plan.round_of("note", index) for index in range(300)]
    assert len(set(places)) == 300
    for place in places:
        assert place is not None and 0 <= place[1] < 4 and place[0].lane < n_lanes(3)
    assert plan.round_of("letter", 0) is None


def test_lanes_open_side_by_side_and_count_their_rounds_without_gaps(plan: Plan) -> None:
    rounds = [place[0] for index in range(400) if (place := plan.round_of("talk", index)) is not None]
    assert {key.lane for key in rounds} == {0, 1}
    for cell in {(key.principle, key.lane) for key in rounds}:
        numbers = list(dict.fromkeys(key.number for key in rounds if (key.principle, key.lane) == cell))
        assert numbers == list(range(len(numbers))) and len(numbers) > 10


def test_twins_share_an_angle(tmp_path: Path) -> None:
    text = TALK.replace("lanes: 2", "lanes: 2\ntwin: voice\naxes: {voice: [you, it]}")
    plan = Plan(make_job(tmp_path, {"talk": text}))
    places = [plan.round_of("talk", index) for index in range(100)]
    assert places[::2] == places[1::2] and len(set(places)) == 50


@pytest.mark.parametrize(("n_cells", "expected"), [(1, 32), (3, 11), (5, 7), (31, 2), (32, 1), (500, 1)])
def test_few_cells_have_more_lanes(n_cells: int, expected: int) -> None:
    assert n_lanes(n_cells) == expected
