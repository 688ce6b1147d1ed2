"""What is found before a token is paid, against a real socket in both protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import staging
from fake_api import serving
from support import GENRES, make, make_job, write_recipe

from sdf import api, preflight
from sdf.errors import NotServed, RecipeError, SdfError, Unauthorized, Unavailable
from sdf.eventloop import run_to_end
from sdf.job import compile_job
from sdf.preflight import longest_requests
from sdf.recipe import load

KEY = "sk-CANARY-3f9b1c7d5e2a4860"
PROVIDERS = ("anthropic", "openai")
WAY_OUT = "; check --base-url, or start the server"
NOTE = {"note": GENRES["note"].replace("redraws: 2", "redraws: 2\npreamble: none")}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setattr(preflight, "PAUSE", 0.01)


def stopped(folder: Path, url: str, provider: str, **fields: Any) -> SdfError:
    """What a run ends with, having asked nothing and left no recipe behind."""
    recipe = write_recipe(folder, NOTE, tokens=1_000)
    given = {"provider": provider, "model": "m", "provider_settings": {"base_url": url}, **fields}
    with pytest.raises(SdfError) as caught:
        make(recipe, folder / "out", **given)
    assert not (folder / "out" / "recipe.json").exists(), "another --model must not be a changed recipe"
    return caught.value


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("models", "kind", "words"),
    [
        ([{"id": "n"}], NotServed, "no model 'm' at .*--model"),
        ([{"id": "m", "lifecycle": "retired"}], NotServed, "model m is retired"),
        ([{"id": "m", "max_model_len": 300}], RecipeError, "its context holds 300; give a model or server"),
        ([{"id": "m", "max_tokens": 100}], RecipeError, "writes 100 at most"),
    ],
)
def test_a_model_that_cannot_do_it_ends_the_run_before_a_request(
    provider: str, models: list[dict[str, Any]], kind: type[SdfError], words: str, tmp_path: Path
) -> None:
    with serving() as server:
        server.models = models
        error = stopped(tmp_path, server.url, provider)
        assert not server.asked
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error


@pytest.mark.parametrize(("n", "words"), [(300, "a longer context"), (100, "lower max_tokens of the step")])
def test_a_preflight_ends_with_the_way_out_that_a_run_tells(n: int, words: str, tmp_path: Path) -> None:
    with serving() as server:
        server.models = [{"id": "m", "max_model_len" if n == 300 else "max_tokens": n}]
        error = stopped(tmp_path / "a", server.url, "openai")
        settings = {"base_url": server.url}
        recipe = write_recipe(tmp_path / "b", NOTE, tokens=1_000)
        found = api.preflight(recipe, provider="openai", model="m", provider_settings=settings)
    assert words in found[0].text and found[0].text == str(found[0].error) == str(error)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "openai: no address; write .*base_url="),
        ({"judge.base_url": "http://judges.example.com"}, "base_url '.*' is plain http"),
        ({"judge.base_url": "gone"}, "check --base-url"),
        ({"judge.base_url": "there", "judge.key_file": "/nowhere"}, "key_file /nowhere cannot be read"),
        ({"judge.base_url": "there"}, "no model 'm' at .*; known: other"),
    ],
)
def test_a_way_out_for_a_role_leaves_the_others_alone(given: dict[str, str], words: str, tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url
    with serving() as main, serving() as judges:
        main.models, judges.models = [{"id": "main"}], [{"id": "other"}]
        places = {"gone": url, "there": judges.url}
        settings = {"base_url": main.url, **{name: places.get(value, value) for name, value in given.items()}}
        fields: dict[str, Any] = {"model": "main", "providers": {"judge": "openai"}, "models": {"judge": "m"}}
        error = stopped(tmp_path, main.url, "anthropic", **fields, provider_settings=settings)
        assert not main.asked and not judges.asked
    own = r".* \[judge: its settings --provider-setting judge.NAME=…, its model --judge-model\]"
    with pytest.raises(SdfError, match=words + own):
        raise error


def test_a_model_that_only_one_role_asks_is_named_by_its_flag(tmp_path: Path) -> None:
    with serving() as server:
        server.models = [{"id": "m"}, {"id": "old", "lifecycle": "retired"}]
        error = stopped(tmp_path, server.url, "openai", models={"judge": "old"})
    assert "model old is retired" in str(error) and "[judge: its model --judge-model]" in str(error)


def test_a_model_is_shown_short_and_plain(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, NOTE)
    with serving() as server:
        server.models = [{"id": "m"}]
        settings = {"base_url": server.url}
        for name in ("a\n\x1b[31mb", "x" * 5_000):
            (found,) = api.preflight(recipe, provider="openai", model=name, provider_settings=settings)
            assert found.error is not None and found.text.isprintable() and len(found.text) < 900


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_server_that_is_not_there_is_named_at_once(provider: str, tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url
    error = stopped(tmp_path, url, provider)
    assert type(error) is Unavailable
    assert (
        str(error)
        == f"{provider}: {url}{'/v1' * (provider == 'openai')} cannot be reached (connection refused)" + WAY_OUT
    )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_name_that_nobody_knows_and_a_server_without_tls_are_said_in_plain_words(
    provider: str, tmp_path: Path
) -> None:
    # The SDK brings a root of its own.
    root = "" if provider == "anthropic" else "/v1"
    error = stopped(tmp_path / "a", f"https://models.invalid{root}", provider)
    assert str(error) == f"{provider}: https://models.invalid{root} cannot be reached (name not known)" + WAY_OUT
    with serving() as server:
        url = server.url.replace("http://", "https://")
        error = stopped(tmp_path / "b", f"{url}{root}", provider)
    assert str(error) == f"{provider}: {url}{root} cannot be reached (no https is spoken there)" + WAY_OUT


def test_a_key_that_the_server_does_not_take_ends_with_exit_code_five(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving() as server:
        server.models = [{"id": "m"}]
        error = stopped(tmp_path, server.url, "openai")
        assert not server.asked
    assert isinstance(error, Unauthorized) and error.exit_code == 5 and "check the key" in str(error)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_is_found_is_said_in_a_line_for_each_model_and_nothing_is_asked(provider: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, NOTE)
    with serving() as server:
        server.models = [
            {"id": "m", "max_model_len": 100_000, "retires_at": "2027-01-01T00:00:00Z"},
            {"id": "judge", "max_model_len": 6_000},
        ]
        settings = {"base_url": server.url}
        found = api.preflight(
            recipe, out=tmp_path / "out", provider=provider, model="m", models={"judge": "judge"},
            provider_settings=settings,
        )  # fmt: skip
        assert not server.asked
    where, main, judge = found
    assert all(each.error is None for each in found)
    assert "can be written" in where.text
    assert f"{provider} m at {server.url}" in main.text and "of 100,000" in main.text and "2027-01-01" in main.text
    assert "note/verdict" in judge.text and "of 6,000" in judge.text


def test_each_of_several_servers_is_looked_at_and_named(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, NOTE)
    with serving() as first, serving() as second:
        first.models = second.models = [{"id": "m", "max_model_len": 100_000}]
        given = {"provider": "openai", "model": "m", "provider_settings": {"base_url": f"{first.url},{second.url}"}}
        (found,) = api.preflight(recipe, **given)
        assert f"at {first.url}/v1, {second.url}/v1: there" in found.text
        second.models = [{"id": "m", "max_model_len": 90_000}]
        (found,) = api.preflight(recipe, **given)
        assert f"at {second.url}/v1, the least of 2: there" in found.text and "of 90,000" in found.text
        second.models = [{"id": "another"}]
        (found,) = api.preflight(recipe, **given)
        assert found.error is not None and f"no model 'm' at {second.url}/v1" in found.text


def test_a_server_that_lists_no_models_is_taken_at_its_word(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, NOTE, tokens=500)
    with serving() as server:
        given = {"provider": "openai", "model": "m", "provider_settings": {"base_url": server.url}}
        (found,) = api.preflight(recipe, **given)
        assert found.error is None and "tells nothing of its models" in found.text
        assert make(recipe, tmp_path / "out", **given).finished


def test_the_longest_prompt_holds_the_constitution_and_grows_with_it(tmp_path: Path) -> None:
    def longest(folder: Path, text: str) -> int:
        recipe = Path(write_recipe(folder, NOTE))
        (recipe.parent / "constitution.md").write_text(text, encoding="utf-8")
        job = compile_job(load(str(recipe), {}))
        return longest_requests(job)["write"].n_prompt

    section = "# Candour\n\n" + "It says what it knows and how well it knows it. " * 20
    short, long = longest(tmp_path / "a", section), longest(tmp_path / "b", section * 10)
    assert long > short * 5


def test_a_model_of_several_roles_has_room_for_the_longest_prompt_of_any() -> None:
    needs = longest_requests(compile_job(load("quickstart", {})))
    room = needs["rewrite"].n_prompt + needs["rewrite"].n_answer
    assert needs["angle"].n_prompt < needs["write"].n_prompt < needs["rewrite"].n_prompt
    with serving() as server:
        given: dict[str, Any] = {"provider": "openai", "model": "m", "provider_settings": {"base_url": server.url}}
        for holds in (room, room - 1):
            server.models = [{"id": "m", "max_model_len": holds}]
            (found,) = api.preflight("quickstart", **given)
            assert (found.error is None) == (holds == room) and "/rewrite takes about" in found.text


def test_offline_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    assert run_to_end(preflight.preflight(make_job(tmp_path))) == []


def test_a_later_stage_is_looked_at_before_the_first_is_paid(tmp_path: Path) -> None:
    stages = {"first": {"share": 1, "mix": {"talk": 1}}, "second": {"share": 1, "mix": {"note": 1}}}
    recipe = staging.recipe(tmp_path, stages)
    with serving() as server:
        server.models = [{"id": "m"}, {"id": "old", "lifecycle": "retired"}]
        settings = {"base_url": server.url}
        given: dict[str, Any] = {"provider": "openai", "model": "m", "provider_settings": settings}
        with pytest.raises(NotServed, match="model old is retired"):
            api.run(recipe, tmp_path / "out", **given, models={"judge": "old"})
        with pytest.raises(NotServed, match="model old is retired"):
            api.forecast(recipe, 2, tmp_path / "out", **given, models={"judge": "old"})
        assert not server.asked


def test_a_stage_that_is_whole_is_not_looked_at(tmp_path: Path) -> None:
    stages = {"notes": {"share": 1, "mix": {"note": 1}}, "memos": {"share": 1, "mix": {"memo": 1}}}
    recipe = staging.recipe(tmp_path, stages, tokens=600)
    with serving() as server:
        server.models = [{"id": "m"}]
        given: dict[str, Any] = {"provider": "openai", "model": "m", "provider_settings": {"base_url": server.url}}
        assert api.run(recipe, tmp_path / "out", **given).finished
    again = api.run(recipe, tmp_path / "out", **given)
    assert again.finished and again.n_requests == 0
    with pytest.raises(Unavailable):
        api.run(recipe, tmp_path / "out", **given, tokens=1_200)


def test_a_stage_whose_rows_are_not_made_is_looked_at_too(tmp_path: Path) -> None:
    # `answered` looks into its rows for every prompt: none is known before there are any.
    chat = {"share": 1, "mix": {"answered": 1}, "sources": {"answered": "stage:talk"}}
    recipe = staging.recipe(tmp_path, {"talk": {"share": 1, "mix": {"talk": 1}}, "chat": chat})
    with serving() as server:
        server.models = [{"id": "m"}, {"id": "m2"}, {"id": "old", "lifecycle": "retired"}]
        given: dict[str, Any] = {"provider": "openai", "model": "m", "provider_settings": {"base_url": server.url}}
        found = api.preflight(recipe, **given, models={"write": "m2"})
        assert not any(each.error for each in found)
        assert any("openai m2 " in each.text and "how long its prompts get is not known" in each.text for each in found)
        # Only the stage that reads has rewrites.
        found = api.preflight(recipe, **given, models={"rewrite": "old"})
        assert isinstance(found[-1].error, NotServed)


def test_a_prompt_without_turns_is_no_question_for_a_provider_of_conversations(tmp_path: Path) -> None:
    base = GENRES["note"].replace("draft: {role: write,", "draft: {role: write, form: completion,")
    assert "completion" in base
    recipe = write_recipe(tmp_path, {"note": base}, tokens=1_000)
    for given in (
        {"provider": "anthropic"},
        {"provider": "anthropic-batch"},
        {"provider": "openai", "providers": {"fallback": "anthropic"}, "models": {"fallback": "m"}},
    ):
        with pytest.raises(RecipeError, match=r"genre note, step draft: `form: completion` .* provider anthropic"):
            api.plan(recipe, model="m", **given)
    api.plan(recipe, model="m", provider="openai")
