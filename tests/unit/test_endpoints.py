"""What providers behind HTTP share: what counts as a key, what is repeated of a server's words, what a status means."""

from __future__ import annotations

import copy
import pickle
import sys
from email.utils import formatdate

import pytest

from sdf.errors import NotServed, ProviderError, RateLimited, RecipeError, RequestRejected, Unauthorized, Unavailable
from sdf.providers import make
from sdf.providers.endpoints import FATAL_CODES, MAX_SAID_CHARS, failure, retry_after, said
from sdf.providers.keys import Secret
from sdf.providers.served import served
from sdf.recipe import is_secret


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", "x"),
        ("API-KEY", "x"),
        ("apikey", "x"),
        ("key", "x"),
        ("auth_token", "x"),
        ("password", "x"),
        ("base_url", "https://host/?k=sk-ant-api03-0123456789abcdef"),
        ("key_file", "sk-ant-api03-0123456789abcdef"),
        ("header", "Bearer abc"),
        ("base_url", "https://bob:hunter2@host/v1"),
        ("base_url", "https://host/v1?api_key=hunter2"),
    ],
)
def test_a_setting_that_would_hold_a_key_is_known(name: str, value: str) -> None:
    assert is_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("key_file", "/run/secrets/sk"),
        ("max_tokens", "5"),
        ("base_url", "https://sk-gateway.example.com/v1"),
        ("base_url", "https://desk-and-more-and-more.example.com"),
        ("latency", "0.1"),
        ("rate_limit_every", "3"),
    ],
)
def test_any_other_setting_is_none(name: str, value: str) -> None:
    assert not is_secret(name, value)


def test_a_provider_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anthropic", None)
    monkeypatch.delitem(sys.modules, "sdf.providers.anthropic.online", raising=False)
    with pytest.raises(RecipeError, match=r"needs anthropic, .* pip install 'sdf\[anthropic\]'"):
        make("anthropic", {})


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("CANARY")
    assert secret.reveal() == "CANARY"
    assert "CANARY" not in f"{secret} {secret!r} {[secret]}"
    for travel in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="does not travel"):
            travel(secret)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("key CANARY is wrong", "key (key) is wrong"),
        ("see https://host/a?key=x&b=1 or http://h/#t.", "see https://host/a or http://h/"),
        ("another key, sk-proj-12345", "another key, (key)"),
        ("Incorrect API key: sk-ab***z9", "Incorrect API key: (key)"),
        ("two\nlines\t\x1b[31mred\x1b[0m \u202eback", "two lines [31mred [0m back"),
        (None, "None"),
    ],
)
def test_what_a_server_said_is_repeated_without_keys_queries_or_controls(text: object, kept: str) -> None:
    assert said(text, Secret("CANARY")) == kept


@pytest.mark.parametrize("n_shown", range(1, 37, 7))
def test_no_part_of_a_key_is_repeated_wherever_it_is_cut(n_shown: int) -> None:
    key = "abcdefghijklmnopqrstuvwxyz0123456789"
    assert said(" " * (20 * MAX_SAID_CHARS - n_shown) + key, Secret(key)) in ("(key)", "(key)"[:n_shown])


def test_what_a_server_said_is_kept_short() -> None:
    assert len(said("word " * 100_000, None)) == 300


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (200, "", Unavailable),
        (301, "", Unauthorized),
        (400, "", RequestRejected),
        (401, "", Unauthorized),
        (404, "", NotServed),
        (408, "", Unavailable),
        (410, "", Unauthorized),
        (413, "", RequestRejected),
        (418, "", RequestRejected),
        (422, "", RequestRejected),
        (429, "", RateLimited),
        (429, "ramp_limit_exceeded", RateLimited),
        (500, "", Unavailable),
        (529, "", Unavailable),
        (599, "", Unavailable),
        *((status, code, Unauthorized) for code in sorted(FATAL_CODES) for status in (400, 429)),
    ],
)
def test_every_status_means_one_error(status: int, code: str, kind: type[ProviderError]) -> None:
    error = failure("p", status, code, "words", 3.0)
    assert type(error) is kind and str(error).startswith(f"p: {status}")
    assert not isinstance(error, RateLimited) or error.retry_after == 3.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": formatdate(0)}, 0.0),
        ({"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
    ],
)
def test_the_wait_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("status", "maybe"),
    [
        (200, True),
        (408, False),
        (429, False),
        (499, True),
        (500, False),
        (502, False),
        (504, True),
        (524, True),
        (529, False),
    ],
)
def test_a_status_tells_whether_the_request_may_have_been_billed(status: int, maybe: bool) -> None:
    error = failure("p", status, "", "", None)
    assert isinstance(error, Unavailable) and error.maybe_billed is maybe


def test_of_the_models_of_a_large_server_the_first_are_named() -> None:
    listed = {"data": [{"id": f"model-{number}"} for number in range(500)]}
    with pytest.raises(NotServed, match=r"known: model-0, .*model-39 and 460 more$"):
        served("p", "there", listed, "x")
