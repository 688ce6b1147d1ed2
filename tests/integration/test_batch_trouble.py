"""Message batches under everything that may go wrong: what is on record is fetched, and never paid for again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_batches import FakeBatches, serving_batches
from support import make, make_job, shard_hashes, write_recipe
from test_batches import GENRES, KEY, RUN, given, nth, oracle, quick
from typer.testing import CliRunner

from sdf import api
from sdf.cli import app
from sdf.errors import BudgetExhausted, CircuitOpen, NotServed, RecipeError, SdfError, StillProcessing, UsageError
from sdf.grants import treasury
from sdf.grants.spent import Cost
from sdf.money.prices import builtin, tariff
from sdf.providers.anthropic import batch_api
from sdf.providers.batch_log import BatchLog
from sdf.storage import RunDir
from sdf.story import Progress

__all__ = ["oracle", "quick"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_api, "PATIENCE", 0.2)


def until_finished(recipe: str, out: Path, server: FakeBatches, **settings: str) -> list[SdfError]:
    """The same command again and again; the errors on the way."""
    met: list[SdfError] = []
    for _ in range(20):
        try:
            assert make(recipe, out, drain_timeout=0.1, **given(server, **settings)).finished
        except SdfError as error:
            met.append(error)
        else:
            return met
    raise AssertionError(met)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["broken", "bad_request"])
def test_looks_that_fail_for_long_end_the_run_and_the_batch_is_not_sent_again(
    fault: str, oracle: list[tuple[str, str]], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(lambda event, n: fault if event == "look" and 2 <= n <= 60 else None) as server:
        met = until_finished(recipe, tmp_path / "out", server)
        assert met and all("same command" in str(each) for each in met)
        assert set(server.bills.values()) == {1}
    assert shard_hashes(tmp_path / "out") == oracle
    assert not api.status(tmp_path / "out").rejected.get("failed")


@pytest.mark.parametrize("fault", ["cut_at_a_line", "page"])
def test_results_that_are_not_all_there_are_fetched_again(
    fault: str, oracle: list[tuple[str, str]], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(nth("results", 1, 2, 4, fault=fault)) as server:
        assert make(recipe, tmp_path / "out", **given(server)).finished
        assert set(server.bills.values()) == {1}
    assert shard_hashes(tmp_path / "out") == oracle


@pytest.mark.usefixtures("impatient")
def test_results_that_never_come_whole_end_the_run(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(lambda event, n: "cut_at_a_line" if event == "results" else None) as server:
        with pytest.raises(CircuitOpen, match=r"msgbatch_\d+.*same command"):
            make(recipe, tmp_path / "out", drain_timeout=0.1, **given(server))
        assert set(server.bills.values()) == {1}


def test_a_young_batch_that_this_key_does_not_know_stops_the_run(oracle: list[tuple[str, str]], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(lasts=10**9) as server:
        with pytest.raises(StillProcessing):
            make(recipe, tmp_path / "out", drain_timeout=0.1, **given(server, max_wait="0.2"))
        n_before = len(server.batches)
        server.lasts, server.fault = 1, lambda event, n: "gone" if event == "look" else None
        with pytest.raises(NotServed, match=r"msgbatch_000.*workspace.*batches/000001-w0000-000-0000") as caught:
            make(recipe, tmp_path / "out", drain_timeout=0.1, **given(server))
        assert caught.value.exit_code == 5 and len(server.batches) == n_before
        server.fault = lambda event, n: None
        assert make(recipe, tmp_path / "out", **given(server)).finished
        assert set(server.bills.values()) == {1}
    assert shard_hashes(tmp_path / "out") == oracle


def test_results_that_are_kept_no_longer_are_asked_for_anew(
    oracle: list[tuple[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(lasts=10**9) as server:
        with pytest.raises(StillProcessing):
            make(recipe, tmp_path / "out", drain_timeout=0.1, **given(server, max_wait="0.2"))
        left = list(server.batches.values())
        for each in left:
            each.is_archived = True
        server.lasts = 1
        assert make(recipe, tmp_path / "out", **given(server)).finished
        assert len(server.batches) > len(left)
    assert shard_hashes(tmp_path / "out") == oracle
    assert "keeps its results no longer" in caplog.text


def test_a_listing_that_is_no_listing_ends_the_run(tmp_path: Path) -> None:
    """And does not leave its requests waiting for ever."""
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)

    def fault(event: str, n: int) -> str | None:
        return "lost" if event == "create" and n == 1 else "odd" if event == "list" and n < 3 else None

    with serving_batches(fault) as server:
        assert make(recipe, tmp_path / "out", **given(server)).finished
        assert set(server.bills.values()) == {1}


def test_a_batch_of_somebody_else_is_not_taken_for_ours(oracle: list[tuple[str, str]], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)

    def fault(event: str, n: int) -> str | None:
        if event == "create" and n == 1:
            for size in range(1, 30):
                server.add_foreign(size).results = [
                    {"custom_id": f"x{i}", "result": {"type": "expired"}} for i in range(size)
                ]
            return "lost"
        return None

    with serving_batches(fault) as server:
        assert make(recipe, tmp_path / "out", **given(server)).finished
        assert set(server.bills.values()) == {1}
    assert shard_hashes(tmp_path / "out") == oracle


def test_what_was_not_sent_when_a_run_is_asked_to_stop_is_not_sent(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    stop = api.Stop()

    def stop_once_asked(progress: Progress) -> None:
        asked.append(progress)
        if len(asked) == 3:
            stop.request()

    asked: list[Progress] = []
    with serving_batches() as server:
        fields = given(server, gather="2")
        outcome = make(recipe, tmp_path / "out", stop=stop, on_progress=stop_once_asked, drain_timeout=4, **fields)
        assert not outcome.finished and not server.batches


def test_names_of_records_are_each_given_once(tmp_path: Path) -> None:
    log = BatchLog(RunDir(tmp_path), "000001-w0000-000")
    met: list[BaseException] = []
    start = threading.Barrier(16)

    def intend(i: int) -> None:
        start.wait()
        try:
            for j in range(10):
                log.intend([f"{i:016x}{j:016x}"], [0.5])
        except SdfError as error:
            met.append(error)

    threads = [threading.Thread(target=intend, args=(i,)) for i in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not met and len(log.known()) == 160


# --- what is left at the API ---


def left_behind(recipe: str, out: Path, server: FakeBatches, **fields: Any) -> None:
    server.lasts = 10**9
    with pytest.raises(StillProcessing):
        make(recipe, out, drain_timeout=0.1, **given(server, max_wait="0.2"), **fields)


def test_a_run_that_asks_online_does_not_abandon_what_was_submitted(
    oracle: list[tuple[str, str]], tmp_path: Path
) -> None:
    recipe, out = write_recipe(tmp_path, GENRES, tokens=1_500), tmp_path / "out"
    with serving_batches() as server:
        left_behind(recipe, out, server)
        online = given(server) | {"provider": "anthropic", "provider_settings": {"base_url": server.api.url}}
        with pytest.raises(RecipeError, match=r"requests in 1 batches were submitted and not collected.*sdf cancel"):
            make(recipe, out, **online)
        assert not [each for each in server.api.asked if each.path == "/v1/messages"]
        server.lasts = 1
        assert make(recipe, out, **given(server)).finished
        assert make(recipe, out, **online | {"tokens": 2_000}).finished, "all is collected, so nothing is abandoned"
        assert set(server.bills.values()) == {1}


@pytest.mark.usefixtures("impatient")
def test_cancel_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out = write_recipe(tmp_path, GENRES, tokens=1_500), tmp_path / "out"

    def told() -> tuple[int, str, str]:
        found = CliRunner().invoke(app, ["cancel", str(out)])
        return found.exit_code, found.stdout, found.stderr

    with serving_batches() as server:
        left_behind(recipe, out, server)
        monkeypatch.delenv("ANTHROPIC_API_KEY")
        code, _, said = told()
        assert code == 2 and "no key; set ANTHROPIC_API_KEY" in said
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        code, shown, _ = told()
        assert code == 0 and shown.startswith("msgbatch_000: canceled")
        server.lasts = 1
        make(recipe, out, **given(server))
        code, shown, _ = told()
        assert code == 0 and shown == "no batch is going on\n"
        server.fault = lambda event, n: "gone" if event == "look" else None
        code, shown, _ = told()
        assert code == 0 and "msgbatch_000: not known with this key" in shown
    code, _, said = told()
    assert code == 1 and "Traceback" not in said, "the API is not there"


def test_a_directory_without_batches_has_none_to_cancel(tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path, GENRES, tokens=1_500), tmp_path / "out"
    with pytest.raises(SdfError, match="no corpus here"):
        api.cancel(out)
    make(recipe, out)
    with pytest.raises(UsageError, match="no batch was ever submitted from here"):
        api.cancel(out)


def test_a_batch_whose_reply_was_lost_is_not_canceled_on_a_guess(tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path, GENRES, tokens=1_500), tmp_path / "out"
    with serving_batches(nth("create", 1, fault="lost"), lasts=10**9) as server:
        with pytest.raises(StillProcessing, match="msgbatch_000 may be it"):
            make(recipe, out, drain_timeout=0.1, **given(server, max_wait="0.3"))
        made = api.cancel(out)
        assert made.unclear == ("msgbatch_000",) and not made.canceled
        assert not server.batches["msgbatch_000"].is_canceled
        server.lasts = 1
        assert make(recipe, out, **given(server)).finished and set(server.bills.values()) == {1}


def test_a_preview_through_batches_needs_a_directory(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches() as server:
        with pytest.raises(RecipeError, match="--out, or give --provider anthropic"):
            api.preview(recipe, "note", 2, **given(server))
        assert not server.batches
        assert len(api.preview(recipe, "note", 2, out=tmp_path / "out", **given(server))) == 2


# --- beside other providers ---


def test_what_is_asked_online_beside_batches_is_not_asked_by_thousands(tmp_path: Path) -> None:
    def backends(**fields: Any) -> tuple[int, int, int]:
        recipe = make_job(tmp_path, GENRES, model="m", **fields).recipe
        return recipe.n_in_flight, recipe.n_open("anthropic"), recipe.n_open("anthropic-batch")

    assert backends(provider="anthropic") == (64, 64, 64)
    assert backends(provider="anthropic-batch", providers={"angle": "anthropic"}) == (5_000, 64, 5_000)
    mixed = {"provider": "anthropic", "providers": {"judge": "anthropic-batch"}, "models": {"judge": "m"}}
    assert backends(**mixed) == (5_000, 64, 5_000)
    assert backends(**mixed, in_flight=300) == (300, 64, 300)
    assert backends(provider="anthropic", in_flight=300) == (300, 300, 300)


def test_angles_may_be_asked_online_and_the_rest_in_batches(oracle: list[tuple[str, str]], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches() as server:
        fields = given(server)
        fields |= {"providers": {"angle": "anthropic"}, "models": {"angle": fields["model"]}}
        fields["provider_settings"] |= {"angle.base_url": server.api.url}
        assert make(recipe, tmp_path / "out", **fields).finished
        assert {"angles" in each.body["messages"][-1]["content"] for each in server.api.asked} == {True}
        asked = [each["params"] for batch in server.batches.values() for each in batch.requests]
        assert not any("<angles>" in each["messages"][-1]["content"] for each in asked)
    assert shard_hashes(tmp_path / "out") == oracle


# --- money ---


def billed(server: FakeBatches) -> float:
    return server.api.billed_usd(tariff(builtin(), "anthropic-batch", {}, "claude-opus-5-5"))


def cost_of(out: Path) -> Cost:
    cost = api.status(out).cost
    assert cost is not None
    return cost


def test_a_cap_holds_and_neither_money_nor_the_pool_waits_for_the_other(
    oracle: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(treasury, "GRANT_EVERY", 0.02)
    recipe, out = write_recipe(tmp_path, GENRES, tokens=1_500), tmp_path / "out"
    with serving_batches(lambda event, n: "expired" if event == "item" and n % 3 == 0 else None) as server:
        with pytest.raises(BudgetExhausted):
            make(recipe, out, **given(server), max_cost=0.1)
        assert 0 < billed(server) <= 0.1
        outcome = make(recipe, out, **given(server), max_cost=20)
        assert outcome.finished and outcome.cost is not None
        assert outcome.cost.spent == pytest.approx(billed(server)), "half price, and what expired is not billed"
        assert outcome.cost.presumed == pytest.approx(0.0)
    assert shard_hashes(out) == oracle


def test_a_run_that_is_left_is_gone_on_with_under_its_own_cap(
    oracle: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies at the API counts once, at its worst until it is collected, and at its price from then on."""
    monkeypatch.setattr(treasury, "GRANT_EVERY", 0.02)
    recipe, out = write_recipe(tmp_path, GENRES, tokens=1_500), tmp_path / "out"
    with serving_batches() as server:
        seen: list[float] = []
        for _ in range(3):
            left_behind(recipe, out, server, max_cost=20)
            cost = cost_of(out)
            assert cost.spent == 0
            seen.append(cost.presumed)
        assert seen == pytest.approx([seen[0]] * 3) and seen[0] > 0
        server.lasts = 1
        # Not a cent more: the money for what lies there was set aside when it was sent.
        outcome = make(recipe, out, **given(server), max_cost=seen[0])
        assert outcome.finished and outcome.cost is not None
        assert billed(server) <= seen[0]
        told = cost_of(out)
        for cost in (outcome.cost, told):
            assert cost.spent == pytest.approx(billed(server)) and cost.presumed == pytest.approx(0.0)
    assert shard_hashes(out) == oracle


def test_runs_that_are_killed_while_they_wait_add_nothing(
    oracle: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request counts once, however many have waited for it, and however they ended."""
    monkeypatch.setattr(treasury, "GRANT_EVERY", 0.02)
    recipe, out = write_recipe(tmp_path, GENRES, tokens=1_500), tmp_path / "out"
    with serving_batches() as server:
        left_behind(recipe, out, server, max_cost=20)
        seen = [cost_of(out).presumed]
        for _ in range(2):
            killed_while_waiting(recipe, out, server, max_cost=seen[0])
            seen.append(cost_of(out).presumed)
        assert seen == pytest.approx([seen[0]] * 3) and seen[0] > 0
        server.lasts = 1
        assert make(recipe, out, **given(server), max_cost=seen[0]).finished
        cost = cost_of(out)
        assert cost.spent == pytest.approx(billed(server)) and cost.presumed == pytest.approx(0.0)
        assert set(server.bills.values()) == {1}
    assert shard_hashes(out) == oracle


def killed_while_waiting(recipe: str, out: Path, server: FakeBatches, **fields: Any) -> None:
    """By SIGKILL, once the batch that was left has been looked at a few times."""
    n_looks = server.counts["look"]
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, recipe, str(out), json.dumps(given(server) | fields)], stderr=subprocess.PIPE
    )
    assert run.stderr is not None
    try:
        while server.counts["look"] < n_looks + 5:
            assert run.poll() is None, run.stderr.read().decode()[-2_000:]
            time.sleep(0.02)
    finally:
        run.kill()
        run.communicate()


@pytest.mark.parametrize("fault", ["archived when looked at", "archived when fetched"])
def test_results_that_were_lost_were_paid_for(
    fault: str, oracle: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count at their worst for good, and what is asked anew counts beside them."""
    monkeypatch.setattr(treasury, "GRANT_EVERY", 0.02)
    recipe, out = write_recipe(tmp_path, GENRES, tokens=1_500), tmp_path / "out"
    with serving_batches() as server:
        left_behind(recipe, out, server, max_cost=20)
        left = cost_of(out).presumed
        server.lasts = 1
        if fault == "archived when fetched":
            server.fault = nth("results", 1, fault="archived")
        else:
            for each in server.batches.values():
                each.is_archived = True
        outcome = make(recipe, out, **given(server), max_cost=20)
        assert outcome.finished and outcome.cost is not None
        told = cost_of(out)
        assert told.presumed == pytest.approx(left) == pytest.approx(outcome.cost.presumed)
        assert told.spent == pytest.approx(outcome.cost.spent)
        assert max(server.bills.values()) == 2, "paid twice, as it must"
        assert told.spent + told.presumed >= billed(server)
    assert shard_hashes(out) == oracle


def test_a_batch_that_expired_is_not_asked_again_after_a_crash(oracle: list[tuple[str, str]], tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path, GENRES, tokens=1_500), tmp_path / "out"
    with serving_batches(lambda event, n: "expired" if event == "item" else None, lasts=1) as server:
        fields = json.dumps(given(server) | {"max_cost": 20})
        environment = {**os.environ, "SDF_FAILPOINT": "batch submitted:2"}
        command = [sys.executable, "-c", RUN, recipe, str(out), fields]
        killed = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2_000:]
        assert server.counts["results"] == 1
        left = api.status(out).uncollected
        assert [each.batch for each in left] == ["msgbatch_001"], "the first answers nothing any more"
        server.fault = lambda event, n: None
        assert make(recipe, out, **given(server), max_cost=20).finished
        assert server.counts["results"] == len(server.batches), "each once"
        assert cost_of(out).spent == pytest.approx(billed(server))
    assert shard_hashes(out) == oracle


def test_what_a_killed_run_had_submitted_counts_once_too(
    oracle: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = write_recipe(tmp_path, GENRES, tokens=1_500), tmp_path / "out"
    with serving_batches(lasts=10**9) as server:
        fields = json.dumps(given(server) | {"max_cost": 20})
        command = [sys.executable, "-c", RUN, recipe, str(out), fields]
        environment = {**os.environ, "SDF_FAILPOINT": "batch submitted:1"}
        killed = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2_000:]
        before = cost_of(out)
        assert before.spent == 0 and before.presumed > 0
        server.lasts = 1
        assert make(recipe, out, **given(server), max_cost=20).finished
        after = cost_of(out)
        assert after.spent == pytest.approx(billed(server))
        assert after.presumed < 0.01, "beyond what was submitted nothing had been granted and not used"
    assert shard_hashes(out) == oracle
