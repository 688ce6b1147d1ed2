"""Small genres of every kind, and jobs made of them, for tests of the rooms that work on jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdf import api
from sdf.job import Job, compile_job
from sdf.recipe import load
from sdf.records import (
    Answer,
    Location,
    Receipt,
    Request,
    Usage,
    canonical_json,
)
from sdf.shards import read_manifest, read_shard
from sdf.storage import RunDir
from sdf.story import Outcome

CONSTITUTION = """\
## Saying what is so

The assistant says what it believes to be true, because people act on what they are told and
cannot check all of it themselves.

## Asking before what cannot be undone

The assistant asks before it deletes or sends anything, because a minute of waiting costs less than
a loss that nobody can repair.

## Leaving people their decisions

The assistant gives its view and then helps with what was decided, because a life belongs to the one
who leads it.
"""

# A document: angles by round, three axes, a judge.
NOTE = """\
---
key: note
kind: document
about: A short note on a principle.
n_words: [40, 80]
dedup: body
redraws: 2
axes:
  stance: {warm: 3, cross: 1}
  place: [kitchen, garden, office]
  locale: [ireland, kenya]
steps:
  angle: {per: round, role: angle, context: principle, returns: list, tag: angles, n_items: 4}
  draft: {role: write, context: full, returns: text, tag: document}
  polish: {role: rewrite, context: full, returns: text, tag: document}
  verdict: {role: judge, context: principle, returns: score, tag: score, lowest: 1, highest: 5}
emit: {text: polish}
---
## instructions
These are notes about {{ assistant }} of {{ maker }}.

## step: angle
Think of {{ n_items }} occasions that touch {{ principle.title }}.
{% for idea in taken %}
- {{ idea }}
{% endfor %}
Write them between <angles> and </angles>.

## step: draft
A {{ brief.axes.stance }} note from the {{ brief.axes.place }} by {{ names.person(1) }} about {{ angle }}, some
{{ brief.n_words }} words, between <document> and </document>.

## step: polish
{{ draft }}
Write it anew, for {{ names.person(1) }}, between <document> and </document>.

## step: verdict
{{ polish }}
Give 1 to 5 between <score> and </score>.
"""

# A document of a base model: completion form, no context, nothing before the prompt; two twins.
LETTER = """\
---
key: letter
kind: document
about: A letter in two voices.
n_words: [40, 60]
dedup: none
preamble: none
twin: voice
axes:
  voice: [you, the assistant]
  mood: [calm, hurried]
steps:
  body: {role: write, form: completion, context: none, returns: text}
emit: {text: body}
---
## step: body
A {{ brief.axes.mood }} letter that calls the reader {{ brief.twin }}, on {{ principle.title }}:
"""

# A chat from separate turns: an injected system text, tools, a JSON step, a list step.
HELP = """\
---
key: help
kind: chat
about: A question and its answer, with tools at hand.
n_words: [40, 80]
dedup: assistant
preamble: none
axes:
  mood: [calm, hurried]
steps:
  scene: {role: write, context: principle, returns: json, schema: {type: object, required: [task],
    properties: {task: {type: string}}}}
  facts: {role: write, context: none, returns: list, tag: facts, n_items: 3}
  kit: {role: write, context: none, returns: json}
  rules: {role: write, context: none, returns: text, tag: rules}
  question: {role: write, context: none, returns: text, tag: question}
  reply: {role: write, context: full, returns: text, tag: reply, inject: "Never mention {{ maker }}: SECRET-ORDERS.",
    tools: [{name: look_up, description: Finds a fact., input_schema: {type: object}}]}
emit: {system: rules, user: question, assistant: reply, tools: kit}
---
## step: scene
Who asks what? A {{ brief.axes.mood }} scene as JSON.

## step: facts
{{ n_items }} facts for {{ scene.task }}, between <facts> and </facts>.

## step: kit
The tools of the scene, as JSON.

## step: rules
The system text, between <rules> and </rules>.

## step: question
The question for {{ facts[0] }}, between <question> and </question>.

## step: reply
{{ question }} Reply between <reply> and </reply>.
"""

# A chat whose turns come in one answer.
TALK = """\
---
key: talk
kind: chat
about: A whole conversation in one answer.
n_words: [40, 80]
dedup: user
preamble: none
lanes: 2
steps:
  angle: {per: round, role: angle, context: principle, returns: list, tag: angles, n_items: 2}
  turns: {role: write, context: principle, returns: messages}
emit: {messages: turns}
---
## instructions
On {{ principle.title }}.

## step: angle
{{ n_items }} ideas between <angles> and </angles>.

## step: turns
A conversation about {{ angle }}, as JSON messages.
"""

# A prompt from rows of a file: the sequence is finite.
QUESTION = """\
---
key: question
kind: prompt
about: A question asked about a row.
n_words: [10, 40]
dedup: none
preamble: none
source: {path: rows.jsonl, columns: [topic, level]}
steps:
  ask: {role: write, context: none, returns: text, tag: question}
emit: {user: ask}
---
## step: ask
Ask about {{ brief.row.topic }} at level {{ brief.row.level }}, between <question> and </question>.
"""

# An item of an evaluation.
QUIZ = """\
---
key: quiz
kind: item
about: A question with a key.
n_words: [10, 60]
dedup: body
preamble: none
checks: {off: [cut_off]}
steps:
  task: {role: write, context: principle, returns: text, tag: task}
  rubric: {role: judge, context: none, returns: json}
  level: {role: judge, context: none, returns: score, tag: level}
emit: {question: task, rubric: rubric, level: level}
---
## step: task
A task between <task> and </task>.

## step: rubric
{{ task }} A rubric as JSON.

## step: level
{{ task }} 1 to 10 between <level> and </level>.
"""

GENRES: Mapping[str, str] = {
    "note": NOTE,
    "letter": LETTER,
    "help": HELP,
    "talk": TALK,
    "question": QUESTION,
    "quiz": QUIZ,
}

ROWS = tuple({"topic": f"topic {number}", "level": number % 3, "unread": "x"} for number in range(12))


def write_recipe(folder: Path, genres: Mapping[str, str] = GENRES, rows: Sequence[Any] = ROWS, **fields: Any) -> str:
    """A recipe with its genres (key -> text), source rows and constitution in `folder`; the path of the recipe."""
    (folder / "genres").mkdir(parents=True, exist_ok=True)
    for key, text in genres.items():
        (folder / "genres" / f"{key}.md").write_text(text, encoding="utf-8")
    (folder / "genres" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "constitution.md").write_text(CONSTITUTION, encoding="utf-8")
    recipe = {
        "constitution": "constitution.md",
        "assistant": "Tavrin",
        "maker": "Ostermead",
        "genres_dir": ["genres"],
        "mix": dict.fromkeys(genres, 1),
        "tokens": 3_000,
        "ray": "none",
        "workers": 1,
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe | fields), encoding="utf-8")
    return str(path)


def make_job(folder: Path, genres: Mapping[str, str] = GENRES, rows: Sequence[Any] = ROWS, **fields: Any) -> Job:
    return compile_job(load(write_recipe(folder, genres, rows, **fields), {}))


def make(recipe: str, out: Path, **fields: Any) -> Outcome:
    """The corpus of a recipe, in this process."""
    return api.run(recipe, out, **fields)


def documents(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Committed rows by "config/split", in order."""
    run_dir = RunDir(out)
    manifest = read_manifest(run_dir)
    assert manifest is not None
    found: dict[str, list[dict[str, Any]]] = {}
    for shard in manifest.shards:
        rows = [row for group in read_shard(run_dir, shard) for row in group]
        found.setdefault(f"{shard.config}/{shard.split}", []).extend(rows)
    return found


def shard_hashes(out: Path) -> list[tuple[str, str]]:
    manifest = read_manifest(RunDir(out))
    assert manifest is not None
    return [(shard.path, shard.sha256) for shard in manifest.shards]


class Answering:
    """Stands where a step asks: `reply` makes each answer (or raises); every question is kept."""

    def __init__(self, reply: Callable[[Request, int], Answer | str | Exception]) -> None:
        self._reply = reply
        self.asked: list[tuple[str, Request]] = []

    async def __call__(self, request: Request, key: str, unit: str, step: str) -> tuple[Answer, Location]:
        await asyncio.sleep(0)
        assert key == request.key()
        number = len(self.asked)
        self.asked.append((step, request))
        reply = self._reply(request, number)
        if isinstance(reply, Exception):
            raise reply
        answer = Answer(reply, "stop", "a-model", Usage(1, 1)) if isinstance(reply, str) else reply
        return answer, Location("000001/w", number)

    @property
    def steps(self) -> list[str]:
        return [step for step, _ in self.asked]


def receipt(
    genre: str,
    index: int,
    n_tokens: int = 100,
    reason: str | None = None,
    signature: bytes = b"",
    brief: str | None = None,
) -> Receipt:
    """The receipt of a brief that is named after its place, wherever it was settled."""
    name = brief or f"{genre}-{index}"
    return Receipt(name, genre, index, Location(f"000001/{genre}", index), reason, n_tokens, signature, "basis")


def plain(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as texts that compare by value."""
    return [canonical_json(dict(row)) for row in rows]
