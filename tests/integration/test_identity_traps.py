"""The five traps that corpora of this kind fall into, each as a run that would show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import LETTER, NOTE, documents, make, plain, shard_hashes, write_recipe

from sdf import api
from sdf.errors import RecipeChanged
from sdf.ledger import read_ledger
from sdf.storage import RunDir

GENRES = {"note": NOTE, "letter": LETTER}
TOKENS = 2_000


def keys(out: Path) -> set[str]:
    return {key for key, _ in read_ledger(RunDir(out)).keys}


def ids(out: Path) -> dict[str, list[str]]:
    return {name: [row["id"] for row in rows] for name, rows in documents(out).items()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A recipe, and the corpus it made."""
    folder = tmp_path_factory.mktemp("first")
    recipe = write_recipe(folder, GENRES, tokens=TOKENS)
    assert make(recipe, folder / "out").finished
    return recipe, folder / "out"


def edited(folder: Path, old: str, new: str, **fields: Any) -> str:
    assert old in NOTE
    return write_recipe(folder, {**GENRES, "note": NOTE.replace(old, new)}, tokens=TOKENS, **fields)


def test_a_new_shard_size_renames_no_document(first: tuple[str, Path], tmp_path: Path) -> None:
    recipe, out = first
    made = make(recipe, tmp_path / "made", shard_tokens=300)
    api.assemble(out, tmp_path / "cut", shard_tokens=300)
    assert made.manifest is not None and len(made.manifest.shards) > 4
    for other in (tmp_path / "made", tmp_path / "cut"):
        assert {k: plain(v) for k, v in documents(other).items()} == {k: plain(v) for k, v in documents(out).items()}
    assert shard_hashes(tmp_path / "made") == shard_hashes(tmp_path / "cut")


def test_an_edited_prompt_keeps_no_stale_text(first: tuple[str, Path], tmp_path: Path) -> None:
    _, out = first
    recipe = edited(tmp_path, "some\n{{ brief.n_words }} words", "roughly\n{{ brief.n_words }} words")
    with pytest.raises(RecipeChanged, match=r"genre note.*decides text"):
        make(recipe, out)
    make(recipe, tmp_path / "fresh")
    make(recipe, tmp_path / "reused", reuse=[out])
    assert shard_hashes(tmp_path / "reused") == shard_hashes(tmp_path / "fresh")
    before, after = documents(out)["documents/train"], documents(tmp_path / "reused")["documents/train"]
    old = {row["id"]: row["text"] for row in before if row["genre"] == "note"}
    new = {row["id"]: row["text"] for row in after if row["genre"] == "note"}
    assert new and not set(old) & set(new) and not set(old.values()) & set(new.values())
    # The other genre's prompts are as they were, and so are its documents.
    letters = [row["id"] for row in before if row["genre"] == "letter"]
    assert [row["id"] for row in after if row["genre"] == "letter"][: len(letters)] == letters[: len(letters)]


@pytest.mark.parametrize("fields", [{"in_flight": 1}, {"in_flight": 5, "workers": 3}, {"in_flight": 500}])
def test_another_batch_size_skips_no_document(first: tuple[str, Path], tmp_path: Path, fields: dict[str, int]) -> None:
    recipe, out = first
    make(recipe, tmp_path / "out", **fields)
    assert shard_hashes(tmp_path / "out") == shard_hashes(out)


def test_a_resume_with_another_batch_size_skips_no_document(first: tuple[str, Path], tmp_path: Path) -> None:
    recipe, out = first
    make(recipe, tmp_path / "out", tokens=TOKENS // 4, in_flight=3)
    make(recipe, tmp_path / "out", tokens=TOKENS // 2, in_flight=1)
    half = ids(tmp_path / "out")
    resumed = make(recipe, tmp_path / "out", tokens=TOKENS, in_flight=200, workers=2)
    assert {name: whole[: len(half[name])] for name, whole in ids(tmp_path / "out").items()} == half
    assert shard_hashes(tmp_path / "out") == shard_hashes(out)
    view = read_ledger(RunDir(tmp_path / "out"))
    assert view.n_answers == len(view.keys) and resumed.n_requests < view.n_answers


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("emit: {text: polish}", "checks: {min_score: {verdict: 5}}\nemit: {text: polish}"),
        ("emit: {text: polish}", "checks: {off: [too_long, repetition]}\nemit: {text: polish}"),
        ("emit: {text: polish}", "emit: {text: draft}"),
        ("dedup: body", "dedup: scenario"),
    ],
    ids=["a stricter score", "fewer checks", "another step emitted", "another dedup"],
)
def test_a_stricter_check_pays_for_nothing_again(first: tuple[str, Path], tmp_path: Path, old: str, new: str) -> None:
    """It may need further briefs, which are paid for once; what was answered is found by its request key."""
    _, out = first
    paid = keys(out)
    made = make(edited(tmp_path, old, new), tmp_path / "out", reuse=[out])
    assert made.finished and made.n_requests == len(keys(tmp_path / "out") - paid)
    again = make(edited(tmp_path, old, new), tmp_path / "again")
    assert again.n_requests == len(keys(tmp_path / "again")) and again.n_requests > made.n_requests
    assert shard_hashes(tmp_path / "again") == shard_hashes(tmp_path / "out")


def test_reassembling_with_other_checks_asks_nothing(first: tuple[str, Path], tmp_path: Path) -> None:
    _, out = first
    before = keys(out)
    outcome = api.assemble(out, tmp_path / "cut", checks_off=("too_short", "too_long"), dedup_threshold=0.5)
    assert outcome.n_requests == 0 and keys(out) == before
    assert not RunDir(tmp_path / "cut").files("ledger")


def test_an_edited_last_step_changes_no_earlier_request(first: tuple[str, Path], tmp_path: Path) -> None:
    _, out = first
    paid = keys(out)
    recipe = edited(tmp_path, "Give 1 to 5", "Judge, and give 1 to 5")
    made = make(recipe, tmp_path / "out", reuse=[out])
    run_dir = RunDir(tmp_path / "out")
    n_notes = sum(each.genre == "note" for each in read_ledger(run_dir).receipts)
    new = keys(tmp_path / "out") - paid
    # One verdict for each note, and nothing else but what lies beyond the first corpus.
    assert n_notes <= made.n_requests == len(new)
    first_notes = {each.index for each in read_ledger(RunDir(out)).receipts if each.genre == "note"}
    second_notes = {each.index for each in read_ledger(run_dir).receipts if each.genre == "note"}
    assert first_notes == second_notes and made.n_requests == n_notes
