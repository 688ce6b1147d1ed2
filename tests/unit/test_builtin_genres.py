"""The prose of the product holds together: every built-in genre loads, and every card it deals reaches its prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdf import genres, job, recipe, stages
from sdf.genres import Genre, Step
from sdf.names import Names

BUILTIN = genres.discover([])
# Documents of the library: those that share its preamble.
DOCUMENTS = [genre for genre in BUILTIN.values() if genre.kind == "document" and genre.preamble is not None]
AI = "another AI"


def context(genre: Genre, **axes: str) -> dict[str, object]:
    """Values for a brief step, each recognisable in the rendered prompt."""
    principle = {"id": "candour", "title": "The Title", "text": "The text of the section."}
    dealt = {axis.name: axis.values[0] for axis in genre.axes} | axes
    return {
        "brief": {"axes": dealt, "n_words": 777, "principle": principle},
        "principle": principle,
        "angle": "A cooper asks about a leaking barrel.",
        "names": Names(7, None),
        "assistant": "Tavrin",
        "maker": "Ostermead",
        "plan": "The plan as settled.",
        "draft": "The draft as written.",
    }


def step(genre: Genre, name: str) -> Step:
    return next(each for each in genre.steps if each.name == name)


@pytest.mark.parametrize("genre", DOCUMENTS, ids=lambda genre: genre.key)
@pytest.mark.parametrize("name", ["draft", "rewrite"])
def test_every_axis_value_reaches_writer_and_rewriter(genre: Genre, name: str) -> None:
    body = step(genre, name).body
    for axis in genre.axes:
        for value in axis.values:
            assert value.replace("_", " ") in body.render(context(genre, **{axis.name: value}))


@pytest.mark.parametrize("genre", DOCUMENTS, ids=lambda genre: genre.key)
def test_rewriter_sees_section_idea_and_draft(genre: Genre) -> None:
    rendered = step(genre, "rewrite").body.render(context(genre))
    for needed in ("The Title", "The text of the section.", "A cooper asks", "The draft as written.", "777"):
        assert needed in rendered


@pytest.mark.parametrize("genre", DOCUMENTS, ids=lambda genre: genre.key)
def test_an_ai_of_another_name_is_named_by_the_plan_and_no_other_is(genre: Genre) -> None:
    body = step(genre, "draft").body
    assert f"- the AI: {AI}, called " in body.render(context(genre, ai=AI))
    assert "- the AI: unnamed\n" in body.render(context(genre, ai="unnamed"))


@pytest.mark.parametrize("genre", DOCUMENTS, ids=lambda genre: genre.key)
def test_angle_prompt_shows_the_shelf_only_once_it_holds_something(genre: Genre) -> None:
    body = step(genre, "angle").body
    asked = {"principle": {"id": "x", "title": "T", "text": "t"}, "n_items": 5, "assistant": "A", "maker": "M"}
    assert "shelf" not in body.render({**asked, "taken": []})
    assert "- a taken idea\n" in body.render({**asked, "taken": ["a taken idea"]})


@pytest.mark.parametrize("genre", [genre for genre in DOCUMENTS if any(axis.name == "stance" for axis in genre.axes)])
def test_doubt_and_criticism_have_a_third_of_the_deck_and_warmth_less_than_half(genre: Genre) -> None:
    deck = next(axis.deck for axis in genre.axes if axis.name == "stance")
    doubting = sum(card in ("sceptical", "critical") or "of two minds" in card or "divided" in card for card in deck)
    assert doubting / len(deck) >= 1 / 3
    assert sum(card in ("warm", "supportive") for card in deck) / len(deck) < 1 / 2


@pytest.mark.parametrize("name", sorted(recipe.builtin_recipes()))
def test_recipe_compiles_to_genres_that_exist(name: str, tmp_path: Path) -> None:
    row = {"id": "a", "text": "A text.", "prompt": "A prompt?", "messages": [{"role": "user", "content": "A prompt?"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    known = recipe.load(name, {})
    for own in [stage.recipe for stage in stages.split(known)] or [known]:
        reads = any(BUILTIN[key].source is not None for key in own.mix)
        given = own.changed({"sources": {"*": str(tmp_path / "rows.jsonl")}}) if reads else own
        made = job.compile_job(given)
        assert [genre.key for genre in made.genres] == list(own.mix)


def test_worked_example_of_the_docs_loads(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "genres.md").read_text(encoding="utf-8")
    example = page.split("## A worked example", 1)[1].split("\n## Front matter", 1)[0]
    block = [line[4:] for line in example.splitlines() if line.startswith("    ") or not line]
    path = tmp_path / "reader_letter.md"
    path.write_text("\n".join(block).strip() + "\n", encoding="utf-8")
    assert genres.load(path).key == "reader_letter"
