"""A corpus that holds no piece of an evaluation set, says so, and changes its mind for free."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import NOTE, documents, make, shard_hashes, write_recipe

from sdf import api
from sdf.errors import RecipeChanged, SourceError
from sdf.shards import read_manifest
from sdf.storage import RunDir


def card(out: Path) -> str:
    return (out / "README.md").read_text()


@pytest.fixture
def plain(tmp_path: Path) -> tuple[str, Path]:
    recipe = write_recipe(tmp_path, {"note": NOTE}, tokens=1_500)
    make(recipe, tmp_path / "plain")
    return recipe, tmp_path


def test_what_overlaps_is_dropped_and_the_card_says_so(plain: tuple[str, Path]) -> None:
    recipe, folder = plain
    texts = [row["text"] for row in documents(folder / "plain")["documents/train"]]
    (folder / "quiz.txt").write_text("\n\n".join(" ".join(text.split()[3:20]) for text in texts[:3]))
    outcome = make(recipe, folder / "clean", decontaminate=[str(folder / "quiz.txt")])
    assert outcome.finished
    assert not {row["text"] for row in documents(folder / "clean")["documents/train"]} & set(texts[:3])
    manifest = read_manifest(RunDir(folder / "clean"))
    assert manifest is not None and manifest.rejected["contaminated: quiz"] == 3
    assert re.search(r"\| quiz \| 3 \| 1\d \| 0 \| 3 \| 0 \|", card(folder / "clean"))
    assert api.verify(folder / "clean", replay=True).problems == ()


def test_assembling_with_a_set_is_free_and_equals_a_run_with_it(plain: tuple[str, Path]) -> None:
    recipe, folder = plain
    text = documents(folder / "plain")["documents/train"][0]["text"]
    (folder / "quiz.txt").write_text(text)
    make(recipe, folder / "clean", decontaminate=[str(folder / "quiz.txt")])
    outcome = api.assemble(folder / "clean", folder / "back", decontaminate=[])
    assert shard_hashes(folder / "back") == shard_hashes(folder / "plain") and outcome.n_requests == 0
    api.assemble(folder / "clean", folder / "again")
    assert shard_hashes(folder / "again") == shard_hashes(folder / "clean")


def test_nothing_found_is_said_plainly(plain: tuple[str, Path]) -> None:
    recipe, folder = plain
    (folder / "quiz.jsonl").write_text(
        '{"question": "Which of these nine words were never put together like this before?"}\n'
    )
    make(recipe, folder / "clean", decontaminate=[str(folder / "quiz.jsonl")])
    assert "0 overlap: no draft matched any of them." in card(folder / "clean")
    assert shard_hashes(folder / "clean") == shard_hashes(folder / "plain")


def test_a_matched_arm_takes_no_contaminated_document(plain: tuple[str, Path]) -> None:
    _, folder = plain
    rows = documents(folder / "plain")["documents/train"]
    (folder / "quiz.txt").write_text(rows[0]["text"])
    api.assemble(folder / "plain", folder / "arm", match=folder / "plain", decontaminate=[str(folder / "quiz.txt")])
    assert [row["id"] for row in documents(folder / "arm")["documents/train"]] == [row["id"] for row in rows[1:]]


def test_another_set_in_the_same_directory_is_refused_and_a_bad_one_costs_nothing(plain: tuple[str, Path]) -> None:
    recipe, folder = plain
    (folder / "quiz.txt").write_text("One line of nine words that stands in no text.")
    with pytest.raises(RecipeChanged, match="decontaminate: absent -> quiz"):
        make(recipe, folder / "plain", decontaminate=[str(folder / "quiz.txt")])
    (folder / "bad.jsonl").write_text('{"q": "fine"}\n{"q"\n')
    with pytest.raises(SourceError, match=r"bad\.jsonl:2: not JSON"):
        make(recipe, folder / "new", decontaminate=[str(folder / "bad.jsonl")])
    assert not (folder / "new").exists()
