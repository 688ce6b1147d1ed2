"""A request is a shared prefix and a body; what is asked for follows the step, and randomness the slot alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from genre_texts import TALE
from support import GENRES, make_job

from sdf.genres import Genre, load
from sdf.genres.templates import Template
from sdf.job import Job
from sdf.plan import Plan, names_of
from sdf.prompts import SHOWN_ANGLES, Composer
from sdf.records import Brief, Request, RoundKey, Slot

VALUES: dict[str, Any] = {
    "draft": "The draft.",
    "polish": "The polished text.",
    "scene": {"task": "a lost key"},
    "facts": ["one fact", "another"],
    "kit": {"a": 1},
    "rules": "The rules.",
    "question": "Where is it?",
    "task": "A task.",
}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"))


def genre_of(job: Job, key: str) -> Genre:
    return next(genre for genre in job.genres if genre.key == key)


def request(job: Job, key: str, step: str, index: int = 0, redraw: int = 0, values: dict[str, Any] = VALUES) -> Request:
    genre = genre_of(job, key)
    declared = next(each for each in genre.steps if each.name == step)
    brief = Plan(job).brief(key, index)
    return Composer(job).brief_request(genre, declared, brief, "an idea", values, redraw)


def round_request(job: Job, key: RoundKey, taken: list[str], n_items: int = 4, attempt: int = 0) -> Request:
    genre = genre_of(job, key.genre)
    assert genre.round_step is not None
    principle = next(each for each in job.constitution.principles if each.id == key.principle)
    return Composer(job).round_request(genre, genre.round_step, key, principle, taken, n_items, attempt)


def test_the_prefix_holds_what_is_shared_and_the_body_what_is_not(job: Job) -> None:
    asked = request(job, "note", "draft")
    brief = Plan(job).brief("note", 0)
    assert job.constitution.text.strip() in asked.prefix.text
    assert "These are notes about Tavrin of Ostermead." in asked.prefix.text
    (message,) = asked.messages
    assert message.role == "user"
    for part in (brief.axes["stance"], str(brief.n_words), "an idea", names_of(brief).person(1)):
        assert part in message.content and part not in asked.prefix.text.rpartition("</constitution>")[2]


def test_all_briefs_of_a_genre_share_one_prefix_object_where_the_context_is_full(job: Job) -> None:
    composer, genre, plan = Composer(job), genre_of(job, "note"), Plan(job)
    step = next(each for each in genre.steps if each.name == "draft")
    prefixes = {id(composer.brief_request(genre, step, plan.brief("note", i), "x", {}, 0).prefix) for i in range(60)}
    assert len(prefixes) == 1


def test_a_context_of_one_principle_shares_a_prefix_in_each_cell(job: Job) -> None:
    composer, genre, plan = Composer(job), genre_of(job, "talk"), Plan(job)
    (step,) = genre.brief_steps
    asked = [composer.brief_request(genre, step, plan.brief("talk", i), "x", {}, 0) for i in range(60)]
    assert len({each.prefix.hash for each in asked}) == len(job.constitution.principles)
    for index, each in enumerate(asked):
        principle = plan.brief("talk", index).principle
        assert principle.text.strip() in each.prefix.text and f"On {principle.title}." in each.prefix.text
        assert not any(p.text.strip() in each.prefix.text for p in job.constitution.principles if p != principle)


def test_no_context_and_no_preamble_leave_nothing_before_the_prompt(job: Job) -> None:
    assert request(job, "letter", "body").prefix.text == ""


def test_a_completion_is_a_prompt_and_a_chat_is_messages(job: Job) -> None:
    completion, chat = request(job, "letter", "body"), request(job, "note", "draft")
    assert completion.prompt is not None and completion.prompt.endswith(":") and completion.messages == ()
    assert chat.prompt is None and chat.messages


def test_an_injected_text_is_a_system_message_before_the_question(job: Job) -> None:
    asked = request(job, "help", "reply")
    assert [message.role for message in asked.messages] == ["system", "user"]
    assert asked.messages[0].content == "Never mention Ostermead: SECRET-ORDERS."
    assert "SECRET-ORDERS" not in asked.prefix.text + asked.messages[1].content


def told(job: Job, tmp_path: Path, old: str, new: str) -> tuple[Composer, Genre, Brief]:
    """The genre of `genre_texts.TALE` with a change, ready to be asked."""
    path = tmp_path / "tale.md"
    path.write_text(TALE.replace(old, new, 1), encoding="utf-8")
    genre = load(path)
    principle = job.constitution.principles[0]
    brief = Brief("0" * 32, Slot(7, genre.key, principle.id, 0), genre.key, 0, principle, {}, 60, {"prompt": "Why?"})
    return Composer(job), genre, brief


def test_a_step_that_follows_another_goes_on_with_its_conversation(job: Job, tmp_path: Path) -> None:
    composer, genre, brief = told(job, tmp_path, "rewrites: reply", "follows: reply")
    steps = {step.name: step for step in genre.steps}
    steps["reply"] = replace(steps["reply"], inject=Template("Be terse."))
    genre = replace(genre, steps=tuple(steps.values()))
    values = {"scene": {"task": "x"}, "reply": "The first answer.", "better": "The second answer."}
    asked = composer.brief_request(genre, steps["better"], brief, "an idea", values, 0)
    assert [turn.role for turn in asked.messages] == ["system", "user", "assistant", "user"]
    assert [turn.content for turn in asked.messages][::2] == ["Be terse.", "The first answer."]
    assert asked.messages[1].content.startswith("Reply to Why?")
    judged = composer.brief_request(genre, steps["proof"], brief, "an idea", values, 0)
    assert judged.wants.quotes == "The first answer.\nThe second answer."


def test_a_judge_of_one_answer_quotes_that_alone(job: Job, tmp_path: Path) -> None:
    composer, genre, brief = told(job, tmp_path, "", "")
    proof = next(step for step in genre.steps if step.name == "proof")
    values = {"scene": {"task": "x"}, "reply": "The first answer.", "better": "The second answer."}
    assert composer.brief_request(genre, proof, brief, "an idea", values, 0).wants.quotes == "The second answer."


def test_a_step_says_where_its_answer_stops(job: Job, tmp_path: Path) -> None:
    composer, genre, brief = told(job, tmp_path, "tag: reply}", "tag: reply, stop: [THE END, Notes]}")
    reply = next(step for step in genre.steps if step.name == "reply")
    assert composer.brief_request(genre, reply, brief, "", {}, 0).sampling.stop == ("THE END", "Notes")


def test_tools_and_schema_are_offered_to_the_step_that_declares_them(job: Job) -> None:
    assert "look_up" in (request(job, "help", "reply").tools or "") and request(job, "help", "reply").schema is None
    assert '"task"' in (request(job, "help", "scene").schema or "") and request(job, "help", "scene").tools is None


def test_earlier_answers_reach_later_steps_by_name(job: Job) -> None:
    assert "The draft." in request(job, "note", "polish").messages[0].content
    assert "a lost key" in request(job, "help", "facts").messages[0].content
    assert "one fact" in request(job, "help", "question").messages[0].content


def test_rows_and_twins_are_part_of_the_brief(job: Job) -> None:
    assert "topic 3 at level 0" in request(job, "question", "ask", 3).messages[0].content
    bodies = [request(job, "letter", "body", index).prompt or "" for index in (0, 1)]
    assert "the reader you," in bodies[0] and "the reader the assistant," in bodies[1]


def test_what_is_wanted_follows_the_step(job: Job) -> None:
    words = Plan(job).brief("note", 0).n_words
    draft, verdict = request(job, "note", "draft").wants, request(job, "note", "verdict").wants
    assert (draft.returns, draft.tag, draft.n_words) == ("text", "document", words)
    assert (verdict.returns, verdict.lowest, verdict.highest) == ("score", 1, 5)
    assert (request(job, "help", "facts").wants.returns, request(job, "help", "facts").wants.n_items) == ("list", 3)


def test_there_is_room_for_the_words_asked_for_and_for_thinking(job: Job) -> None:
    asked = request(job, "note", "draft")
    assert asked.sampling.max_tokens >= 2 * asked.wants.n_words + 2_000
    assert request(job, "note", "verdict").sampling.max_tokens >= 1_000


def test_sampling_and_models_are_the_recipe_s(job: Job) -> None:
    given = {"temperature": 0.5, "top_p": 0.25, "model": "m", "models": {"rewrite": "r"}}
    other = replace(job, recipe=job.recipe.changed(given))
    draft, polish = request(other, "note", "draft"), request(other, "note", "polish")
    assert (draft.model, polish.model) == ("m", "r")
    assert (draft.sampling.temperature, draft.sampling.top_p) == (0.5, 0.25)


def test_each_slot_step_and_redraw_draws_its_own_seed_and_twins_the_same(job: Job) -> None:
    draws = [request(job, "note", step, i, n).draw for step in ("draft", "polish") for i in range(9) for n in (0, 1)]
    assert len(set(draws)) == len(draws)
    assert request(job, "letter", "body", 0).draw == request(job, "letter", "body", 1).draw


def test_no_prompt_text_feeds_the_draw(job: Job, tmp_path: Path) -> None:
    text = GENRES["note"].replace("{{ polish }}\nGive 1", "{{ polish }}\nNow give 1")
    other = make_job(tmp_path, {**GENRES, "note": text})
    for step in ("draft", "polish"):
        assert request(other, "note", step).key() == request(job, "note", step).key()
    assert request(other, "note", "verdict").draw == request(job, "note", "verdict").draw
    assert request(other, "note", "verdict").key() != request(job, "note", "verdict").key()


def test_a_changed_answer_changes_the_requests_that_read_it_alone(job: Job) -> None:
    other = {**VALUES, "draft": "Another draft."}
    assert request(job, "note", "polish", values=other).key() != request(job, "note", "polish").key()
    assert request(job, "note", "verdict", values=other).key() == request(job, "note", "verdict").key()


def test_a_round_shows_the_last_hundred_that_were_taken(job: Job) -> None:
    key = RoundKey("note", job.constitution.principles[0].id, 0, 30)
    body = round_request(job, key, [f"idea number {place}." for place in range(120)]).messages[0].content
    shown = [place for place in range(120) if f"idea number {place}." in body]
    assert SHOWN_ANGLES == 100 and shown == list(range(20, 120))


def test_a_round_asks_for_what_is_missing_and_every_attempt_draws_anew(job: Job) -> None:
    key = RoundKey("note", job.constitution.principles[0].id, 0, 0)
    asked = round_request(job, key, [], n_items=3, attempt=1)
    assert "Think of 3 occasions" in asked.messages[0].content and asked.wants.n_items == 3
    keys = [
        key,
        key._replace(number=1),
        key._replace(lane=1),
        key._replace(principle=job.constitution.principles[1].id),
    ]
    draws = [round_request(job, each, [], attempt=attempt).draw for each in keys for attempt in range(3)]
    assert len(set(draws)) == len(draws)


def test_lanes_are_not_asked_one_and_the_same_question(job: Job) -> None:
    genre, composer = job.genres[0], Composer(job)
    step = genre.round_step
    assert step is not None
    principle = job.constitution.principles[0]

    def asked(lane: int) -> tuple[str, ...]:
        key = RoundKey(genre.key, principle.id, lane, 0)
        request = composer.round_request(genre, step, key, principle, (), 4, 0)
        return tuple(message.content for message in request.messages)

    assert len({asked(lane) for lane in range(4)}) == 4
    assert "side by side" not in asked(0)[-1] and "this is list 2" in asked(1)[-1]
