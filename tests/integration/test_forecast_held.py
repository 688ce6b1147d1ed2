"""A forecast against what the run then takes, over a socket that bills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_api import serving
from fake_batches import serving_batches
from support import NOTE, write_recipe
from typer.testing import CliRunner

from sdf import api, worker
from sdf.cli import app
from sdf.forecast import kept
from sdf.ledger import read_ledger
from sdf.records import Usage
from sdf.storage import RunDir

KEY = "sk-CANARY-3f9b1c7d5e2a4860"
GENRES = {"note": NOTE, "memo": NOTE.replace("key: note", "key: memo")}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr(worker, "FLUSH_SECONDS", 0.05)


def test_a_forecast_holds_and_what_it_wrote_is_not_paid_again(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=6_000)
    with serving() as server:
        given: dict[str, Any] = {
            "provider": "anthropic",
            "model": "claude-sonnet-5-5",
            "provider_settings": {"base_url": server.url},
        }
        report = api.forecast(recipe, 12, tmp_path / "out", tokens_per_second=1_000.0, **given)
        assert not (tmp_path / "out" / "manifests").exists(), "a forecast commits nothing"
        n_paid = len(server.asked)
        assert report.n_requests == n_paid
        outcome = api.run(recipe, tmp_path / "out", **given)
        assert outcome.finished and len(server.asked) == n_paid + outcome.n_requests
        assert api.status(tmp_path / "out").rebilled == Usage(), "no request was answered twice"
        manifest = outcome.manifest
        assert manifest is not None
    taken = manifest.n_documents + sum(manifest.rejected.values())
    foretold = report.forecast.n_briefs
    assert foretold is not None and 0.8 * foretold.low <= taken <= 1.2 * foretold.high
    online, batches = report.cost_usd["online"], report.cost_usd["in batches"]
    assert online is not None and batches is not None and batches.mean == pytest.approx(online.mean / 2)
    spent = read_ledger(RunDir(tmp_path / "out")).cost_usd
    assert spent == pytest.approx(online.mean, rel=0.3)
    assert report.own_hours is not None and report.forecast.n_output is not None
    assert report.own_hours.mean == pytest.approx(report.forecast.n_output.mean / 3_600_000)
    held = api.compared(tmp_path / "out")
    assert held is not None and f"{taken:,} taken" in held and "spent" in held


def test_where_all_there_is_was_sampled_the_forecast_is_the_bill(tmp_path: Path) -> None:
    """Angle rounds, redraws and rejections included."""
    recipe = write_recipe(tmp_path, {"note": NOTE.replace("redraws: 2", "redraws: 2\ncell_size: 8")}, tokens="all")
    with serving() as server:
        given: dict[str, Any] = {
            "provider": "anthropic",
            "model": "claude-sonnet-5-5",
            "provider_settings": {"base_url": server.url},
        }
        found = api.forecast(recipe, 24, tmp_path / "out", **given).forecast
    ledger = read_ledger(RunDir(tmp_path / "out"))
    assert found.n_briefs is not None and found.n_output is not None and found.cost_usd is not None
    assert found.n_briefs.mean == found.genres[0].n_there == 24
    assert found.n_output.mean == pytest.approx(ledger.usage.output_tokens)
    assert found.cost_usd.mean == pytest.approx(ledger.cost_usd)


def test_a_price_that_nobody_knows_makes_the_cost_unknown_and_never_nothing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=6_000)
    with serving() as server:
        settings = {"base_url": server.url}
        report = api.forecast(recipe, 4, tmp_path / "out", provider="openai", model="own", provider_settings=settings)
    assert report.cost_usd == {"online": None} and report.forecast.n_briefs is not None


def test_the_command_line_tells_it_and_the_run_compares_itself(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=3_000)
    out = str(tmp_path / "out")
    told = CliRunner().invoke(app, ["plan", recipe, "--forecast", "5", "--out", out])
    assert told.exit_code == 0, told.output
    assert "from the first 5 documents of each genre" in told.stdout and "online: $0.00" in told.stdout
    assert kept(RunDir(out)) is not None
    as_json = CliRunner().invoke(app, ["plan", recipe, "--forecast", "5", "--out", out, "--json"])
    assert json.loads(as_json.stdout)["n_requests"] == 0, "the second forecast finds all answers there"
    ran = CliRunner().invoke(app, ["run", recipe, "--out", out])
    assert ran.exit_code == 0 and " taken; " in ran.stdout


def test_a_forecast_without_a_directory_is_refused(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["plan", write_recipe(tmp_path), "--forecast", "3"])
    assert told.exit_code == 2 and "--out" in told.stderr


def test_a_forecast_through_batches_tells_batches_and_no_pace(tmp_path: Path) -> None:
    """Angles online, the rest in batches: each answer counts at the price of the road it came."""
    recipe = write_recipe(tmp_path, GENRES, tokens=6_000)
    with serving_batches(lasts=1) as server:
        quick = {"gather": "0.05", "poll": "0.02"}
        given: dict[str, Any] = {
            "provider": "anthropic-batch",
            "model": "claude-sonnet-5-5",
            "providers": {"angle": "anthropic"},
            "models": {"angle": "claude-sonnet-5-5"},
            "provider_settings": {"base_url": server.api.url, "angle.base_url": server.api.url, **quick},
        }
        report = api.forecast(recipe, 6, tmp_path / "out", **given)
    paid, online, batches = report.forecast.cost_usd, report.cost_usd["online"], report.cost_usd["in batches"]
    assert paid is not None and online is not None and batches is not None
    assert batches.mean < paid.mean < online.mean
    assert report.hours is None, "what a batch takes says nothing of online calls"
    # Four angles a round: the rounds of a lane, then draft, polish and verdict.
    assert report.n_batches > 3


def test_a_second_forecast_that_finds_answers_tells_no_hours(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=3_000)
    with serving() as server:
        given: dict[str, Any] = {"provider": "openai", "model": "own", "provider_settings": {"base_url": server.url}}
        assert api.forecast(recipe, 4, tmp_path / "out", **given).hours is not None
        assert api.forecast(recipe, 6, tmp_path / "out", **given).hours is None
