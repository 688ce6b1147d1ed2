"""What an assembly leaves out: genres, principles, models; and what another corpus accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import LETTER, NOTE, documents, make, plain, write_recipe

from sdf import api
from sdf.errors import StorageError, UsageError
from sdf.reuse.matching import Exclusions, exclusions
from sdf.storage import RunDir

GENRES = {"note": NOTE, "letter": LETTER}


def test_exclusions_are_read_from_one_or_several_texts() -> None:
    found = exclusions(["genre=a, principle=b", "model=c/d=e", "genre=f", ""])
    assert found == Exclusions(frozenset({"a", "f"}), frozenset({"b"}), frozenset({"c/d=e"}))
    assert exclusions([]) == Exclusions(frozenset(), frozenset(), frozenset())


@pytest.mark.parametrize("text", ["genre", "genre=", "=a", "gnere=a", "a,b"])
def test_a_text_that_excludes_nothing_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"--exclude .*write genre=NAME, principle=ID or model=NAME"):
        exclusions([text])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("corpus")
    recipe = write_recipe(folder, GENRES, tokens=2_500)
    make(recipe, folder / "out")
    return recipe, folder / "out"


def rows(out: Path) -> list[dict[str, Any]]:
    return documents(out).get("documents/train", [])


def places(out: Path) -> list[tuple[str, ...]]:
    return [(row["genre"], row["principle"], row["axes"]) for row in rows(out)]


def test_an_excluded_genre_leaves_the_mix(corpus: tuple[str, Path], tmp_path: Path) -> None:
    api.assemble(corpus[1], tmp_path / "cut", exclude=["genre=note"], tokens=800)
    assert {row["genre"] for row in rows(tmp_path / "cut")} == {"letter"}


def test_an_excluded_principle_leaves_the_documents_in_the_same_order(corpus: tuple[str, Path], tmp_path: Path) -> None:
    api.assemble(corpus[1], tmp_path / "cut", exclude=["principle=saying-what-is-so"], tokens=1_000)
    cut = rows(tmp_path / "cut")
    assert cut and "saying-what-is-so" not in {row["principle"] for row in cut}
    for genre in GENRES:
        own = [row["id"] for row in cut if row["genre"] == genre]
        whole = [
            row["id"] for row in rows(corpus[1]) if row["genre"] == genre and row["principle"] != "saying-what-is-so"
        ]
        assert own[: len(whole)] == whole[: len(own)]


def test_an_axis_is_read_to_its_end_commas_and_all() -> None:
    assert exclusions(["axis.tone=dry, warm", "genre=a"]).axes == {("tone", "dry, warm")}


def test_of_twins_on_an_excluded_axis_the_others_stay(corpus: tuple[str, Path], tmp_path: Path) -> None:
    api.assemble(corpus[1], tmp_path / "cut", exclude=["axis.voice=you", "genre=note"], tokens=400)
    voices = {json.loads(row["axes"])["voice"] for row in rows(tmp_path / "cut")}
    assert voices == {"the assistant"}


def test_excluding_the_only_model_leaves_nothing(corpus: tuple[str, Path], tmp_path: Path) -> None:
    outcome = api.assemble(corpus[1], tmp_path / "cut", exclude=["model=offline-grammar"])
    assert rows(tmp_path / "cut") == [] and not outcome.finished


@pytest.mark.parametrize("text", ["genre=nte", "principle=saying-what-is", "model=offline-gramar", "axis.voice=yu"])
def test_an_exclusion_of_what_is_not_there_names_the_nearest(
    corpus: tuple[str, Path], tmp_path: Path, text: str
) -> None:
    with pytest.raises(UsageError, match=f"--exclude {text}: no such .*did you mean"):
        api.assemble(corpus[1], tmp_path / "cut", exclude=[text])


def test_a_matched_arm_holds_the_places_of_another_corpus_whatever_its_prompts_say(
    corpus: tuple[str, Path], tmp_path: Path
) -> None:
    """The other arm was made under edited prompts, and is smaller: places are compared, not ids."""
    text = NOTE.replace("Write it anew", "Write it again")
    other = write_recipe(tmp_path, {**GENRES, "note": text}, tokens=1_200)
    make(other, tmp_path / "arm")
    api.assemble(corpus[1], tmp_path / "cut", match=tmp_path / "arm")
    assert sorted(places(tmp_path / "cut")) == sorted(places(tmp_path / "arm"))
    assert {row["id"] for row in rows(tmp_path / "cut")} <= {row["id"] for row in rows(corpus[1])}


def test_matching_itself_changes_nothing(corpus: tuple[str, Path], tmp_path: Path) -> None:
    api.assemble(corpus[1], tmp_path / "cut", match=corpus[1])
    assert plain(rows(tmp_path / "cut")) == plain(rows(corpus[1]))


def test_a_directory_without_a_corpus_cannot_be_matched(corpus: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no committed corpus to match"):
        api.assemble(corpus[1], tmp_path / "cut", match=tmp_path / "empty")


def test_an_assembled_corpus_can_be_matched_although_it_has_no_ledger(corpus: tuple[str, Path], tmp_path: Path) -> None:
    api.assemble(corpus[1], tmp_path / "assembled", tokens=1_000)
    assert RunDir(tmp_path / "assembled").files("ledger") == []
    api.assemble(corpus[1], tmp_path / "cut", match=tmp_path / "assembled")
    assert plain(rows(tmp_path / "cut")) == plain(rows(tmp_path / "assembled"))
