"""What a genre file may say beyond plain steps, run end to end with the offline provider."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from genre_texts import BANK, FRAME, TALE
from support import documents, make, shard_hashes, write_recipe

from sdf import api
from sdf.directory import job_of
from sdf.errors import RecipeError, SourceError
from sdf.ledger import read_ledger
from sdf.plan import Plan, steps_of
from sdf.report.text import status_text
from sdf.storage import RunDir
from sdf.story import Progress

PROMPTS = [{"prompt": f"  Why is row {number} blue?\n", "meta": [{"name": f"tool_{number}"}]} for number in range(12)]


def recipe(folder: Path, genres: dict[str, str], rows: list[Any] = PROMPTS, **fields: Any) -> str:
    return write_recipe(folder, genres, rows, **({"tokens": 10_000_000} | fields))


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for rows in documents(out).values() for row in rows]


@pytest.fixture(scope="module")
def tales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tales")
    source = recipe(folder, {"tale": TALE}, sources={"*": "genres/rows.jsonl"}, allow=["honeypot"])
    outcome = make(source, folder / "out")
    assert outcome.unmet == {"tale": "source exhausted"}
    return folder / "out"


def test_rows_given_by_the_recipe_reach_the_corpus_byte_for_byte(tales: Path) -> None:
    found = rows_of(tales)
    # Three a principle, of three principles: cells fill up before the source ends.
    assert Counter(row["principle"] for row in found).most_common()[0][1] <= 3
    given = {row["prompt"]: row["meta"] for row in PROMPTS}
    for row in found:
        system, user, assistant = row["messages"]
        assert [each["role"] for each in row["messages"]] == ["system", "user", "assistant"]
        assert json.loads(row["tools"]) == given[user["content"]]
        assert system["content"].startswith("You help ") and assistant["content"]
        assert set(json.loads(row["scores"])) - {"second"} == {"proof"}
    assert api.verify(tales, replay=True).problems == ()


def test_a_verdict_is_kept_for_every_judge_and_a_second_one_for_its_sample(tmp_path: Path) -> None:
    make(recipe(tmp_path, {"frame": FRAME}, tokens=12_000), tmp_path / "out")
    scores = [json.loads(row["scores"]) for row in rows_of(tmp_path / "out")]
    n_second = sum("second" in each for each in scores)
    assert all("proof" in each for each in scores) and len(scores) > 80
    assert 0.25 < n_second / len(scores) < 0.55
    again = tmp_path / "again"
    make(recipe(tmp_path, {"frame": FRAME}, tokens=12_000), again, in_flight=3)
    assert shard_hashes(again) == shard_hashes(tmp_path / "out")


def test_a_sampled_judge_that_fails_costs_no_document(tmp_path: Path) -> None:
    """Half of all answers cannot be read: the proof's failures settle briefs, the second judge's do not."""
    settings = {"unparsable": "0.5"}
    make(recipe(tmp_path, {"frame": FRAME}, tokens=8_000), tmp_path / "out", provider_settings=settings)
    found = {row["id"]: json.loads(row["scores"]) for row in rows_of(tmp_path / "out")}
    assert found and all("proof" in each for each in found.values())
    job = job_of(RunDir(tmp_path / "out"))
    asked = [
        each for each in map(Plan(job).brief, ["frame"] * 400, range(400)) if len(steps_of(job.genres[0], each)) == 3
    ]
    # Asked, never answered so that it could be read, and kept.
    assert any("second" not in found[each.id] for each in asked if each.id in found)
    reasons = Counter(each.reason for each in read_ledger(RunDir(tmp_path / "out")).receipts)
    assert reasons[None] and reasons["unparsable score"] and set(reasons) <= {None, "unparsable score", "empty"}


def test_a_finite_genre_fills_every_cell_and_ends(tmp_path: Path) -> None:
    outcome = make(recipe(tmp_path, {"bank": BANK}), tmp_path / "out")
    assert outcome.unmet == {"bank": "every cell is full"}
    found = rows_of(tmp_path / "out")
    assert set(Counter(row["principle"] for row in found).values()) == {10}
    for row in found:
        assert json.loads(row["item"])["of"] == f"{row['principle']} by Ostermead"


def test_all_there_is_can_be_asked_for_where_genres_end(tmp_path: Path) -> None:
    source, out = recipe(tmp_path, {"bank": BANK}, tokens="all"), tmp_path / "out"
    told: list[Progress] = []
    outcome = make(source, out, tokens="200", on_progress=told.append)
    assert outcome.finished and outcome.manifest is not None and outcome.manifest.n_documents < 30
    assert not told[-1].briefs
    outcome = make(source, out, on_progress=told.append)
    assert outcome.finished and outcome.unmet == {} and outcome.manifest is not None
    assert (outcome.manifest.state, outcome.manifest.wanted, len(rows_of(out))) == ("complete", "all there is", 30)
    assert told[-1].briefs == {"bank": (30, 30)}
    assert make(source, out).n_requests == 0 and api.verify(out, replay=True).problems == ()
    assert "tokens of all there is" in status_text(api.status(out))
    arm = api.assemble(out, tmp_path / "arm", tokens="all")
    assert arm.finished and arm.unmet == {}


def test_all_of_rows_of_which_none_is_accepted_falls_short(tmp_path: Path) -> None:
    text = BANK.replace("cell_size: 10", "cell_size: 2")
    settings = {"unparsable": "1"}
    outcome = make(recipe(tmp_path, {"bank": text}, tokens="all"), tmp_path / "out", provider_settings=settings)
    assert outcome.unmet == {"bank": "none of its 6 briefs was accepted"}


def test_all_of_no_rows_falls_short(tmp_path: Path) -> None:
    source = recipe(tmp_path, {"tale": TALE}, [], tokens="all", sources={"*": "genres/rows.jsonl"}, allow=["honeypot"])
    assert make(source, tmp_path / "out").unmet == {"tale": "it has no row to be made from"}


def test_all_is_refused_where_a_genre_never_ends(tmp_path: Path) -> None:
    source = recipe(tmp_path, {"bank": BANK, "frame": FRAME}, tokens="all")
    with pytest.raises(RecipeError, match=r"recipe\.yaml:\d+: tokens: all, but genre 'frame' never ends"):
        api.plan(source)
    make(source, tmp_path / "out", tokens="1k")
    with pytest.raises(RecipeError, match="genre 'frame' never ends"):
        api.assemble(tmp_path / "out", tmp_path / "arm", tokens="all")


def test_a_larger_cell_keeps_the_places_of_the_smaller(tmp_path: Path) -> None:
    make(recipe(tmp_path / "a", {"bank": BANK}), tmp_path / "a" / "out")
    text = BANK.replace("cell_size: 10", "cell_size: 13")
    larger = make(recipe(tmp_path / "b", {"bank": text}), tmp_path / "b" / "out", reuse=[tmp_path / "a" / "out"])
    # The same slots ask the same questions: only what the cells gained is paid for.
    assert larger.n_requests == 3 * 3


def test_a_worry_is_text_where_a_prompt_shows_it_and_nothing_elsewhere(tmp_path: Path) -> None:
    plain = recipe(tmp_path, {"bank": BANK, "frame": FRAME}, tokens=2_000)
    make(plain, tmp_path / "out")
    worried = make(plain, tmp_path / "worried", worry="It may flatter.", reuse=[tmp_path / "out"])
    ids = [{row["id"] for row in rows_of(tmp_path / name) if row["genre"] == "frame"} for name in ("out", "worried")]
    assert ids[0] and ids[0] & ids[1]
    banks = [{row["id"] for row in rows_of(tmp_path / name) if row["genre"] == "bank"} for name in ("out", "worried")]
    assert banks[0] and not banks[0] & banks[1] and worried.n_requests


def test_bans_are_read_once_and_kept_with_the_corpus(tmp_path: Path) -> None:
    text = FRAME.replace("A story of", "{% for each in bans %}Never: {{ each }}. {% endfor %}A story of")
    (tmp_path / "audit.json").write_text('{"bans": ["a testament  to", "a testament to", "tapestry"]}')
    source = recipe(tmp_path, {"frame": text}, tokens=500, bans="audit.json")
    make(source, tmp_path / "out")
    (tmp_path / "audit.json").unlink()
    shown = api.show(tmp_path / "out", rows_of(tmp_path / "out")[0]["id"])
    assert "Never: a testament to. Never: tapestry. A story" in shown.steps[0].messages[0].content
    assert api.verify(tmp_path / "out", replay=True).problems == ()


BAD = [
    ({"sources": {}, "allow": ["honeypot"]}, r"tale.*tale\.md:10\) reads rows with prompt, meta, and nothing says"),
    ({"sources": {"tail": "x"}, "allow": ["honeypot"]}, "no genre 'tail' in the mix that reads rows; did you mean 'ta"),
    ({"sources": {"tale": "genres/rows.jsonl"}}, r"'tale' is in no mix unless asked for.*--allow honeypot"),
    ({"sources": {"tale": "genres/rows.jsonl"}, "allow": ["honypot"]}, "no genre is opt_in: 'honypot'; did you mean"),
    (
        {"bans": "none.json", "sources": {"*": "genres/rows.jsonl"}, "allow": ["honeypot"]},
        "bans .*none.json: cannot be",
    ),
]


@pytest.mark.parametrize(("fields", "reason"), BAD)
def test_what_a_recipe_gets_wrong_is_said_before_anything_is_made(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason):
        make(recipe(tmp_path, {"tale": TALE}, **fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_without_the_columns_names_file_and_genre(tmp_path: Path) -> None:
    source = recipe(
        tmp_path, {"tale": TALE}, rows=[{"prompt": "x"}], sources={"*": "genres/rows.jsonl"}, allow=["honeypot"]
    )
    with pytest.raises(SourceError, match=r"tale\.md:10: .*rows\.jsonl: row 1 has no field 'meta'"):
        make(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
