"""A brief's steps until it is settled: only its own fault settles it without a document."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support import Answering, make_job

from sdf.documents import Draft
from sdf.errors import CircuitOpen, RequestRejected, Unauthorized
from sdf.generate import ROUND_ATTEMPTS, round_id, settle_brief, settle_round
from sdf.genres import Genre
from sdf.job import Job
from sdf.plan import Plan
from sdf.prompts import Composer
from sdf.records import Answer, Request, RoundKey, RoundSettlement, Settlement

Reply = Callable[[Request, int], Answer | str | Exception]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"))


def good(request: Request, number: int) -> str:
    if request.wants.returns == "score":
        return "<score>4</score>"
    return f"Notes. <document>Text number {number}.</document>"


def settled(
    job: Job, reply: Reply, key: str = "note", angle: str | None = "an idea"
) -> tuple[Settlement, Any, Answering]:
    ask = Answering(reply)
    genre = Plan(job).genres[key]
    settlement, draft = asyncio.run(settle_brief(Composer(job), ask, genre, Plan(job).brief(key, 0), angle))
    return settlement, draft, ask


def refused(detail: str | None = None) -> Answer:
    return Answer("", "refusal", "a-model", detail=detail)


def test_steps_are_asked_in_file_order_and_each_reads_the_ones_before(job: Job) -> None:
    settlement, draft, ask = settled(job, good)
    assert ask.steps == ["draft", "polish", "verdict"]
    assert "Text number 0." in ask.asked[1][1].messages[0].content
    assert "Text number 1." in ask.asked[2][1].messages[0].content
    assert isinstance(draft, Draft)
    assert draft.values == {"draft": "Text number 0.", "polish": "Text number 1.", "verdict": 4}
    assert (settlement.reason, settlement.angle, settlement.index) == (None, "an idea", 0)
    assert settlement.brief == Plan(job).brief("note", 0).id
    used = [(each.step, each.key) for each in settlement.answers]
    assert used == [(step, request.key()) for step, request in ask.asked]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (refused("policy"), "refused (policy)"),
        (refused("I cannot: \x1b[2J"), "refused"),
        (refused("x" * 41), "refused"),
        (Answer("<document>Half a", "length", "a-model"), "truncated"),
        ("", "empty"),
        ("   \n", "empty"),
        ("<document>  </document>", "unparsable text"),
    ],
)
def test_a_step_whose_every_draw_is_unusable_settles_the_brief_there(job: Job, bad: Answer | str, reason: str) -> None:
    settlement, draft, ask = settled(job, lambda request, number: good(request, number) if number == 0 else bad)
    assert draft is None and settlement.reason == reason
    # The genre allows two redraws, and what was usable is kept.
    assert ask.steps == ["draft", "polish", "polish", "polish"]
    assert len({request.key() for _, request in ask.asked}) == 4
    assert [each.step for each in settlement.answers] == ["draft"]


def test_the_provider_s_category_of_a_refusal_is_kept(job: Job) -> None:
    assert settled(job, lambda request, number: refused("biology"))[0].detail == "biology"


def test_a_redraw_that_is_usable_is_the_one_that_counts(job: Job) -> None:
    settlement, draft, ask = settled(job, lambda request, number: refused() if number == 1 else good(request, number))
    assert ask.steps == ["draft", "polish", "polish", "verdict"] and settlement.reason is None
    assert draft.values["polish"] == "Text number 2."
    assert [each.key for each in settlement.answers] == [ask.asked[place][1].key() for place in (0, 2, 3)]


def test_a_verdict_that_is_unclear_fails_closed(job: Job) -> None:
    def reply(request: Request, number: int) -> str:
        return "A 4, or perhaps a 2." if request.wants.returns == "score" else good(request, number)

    assert settled(job, reply)[0].reason == "unparsable score"


def test_a_low_score_steers_nothing(job: Job) -> None:
    def reply(request: Request, number: int) -> str:
        return "<score>1</score>" if request.wants.returns == "score" else good(request, number)

    settlement, draft, _ = settled(job, reply)
    assert settlement.reason is None and draft.values["verdict"] == 1


def test_a_rejected_request_settles_its_brief_and_says_why(job: Job) -> None:
    settlement, draft, ask = settled(job, lambda request, number: RequestRejected("400: too long"))
    assert (settlement.reason, settlement.detail, draft) == ("failed", "400: too long", None) and len(ask.steps) == 1


@pytest.mark.parametrize("error", [Unauthorized("bad key"), CircuitOpen("all is down")])
def test_trouble_that_is_shared_settles_nothing(job: Job, error: Exception) -> None:
    with pytest.raises(type(error)):
        settled(job, lambda request, number: error)


def test_a_brief_whose_round_found_no_angle_is_settled_unasked(job: Job) -> None:
    settlement, draft, ask = settled(job, good, angle=None)
    assert (settlement.reason, draft, ask.steps) == ("no_angle", None, [])
    assert settled(job, lambda request, number: "A letter.", "letter", None)[0].reason is None
    told = asyncio.run(
        settle_brief(Composer(job), ask, Plan(job).genres["note"], Plan(job).brief("note", 0), None, "refused (policy)")
    )
    assert told[0].reason == "no_angle: refused (policy)" and ask.steps == []


KEY = RoundKey("note", "saying-what-is-so", 0, 3)


def found(job: Job, reply: Reply, taken: tuple[str, ...] = ()) -> tuple[RoundSettlement, Answering]:
    ask, plan = Answering(reply), Plan(job)
    genre: Genre = plan.genres["note"]
    principle = next(each for each in job.constitution.principles if each.id == KEY.principle)
    return asyncio.run(settle_round(Composer(job), ask, genre, KEY, principle, taken)), ask


def listed(*items: str) -> str:
    return "<angles>\n" + "\n".join(f"{place}. {item}" for place, item in enumerate(items, 1)) + "\n</angles>"


IDEAS = ("A ferry captain and a tide", "The swarm of bees", "One wrong bill at noon", "Letters to a prisoner", "Chess")


def test_a_round_keeps_as_many_angles_as_it_has_places(job: Job) -> None:
    settlement, ask = found(job, lambda request, number: listed(*IDEAS))
    assert settlement.angles == IDEAS[:4] and len(ask.steps) == 1
    assert settlement.key == KEY and settlement.round == round_id(job.recipe.seed, KEY)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (refused("policy"), "refused (policy)"),
        (refused("I cannot: \x1b[2J"), "refused"),
        (refused("x" * 41), "refused"),
        (Answer("1. Half a", "length", "a-model"), "truncated"),
        ("", "empty"),
        ("No list.", "unparsable list"),
        (RequestRejected("400: too long"), "failed"),
        (listed(IDEAS[0]), None),
    ],
)
def test_a_round_with_empty_places_says_why(job: Job, bad: Answer | str | Exception, reason: str | None) -> None:
    assert found(job, lambda request, number: bad)[0].reason == reason
    whole, _ = found(job, lambda request, number: listed(*IDEAS) if number == 1 else bad)
    assert None in whole.angles or whole.reason is None, "a round that is whole has nothing to explain"


def test_what_resembles_the_taken_or_each_other_is_left_out_and_asked_for_again(job: Job) -> None:
    replies = [
        listed(IDEAS[0], IDEAS[1], IDEAS[1] + "!", "The old idea of all"),
        listed(IDEAS[2]),
        listed(IDEAS[3]),
    ]
    settlement, ask = found(job, lambda request, number: replies[number], taken=("The old idea of all",))
    assert settlement.angles == IDEAS[:4]
    assert [request.wants.n_items for _, request in ask.asked] == [4, 2, 1]
    assert (
        IDEAS[1] in ask.asked[1][1].messages[0].content and "The old idea of all" in ask.asked[0][1].messages[0].content
    )
    assert len(settlement.answers) == 3


def test_after_two_more_attempts_a_place_stays_empty_and_none_shifts(job: Job) -> None:
    settlement, ask = found(job, lambda request, number: listed(IDEAS[0]))
    assert ROUND_ATTEMPTS == 3 and len(ask.steps) == 3
    assert settlement.angles == (IDEAS[0], None, None, None)


@pytest.mark.parametrize("bad", [refused(), "", Answer("1. A", "length", "m"), RequestRejected("400")])
def test_an_unusable_answer_costs_an_attempt_and_no_more(job: Job, bad: Answer | str | Exception) -> None:
    settlement, ask = found(job, lambda request, number: bad if number == 0 else listed(*IDEAS))
    assert settlement.angles == IDEAS[:4] and len(ask.steps) == 2 and len(settlement.answers) == 1
    assert found(job, lambda request, number: bad)[0].angles == (None,) * 4


def test_rounds_are_named_by_seed_and_key(job: Job) -> None:
    others = [KEY._replace(number=4), KEY._replace(lane=1), KEY._replace(principle="p"), KEY._replace(genre="talk")]
    names = {round_id(0, KEY), round_id(1, KEY), *(round_id(0, other) for other in others)}
    assert len(names) == 6
