"""What a model reads, kept as files: a change of a prompt is seen in review as the text that changed.

`SDF_GOLDEN=write pytest tests/unit/test_golden_prompts.py` writes tests/golden/ anew. A genre's shared instructions
stand there once, beside hashes of its prefixes; the constitution is a stand-in, earlier answers are named in brackets.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sdf import constitution, genres, recipe
from sdf.genres import Genre, Step
from sdf.job import Job
from sdf.prompts import Composer
from sdf.records import Brief, Principle, Request, RoundKey, Slot

GOLDEN = Path(__file__).parents[1] / "golden"
WRITES = os.environ.get("SDF_GOLDEN") == "write"
BUILTIN = genres.discover([])
TEXT = """\
## Saying what is so

The assistant says what it believes to be true, because people act on what they are told.

## Asking before what cannot be undone

The assistant asks before it deletes, because a minute of waiting costs less than a loss nobody can repair.
"""
# The value that shows most of a template, where an axis has it.
SHOWN = {"ai": "another AI", "locale": "kenya"}


def job_of(genre: Genre) -> Job:
    return Job(recipe.load("quickstart", {}), constitution.of_text(TEXT, "stand-in"), (genre,))


def brief_of(genre: Genre, principle: Principle) -> Brief:
    axes = {each.name: SHOWN.get(each.name, "") for each in genre.axes}
    axes = {each.name: axes[each.name] if axes[each.name] in each.values else each.values[0] for each in genre.axes}
    row = {column: row_of(column) for column in genre.source.columns} if genre.source is not None else None
    slot = Slot(7, genre.key, principle.id, 0)
    twin = axes.get(genre.twin) if genre.twin is not None else None
    return Brief("0" * 32, slot, genre.key, 0, principle, axes, genre.n_words[0], row, twin)


def row_of(column: str) -> Any:
    said = f"[row: {column}]"
    return [{"role": "user", "content": said}] if column == "messages" else said


def answer_of(step: Step) -> Any:
    """A value of the kind that the step returns, with the step's name in it."""
    name = f"[{step.name}]"
    by_kind: Mapping[str, Any] = {
        "text": name,
        "list": [f"{name} 1", f"{name} 2"],
        "score": step.highest,
        "messages": [{"role": "user", "content": f"{name} user"}, {"role": "assistant", "content": f"{name} reply"}],
    }
    return by_kind[step.returns] if step.returns in by_kind else instance(json.loads(step.schema or "{}"), name)


def instance(schema: Mapping[str, Any], name: str) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object":
        return {key: instance(inner, f"{name} {key}") for key, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema.get("items", {}), name)]
    return 1 if kind in ("integer", "number") else kind == "boolean" or name


def requests_of(genre: Genre) -> Iterator[tuple[Step, Request]]:
    job = job_of(genre)
    composer, principle = Composer(job), job.constitution.principles[0]
    brief, values = brief_of(genre, principle), dict[str, Any]()
    for step in genre.steps:
        if step.per == "round":
            key = RoundKey(genre.key, principle.id, 0, 1)
            yield step, composer.round_request(genre, step, key, principle, ["[a taken idea]"], step.n_items, 0)
        else:
            yield step, composer.brief_request(genre, step, brief, "[the idea]", values, 0)
            values[step.name] = answer_of(step)


def page(step: Step, request: Request) -> str:
    head = f"{step.name}: {step.role}, context {step.context}, prefix {request.prefix.hash[:12]}"
    parts = [f"{message.role}:\n{message.content}" for message in request.messages]
    parts += [request.prompt] if request.prompt is not None else []
    parts += [f"tools: {request.tools}"] if request.tools else []
    return "\n\n".join([head, *parts]) + "\n"


def pages_of(genre: Genre) -> dict[str, str]:
    named = {"assistant": "Tavrin", "maker": "Ostermead", "worry": "", "bans": []}
    principle = {"id": "saying-what-is-so", "title": "[title]", "text": "[text]"}
    found = {step.name: page(step, request) for step, request in requests_of(genre)}
    if genre.instructions is not None:
        found["instructions"] = genre.instructions.render({**named, "principle": principle}).strip() + "\n"
    return found


def differing(folder: Path, pages: Mapping[str, str]) -> list[str]:
    """Names of pages that are not as kept, and of kept ones that are no longer rendered."""
    kept = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.txt")}
    return sorted(name for name in {*kept, *pages} if kept.get(name) != pages.get(name))


def rewrite(folder: Path, pages: Mapping[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in pages.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("genre", BUILTIN.values(), ids=BUILTIN)
def test_prompts_are_as_kept(genre: Genre) -> None:
    pages = pages_of(genre)
    if WRITES:
        rewrite(GOLDEN / genre.key, pages)
    changed = differing(GOLDEN / genre.key, pages)
    assert not changed, (
        f"{genre.key}: {', '.join(changed)} changed; read the diff after SDF_GOLDEN=write pytest {__file__}"
    )


def test_shared_rules_are_as_kept() -> None:
    names: dict[str, Any] = {"assistant": "Tavrin", "maker": "Ostermead", "worry": ""}
    preamble = next(genre.preamble for genre in BUILTIN.values() if genre.preamble is not None)
    pages = {
        "preamble": preamble.render({**names, "bans": []}) + "\n",
        "preamble_with_bans": preamble.render({**names, "bans": ["a worn phrase", "another"]}) + "\n",
    }
    if WRITES:
        rewrite(GOLDEN / "shared", pages)
    assert not differing(GOLDEN / "shared", pages)


def test_no_kept_prompts_of_genres_that_are_gone() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {*BUILTIN, "shared"}


def test_every_step_asks_under_the_names_and_the_section_of_its_brief() -> None:
    """The example brief reaches the pages: else they would stay equal whatever a template did with it."""
    pages = pages_of(BUILTIN["letters"])
    assert "[the idea]" in pages["draft"] and "[draft]" in pages["rewrite"] and "[rewrite]" in pages["verdict"]
    assert "[a taken idea]" in pages["angle"] and "Saying what is so" in pages["draft"]
