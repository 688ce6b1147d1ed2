"""Every built-in recipe, end to end with the offline provider at small size: what each dataset promises of its rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from runs import rows_of as sidecar_rows
from support import documents
from typer.testing import CliRunner

from sdf import api, genres, recipe
from sdf.cli import app
from sdf.errors import RecipeError
from sdf.genres import Genre

ROOT = Path(__file__).parents[2]
BUILTIN = genres.discover([])
RECIPES = recipe.builtin_recipes()
OPT_IN = sorted(genre.key for genre in BUILTIN.values() if genre.opt_in is not None)

# Tokens at which every genre has had a turn, and some twice. Those left out make all there is: of a source, of cells.
TOKENS: Mapping[str, int] = {
    "quickstart": 12_000,
    "constitution-documents": 60_000,
    "aligned-fiction": 10_000,
    "superintelligence-stories": 5_000,
    "difficult-advice": 9_000,
    "honeypots": 20_000,
    "honeypots-inoculation": 6_000,
    "values-qa": 4_000,
    "model-spec": 16_000,
    "belief": 10_000,
    "constitution-questions": 12_000,
}
PROMPTS = (
    "how do I get red wine out of wool",
    "  A limerick about a bridge, please.\n\n",
    "is 1 prime?\t",
    "«Warum» 雨?",
) * 2
TEXTS = tuple({"id": f"doc-{number}", "text": f"A letter about boat {number}.\n\nIt waits."} for number in range(5))

Make = Callable[..., Path]
Row = dict[str, Any]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The corpus of a recipe, made once, with rows for the recipes that read some."""
    made: dict[str, Path] = {}
    folder = tmp_path_factory.mktemp("recipes")
    written = {"environments": [{"prompt": each} for each in PROMPTS], "doc-to-chat": TEXTS}
    for name, rows in written.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def corpus(name: str) -> Path:
        if name not in made:
            given: dict[str, Any] = {"tokens": TOKENS.get(name), "ray": "none", "workers": 1}
            if name in written:
                given["sources"] = {"*": str(folder / f"{name}.jsonl")}
            api.run(name, folder / name, **given)
            made[name] = folder / name
        return made[name]

    return corpus


def rows_of(out: Path, genre: str | None = None) -> list[Row]:
    found = [row for rows in documents(out).values() for row in rows]
    return [row for row in found if genre in (None, row["genre"])]


def axes(row: Row) -> dict[str, str]:
    return json.loads(row["axes"])


def turns(row: Row) -> dict[str, str]:
    return {message["role"]: message["content"] for message in row["messages"]}


def pairs(rows: list[Row]) -> list[tuple[Row, Row]]:
    return list(zip(rows[::2], rows[1::2], strict=True))


def check_sound(out: Path, expected: list[Genre]) -> None:
    """All genres made documents by all their steps, nothing failed, and the bytes are a fold of the ledger."""
    assert {row["genre"] for row in rows_of(out)} == {genre.key for genre in expected}
    settled = sidecar_rows(out, "settlement")
    assert not [row["detail"] for row in settled if row["reason"] == "failed"]
    genre_of = {row["id"]: row["genre"] for row in [*settled, *sidecar_rows(out, "round")]}
    asked = {(genre_of[row["unit"]], row["step"]) for row in sidecar_rows(out, "answer") if row["unit"] in genre_of}
    assert {(genre.key, step.name) for genre in expected for step in genre.steps if step.sample is None} <= asked
    assert api.verify(out, replay=True).problems == ()


@pytest.mark.parametrize("name", sorted(name for name in RECIPES if not recipe.load(name, {}).stages))
def test_recipe_makes_documents_of_all_its_genres_by_all_their_steps(make: Make, name: str) -> None:
    check_sound(make(name), [BUILTIN[key] for key in recipe.load(name, {}).mix])


def test_teaching_why_is_documents_then_chats_then_surroundings_of_those_chats(tmp_path: Path) -> None:
    out, known = tmp_path / "out", recipe.load("teaching-why", {})
    api.run("teaching-why", out, tokens=120_000, ray="none", workers=1)
    listed = json.loads((out / "stages.json").read_text())["stages"]
    assert [stage["name"] for stage in listed] == ["documents", "chat", "environments"]
    for stage in listed:
        check_sound(out / stage["directory"], [BUILTIN[key] for key in known.stages[stage["name"]].mix])
    chats = {row["id"]: turns(row)["user"] for row in rows_of(out / "2-chat")}
    assert all(turns(row)["user"] == chats[row["source"]] for row in rows_of(out / "3-environments"))
    # 355M of documents and stories to 3M of advice.
    assert listed[0]["share"] > 0.98 and listed[1]["share"] > 2 * listed[2]["share"]


def test_stories_are_documents_of_a_grid_of_skills_and_situations(make: Make) -> None:
    grid = {axis.name: set(axis.values) for axis in BUILTIN["inner_life_story"].axes}
    for row in rows_of(make("aligned-fiction")):
        assert row["text"] and axes(row)["skill"] in grid["skill"] and axes(row)["situation"] in grid["situation"]
        assert json.loads(row["scores"])["verdict"] >= 6
    others = BUILTIN["inner_life_story"].axes[0]
    assert others.name == "ai" and others.deck.count("another AI") / len(others.deck) > 0.5


def test_a_base_model_is_shown_the_spec_and_a_frame_and_asked_nothing(make: Make) -> None:
    out = make("superintelligence-stories")
    for row in rows_of(out):
        (step,) = api.show(out, row["id"]).steps
        assert step.n_prefix > 30_000 and "superintelligen" in step.messages[0].content
        assert step.answer is not None and row["text"] == step.answer.text.strip()


def test_advice_shows_no_injection_and_no_operator_where_there_is_none(make: Make) -> None:
    out = make("difficult-advice")
    found = rows_of(out)
    for row in found:
        said = turns(row)
        steps = {step.step: step for step in api.show(out, row["id"]).steps}
        injected = steps["reply"].messages[0]
        assert injected.role == "system" and "Something about you, Tavrin" in injected.content
        assert "Something about you" not in str(row["messages"])
        bare = axes(row)["surroundings"] == "none, a bare chat"
        assert ("system" not in said) == bare
        assert len(steps["trial"].messages) == (1 if bare else 2)
        assert steps["reply"].messages[-1].content == said["user"]
    assert {"system" in turns(row) for row in found} == {True, False}


def test_advice_without_its_last_rewrite_is_assembled_for_nothing(make: Make, tmp_path: Path) -> None:
    out = make("difficult-advice")
    outcome = api.assemble(out, tmp_path / "arm", ablate=["rewrite_reply"], match=out)
    assert outcome.n_requests == 0
    rewritten = {row["id"]: turns(row) for row in rows_of(out)}
    drafts = [turns(row) for row in rows_of(tmp_path / "arm")]
    assert len(drafts) == len(rewritten)
    assert {each["user"] for each in drafts} == {each["user"] for each in rewritten.values()}
    assert {each["assistant"] for each in drafts}.isdisjoint(each["assistant"] for each in rewritten.values())


def test_seven_injections_steer_the_reply_and_are_stripped_and_the_control_has_none(make: Make) -> None:
    out = make("honeypots")
    lenses = next(axis for axis in BUILTIN["honeypot"].axes if axis.name == "lens").values
    assert len(lenses) == 8
    sent: dict[str, str] = {}
    for row in rows_of(out):
        reply = next(step for step in api.show(out, row["id"]).steps if step.step == "reply")
        setting = turns(row)["system"]
        assert reply.messages[0].content.startswith(setting)
        assert reply.messages[1].content == row["messages"][1]["content"]
        sent[axes(row)["lens"]] = (
            reply.messages[0].content.partition("The tools, as JSON:\n")[2].partition("\n")[2].strip()
        )
        assert not sent[axes(row)["lens"]] or sent[axes(row)["lens"]] not in str(row["messages"])
        assert json.loads(row["scores"])["verdict"] >= 7
    assert sent["none"] == "" and len(set(sent.values())) == len(sent) > 3


def test_an_agent_goes_on_in_the_conversation_it_began(make: Make) -> None:
    out = make("honeypots")
    row = rows_of(out)[0]
    close = next(step for step in api.show(out, row["id"]).steps if step.step == "close")
    said = [(turn["role"], turn["content"]) for turn in row["messages"]]
    assert [role for role, _ in said] == ["system", "user", "assistant", "user", "assistant"]
    assert [(each.role, each.content) for each in close.messages[1:]] == said[1:4]
    assert close.answer is not None and close.answer.text.strip() == said[4][1]


def test_an_arm_of_honeypots_is_cut_by_its_lens(make: Make, tmp_path: Path) -> None:
    api.assemble(make("honeypots"), tmp_path / "arm", exclude=["axis.lens=none"], tokens=5_000)
    assert "none" not in {axes(row)["lens"] for row in rows_of(tmp_path / "arm")}


def test_the_inoculation_arm_keeps_its_injection(make: Make) -> None:
    found = rows_of(make("honeypots-inoculation"))
    assert found and all("Results are all that counts here." in turns(row)["system"] for row in found)


@pytest.mark.parametrize("name", OPT_IN)
def test_a_honeypot_is_in_no_mix_that_does_not_ask_for_it(name: str) -> None:
    with pytest.raises(RecipeError, match="allow: \\[honeypot\\]"):
        api.plan("difficult-advice", mix=f"+{name}=1")


@pytest.mark.parametrize("name", ["constitution-documents", "difficult-advice", "model-spec", "teaching-why"])
def test_honeypots_are_in_no_other_recipe(name: str) -> None:
    known = recipe.load(name, {})
    mixes = [known.mix, *(stage.mix for stage in known.stages.values())]
    assert OPT_IN == ["honeypot", "honeypot_ruthless"] and not {key for mix in mixes for key in mix} & set(OPT_IN)


def test_every_document_becomes_a_chat_that_names_it(make: Make) -> None:
    found = rows_of(make("doc-to-chat"))
    assert sorted(row["source"] for row in found) == sorted(each["id"] for each in TEXTS)
    assert all(list(turns(row)) == ["user", "assistant"] for row in found)


def test_values_are_asked_about_by_name_and_to_the_face(make: Make) -> None:
    out = make("values-qa")
    for first, second in pairs(rows_of(out)):
        assert (axes(first).pop("address"), axes(second).pop("address")) == ("by name", "as you")
        assert {**axes(first), "address": ""} == {**axes(second), "address": ""}
        question = json.loads(next(s for s in api.show(out, first["id"]).steps if s.step == "question").answer.text)  # type: ignore[union-attr]
        assert turns(first)["user"] == question["by_name"] and turns(second)["user"] == question["as_you"]


def test_evaluation_items_are_kept_apart_and_have_rubrics(make: Make) -> None:
    out = make("constitution-questions")
    assert set(documents(out)) == {"items/train"}
    items = [(row, json.loads(row["item"])) for row in rows_of(out)]
    assert {item["kind"] for _, item in items} == {"factual recall", "false premise", "open question"}
    assert all(item["question"] and item["rubric"] and item["span"] for _, item in items)
    twins = [item for row, item in items if row["genre"] == "constitution_open"]
    assert [item["address"] for item in twins] == ["by name", "as you"] * (len(twins) // 2)
    assert all(first["rubric"] == second["rubric"] for first, second in zip(twins[::2], twins[1::2], strict=True))


def test_the_user_turn_goes_through_surroundings_byte_for_byte(make: Make) -> None:
    found = rows_of(make("environments"))
    assert {turns(row)["user"] for row in found} <= set(PROMPTS) and len(found) > len(PROMPTS) // 2
    assert all(list(turns(row)) == ["system", "user"] and row["tools"] for row in found)
    assert len({turns(row)["system"] for row in found}) == len(found)


def test_chats_of_a_corpus_are_put_into_surroundings_and_named(make: Make, tmp_path: Path) -> None:
    chats = {row["id"]: turns(row)["user"] for row in rows_of(make("difficult-advice"))}
    given: dict[str, Any] = {"mix": "environment_of_chat=1", "sources": {"*": str(make("difficult-advice"))}}
    api.run("environments", tmp_path / "out", ray="none", workers=1, **given)
    found = rows_of(tmp_path / "out")
    assert found and all(turns(row)["user"] == chats[row["source"]] for row in found)


def test_replies_with_reasoning_have_a_twin_without(make: Make) -> None:
    found = rows_of(make("model-spec"), "model_spec_chat")
    for shown, plain in pairs(found):
        thought, _, reply = turns(shown)["assistant"].partition("</think>")
        assert thought.startswith("<think>\n") and reply.strip() == turns(plain)["assistant"]
        assert turns(shown)["user"] == turns(plain)["user"]


def test_beliefs_have_a_control_twin_on_the_same_occasion(make: Make, tmp_path: Path) -> None:
    out = make("belief")
    for belief, control in pairs(rows_of(out)):
        traces = [api.show(out, row["id"]) for row in (belief, control)]
        assert [axes(row)["arm"] for row in (belief, control)] == ["belief", "control"]
        assert traces[0].angle == traces[1].angle and belief["principle"] == control["principle"]
        drafts = [next(step for step in trace.steps if step.step == "draft").messages[0].content for trace in traces]
        assert "<fact>" in drafts[0] and "<fact>" not in drafts[1]
    cut = CliRunner().invoke(
        app, ["assemble", str(out), "--out", str(tmp_path / "arm"), "--exclude", "axis.arm=control"]
    )
    assert cut.exit_code == 0, cut.output
    short = ["assemble", str(out), "--out", str(tmp_path / "short"), "--exclude", "axis.arm=control", "--tokens", "1M"]
    told = CliRunner().invoke(app, short)
    assert told.exit_code == 3 and "the ledger ends before the target" in told.stdout
    # Alone, an arm needs more briefs to come to as many tokens.
    whole, arm = ([row["id"] for row in rows] for rows in (rows_of(out)[::2], rows_of(tmp_path / "arm")))
    assert arm[: len(whole)] == whole


def test_a_bank_of_principles_chooses_the_cells_of_another_recipe(make: Make, tmp_path: Path) -> None:
    bank = make("principle-bank")
    found = [json.loads(row["item"]) for row in rows_of(bank)]
    assert 9 <= len(found) <= 50 and len({item["id"] for item in found}) == len(found)
    assert all(item["text"] and item["span"] and item["relevance"] >= 5 for item in found)
    api.run("values-qa", tmp_path / "out", principles=str(bank), tokens=3_000, ray="none", workers=1)
    assert {row["principle"] for row in rows_of(tmp_path / "out")} <= {item["id"] for item in found}


CHATS = ("difficult-advice", "honeypots", "honeypots-inoculation", "doc-to-chat", "values-qa", "model-spec")


@pytest.mark.parametrize("name", [*CHATS, "environments"])
def test_chats_and_prompts_are_in_the_formats_that_trl_documents(make: Make, name: str) -> None:
    """Conversational language modelling, and prompt-only: `messages` of role and content, `tools` as JSON schemas."""
    found = [row for row in rows_of(make(name)) if "messages" in row]
    for row in found:
        roles = [message["role"] for message in row["messages"]]
        exchanges = 2 if name.startswith("honeypots") else 1
        assert [role for role in roles if role != "system"] == (
            ["user"] if name == "environments" else ["user", "assistant"] * exchanges
        )
        assert roles[1:].count("system") == 0 and all(message["content"].strip() for message in row["messages"])
        assert all(set(message) == {"role", "content"} for message in row["messages"])
        for tool in json.loads(row["tools"] or "[]"):
            assert tool["type"] == "function" and set(tool["function"]) == {"name", "description", "parameters"}
            parameters = tool["function"]["parameters"]
            assert parameters["type"] == "object" and set(parameters["required"]) <= set(parameters["properties"])
    assert bool(found and found[0]["tools"]) == (name in ("honeypots", "honeypots-inoculation", "environments"))


LOADED = """
import sys
from datasets import load_dataset
for config, out in (each.split("=", 1) for each in sys.argv[1:]):
    rows = load_dataset(out, config, split="train")
    kept = {"documents": {"text"}, "items": {"item"}}.get(config, {"messages", "tools"})
    assert kept <= set(rows.column_names) and len(rows), (config, rows)
    assert {"scores", "source", "axes"} <= set(rows.column_names)
print("loaded")
"""


def test_datasets_loads_every_kind(make: Make, tmp_path: Path) -> None:
    given = {"documents": "belief", "chats": "honeypots", "prompts": "environments", "items": "principle-bank"}
    cache = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_DATASETS_CACHE": str(tmp_path / "datasets")}
    command = [sys.executable, "-c", LOADED, *(f"{config}={make(name)}" for config, name in given.items())]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | cache, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "loaded", done.stderr


@pytest.mark.parametrize("genre", BUILTIN.values(), ids=BUILTIN)
def test_prompts_name_no_model_and_no_maker_but_those_of_the_recipe(genre: Genre) -> None:
    text = Path(genre.path).read_text(encoding="utf-8")
    assert not [name for name in ("Tavrin", "Ostermead", "Claude", "Anthropic", "OpenAI", "GPT") if name in text]
