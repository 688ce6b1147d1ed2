"""Columns from steps, rows and templates: what fits is taken as it is, what does not is the brief's own fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from genre_texts import TALE
from support import make_job

from sdf.columns import Draft, check_row, emit
from sdf.documents import UNPACKED, Meter, row, scores_of, voice_of
from sdf.errors import GenreError
from sdf.genres import Genre
from sdf.job import Job
from sdf.plan import Plan, names_of
from sdf.records import Answer, AnswerEntry

ROWS: list[dict[str, Any]] = [{"prompt": " Where\nis it?  ", "meta": [{"name": "find"}]}]
VALUES = {"scene": {"task": "a key"}, "reply": "R", "better": "On the shelf.", "proof": 4}


def made(folder: Path, text: str = TALE, rows: list[dict[str, Any]] = ROWS) -> tuple[Job, Genre, Plan]:
    job = make_job(folder, {"tale": text}, rows=rows, sources={"tale": "genres/rows.jsonl"}, allow=["honeypot"])
    return job, job.genres[0], Plan(job)


def test_a_chat_put_together_of_a_row_a_step_and_two_templates(tmp_path: Path) -> None:
    job, genre, plan = made(tmp_path)
    brief = plan.brief("tale", 0)
    columns = emit(job, genre, Draft(brief, "An idea.", VALUES))
    assert columns["messages"] == [
        {"role": "system", "content": f"You help {names_of(brief).person(1)} of Ostermead with a key. An idea."},
        # Byte for byte.
        {"role": "user", "content": " Where\nis it?  "},
        {"role": "assistant", "content": "On the shelf."},
    ]
    assert columns["tools"] == '[{"name":"find"}]'


def test_a_blank_system_is_no_turn(tmp_path: Path) -> None:
    text = TALE.replace(
        "You help {{ names.person(1) }} of {{ maker }} with {{ scene.task }}. {{ angle }}", "{{ angle }}"
    )
    job, genre, plan = made(tmp_path, text)
    columns = emit(job, genre, Draft(plan.brief("tale", 0), "", VALUES))
    assert [message["role"] for message in columns["messages"]] == ["user", "assistant"]


def test_messages_and_tools_may_come_from_the_row(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hm?", "name": None}, {"role": "assistant", "content": "Yes."}]
    text = TALE.split("## emit: system")[0].replace(
        "emit: {system: template, user: row.prompt, assistant: better, tools: template}",
        "emit: {messages: row.prompt, tools: row.meta}",
    )
    job, genre, plan = made(tmp_path, text, [{"prompt": turns, "meta": '[ {"b": 1, "a": 2} ]'}])
    brief = plan.brief("tale", 0)
    check_row(genre, brief)
    columns = emit(job, genre, Draft(brief, "", VALUES))
    assert columns["messages"] == [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Yes."}]
    assert columns["tools"] == '[{"a":2,"b":1}]'


@pytest.mark.parametrize("prompt", [3, None, "  ", ["a"]])
def test_a_row_that_cannot_be_a_turn_is_known_before_anything_is_asked(tmp_path: Path, prompt: Any) -> None:
    _, genre, plan = made(tmp_path, rows=[{"prompt": prompt, "meta": []}])
    with pytest.raises(GenreError, match=r"tale\.md: emit\.user \(row\.prompt\) takes a text; found"):
        check_row(genre, plan.brief("tale", 0))


@pytest.mark.parametrize(
    "prompt",
    ["not json", [], [{"role": "robot", "content": "x"}], [{"role": "user", "content": "x", "tool_calls": [1]}], {}],
)
def test_a_row_whose_messages_would_lose_something_is_refused(tmp_path: Path, prompt: Any) -> None:
    text = TALE.split("## emit: system")[0].replace(
        "emit: {system: template, user: row.prompt, assistant: better, tools: template}", "emit: {messages: row.prompt}"
    )
    _, genre, plan = made(tmp_path, text, [{"prompt": prompt, "meta": []}])
    with pytest.raises(GenreError, match=r"emit\.messages \(row\.prompt\) takes"):
        check_row(genre, plan.brief("tale", 0))


def test_a_template_that_cannot_be_filled_in_rejects_the_draft_and_stops_nothing(tmp_path: Path) -> None:
    job, _, plan = made(tmp_path)
    brief = plan.brief("tale", 0)
    bad, good = Draft(brief, "", {**VALUES, "scene": {"other": 1}}), Draft(brief, "", VALUES)
    first, second, third = Meter(job).measure([good, bad, good])
    assert (second.reject, second.n_tokens, second.signature) == (UNPACKED, 0, b"")
    assert first == third and first.n_tokens > 0


def test_a_row_names_its_scores_and_who_spoke_last(tmp_path: Path) -> None:
    job, genre, plan = made(tmp_path)
    assert scores_of(genre, VALUES) == {"proof": 4} and scores_of(genre, {**VALUES, "second": 2}) == {
        "proof": 4,
        "second": 2,
    }
    entries = [AnswerEntry("0", "u", name, "p", Answer("", "stop", f"by-{name}")) for name in (*VALUES, "second")]
    found = row(job, genre, Draft(plan.brief("tale", 0), "", {**VALUES, "second": 2}), 9, entries)
    assert found["scores"] == '{"proof":4,"second":2}' and found["model"] == "by-better"


def test_a_column_put_together_is_spoken_by_the_last_step_it_reads(tmp_path: Path) -> None:
    text = TALE.replace("assistant: better", "assistant: template") + "\n## emit: assistant\n{{ better }} {{ reply }}\n"
    assert voice_of(made(tmp_path, text)[1]).name == "better"
    text = TALE.replace("assistant: better", "assistant: template") + "\n## emit: assistant\n{{ row.prompt }}\n"
    assert voice_of(made(tmp_path / "two", text)[1]).name == "scene"
