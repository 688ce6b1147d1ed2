"""Corpora made through message batches: crashes, lost replies and expiry change nothing and cost nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_batches import FakeBatches, serving_batches
from support import NOTE, make, shard_hashes, write_recipe

from sdf import api, worker
from sdf.errors import DamagedError, NotServed, RecipeError, SdfError, StillProcessing, Unauthorized
from sdf.providers.anthropic import batch_api

KEY = "sk-CANARY-3f9b1c7d5e2a4860"
GENRES = {"note": NOTE.replace("redraws: 2", "redraws: 0")}
QUICK = {"gather": "0.05", "poll": "0.02", "lost_reply": "0.1"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr(worker, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(batch_api, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(batch_api, "LONGEST_PAUSE", 0.05)


def given(server: FakeBatches, **settings: str) -> dict[str, Any]:
    return {
        "provider": "anthropic-batch",
        "model": "claude-opus-5-5",
        "provider_settings": {"base_url": server.api.url, **QUICK, **settings},
        "in_flight": 64,
    }


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """The shards of the same recipe through the same API online."""
    folder = tmp_path_factory.mktemp("online")
    with pytest.MonkeyPatch.context() as context, serving_batches() as server:
        context.setenv("ANTHROPIC_API_KEY", KEY)
        online = given(server) | {"provider": "anthropic", "provider_settings": {"base_url": server.api.url}}
        assert make(write_recipe(folder, GENRES, tokens=1_500), folder / "out", **online).finished
    return shard_hashes(folder / "out")


def nth(event: str, *numbers: int, fault: str) -> Callable[[str, int], str | None]:
    return lambda befell, n: fault if befell == event and n in numbers else None


WEATHER: dict[str, Callable[[str, int], str | None]] = {
    "calm": lambda event, n: None,
    "create limited": nth("create", 1, 3, fault="limited"),
    "create broken": nth("create", 1, 2, fault="broken"),
    "create lost its reply": nth("create", 1, 2, 4, fault="lost"),
    "create broke after it was done": nth("create", 2, fault="broken_after"),
    "create never arrived": nth("create", 1, 3, fault="lost_before"),
    "some expire": lambda event, n: "expired" if event == "item" and n % 5 == 0 else None,
    "some fail": lambda event, n: "errored" if event == "item" and n % 7 == 0 else None,
    "results break off": nth("results", 1, 3, fault="truncated"),
    "looks fail": lambda event, n: "broken" if event == "look" and n % 3 == 0 else None,
}


@pytest.mark.parametrize("weather", WEATHER)
def test_batches_make_the_corpus_that_online_calls_make_and_nothing_is_billed_twice(
    weather: str, oracle: list[tuple[str, str]], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(WEATHER[weather]) as server:
        assert make(recipe, tmp_path / "out", **given(server)).finished
        assert shard_hashes(tmp_path / "out") == oracle
        assert set(server.bills.values()) == {1}
        assert not [each for each in server.api.asked if each.path == "/v1/messages"], "no online call"
    assert not api.verify(tmp_path / "out", replay=True).problems


def test_requests_of_many_documents_and_steps_share_a_batch(tmp_path: Path) -> None:
    two = {"note": GENRES["note"], "memo": GENRES["note"].replace("key: note", "key: memo")}
    recipe = write_recipe(tmp_path, two, tokens=3_000)
    with serving_batches() as server:
        outcome = make(recipe, tmp_path / "out", **given(server))
        sizes = [len(batch.requests) for batch in server.batches.values()]
    assert outcome.n_requests == sum(sizes) and outcome.n_requests > 6 * len(sizes)


RUN = """\
import sys, json
from sdf import api, worker
from sdf.providers.anthropic import batch_api
worker.FLUSH_SECONDS = 0.05
batch_api.FIRST_PAUSE = 0.01
api.run(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
"""


@pytest.mark.parametrize("point", ["batch intended:1", "batch created:2", "batch submitted:1", "batch submitted:3"])
def test_a_kill_anywhere_around_create_costs_nothing_twice(
    point: str, oracle: list[tuple[str, str]], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches() as server:
        fields = json.dumps(given(server))
        command = [sys.executable, "-c", RUN, recipe, str(tmp_path / "out"), fields]
        killed = subprocess.run(command, env={**os.environ, "SDF_FAILPOINT": point}, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2_000:]
        assert make(recipe, tmp_path / "out", **given(server)).finished
        assert shard_hashes(tmp_path / "out") == oracle
        assert set(server.bills.values()) == {1}, "every request was answered, and so paid, once"


def test_batches_that_go_on_too_long_are_left_and_collected_by_the_next_run(
    oracle: list[tuple[str, str]], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(lasts=10**9) as server:
        with pytest.raises(StillProcessing, match="the same command collects it") as caught:
            make(recipe, tmp_path / "out", drain_timeout=0.1, **given(server, max_wait="0.3"))
        assert caught.value.exit_code == 3
        n_before = len(server.batches)
        server.lasts = 1
        assert make(recipe, tmp_path / "out", **given(server)).finished
        assert n_before >= 1 and set(server.bills.values()) == {1}
    assert shard_hashes(tmp_path / "out") == oracle


def test_a_batch_canceled_by_hand_goes_back_to_the_pool(oracle: list[tuple[str, str]], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(lasts=10**9) as server:
        with pytest.raises(StillProcessing):
            make(recipe, tmp_path / "out", drain_timeout=0.1, **given(server, max_wait="0.2"))
        assert api.cancel(tmp_path / "out").canceled == tuple(server.batches)
        assert all(batch.is_canceled for batch in server.batches.values())
        server.lasts = 1
        assert make(recipe, tmp_path / "out", **given(server)).finished
        assert set(server.bills.values()) == {1}
    assert shard_hashes(tmp_path / "out") == oracle


@pytest.mark.parametrize("fault", ["invalid", "odd"])
def test_a_request_at_fault_settles_its_brief_alone(fault: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(lambda event, n: fault if event == "item" and n % 11 == 0 else None) as server:
        cost = make(recipe, tmp_path / "out", **given(server), max_cost=20).cost
        assert set(server.bills.values()) == {1}
    assert cost is not None and (cost.presumed > 0.01) is (fault == "odd"), "an answer that is none was paid for"
    told = api.status(tmp_path / "out")
    assert told.rejected.get("failed") and told.cost is not None
    assert told.cost.presumed == pytest.approx(cost.presumed)


@pytest.mark.parametrize(("fault", "kind"), [("gone", NotServed), ("bill", Unauthorized)])
def test_what_needs_a_person_stops_the_run_also_within_a_batch(
    fault: str, kind: type[SdfError], oracle: list[tuple[str, str]], tmp_path: Path
) -> None:
    """A model that is gone, an account that cannot pay: nothing is settled by it, and nothing is asked on and on."""
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(lambda event, n: fault if event == "item" and n > 20 else None) as server:
        with pytest.raises(kind) as caught:
            make(recipe, tmp_path / "out", drain_timeout=0.1, **given(server))
        assert caught.value.exit_code == 5
        server.fault = lambda event, n: None
        assert make(recipe, tmp_path / "out", **given(server)).finished
        assert set(server.bills.values()) == {1}
    assert not api.status(tmp_path / "out").rejected.get("failed")
    assert shard_hashes(tmp_path / "out") == oracle


def test_a_batch_that_is_refused_whole_goes_out_in_halves(oracle: list[tuple[str, str]], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(nth("create", 1, 2, fault="too_large")) as server:
        assert make(recipe, tmp_path / "out", **given(server)).finished
    assert shard_hashes(tmp_path / "out") == oracle


def test_a_wrong_key_stops_the_run_at_once(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches(nth("create", 1, fault="bad_key")) as server, pytest.raises(Unauthorized):
        make(recipe, tmp_path / "out", **given(server))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(("name", "value"), [("batch_size", "0"), ("poll", "-1"), ("max_wait", "soon"), ("gathr", "1")])
def test_settings_that_mean_nothing_are_refused(name: str, value: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES)
    with serving_batches() as server, pytest.raises(RecipeError, match=name):
        make(recipe, tmp_path / "out", **given(server, **{name: value}))


def test_a_torn_record_is_named(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, GENRES, tokens=1_500)
    with serving_batches() as server:
        make(recipe, tmp_path / "out", **given(server))
        (tmp_path / "out" / "batches" / "000001-w0000-000-0000.json").write_text('{"ids": ["a')
        with pytest.raises(DamagedError, match=r"batches/000001-w0000-000-0000.json: not a record"):
            make(recipe, tmp_path / "out", **given(server) | {"tokens": 5_000})
