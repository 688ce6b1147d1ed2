"""A preview asks for the first briefs of one genre, ends, and leaves what it paid for to the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import GENRES, ROWS, make, shard_hashes, write_recipe

from sdf import api
from sdf.job import compile_job
from sdf.ledger import read_ledger
from sdf.plan import Plan
from sdf.recipe import load
from sdf.storage import RunDir


@pytest.mark.parametrize(("genre", "n"), [("letter", 3), ("note", 2), ("question", len(ROWS) + 5)])
def test_it_ends_in_the_midst_of_twins_and_at_the_end_of_a_source(tmp_path: Path, genre: str, n: int) -> None:
    recipe = write_recipe(tmp_path, {genre: GENRES[genre]})
    traces = api.preview(recipe, genre, n)
    plan = Plan(compile_job(load(recipe, {})))
    assert [trace.id for trace in traces] == [plan.brief(genre, index).id for index in range(min(n, 12))]


def test_the_run_pays_for_nothing_that_was_previewed(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {key: GENRES[key] for key in ("note", "letter")}, tokens=800)
    fresh = make(recipe, tmp_path / "fresh")
    api.preview(recipe, "letter", 3, out=tmp_path / "out")
    # The ledger now holds briefs of a genre that is not previewed here.
    api.preview(recipe, "note", 2, out=tmp_path / "out")
    made = make(recipe, tmp_path / "out")
    view = read_ledger(RunDir(tmp_path / "out"))
    assert shard_hashes(tmp_path / "out") == shard_hashes(tmp_path / "fresh")
    assert view.n_answers == len(view.keys) and made.n_requests < fresh.n_requests


def test_a_preview_commits_nothing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {key: GENRES[key] for key in ("note", "letter")}, tokens=800)
    api.preview(recipe, "note", 20, out=tmp_path / "out", shard_tokens=100)
    run_dir = RunDir(tmp_path / "out")
    assert not run_dir.files("manifests") and not run_dir.files("data")
