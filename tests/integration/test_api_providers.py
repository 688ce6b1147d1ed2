"""A corpus made through hosted models, in any weather: what a storm cannot change, and what it may not cost.

The fake's answers are a pure function of the request, so the undisturbed corpus is the oracle of every other.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_api import Asked, FakeAPI, Script, first_of, never, serving
from support import NOTE, documents, make, shard_hashes, write_recipe

from sdf import api, worker
from sdf.errors import RecipeError, SdfError, Unauthorized
from sdf.providers import governor

KEY = "sk-CANARY-3f9b1c7d5e2a4860"

LETTER = """\
---
key: letter
kind: document
about: A letter.
n_words: [40, 60]
dedup: none
redraws: 0
steps:
  body: {role: write, context: full, returns: text, tag: document}
  polish: {role: rewrite, context: principle, returns: text, tag: document}
emit: {text: polish}
---
## step: body
A letter by {{ names.person(1) }} of {{ names.place(1) }}, some {{ brief.n_words }} words, between <document> and
</document>.

## step: polish
{{ body }}
Anew, some {{ brief.n_words }} words, between <document> and </document>.
"""
# One lane: the first questions of two lanes in a cell are the same, which an API without seeds cannot tell apart.
GENRES = {"note": NOTE.replace("redraws: 2", "redraws: 0\nlanes: 1"), "letter": LETTER}
# The models of these tests cache any prefix that is as long as the constitution of the tests.
MODEL = "claude-opus-5-5"
PREAMBLE = "Every text teaches by showing. " * 60

PROVIDERS = ("anthropic", "openai")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pipeline, with its waits made short."""
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setattr(governor, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(governor, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(worker, "FLUSH_SECONDS", 0.05)


@dataclass(frozen=True)
class Desk:
    """A recipe of a folder, and the server that answers it."""

    recipe: str
    provider: str
    server: FakeAPI

    def make(self, out: Path, timeout: str = "30", **fields: Any) -> Any:
        given = {"base_url": self.server.url, "timeout": timeout}
        return make(self.recipe, out, provider=self.provider, provider_settings=given, model=MODEL, **fields)


@contextmanager
def desk(folder: Path, provider: str, fault: Script = never, shape: Script = never, **fields: Any) -> Iterator[Desk]:
    recipe = write_recipe(folder, GENRES, **{"tokens": 1_000, "in_flight": 16, **fields})
    (folder / "genres" / "preamble.md").write_text(PREAMBLE, encoding="utf-8")
    with serving(fault, shape) as server:
        yield Desk(recipe, provider, server)


@pytest.fixture(scope="module", params=PROVIDERS)
def oracle(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[tuple[str, str]]]:
    """A provider, and the shards it makes when nothing happens."""
    folder = tmp_path_factory.mktemp(request.param)
    patch = pytest.MonkeyPatch()
    with patch.context() as context, desk(folder, request.param) as quiet:
        context.setenv("ANTHROPIC_API_KEY", KEY)
        context.setenv("OPENAI_API_KEY", KEY)
        assert quiet.make(folder / "out").finished
        assert quiet.server.n_billed_again == 0
    return request.param, shard_hashes(folder / "out")


STORMS: dict[str, Script] = {
    "429": first_of("limited"),
    "429 with a wait": first_of("limited:0.02"),
    "529": first_of("overloaded"),
    "500": first_of("broken"),
    "409": first_of("conflict"),
    "lost replies": first_of("lost"),
    "truncated": first_of("truncated"),
    "a portal's page": first_of("page"),
    "hangs": first_of("hang", every=5),
    "slow drip": first_of("drip", every=5),
    "all at once": lambda asked: (
        ("limited:0.01", "broken", "lost", "truncated", None)[asked.dice % 5] if asked.attempt == 1 else None
    ),
    "twice each": lambda asked: "overloaded" if asked.attempt <= 2 and asked.dice % 4 == 0 else None,
}


@pytest.mark.parametrize("storm", STORMS)
def test_no_storm_changes_the_corpus_or_pays_twice(
    oracle: tuple[str, list[tuple[str, str]]], storm: str, tmp_path: Path
) -> None:
    provider, undisturbed = oracle
    with desk(tmp_path, provider, STORMS[storm]) as stormy:
        outcome = stormy.make(tmp_path / "out", timeout="0.5" if storm in ("hangs", "slow drip") else "30")
        assert outcome.finished and shard_hashes(tmp_path / "out") == undisturbed
        assert stormy.server.n_billed_again == 0
        assert len(stormy.server.asked) > len(stormy.server.attempts), "the storm did blow"


@pytest.mark.parametrize("fault", ["spend_cap", "bad_key", "no_model", "no_credit", "redirect:302"])
def test_what_needs_a_person_stops_the_run_at_once_and_the_next_goes_on(
    oracle: tuple[str, list[tuple[str, str]]], fault: str, tmp_path: Path
) -> None:
    provider, undisturbed = oracle
    n_served = 12

    def script(asked: Asked) -> str | None:
        return fault if len(broken.server.attempts) > n_served else None

    with desk(tmp_path, provider, script) as broken:
        with pytest.raises(Unauthorized) as caught:
            broken.make(tmp_path / "out")
        assert caught.value.exit_code == 5
        assert len(broken.server.asked) <= n_served + 16, "nothing was sent beyond what was in flight"
        assert broken.server.n_redirected == 0
        broken.server.fault = never
        assert broken.make(tmp_path / "out").finished
        assert shard_hashes(tmp_path / "out") == undisturbed
        assert broken.server.n_billed_again == 0


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("shape", "reason"), [("refusal", "refused"), ("empty", "empty"), ("length", "truncated")])
def test_what_no_step_can_use_is_counted_with_its_reason_and_never_becomes_a_row(
    provider: str, shape: str, reason: str, tmp_path: Path
) -> None:
    def shaped(asked: Asked) -> str | None:
        return shape if asked.dice % 4 == 0 else None

    with desk(tmp_path, provider, shape=shaped) as modest:
        assert modest.make(tmp_path / "out").finished
    rejected = api.status(tmp_path / "out").rejected
    category = {"anthropic": " (frontier_llm)", "openai": " (content_filter)"}[provider]
    assert rejected.get(reason + category if shape == "refusal" else reason, 0) > 0
    assert all(row["finish_reason"] == "stop" for row in documents(tmp_path / "out")["documents/train"])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_rows_name_the_model_and_the_usage_counts_the_cache(provider: str, tmp_path: Path) -> None:
    with desk(tmp_path, provider) as quiet:
        outcome = quiet.make(tmp_path / "out")
    rows = documents(tmp_path / "out")["documents/train"]
    assert {row["model"] for row in rows} == {MODEL} and not any(row["fallback"] for row in rows)
    assert outcome.usage.cache_read_tokens > 0 and outcome.usage.input_tokens > 0


# --- the key -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("from_file", [False, True], ids=["environment", "file"])
def test_the_key_is_nowhere_but_in_the_header(
    provider: str, from_file: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = {}
    if from_file:
        (tmp_path / "key").write_text(KEY)
        settings["key_file"] = str(tmp_path / "key")
        monkeypatch.delenv("ANTHROPIC_API_KEY")
        monkeypatch.delenv("OPENAI_API_KEY")
    faults = ("limited:0.01", "broken", "lost", "truncated", "invalid", None)

    def script(asked: Asked) -> str | None:
        if len(troubled.server.attempts) > 60:
            return "bad_key"
        return faults[asked.dice % 6] if asked.attempt == 1 else None

    with desk(tmp_path / "in", provider, script, tokens=100_000) as troubled:
        given = {"base_url": troubled.server.url, **settings}
        with pytest.raises(SdfError) as caught:
            api.run(troubled.recipe, tmp_path / "out", provider=provider, provider_settings=given, model=MODEL)
        assert {each.headers["Authorization"] for each in troubled.server.asked} == {f"Bearer {KEY}"}
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written and not [path for path in written if KEY.encode() in path.read_bytes()]
    assert not [record for record in caplog.records if KEY in f"{record.getMessage()}{record.__dict__}"]
    assert KEY not in "".join(traceback.format_exception(caught.value)) + repr(chain(caught.value))


def chain(error: BaseException | None) -> list[tuple[Any, ...]]:
    """Everything that hangs on an error, whether a traceback would show it or not."""
    found: list[tuple[Any, ...]] = []
    while error is not None:
        found.append((type(error), str(error), error.args, vars(error)))
        error = error.__cause__ or error.__context__
    return found


# --- before the first request ------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": None}, "needs a model to find angles; name it with --model"),
        ({"model": None, "models": {"angle": "m", "write": "m", "rewrite": "m"}}, "to judge.*--judge-model"),
        ({"provider_settings": {"api_key": KEY}}, "'api_key' would hold a key"),
        ({"provider_settings": {"base_url": "http://models.example.com"}}, "plain http"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_ends_before_anything_is_asked(
    provider: str, fields: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with desk(tmp_path, provider) as idle:
        given = {"provider_settings": {"base_url": idle.server.url}, "model": MODEL, **fields}
        with pytest.raises(RecipeError, match=words):
            api.run(idle.recipe, tmp_path / "out", provider=provider, **given)
        assert not idle.server.asked
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_sampling_that_the_api_dropped_is_an_error_not_a_silence(name: str, tmp_path: Path) -> None:
    with desk(tmp_path, "anthropic", **{name: 0.5}) as idle:
        with pytest.raises(RecipeError, match=f"{name}: the API of provider anthropic takes it no longer"):
            idle.make(tmp_path / "out")
        assert not idle.server.asked


def test_no_key_ends_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with desk(tmp_path, "anthropic") as idle:
        with pytest.raises(RecipeError, match="set ANTHROPIC_API_KEY"):
            idle.make(tmp_path / "out")
        assert not idle.server.asked
