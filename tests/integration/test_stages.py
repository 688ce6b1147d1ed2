"""A recipe in stages: each a corpus of its own, made in order, extended together, and read by those that come later."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from staging import STAGES, recipe
from support import documents, shard_hashes
from typer.testing import CliRunner

from sdf import api
from sdf.cli import app
from sdf.errors import RecipeChanged, RecipeError, SourceError, StorageError, UsageError
from sdf.ledger import LedgerWriter
from sdf.providers.batch_log import BatchLog
from sdf.records import Answer, AnswerEntry, Usage
from sdf.shards import read_manifest
from sdf.storage import RunDir


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for found in documents(out).values() for row in found]


def hashes(out: Path) -> dict[str, list[tuple[str, str]]]:
    listed = json.loads((out / "stages.json").read_text())["stages"]
    return {each["directory"]: shard_hashes(out / each["directory"]) for each in listed}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("staged")
    source = recipe(folder)
    outcome = api.run(source, folder / "out")
    assert outcome.finished and outcome.unmet == {} and list(outcome.stages) == list(STAGES)
    return source, folder / "out"


def test_each_stage_is_a_corpus_with_its_share_in_the_order_of_training(made: tuple[str, Path]) -> None:
    _, out = made
    listed = json.loads((out / "stages.json").read_text())["stages"]
    assert [(each["name"], each["directory"], each["target_tokens"]) for each in listed] == [
        ("documents", "1-documents", 3_600),
        ("chat", "2-chat", 1_800),
        ("talk", "3-talk", 600),
    ]
    for each in listed:
        manifest = read_manifest(RunDir(out / each["directory"]))
        assert manifest is not None and manifest.state == "complete"
        assert each["target_tokens"] <= manifest.n_tokens < each["target_tokens"] + 400


def test_a_later_stage_is_made_of_an_earlier_one_row_by_row(made: tuple[str, Path]) -> None:
    _, out = made
    ids = [row["id"] for row in rows(out / "1-documents")]
    read = [row["messages"][0]["content"] for row in rows(out / "2-chat")]
    assert read and set(read) <= set(ids) and read == ids[: len(read)]


def test_what_is_held_out_of_one_stage_comes_back_in_no_other(tmp_path: Path) -> None:
    api.run(recipe(tmp_path, holdout=0.5, seed=3), tmp_path / "out")
    split = documents(tmp_path / "out" / "1-documents")
    held_out = {row["id"] for row in split["documents/validation"]}
    read = {row["messages"][0]["content"] for row in rows(tmp_path / "out" / "2-chat")}
    assert held_out and read and not read & held_out


def test_the_same_command_again_asks_nothing(made: tuple[str, Path]) -> None:
    source, out = made
    before = hashes(out)
    epochs = sorted(path.name for path in (out / "1-documents" / "ledger").iterdir())
    again = api.run(source, out)
    # What is whole is not even opened.
    assert sorted(path.name for path in (out / "1-documents" / "ledger").iterdir()) == epochs
    assert again.finished and again.n_requests == 0 and list(again.stages) == list(STAGES) and hashes(out) == before


def test_all_stages_grow_together_and_equal_a_fresh_run(made: tuple[str, Path], tmp_path: Path) -> None:
    source, _ = made
    api.run(source, tmp_path / "grown", tokens=2_000)
    small = {name: rows(tmp_path / "grown" / name) for name in ("1-documents", "2-chat", "3-talk")}
    assert api.verify(tmp_path / "grown", replay=True).problems == ()
    api.run(source, tmp_path / "grown", tokens=6_000)
    api.run(source, tmp_path / "fresh", tokens=6_000)
    assert hashes(tmp_path / "grown") == hashes(tmp_path / "fresh") == hashes(made[1])
    for name, found in small.items():
        assert rows(tmp_path / "grown" / name)[: len(found)] == found
    assert api.verify(tmp_path / "grown", replay=True).problems == ()


def test_a_run_that_was_stopped_goes_on_with_the_stage_that_is_not_complete(
    made: tuple[str, Path], tmp_path: Path
) -> None:
    source, whole = made
    stop = api.Stop()

    def watch(progress: Any) -> None:
        if list(progress.genres) == ["back"] and progress.n_tokens > 300:
            stop.request()

    stopped = api.run(source, tmp_path / "out", stop=stop, on_progress=watch, in_flight=1)
    assert not stopped.finished and list(stopped.stages) == ["documents", "chat"]
    found = api.status(tmp_path / "out")
    assert found.state == "growing" and [each.state for each in found.stages] == ["complete", "growing"]
    first = shard_hashes(tmp_path / "out" / "1-documents")
    outcome = api.run(source, tmp_path / "out")
    assert outcome.finished and outcome.stages["documents"].n_requests == 0
    assert shard_hashes(tmp_path / "out" / "1-documents") == first and hashes(tmp_path / "out") == hashes(whole)


def test_what_looks_at_a_directory_looks_at_each_stage(made: tuple[str, Path]) -> None:
    source, out = made
    status, inspection, verified = api.status(out), api.inspect(out), api.verify(out, replay=True)
    assert (status.state, len(status.stages)) == ("complete", 3)
    assert (
        status.n_tokens
        == sum(each.n_tokens for each in status.stages)
        == verified.n_tokens
        == inspection.total.n_tokens
    )
    assert verified.problems == ()
    some = rows(out / "2-chat")[0]["id"]
    assert api.show(out, some).genre == "back"
    assert api.gc(out) == []
    plan = api.plan(source)
    assert [each.n_tokens for each in plan.stages] == [3_600, 1_800, 600] and plan.n_tokens == 6_000
    (back,) = plan.stages[1].genres
    assert back.n_rows is not None and 0 < back.n_rows == plan.stages[0].n_documents


def test_the_command_line_prints_each_stage_and_ends_as_for_one_corpus(tmp_path: Path) -> None:
    # A chat for each of few documents cannot reach its share.
    short = {"documents": {"share": 1, "mix": {"note": 1}}, "chat": {**STAGES["chat"], "share": 9}}
    source, out = recipe(tmp_path, short, tokens=3_000), str(tmp_path / "out")
    run = CliRunner().invoke(app, ["run", source, "--out", out])
    assert run.exit_code == 3 and "chat: back fell short: source exhausted" in run.stdout
    assert f"{out}: documents: " in run.stdout and f"{out}: chat: " in run.stdout
    for command, words in (
        ("status", "2 stages, 2 of them begun"),
        ("inspect", "in stages"),
        ("verify", "all as written"),
    ):
        found = CliRunner().invoke(app, [command, out])
        assert found.exit_code == 0 and words in found.stdout
    plan = CliRunner().invoke(app, ["plan", source])
    assert plan.exit_code == 0 and "recipe-documents" in plan.stdout and "recipe-chat" in plan.stdout
    data = json.loads(CliRunner().invoke(app, ["status", out, "--json"]).stdout)
    assert [each["recipe"] for each in data["stages"]] == ["recipe-documents", "recipe-chat"]


def test_stages_are_folded_anew_each_in_its_place(made: tuple[str, Path], tmp_path: Path) -> None:
    outcome = api.assemble(made[1], tmp_path / "out", ablate=("better",), tokens=3_000)
    assert outcome.n_requests == 0
    assert {each["directory"] for each in json.loads((tmp_path / "out" / "stages.json").read_text())["stages"]} == {
        "1-documents",
        "2-chat",
        "3-talk",
    }
    full = {row["id"]: row["messages"] for row in rows(made[1] / "2-chat")}
    arm = {row["id"]: row["messages"] for row in rows(tmp_path / "out" / "2-chat")}
    assert arm and all(arm[id][:2] == full[id][:2] and arm[id][2] != full[id][2] for id in arm.keys() & full.keys())
    api.assemble(made[1], tmp_path / "matched", match=tmp_path / "out")
    assert Counter(row["id"] for row in rows(tmp_path / "matched" / "1-documents")) == Counter(
        row["id"] for row in rows(tmp_path / "out" / "1-documents")
    )


def test_cells_may_come_from_a_bank_that_an_earlier_stage_made(tmp_path: Path) -> None:
    stages = {"bank": {"share": 1, "mix": {"bank": 1}}, "documents": {"share": 1, "mix": {"note": 1}}}
    source = recipe(tmp_path, stages, tokens=2_000, principles="stage:bank")
    api.run(source, tmp_path / "out")
    assert {row["principle"] for row in rows(tmp_path / "out" / "2-documents")} <= {
        row["principle"] for row in rows(tmp_path / "out" / "1-bank")
    }
    only = api.run(source, tmp_path / "one", principles=("saying-what-is-so",))
    assert only.finished
    assert {row["principle"] for row in rows(tmp_path / "one" / "2-documents")} == {"saying-what-is-so"}
    assert api.verify(tmp_path / "one", replay=True).problems == ()


def staged(**changes: Any) -> dict[str, Any]:
    return {name: {**entry, **changes.get(name, {})} for name, entry in STAGES.items()}


BAD = [
    (
        staged(chat={"sources": {"back": "stage:talk"}}),
        {},
        r"recipe\.yaml:\d+: stage chat: back reads the stage 'talk', which",
    ),
    (staged(chat={"sources": {"back": "stage:document"}}), {}, "not made before it; did you mean 'documents'"),
    (
        staged(chat={"sources": {"bach": "x.jsonl"}}),
        {},
        "stage chat: no genre 'bach' in its mix that reads rows; did you",
    ),
    (
        staged(chat={"sources": {}}),
        {},
        r"stage chat: genre 'back' .*back\.md:8\) reads rows with id, text, and nothing",
    ),
    (
        staged(talk={"mix": {"tolk": 1}}),
        {},
        r"recipe\.yaml:\d+: stage talk: unknown genre 'tolk' in the mix; did you mean",
    ),
    (staged(talk={"share": 0}), {}, r"recipe\.yaml:\d+: stages\.talk\.share: .*greater than 0"),
    (staged(talk={"shares": 1}), {}, "unknown key 'stages.talk.shares'; did you mean 'share'"),
    (staged(), {"mix": {"note": 1}}, r"recipe\.yaml:\d+: the recipe has stages, and each has a mix of its own"),
    (staged(), {"ablate": ["bettr"]}, r"recipe\.yaml:\d+: ablate: no step 'bettr' .*did you mean 'better'"),
    (staged(), {"principles": "stage:bonk"}, "principles: no stage 'bonk'"),
    (
        staged(),
        {"principles": ["saying-what-is"]},
        "principles: no principle 'saying-what-is' .*did you mean 'saying-wh",
    ),
    (
        {**STAGES, "last": {**STAGES["chat"], "sources": {"back": "stage:talk"}}},
        {},
        "reads id, text of the stage talk, whose",
    ),
]


@pytest.mark.parametrize(("stages", "fields", "reason"), BAD)
def test_what_is_wrong_with_stages_is_said_before_anything_is_made(
    tmp_path: Path, stages: dict[str, Any], fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason):
        api.run(recipe(tmp_path, stages, **fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_directories_of_stages_and_of_one_corpus_are_not_mixed(made: tuple[str, Path], tmp_path: Path) -> None:
    source, out = made
    one = recipe(tmp_path, {}, mix={"note": 1}, tokens=300)
    with pytest.raises(RecipeChanged, match="was made in stages"):
        api.run(one, out)
    api.run(one, tmp_path / "one")
    with pytest.raises(RecipeChanged, match="was not made in stages"):
        api.run(source, tmp_path / "one")
    other = recipe(tmp_path, {"first": STAGES["documents"], **STAGES})
    with pytest.raises(RecipeChanged, match="was made in the stages documents, chat, talk; these are first, documents"):
        api.run(other, out)
    with pytest.raises(RecipeError, match="on the command line: the recipe has stages"):
        api.run(source, tmp_path / "x", mix="note=1")
    with pytest.raises(StorageError, match="no corpus here"):
        api.status(tmp_path / "nothing")


def test_a_stage_in_the_making_is_not_read(tmp_path: Path) -> None:
    source = recipe(tmp_path)
    stop = api.Stop()
    stop.request()
    api.run(source, tmp_path / "out", stop=stop)
    alone = recipe(tmp_path / "alone", {}, mix={"back": 1}, sources={"back": "stage:documents"})
    with pytest.raises(SourceError, match="stage:documents: this stage is not made yet"):
        api.run(alone, tmp_path / "other")


def test_what_was_billed_beside_the_stages_and_left_at_the_api_is_in_their_status(
    made: tuple[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made[1], out)
    beside = RunDir(out / "forecast" / "sampled" / "2-chat")
    beside.write(RunDir.recipe, RunDir(out / "2-chat").read(RunDir.recipe))
    # Two answers to one question: 10 tokens of the second were billed again.
    for name, run_dir in (("w1-000", beside), ("w1-000", RunDir(out / "1-documents"))):
        writer, key = LedgerWriter(run_dir, 1, name), "ab" * 16
        for _ in range(2):
            writer.append(AnswerEntry(key, "u", "draft", "p", Answer("Yes.", "stop", "m", Usage(7, 3)), 0.25))
        writer.flush()
    for number, place in enumerate((RunDir(out / "1-documents"), beside)):
        BatchLog(place, "000001-w9-000").intend([f"{number}" * 32] * 3, [0.1] * 3)
    found = api.status(out)
    assert (found.rebilled, found.rebilled_usd) == (Usage(14, 6), 0.5)
    assert found.usage["m"] == Usage(28, 12)
    assert [each.n_requests for each in found.uncollected] == [3, 3]
    head, *parts = CliRunner().invoke(app, ["status", str(out)]).stdout.split("\n\n")
    assert "3 requests not collected" in head and "3 requests not collected" in "".join(parts)


def test_batches_are_canceled_only_where_any_were_submitted(made: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_bytes((made[1] / "stages.json").read_bytes())
    for out in (made[1], tmp_path):
        with pytest.raises(UsageError, match=f"^{out}: no batch was ever submitted from here"):
            api.cancel(out)


def test_what_takes_one_corpus_names_the_stages_instead(made: tuple[str, Path]) -> None:
    for command in (["audit"], ["export", "--to", "jsonl", "--out", "elsewhere"]):
        found = CliRunner().invoke(app, [command[0], str(made[1]), *command[1:]])
        assert found.exit_code == 1 and "made in stages" in found.stderr and "stages.json" in found.stderr


def test_what_a_preview_keeps_of_a_stage_is_found_by_its_run(tmp_path: Path) -> None:
    source, out = recipe(tmp_path, tokens=2_000), tmp_path / "out"
    seen = api.preview(source, "note", 2, out=out)
    assert len(seen) == 2 and (out / "1-documents" / "recipe.json").exists()
    with pytest.raises(RecipeChanged, match="was made in stages"):
        api.preview("quickstart", "blog_post", 1, out=out)
    after, whole = api.run(source, out), api.run(source, tmp_path / "whole")
    assert after.finished and hashes(out) == hashes(tmp_path / "whole")
    assert after.stages["documents"].n_requests < whole.stages["documents"].n_requests


def test_a_preview_of_a_stage_whose_principles_are_not_made_is_beside_it(tmp_path: Path) -> None:
    stages = {
        "bank": {"share": 1, "mix": {"bank": 1}},
        "memos": {"share": 1, "mix": {"memo": 1}},
    }
    source, out = recipe(tmp_path, stages, tokens=2_000, principles="stage:bank"), tmp_path / "out"
    api.preview(source, "memo", 1, out=out)
    assert api.run(source, out).finished
