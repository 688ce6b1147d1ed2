"""Recipes: read with lines in every error, overridden field by field, compiled, remembered and told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support import GENRES, NOTE, make_job, write_recipe

from sdf.errors import DamagedError, RecipeError
from sdf.job import Job, compile_job, job_of_snapshot
from sdf.recipe import DECIDES, Recipe, load, shares, size


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5000", 5_000),
        ("300k", 300_000),
        ("1.5M", 1_500_000),
        ("2B", 2 * 10**9),
        (" 20M ", 20_000_000),
        ("1_000", 1_000),
    ],
)
def test_sizes_take_suffixes(text: str, number: int) -> None:
    assert size(text) == number and size(number) == number


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "1.5", "k", "five", "nan", "inf", "1e999", "1.0000001k", "5 M B", "20m"]
)
def test_a_size_that_is_no_positive_whole_number_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(ValueError, match="is not a positive whole number; write 20M"):
        size(text)


def test_a_typed_mix_replaces_or_changes() -> None:
    base = {"a": 4.0, "b": 2.0}
    assert shares("b=1, c=2.5", base) == {"b": 1.0, "c": 2.5}
    assert shares("+b=3,+c=1", base) == {"a": 4.0, "b": 3.0, "c": 1.0}
    assert base == {"a": 4.0, "b": 2.0}


@pytest.mark.parametrize("text", ["", " , ", "a", "a=", "a=x", "+a=1,b=2", "a=1,+b=2"])
def test_a_mix_that_is_none_says_how_to_write_one(text: str) -> None:
    with pytest.raises(RecipeError, match=r"--mix .*write"):
        shares(text, {"a": 1.0})


def test_the_file_gives_the_fields_and_overrides_win(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, {"note": NOTE}, tokens="300k", seed=7)
    recipe = load(path, {"seed": 8, "tokens": None, "workers": 5})
    assert (recipe.tokens, recipe.seed, recipe.workers, recipe.name) == (300_000, 8, 5, "recipe")
    assert recipe.constitution == str(tmp_path / "constitution.md")
    assert recipe.genres_dir == (str(tmp_path / "genres"),)


def test_a_mix_on_the_command_line_may_change_the_file_s(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, mix={"note": 4, "letter": 2})
    assert load(path, {"mix": "+letter=3"}).mix == {"note": 4.0, "letter": 3.0}
    assert list(load(path, {"mix": "letter=1,note=1"}).mix) == ["letter", "note"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": "lots"}, r"'lots' is not a positive whole number"),
        ({"mix": {"note": 0}}, r"share of 'note' is 0"),
        ({"mix": {"note": -1}}, r"share of 'note' is -1"),
        ({"mix": {}}, "mix"),
        ({"max_cost": True}, r"max_cost: is a number, and no true or false"),
        ({"temperature": True}, r"temperature: is a number"),
        ({"toknes": 5}, r"toknes.*tokens"),
        ({"checks_off": ["lnk"]}, r"unknown check 'lnk'; did you mean 'link'"),
        ({"holdout": 1}, "holdout"),
        ({"dedup_threshold": 0}, "dedup_threshold"),
        ({"workers": 0}, "workers"),
        ({"assistant": ""}, "assistant"),
    ],
)
def test_a_bad_field_is_named_with_file_and_line(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    path = write_recipe(tmp_path, {"note": NOTE}, **fields)
    with pytest.raises(RecipeError, match=message) as error:
        load(path, {})
    assert str(error.value).startswith(f"{path}:1: ")


def test_settings_are_numbers_and_truth_as_yaml_writes_them_or_text(tmp_path: Path) -> None:
    quoted = {"timeout": "30", "judge.timeout": "0.5", "allow_insecure": "true", "engine.enforce_eager": "false"}
    natural = {"timeout": 30, "judge.timeout": 0.5, "allow_insecure": True, "engine.enforce_eager": False}
    found = [load(write_recipe(tmp_path, provider_settings=each), {}) for each in (quoted, natural)]
    assert found[0].provider_settings == quoted and found[0] == found[1]
    assert compile_job(found[0]).hash == compile_job(found[1]).hash
    with pytest.raises(RecipeError, match=r"provider_settings\.timeout: .* found '\[30\]'"):
        load(write_recipe(tmp_path, provider_settings={"timeout": [30]}), {})


def test_a_bad_override_is_blamed_on_the_command_line(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, {"note": NOTE})
    with pytest.raises(RecipeError, match=r"on the command line: .*'x' is not a positive"):
        load(path, {"tokens": "x"})


def test_unknown_names_come_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"unknown recipe 'quickstrat'.*; did you mean 'quickstart'"):
        load("quickstrat", {})
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: cannot be read"):
        load(str(tmp_path / "nowhere.yaml"), {})
    with pytest.raises(RecipeError, match="unknown genre 'nott' in the mix; did you mean 'note'"):
        compile_job(load(write_recipe(tmp_path), {"mix": "nott=1"}))


def test_a_locale_without_names_is_refused(tmp_path: Path) -> None:
    text = NOTE.replace("locale: [ireland, kenya]", "locale: [ireland, kenia]")
    with pytest.raises(RecipeError, match=r"axis locale: no names for 'kenia'; did you mean 'kenya'"):
        make_job(tmp_path, {"note": text})


def test_genres_stand_in_the_order_of_the_mix(tmp_path: Path) -> None:
    job = make_job(tmp_path, mix={"talk": 1, "note": 5, "help": 2})
    assert [genre.key for genre in job.genres] == ["talk", "note", "help"]


def test_every_field_decides_text_or_corpus_or_neither() -> None:
    assert set(DECIDES) == set(Recipe.model_fields)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"))


def test_a_snapshot_gives_the_job_back_where_no_file_is_at_hand(job: Job) -> None:
    restored = job_of_snapshot(job.snapshot(), "recipe.json")
    assert restored == job and restored.hash == job.hash and restored.identity() == job.identity()
    assert restored.snapshot() == job.snapshot()


def test_a_damaged_snapshot_is_named(job: Job) -> None:
    content = json.loads(job.snapshot())
    for damaged in (b"", b"{", b"[]", b"\xff", json.dumps({**content, "genres": [{}]}).encode(), b'{"recipe": {}}'):
        with pytest.raises(DamagedError, match=r"^DIR/recipe\.json: "):
            job_of_snapshot(damaged, "DIR/recipe.json")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "x"},
        {"tokens": 5},
        {"workers": 9},
        {"in_flight": 9},
        {"ray": "local"},
        {"drain_timeout": 1.0},
        {"about": "x"},
    ],
)
def test_target_cluster_and_labels_leave_the_hash_alone(job: Job, change: dict[str, object]) -> None:
    assert replace(job, recipe=job.recipe.changed(change)).hash == job.hash


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"maker": "x"},
        {"temperature": 0.1},
        {"models": {"judge": "x"}},
        {"shard_tokens": 5},
        {"holdout": 0.1},
        {"checks_off": ("link",)},
        {"mix": dict.fromkeys(GENRES, 2.0)},
    ],
)
def test_what_decides_text_or_corpus_is_in_the_hash(job: Job, change: dict[str, object]) -> None:
    assert replace(job, recipe=job.recipe.changed(change)).hash != job.hash


def test_the_order_of_the_mix_is_in_the_hash_for_it_settles_ties(job: Job) -> None:
    turned = job.recipe.changed({"mix": dict(reversed(job.recipe.mix.items()))})
    assert replace(job, recipe=turned, genres=job.genres[::-1]).hash != job.hash


def test_the_constitution_counts_by_its_text_not_by_its_place(tmp_path: Path, job: Job) -> None:
    elsewhere = make_job(tmp_path)
    assert elsewhere.constitution.source != job.constitution.source
    assert elsewhere.identity() == job.identity() and elsewhere.hash == job.hash
    (tmp_path / "constitution.md").write_text((tmp_path / "constitution.md").read_text() + "\nMore.\n")
    assert compile_job(load(str(tmp_path / "recipe.yaml"), {})).hash != job.hash


def test_sources_are_pinned_when_a_job_is_compiled_and_part_of_its_identity(tmp_path: Path, job: Job) -> None:
    assert all(genre.source.sha256 for genre in job.genres if genre.source is not None)
    other = make_job(tmp_path, rows=[{"topic": "another", "level": 0}])
    assert other.identity()["source of question"] != job.identity()["source of question"]
    assert other.hash != job.hash
