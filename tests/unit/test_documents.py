"""What reaches a corpus: the emitted steps and nothing that was only sent; what is measured of it, and when anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import NOTE, make_job

from sdf import tokens
from sdf.columns import Draft, emit
from sdf.dedup import signatures
from sdf.documents import Meter, checked_text, compared_text, row, values_of
from sdf.genres import Genre
from sdf.job import Job
from sdf.plan import Plan
from sdf.records import Answer, AnswerEntry

SENTENCES = (
    "The keeper asked before the gate was moved, because nobody could have moved it back. Her brother laughed at that, "
    "and then he told the council about a dam upstream which had been opened on a guess. Three farms lost their seed "
    "in one wet night of March. So they wrote the question down, sent it up the valley, and had lunch."
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is it?"},
    {"role": "assistant", "content": "On the shelf."},
    {"role": "user", "content": "Thanks."},
    {"role": "assistant", "content": "You are welcome."},
]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"))


def genre_of(job: Job, key: str) -> Genre:
    return next(genre for genre in job.genres if genre.key == key)


def entry(step: str, text: str, model: str = "offline-grammar") -> AnswerEntry:
    return AnswerEntry("0" * 32, "unit", step, "prefix", Answer(text, "stop", model))


def draft(job: Job, values: Mapping[str, Any], key: str = "note", angle: str | None = "an idea") -> Draft:
    return Draft(Plan(job).brief(key, 0), angle, values)


def note(text: str = SENTENCES, score: int = 4) -> dict[str, Any]:
    return {"draft": "draft", "polish": text, "verdict": score}


HELP = {"scene": {"task": "t"}, "facts": ["f"], "kit": {"b": 1, "a": "ü"}, "rules": "R", "question": "Q", "reply": "A"}


def test_a_document_is_the_emitted_step(job: Job) -> None:
    assert emit(job, genre_of(job, "note"), draft(job, note())) == {"text": SENTENCES}


def test_a_chat_of_turns_has_them_in_order_and_its_tools_as_one_text(job: Job) -> None:
    columns = emit(job, genre_of(job, "help"), draft(job, HELP, "help"))
    assert columns["messages"] == [
        {"role": "system", "content": "R"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A"},
    ]
    assert columns["tools"] == '{"a":"ü","b":1}'


def test_a_chat_in_one_answer_is_taken_whole(job: Job) -> None:
    assert emit(job, genre_of(job, "talk"), draft(job, {"turns": TALK}, "talk")) == {"messages": TALK, "tools": None}


def test_a_prompt_ends_with_the_question_and_an_item_is_one_text(job: Job) -> None:
    assert emit(job, genre_of(job, "question"), draft(job, {"ask": "Why?"}, "question"))["messages"] == [
        {"role": "user", "content": "Why?"}
    ]
    values = {"task": "T", "rubric": {"b": 1, "a": 2}, "level": 7}
    assert emit(job, genre_of(job, "quiz"), draft(job, values, "quiz")) == {
        "item": '{"level":7,"question":"T","rubric":{"a":2,"b":1}}'
    }


def test_length_is_checked_on_the_part_that_the_genre_bounds(job: Job) -> None:
    assert checked_text(genre_of(job, "talk"), {"messages": TALK}) == "On the shelf.\nYou are welcome."
    assert checked_text(genre_of(job, "question"), {"messages": TALK[1:2]}) == "Where is it?"
    assert checked_text(genre_of(job, "note"), {"text": "x"}) == "x"


@pytest.mark.parametrize(
    ("dedup", "text"),
    [
        ("user", "Where is it?\nThanks."),
        ("assistant", "On the shelf.\nYou are welcome."),
        ("scenario", "an idea"),
        ("none", None),
    ],
)
def test_near_duplicates_are_found_by_what_the_genre_says(job: Job, dedup: Any, text: str | None) -> None:
    genre = replace(genre_of(job, "talk"), dedup=dedup)
    assert compared_text(genre, {"messages": TALK}, "an idea") == text


def test_measures_are_a_recount_of_the_emitted_text_in_the_order_given(job: Job) -> None:
    drafts = [draft(job, note()), draft(job, {"turns": TALK}, "talk"), draft(job, note(SENTENCES + " So."))]
    first, chat, third = Meter(job).measure(drafts)
    count = tokens.load(job.recipe.tokenizer).count
    whole_chat = "\n".join(turn["content"] for turn in TALK)
    assert [first.n_tokens, chat.n_tokens, third.n_tokens] == count([SENTENCES, whole_chat, SENTENCES + " So."])
    assert np.array_equal(np.frombuffer(first.signature, "<u4"), signatures([SENTENCES])[0])
    assert np.array_equal(np.frombuffer(chat.signature, "<u4"), signatures(["Where is it?\nThanks."])[0])
    assert Meter(job).measure([]) == []


def test_a_genre_that_is_not_deduplicated_has_no_signature(job: Job) -> None:
    (measures,) = Meter(job).measure([draft(job, {"body": SENTENCES}, "letter")])
    assert measures.signature == b"" and measures.n_tokens > 0


def test_the_first_check_that_fails_is_the_verdict(job: Job) -> None:
    texts = [SENTENCES, "Too short.", SENTENCES + " See https://example.com for more of it."]
    assert [each.reject for each in Meter(job).measure([draft(job, note(text)) for text in texts])] == [
        None,
        "too_short",
        "link",
    ]


def test_scores_are_judged_by_the_genre_and_only_there(tmp_path: Path, job: Job) -> None:
    strict = make_job(tmp_path, {"note": NOTE.replace("emit:", "checks: {min_score: {verdict: 4}}\nemit:")})
    drafts = [draft(job, note(score=score)) for score in (3, 4)]
    assert [each.reject for each in Meter(strict).measure(drafts)] == ["low_score", None]
    assert [each.reject for each in Meter(job).measure(drafts)] == [None, None]


def test_equal_bases_mean_equal_measures(tmp_path: Path, job: Job) -> None:
    def basis(**fields: Any) -> str:
        return Meter(replace(job, recipe=job.recipe.changed(fields))).basis("note")

    same = [
        basis(),
        basis(tokens=5),
        basis(shard_tokens=5),
        basis(dedup_threshold=0.5),
        basis(workers=7),
        basis(maker="x"),
    ]
    assert len(set(same)) == 1
    edits = {
        "checks": NOTE.replace("emit:", "checks: {off: [cut_off]}\nemit:"),
        "emit": NOTE.replace("{text: polish}", "{text: draft}"),
        "dedup": NOTE.replace("dedup: body", "dedup: scenario"),
        "length": NOTE.replace("[40, 80]", "[40, 90]"),
    }
    others = [Meter(make_job(tmp_path / name, {"note": text})).basis("note") for name, text in edits.items()]
    assert len({same[0], basis(checks_off=("link",)), *others}) == 6
    assert (
        Meter(make_job(tmp_path / "p", {"note": NOTE.replace("Write it anew", "Rewrite it")})).basis("note") == same[0]
    )


@pytest.mark.parametrize("step", ["draft", "polish", "verdict"])
def test_a_row_says_when_the_fallback_answered_any_of_its_steps(job: Job, step: str) -> None:
    brief, genre = Plan(job).brief("note", 2), genre_of(job, "note")
    entries = [
        entry(name, text, "second" if name == step else "offline-grammar")
        for name, text in {
            "draft": "<document>d</document>",
            "polish": "<document>p</document>",
            "verdict": "4",
        }.items()
    ]
    made = Draft(brief, "an idea", values_of(genre, brief, entries))
    with_fallback = replace(job, recipe=job.recipe.changed({"models": {"fallback": "second"}}))
    assert row(with_fallback, genre, made, 7, entries)["fallback"] is True
    assert row(job, genre, made, 7, entries)["fallback"] is False, "a server may name its model otherwise"


def test_a_step_that_an_arm_leaves_out_says_nothing_of_its_rows(job: Job) -> None:
    brief, genre = Plan(job).brief("note", 2), genre_of(job, "note")
    texts = {"draft": "<document>d</document>", "polish": "<document>p</document>", "verdict": "4"}
    entries = [*(entry(name, text) for name, text in texts.items()), entry("left_out", "r", "second")]
    made = Draft(brief, "an idea", values_of(genre, brief, entries))
    with_fallback = replace(job, recipe=job.recipe.changed({"models": {"fallback": "second"}}))
    assert row(with_fallback, genre, made, 7, entries)["fallback"] is False


def test_a_row_says_where_its_text_came_from_and_nothing_of_its_making(job: Job) -> None:
    brief, genre = Plan(job).brief("note", 2), genre_of(job, "note")
    entries = [
        entry("draft", "<document>d</document>"),
        entry("polish", "Hm. <document>The text.</document>", "another-model"),
        entry("verdict", "<score>4</score>"),
    ]
    assert values_of(genre, brief, entries) == {"draft": "d", "polish": "The text.", "verdict": 4}
    made = Draft(brief, "an idea", values_of(genre, brief, entries))
    found = row(job, genre, made, 7, entries)
    assert found == {
        "text": "The text.",
        "id": brief.id,
        "genre": "note",
        "principle": brief.principle.id,
        "axes": found["axes"],
        "scores": '{"verdict":4}',
        "source": None,
        "model": "another-model",
        "fallback": False,
        "prompt_hash": genre.hash,
        "n_tokens": 7,
        "finish_reason": "stop",
        "constitution_hash": job.constitution.hash,
    }
    own = row(
        job, genre, made, 7, [replace(each, answer=replace(each.answer, model="offline-grammar")) for each in entries]
    )
    assert own["fallback"] is False


def test_a_chat_row_names_the_model_that_replied(job: Job) -> None:
    genre, brief = genre_of(job, "help"), Plan(job).brief("help", 0)
    entries = [
        entry("scene", '{"task": "t"}'),
        entry("facts", "<facts>\n1. one thing\n</facts>"),
        entry("kit", '{"a": 1}'),
        entry("rules", "<rules>R</rules>"),
        entry("question", "<question>Q</question>", "other"),
        entry("reply", "<reply>A</reply>"),
    ]
    found = row(job, genre, Draft(brief, None, values_of(genre, brief, entries)), 7, entries)
    assert (found["model"], found["fallback"], found["tools"]) == ("offline-grammar", False, '{"a":1}')
