"""Message batches under everything that may go wrong: what is on record is fetched, and never paid for again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from fake_batches import FakeBatches, serving_batches
from support import make, shard_hashes, write_recipe
from test_batches import GENRES, given, nth, oracle, quick

from sdf import api
from sdf.errors import CircuitOpen, NotServed, SdfError, StillProcessing
from sdf.providers import batch_api
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
                log.intend([f"{i:016x}{j:016x}"])
        except SdfError as error:
            met.append(error)

    threads = [threading.Thread(target=intend, args=(i,)) for i in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not met and len(log.known()) == 160
