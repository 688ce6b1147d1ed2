"""Each role with a provider of its own, and a fallback for what is refused: over real sockets, in both protocols."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_api import Asked, serving
from support import GENRES, documents, make, make_job, shard_hashes, write_recipe
from typer.testing import CliRunner

from sdf import api, worker
from sdf.cli import app
from sdf.errors import RecipeError

KEY = "sk-CANARY-3f9b1c7d5e2a4860"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setattr(worker, "FLUSH_SECONDS", 0.05)


def models_asked(asked: list[Asked]) -> set[str]:
    return {each.body["model"] for each in asked}


def test_each_role_is_asked_of_its_own_provider(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"note": GENRES["note"]}, tokens=1_000)
    with serving() as writes, serving() as judges:
        outcome = make(
            recipe,
            tmp_path / "out",
            provider="openai",
            model="writer",
            models={"judge": "strict-judge"},
            providers={"judge": "anthropic"},
            provider_settings={"base_url": writes.url, "judge.base_url": judges.url},
        )
        assert outcome.finished
        assert models_asked(writes.asked) == {"writer"} and models_asked(judges.asked) == {"strict-judge"}
        assert {each.path for each in judges.asked} == {"/v1/messages"}
    assert {row["model"] for row in documents(tmp_path / "out")["documents/train"]} == {"writer"}


def refuses(asked: Asked) -> str | None:
    return "refusal" if asked.body["model"] == "writer" and asked.dice % 4 == 0 else None


def test_a_refusal_is_answered_by_the_fallback_and_the_row_says_so(tmp_path: Path) -> None:
    once = GENRES["note"].replace("redraws: 2", "redraws: 0")
    recipe = write_recipe(tmp_path, {"note": once}, tokens=2_000)

    def run(out: str, **fields: Any) -> list[dict[str, Any]]:
        models = {"judge": "judge"} | fields.pop("models", {})
        settings = {"base_url": server.url}
        given = {"provider": "openai", "model": "writer", "models": models, "provider_settings": settings}
        assert make(recipe, tmp_path / out, **given | fields).finished
        return documents(tmp_path / out)["documents/train"]

    with serving(shape=refuses) as server:
        without = run("without")
        assert api.status(tmp_path / "without").rejected.get("refused (content_filter)")
        rows = run("with", models={"fallback": "second"})
        assert not api.status(tmp_path / "with").rejected.get("refused (content_filter)")
        second = [row for row in rows if row["model"] == "second"]
        assert second and all(row["fallback"] for row in second)
        assert not any(row["fallback"] for row in rows if row["model"] == "writer")
        assert not any(row["fallback"] for row in without)
        steps = api.show(tmp_path / "with", second[0]["id"]).steps
        refused, answered = next((one, two) for one, two in pairwise(steps) if two.model == "second")
        assert refused.answer is not None and refused.answer.finish_reason == "refusal" and not refused.used
        assert answered.used and answered.step == refused.step
        n_asked = len(server.asked)
        assert make(
            recipe,
            tmp_path / "again",
            reuse=[tmp_path / "with"],
            provider="openai",
            model="writer",
            models={"judge": "judge", "fallback": "second"},
            provider_settings={"base_url": server.url},
        ).finished
        assert len(server.asked) == n_asked, "refusals and their second answers are paid once"
        assert shard_hashes(tmp_path / "again") == shard_hashes(tmp_path / "with")


def test_refusals_of_angles_are_counted_by_their_category(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"note": GENRES["note"]}, tokens=2_000)

    def some(asked: Asked) -> str | None:
        return "refusal" if asked.body["model"] == "finder" and asked.dice % 2 else None

    with serving(shape=some) as server:
        models = {"angle": "finder"}
        given: dict[str, Any] = {"provider": "openai", "model": "m", "models": models}
        make(recipe, tmp_path / "out", **given, provider_settings={"base_url": server.url})
    rejected = api.status(tmp_path / "out").rejected
    assert rejected.get("no_angle: refused (content_filter)", 0) > 0
    assert api.verify(tmp_path / "out", replay=True).problems == ()


def test_seats_of_one_provider_share_it_and_settings_of_a_role_part_them(tmp_path: Path) -> None:
    settings = {"base_url": "http://localhost:1", "judge.base_url": "http://localhost:2", "rewrite.timeout": "7"}
    recipe = make_job(tmp_path, provider="openai", model="m", provider_settings=settings).recipe
    assert recipe.backend_of("write") == recipe.backend_of("angle")
    assert dict(recipe.backend_of("judge").settings) == {"base_url": "http://localhost:2"}
    assert dict(recipe.backend_of("rewrite").settings) == {"base_url": "http://localhost:1", "timeout": "7"}


def test_settings_of_the_common_provider_do_not_reach_a_role_of_another(tmp_path: Path) -> None:
    given = {"provider": "openai", "model": "m", "provider_settings": {"base_url": "http://localhost:1"}}
    recipe = make_job(tmp_path, **given, providers={"judge": "anthropic"}).recipe
    assert dict(recipe.backend_of("judge").settings) == {}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"providers": {"judge": "antropic"}}, "unknown provider 'antropic'.*anthropic"),
        ({"providers": {"judg": "openai"}}, "judg"),
        ({"providers": {"judge": "anthropic"}}, "anthropic needs a model to judge; name it with --judge-model"),
        ({"providers": {"fallback": "anthropic"}}, "answer what others refuse.*--fallback-model"),
        ({"providers": {"judge": "anthropic"}, "model": "m", "temperature": 0.5}, "takes it no longer"),
    ],
)
def test_a_role_that_nobody_can_fill_is_an_error_in_the_recipe(
    fields: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=words):
        make_job(tmp_path, **fields)


def test_two_providers_for_one_role_are_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    told = CliRunner().invoke(app, ["plan", recipe, "--judge-provider", "openai", "--judge-provider", "anthropic"])
    assert told.exit_code == 2 and "--judge-provider: given twice" in told.stderr
    fields = json.loads(Path(recipe).read_text())
    Path(recipe).write_text(json.dumps(fields)[:-1] + ', "providers": {"judge": "openai", "judge": "anthropic"}}')
    with pytest.raises(RecipeError, match="judge"):
        make(recipe, tmp_path / "out")
