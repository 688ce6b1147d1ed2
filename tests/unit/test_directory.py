"""A corpus directory meets a job: new, the same, or made by another recipe, which is then told field by field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import GENRES, make_job

from sdf.directory import differences, job_of, occupy
from sdf.errors import DamagedError, RecipeChanged, StorageError
from sdf.job import Job
from sdf.stages import kept
from sdf.storage import RunDir


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"))


def price() -> str:
    return "2 of 9 requests would be paid again"


def changed(job: Job, **fields: object) -> Job:
    return replace(job, recipe=job.recipe.changed(fields))


def with_work(run_dir: RunDir) -> RunDir:
    run_dir.write("ledger/000001/w0000-000-000000.answers.parquet", b"answers")
    return run_dir


@pytest.mark.parametrize("path", ["ledger/000001/log-000000.parquet", "batches/a.json", "manifests/000001.json"])
def test_a_directory_without_work_is_anybody_s(tmp_path: Path, job: Job, path: str) -> None:
    """What a wrong --model left: a lease and grants. One answer, batch or manifest more, and it is that recipe's."""
    run_dir, other = RunDir(tmp_path), changed(job, model="another")
    occupy(run_dir, job, price)
    run_dir.write("ledger/000001/EPOCH", b"{}")
    run_dir.write("ledger/000001/grants.json", b"{}")
    occupy(run_dir, other, price)
    assert job_of(run_dir) == other
    run_dir.write(path, b"work")
    with pytest.raises(RecipeChanged):
        occupy(run_dir, job, price)


def test_an_empty_directory_is_taken_and_remembers_the_job(tmp_path: Path, job: Job) -> None:
    occupy(RunDir(tmp_path), job, price)
    assert job_of(RunDir(tmp_path)) == job
    occupy(RunDir(tmp_path), job, price)


def test_another_target_or_cluster_is_the_same_corpus_and_the_latest_is_remembered(tmp_path: Path, job: Job) -> None:
    run_dir, larger = RunDir(tmp_path), changed(job, tokens=10**9, workers=8, in_flight=2)
    occupy(run_dir, job, price)
    assert differences(job, larger) == []
    occupy(run_dir, larger, price)
    assert job_of(run_dir).recipe.tokens == 10**9


def test_a_recipe_that_decides_other_text_is_told_with_what_it_would_pay(tmp_path: Path, job: Job) -> None:
    run_dir = with_work(RunDir(tmp_path))
    occupy(run_dir, job, price)
    before = run_dir.read(RunDir.recipe)
    with pytest.raises(RecipeChanged) as error:
        occupy(run_dir, changed(job, seed=3, shard_tokens=5), price)
    text = str(error.value)
    assert "seed: 0 -> 3   (decides text)" in text
    assert "shard_tokens: 2000000 -> 5   (does not decide text)" in text
    assert f"--reuse {run_dir.root}: 2 of 9 requests would be paid again." in text
    assert run_dir.read(RunDir.recipe) == before


def test_a_recipe_that_folds_otherwise_is_sent_to_assemble_for_free(tmp_path: Path, job: Job) -> None:
    occupy(with_work(RunDir(tmp_path)), job, price)

    def unasked() -> str:
        raise AssertionError("no text differs")

    with pytest.raises(RecipeChanged, match=r"holdout: 0\.0 -> 0\.5 .*\n.*sdf assemble .* is free"):
        occupy(RunDir(tmp_path), changed(job, holdout=0.5), unasked)


def test_changed_files_are_differences_too(tmp_path: Path, job: Job) -> None:
    text = GENRES["note"].replace("Write it anew", "Write it again")
    checks = GENRES["talk"].replace("dedup: user", "dedup: body")
    other = make_job(tmp_path, {**GENRES, "note": text, "talk": checks}, rows=[{"topic": "x", "level": 1}])
    assert [(each.field, each.decides) for each in differences(job, other)] == [
        ("genre note", "text"),
        ("checks and packaging of talk", "corpus"),
        ("source of question", "text"),
    ]


def test_a_genre_that_only_one_has_is_shown_as_absent(job: Job) -> None:
    fewer = replace(changed(job, mix={"note": 1.0}), genres=job.genres[:1])
    lost = {each.field: each.now for each in differences(job, fewer)}
    gained = {each.field: each.before for each in differences(fewer, job)}
    assert lost["genre talk"] == gained["genre talk"] == "absent" and "mix" in lost


def test_a_directory_without_a_corpus_or_with_an_unknown_one_is_refused(tmp_path: Path, job: Job) -> None:
    with pytest.raises(StorageError, match="no corpus here"):
        job_of(RunDir(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kept.parquet").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"holds data but no recipe\.json"):
        occupy(RunDir(tmp_path), job, price)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_damaged_recipe_is_named_and_not_overwritten(tmp_path: Path, job: Job) -> None:
    for data in (b"{", b"[" * 100_000):
        (tmp_path / "recipe.json").write_bytes(data)
        with pytest.raises(DamagedError, match=r"recipe\.json: not a recipe as sdf writes it"):
            occupy(RunDir(tmp_path), job, price)
        assert (tmp_path / "recipe.json").read_bytes() == data


def test_a_damaged_list_of_stages_is_named(tmp_path: Path) -> None:
    for data in (b"{", b"[" * 100_000, b'{"stages": 7}'):
        (tmp_path / "stages.json").write_bytes(data)
        with pytest.raises(DamagedError, match=r"stages\.json: not a list of stages"):
            kept(RunDir(tmp_path))
