"""Runs that are asked to stop, stall, lose their disk or their directory: what they leave, the next run finishes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from runs import Oracle, Process, answers, check_whole, corpus, is_complete, make

from sdf import api
from sdf.errors import LeaseHeld
from sdf.shards import read_manifest
from sdf.storage import RunDir, lease


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_commits(oracle: Oracle, tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    stopped = Process(oracle.source, out)
    stopped.until_flushed(2)
    stopped.send(number)
    assert stopped.wait() == 128 + number, stopped.said
    # Committed up to the end of what was settled, short shards included: a corpus like any other.
    manifest = read_manifest(RunDir(out))
    assert manifest is not None and manifest.state == "growing" and manifest.n_documents > 0
    assert api.verify(out, replay=True).problems == ()
    n_kept = len(answers(out))
    resumed = make(oracle.source, out)
    check_whole(out, oracle.corpus)
    assert resumed.n_requests == len(answers(out)) - n_kept


def test_a_second_signal_ends_at_once(oracle: Oracle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # Often enough that something hangs in whatever is in flight: a drain that ends would restore the handlers.
    aborted = Process(oracle.source, out, provider_setting="hang_every=4", drain_timeout=600)
    aborted.until_flushed(1)
    aborted.send(signal.SIGTERM)
    aborted.until(lambda: "once more to abort" in aborted.said)
    aborted.send(signal.SIGTERM)
    assert aborted.wait(10) == 128 + signal.SIGTERM
    make(oracle.source, out)
    check_whole(out, oracle.corpus)


def test_a_run_beside_a_living_one_is_refused(oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And beside a stalled one it takes over; the stalled one wakes up to commit nothing more."""
    out = tmp_path / "out"
    # Slow enough to live through its first renewal, after 10 s.
    first = Process(oracle.source, out, provider_setting="latency=0.5")
    first.until_flushed(2)
    with pytest.raises(LeaseHeld, match=f"pid {first.pid}"):
        make(oracle.source, out)
    first.send(signal.SIGSTOP)
    # As if the minute that a silent holder is given had passed.
    monkeypatch.setattr(lease, "STALE_AFTER", 0.5)
    monkeypatch.setattr(lease, "LOOK_EVERY", 0.1)
    assert make(oracle.source, out).finished
    assert corpus(out) == oracle.corpus
    newest = read_manifest(RunDir(out))
    first.send(signal.SIGCONT)
    assert first.wait() == 1, first.said
    assert "took this directory over" in first.said and "Traceback" not in first.said
    assert read_manifest(RunDir(out)) == newest and corpus(out) == oracle.corpus
    # What the woken one still wrote is another epoch's: it neither changes the corpus nor is it asked for again.
    assert make(oracle.source, out).n_requests == 0
    assert corpus(out) == oracle.corpus
    assert api.verify(out, replay=True).problems == ()


def test_the_directory_is_deleted_under_a_run(oracle: Oracle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bereft = Process(oracle.source, out, provider_setting="latency=0.1")
    bereft.until_flushed(2)
    shutil.rmtree(out, ignore_errors=True)
    assert bereft.wait() == 1, bereft.said
    assert "Traceback" not in bereft.said and str(out) in bereft.said
    # It may have left files behind; they hold no commit, and a run there begins anew or says what is in the way.
    assert not is_complete(out)


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 1.5 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.getuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount a file system: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("n_free", [60_000, 150_000, 300_000])
def test_a_disk_that_fills_up(oracle: Oracle, small_disk: Path, n_free: int) -> None:
    out, ballast = small_disk / "out", small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - n_free))
    starved = Process(oracle.source, out, log=small_disk.with_suffix(".log"))
    assert starved.wait() == 1, starved.said
    assert "no space left" in starved.said and "Traceback" not in starved.said
    committed = corpus(out) if list(out.glob("manifests/*.json")) else {}
    n_kept = len(answers(out))
    ballast.unlink()
    resumed = make(oracle.source, out)
    assert resumed.finished
    assert resumed.n_requests == len(answers(out)) - n_kept
    check_whole(out, oracle.corpus)
    # What was committed is still there, replaced short shards included: a reader may hold the old manifest.
    assert all((out / path).exists() for path in committed)
