"""What is wrong with the settings of a recipe, found with no SDK, key or network, and told in its role's words."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sdf.errors import CircuitOpen, NotServed, RateLimited, RecipeError, SdfError, Unauthorized, Unavailable
from sdf.providers import PROVIDERS
from sdf.providers.seats import check_settings, of_seat
from sdf.providers.settings import KNOWN
from sdf.recipe import Recipe
from sdf.records import Seat


def recipe(**fields: Any) -> Recipe:
    return Recipe(name="r", assistant="A", maker="M", tokens=1_000, mix={"note": 1}, **fields)


ELSEWHERE = {"provider": "anthropic", "model": "m", "providers": {"judge": "openai"}, "models": {"judge": "j"}}
OWN_MODEL = {"provider": "anthropic", "model": "m", "models": {"judge": "j"}}
OWN_SETTINGS = {"provider": "openai", "model": "m", "provider_settings": {"judge.base_url": "http://localhost:1"}}


MODEL, SETTINGS = "its model --judge-model", "its settings --provider-setting judge.NAME=…"


@pytest.mark.parametrize(
    ("fields", "seat", "own"),
    [
        (ELSEWHERE, "judge", f" [judge: {SETTINGS}, {MODEL}]"),
        (OWN_MODEL, "judge", f" [judge: {MODEL}]"),
        (OWN_SETTINGS, "judge", f" [judge: {SETTINGS}]"),
        (ELSEWHERE, "write", ""),
        (OWN_MODEL, "rewrite", ""),
        (OWN_SETTINGS, "write", ""),
        ({**OWN_MODEL, "models": {"write": "w"}}, "write", " [write: its model `models: {write: …}` in the recipe]"),
        ({**OWN_MODEL, "models": {"fallback": "f"}}, "fallback", " [fallback: its model --fallback-model]"),
    ],
)
def test_a_way_out_names_what_is_the_seat_s_own(fields: dict[str, Any], seat: Seat, own: str) -> None:
    text = "no model at base_url; name another with --model"
    assert str(of_seat(recipe(**fields), seat, Unauthorized(text))) == text + own


@pytest.mark.parametrize(
    "error",
    [
        NotServed("--model"),
        Unavailable("--model", maybe_billed=False),
        RateLimited("--model", 3.0),
        RecipeError("--model", ("model",)),
        CircuitOpen("--model"),
    ],
)
def test_the_error_stays_the_same_but_for_its_words(error: SdfError) -> None:
    found = of_seat(recipe(**OWN_MODEL), "judge", error)
    assert (type(found), str(found), vars(found)) == (type(error), f"--model [judge: {MODEL}]", vars(error))
    assert str(error) == "--model", "others may be told of it too"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"provider": "openai", "provider_settings": {"timeout": "nan"}}, "openai: timeout is 'nan'; write seconds"),
        ({"provider": "openai", "provider_settings": {"timout": "5"}}, r"'timout' \(did you mean 'timeout'\?\)"),
        ({"provider": "openai", "provider_settings": {"base_url": "localhost:1"}}, "write http://localhost:1/v1"),
        ({"provider": "openai", "provider_settings": {"tensor_parallel_size": "2"}}, "a setting of vllm"),
        ({"provider": "openai", "provider_settings": {"engine.a": "2"}}, "takes no engine.a, .* of vllm"),
        ({"provider": "openai", "provider_settings": {"cache_ttl": "1h"}}, "of anthropic and anthropic-batch"),
        ({"provider_settings": {"max_wait": "1"}}, "provider offline: takes no max_wait, .* of anthropic-batch"),
        ({"provider_settings": {"latency": "x"}}, "provider offline: latency is 'x'"),
        ({"provider": "anthropic-batch", "provider_settings": {"poll": "0"}}, "poll is '0'"),
        ({"provider": "anthropic-batch", "provider_settings": {"timeout": "0"}}, "timeout is '0'"),
        ({"provider": "vllm", "provider_settings": {"stall_timeout": "x"}}, "stall_timeout is 'x'"),
        ({"provider": "vllm", "provider_settings": {"chat_template_kwargs": "[1]"}}, "write a JSON object"),
        ({"provider": "vllm", "provider_settings": {"chat_template_kwargs": "[" * 200_000}}, "write a JSON object"),
        ({"provider": "vllm", "provider_settings": {"gpus": "9" * 5_000}}, "write a whole number"),
        ({"provider": "anthropic-batch", "provider_settings": {"batch_size": "9" * 5_000}}, "write a whole number"),
        ({"provider": "vllm", "provider_settings": {"tensor_parallel_size": "x"}}, "tensor_parallel_size is 'x'"),
        ({"provider_settings": {"nobody.base_url": "x"}}, "'nobody.base_url': no role 'nobody'; known: write"),
        ({"provider_settings": {"jugde.base_url": "x"}}, "no role 'jugde'; did you mean 'judge'"),
        (
            {**ELSEWHERE, "provider_settings": {"judge.timeout": "x"}},
            r"timeout is 'x'.* \[judge: its settings",
        ),
        (
            {**ELSEWHERE, "provider_settings": {"judge.timout": "5"}},
            r"mean 'timeout'.* \[judge: its settings",
        ),
        ({**ELSEWHERE, "provider_settings": {"judge.cache_ttl": "5m"}}, r"takes no cache_ttl.* \[judge: its settings"),
    ],
)
def test_what_is_wrong_is_found_where_nothing_is_installed(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_settings(recipe(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"provider": "openai"},
        {"provider": "anthropic"},
        {"provider": "anthropic-batch", "provider_settings": {"max_wait": "100000", "gather": "0.5"}},
        {"provider": "vllm", "provider_settings": {"engine.enforce_eager": "true", "gpus": "1"}},
        {"provider_settings": {"latency": "0.1"}, "providers": {"judge": "openai"}},
        ELSEWHERE,
        OWN_SETTINGS,
    ],
)
def test_what_is_not_given_yet_is_no_fault(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    check_settings(recipe(**fields))


def test_the_settings_of_every_provider_are_known() -> None:
    assert set(KNOWN) == set(PROVIDERS)


def test_no_sdk_is_imported_to_check_settings() -> None:
    code = "import sys, sdf.providers.seats; print(sorted({'aiohttp', 'anthropic', 'vllm', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
