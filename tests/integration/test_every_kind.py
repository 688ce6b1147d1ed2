"""A recipe with genres of every kind, form, context and return runs end to end and fills all four configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import GENRES, ROWS, documents, make, shard_hashes, write_recipe

from sdf import api, tokens
from sdf.ledger import read_ledger
from sdf.manifest import text_of
from sdf.storage import RunDir
from sdf.story import Outcome


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Outcome]:
    folder = tmp_path_factory.mktemp("all")
    recipe = write_recipe(folder, tokens=8_000, dedup_threshold=0.9)
    return recipe, folder / "out", make(recipe, folder / "out")


def rows(out: Path, genre: str) -> list[dict[str, Any]]:
    return [row for found in documents(out).values() for row in found if row["genre"] == genre]


def test_all_four_configs_are_filled_and_verified(made: tuple[str, Path, Outcome]) -> None:
    _, out, outcome = made
    assert set(documents(out)) == {"documents/train", "chats/train", "prompts/train", "items/train"}
    assert {row["genre"] for found in documents(out).values() for row in found} == set(GENRES)
    verified = api.verify(out, replay=True)
    assert verified.problems == () and verified.n_tokens >= 8_000
    assert outcome.finished and outcome.unmet == {"question": "source exhausted"}
    assert "failed" not in {each.reason for each in read_ledger(RunDir(out)).receipts}


def test_tokens_are_a_recount_and_ids_are_distinct(made: tuple[str, Path, Outcome]) -> None:
    count = tokens.load("o200k_base").count
    ids: list[str] = []
    for name, found in documents(made[1]).items():
        config = name.partition("/")[0]
        assert [row["n_tokens"] for row in found] == count([text_of(config, row) for row in found])
        ids += [row["id"] for row in found]
    assert len(set(ids)) == len(ids)


def test_chats_hold_their_turns_and_tools_and_never_what_was_injected(made: tuple[str, Path, Outcome]) -> None:
    for row in rows(made[1], "help"):
        assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
        assert isinstance(json.loads(row["tools"]), dict)
    for row in rows(made[1], "talk"):
        assert row["messages"] and row["tools"] is None
    assert "SECRET-ORDERS" not in str(documents(made[1]))


def test_a_source_gives_each_row_one_prompt(made: tuple[str, Path, Outcome]) -> None:
    found = rows(made[1], "question")
    assert len(found) == len(ROWS)
    assert all(row["messages"][-1]["role"] == "user" for row in found)


def test_items_are_json_with_what_the_genre_emits(made: tuple[str, Path, Outcome]) -> None:
    for row in rows(made[1], "quiz"):
        item = json.loads(row["item"])
        assert set(item) == {"question", "rubric", "level"} and isinstance(item["level"], int)


def test_twins_are_kept_together(made: tuple[str, Path, Outcome]) -> None:
    voices = [json.loads(row["axes"])["voice"] for row in rows(made[1], "letter")]
    assert voices == ["you", "the assistant"] * (len(voices) // 2) and voices


def test_a_growing_target_goes_on_to_the_same_corpus(made: tuple[str, Path, Outcome], tmp_path: Path) -> None:
    recipe, out, _ = made
    for target in (1, 2_500, 6_000, 8_000):
        make(recipe, tmp_path / "out", tokens=target, workers=2, in_flight=8)
    assert shard_hashes(tmp_path / "out") == shard_hashes(out)
    assert api.verify(tmp_path / "out", replay=True).problems == ()


def test_faults_on_the_way_leave_the_same_corpus(made: tuple[str, Path, Outcome], tmp_path: Path) -> None:
    recipe, out, _ = made
    make(recipe, tmp_path / "out", provider_settings={"rate_limit_every": "7", "latency": "0.001"})
    assert shard_hashes(tmp_path / "out") == shard_hashes(out)


def test_an_identical_run_asks_nothing(made: tuple[str, Path, Outcome]) -> None:
    recipe, out, _ = made
    before = shard_hashes(out)
    again = make(recipe, out)
    assert again.n_requests == 0 and again.finished and shard_hashes(out) == before
