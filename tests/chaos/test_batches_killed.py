"""Workers and drivers killed while message batches go on: whoever comes next collects, and nobody pays twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from fake_batches import FakeBatches, serving_batches
from runs import Process, make
from support import NOTE, shard_hashes, write_recipe

from sdf import api

# Ray's workers outlive a driver that is killed by a minute.
pytestmark = pytest.mark.slow

KEY = "sk-CANARY-3f9b1c7d5e2a4860"
GENRES = {"note": NOTE.replace("redraws: 2", "redraws: 0")}
SETTINGS = {"gather": "0.2", "poll": "0.1", "lost_reply": "1", "batch_size": "3"}
NEVER = 10**9


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Generator[FakeBatches]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with serving_batches(lasts=NEVER) as opened:
        yield opened


def recipe_for(server: FakeBatches, folder: Path, **fields: Any) -> str:
    settings = {"base_url": server.api.url, **SETTINGS, **fields.pop("settings", {})}
    given = {"provider": "anthropic-batch", "model": "claude-opus-5-5", "provider_settings": settings, "in_flight": 3}
    return write_recipe(folder, GENRES, **given | {"tokens": 4_000} | fields)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("quiet")
    with pytest.MonkeyPatch.context() as context, serving_batches(lasts=1) as quiet:
        context.setenv("ANTHROPIC_API_KEY", KEY)
        assert make(recipe_for(quiet, folder), folder / "out").finished
    return shard_hashes(folder / "out")


def actors_of(process: Process) -> list[int]:
    """Processes of the run's workers: Ray starts each raylet in the session of its driver."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                is_ours = (entry / "cmdline").read_bytes().startswith(b"ray::_Actor")
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            except (OSError, ValueError):
                continue
            if is_ours and session == process.pid:
                found.append(int(entry.name))
    return found


def n_open(server: FakeBatches) -> int:
    return sum(each.results is None for each in server.batches.values())


def test_a_worker_that_is_killed_while_batches_go_on(
    server: FakeBatches, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    run = Process(recipe_for(server, tmp_path), tmp_path / "out", ray="local", workers=2)
    try:
        run.until(lambda: n_open(server) >= 2 and len(actors_of(run)) == 2)
        os.kill(actors_of(run)[0], signal.SIGKILL)
        run.until(lambda: "is lost" in run.said)
        server.lasts = 1
        assert run.wait() == 0, run.said
    finally:
        run.kill()
    assert set(server.bills.values()) == {1}
    assert shard_hashes(tmp_path / "out") == expected
    assert not api.verify(tmp_path / "out", replay=True).problems
    assert KEY not in run.said


def test_a_worker_that_is_killed_while_a_batch_is_being_created(
    server: FakeBatches, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    """The API has the batch, nobody has its id."""
    server.fault = lambda event, n: "hang" if event == "create" and n <= 2 else None
    run = Process(recipe_for(server, tmp_path), tmp_path / "out", ray="local", workers=2)
    try:
        run.until(lambda: n_open(server) >= 2 and len(actors_of(run)) == 2)
        for each in actors_of(run):
            os.kill(each, signal.SIGKILL)
        run.until(lambda: run.said.count("is lost") == 2)
        server.lasts = 1
        assert run.wait() == 0, run.said
    finally:
        run.kill()
    assert set(server.bills.values()) == {1}
    assert shard_hashes(tmp_path / "out") == expected


@pytest.mark.parametrize("workers", [1, 3])
def test_a_driver_that_is_killed_and_more_or_fewer_workers_after_it(
    workers: int, server: FakeBatches, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    recipe = recipe_for(server, tmp_path)
    server.lasts = 2
    first = Process(recipe, tmp_path / "out", ray="local", workers=2)
    try:
        first.until(lambda: len(server.batches) >= 8)
        server.lasts = NEVER
        first.until(lambda: n_open(server) >= 2)
    finally:
        first.kill()
    until_gone(first)
    n_before = len(server.batches)
    server.lasts = 3
    second = Process(recipe, tmp_path / "out", ray="local", workers=workers)
    try:
        assert second.wait() == 0, second.said
    finally:
        second.kill()
    assert len(server.batches) > n_before and set(server.bills.values()) == {1}
    assert shard_hashes(tmp_path / "out") == expected


def until_gone(process: Process) -> None:
    """Ray's workers end by themselves when their driver is gone."""
    while actors_of(process):
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_a_run_is_told_what_goes_on_without_it(
    number: int, server: FakeBatches, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    recipe, out = recipe_for(server, tmp_path, settings={"batch_size": "100"}, in_flight=60), tmp_path / "out"
    run = Process(recipe, out, ray="none", drain_timeout=1)
    run.until(lambda: "msgbatch_000 is under way" in run.said and "under way, the oldest for" in run.said)
    run.send(number)
    assert run.wait() == 128 + number, run.said
    assert "stay submitted" in run.said and f"`sdf cancel {out}`" in run.said
    again = Process(recipe, out, ray="none", drain_timeout=600)
    again.until(lambda: again.said.count("msgbatch_000 is under way") == 2)
    again.send(number)
    again.until(lambda: again.said.count("once more to abort") == 2)
    again.send(number)
    assert again.wait(10) == 128 + number
    assert again.said.count("stay submitted") == 2
    assert "Traceback" not in again.said
    server.lasts = 1
    assert make(recipe, out).finished and set(server.bills.values()) == {1}
    assert shard_hashes(out) == expected
