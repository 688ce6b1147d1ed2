from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from sdf.errors import DamagedError, LeaseHeld, Superseded
from sdf.storage import RunDir, current_epoch, open_epoch
from sdf.storage.lease import RENEW_EVERY, STALE_AFTER, Holder, Lease, holder

N_RACERS = 6


@dataclass
class Clock:
    """Time that passes only in `sleep`; `each_second` is what the rest of the world does meanwhile."""

    now: float = 1000.0
    each_second: Callable[[float], object] = lambda now: None
    slept: float = 0.0
    said: list[str] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.now += 1
            self.slept += 1
            self.each_second(self.now)

    def take(self, run_dir: RunDir, job: str = "corpus-7") -> Lease:
        return Lease.take(run_dir, owner={"job": job}, say=self.said.append, clock=lambda: self.now, sleep=self.sleep)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def lease_of_another_machine(run_dir: RunDir, **facts: object) -> Lease:
    other = replace(Holder.this_process({"job": "corpus-7"}), host="node-9", machine="another boot", **facts)
    return Lease(run_dir, open_epoch(run_dir, other.to_json()), other)


def test_a_fresh_directory_is_taken_at_once(run_dir: RunDir, clock: Clock) -> None:
    lease = clock.take(run_dir)
    assert lease.epoch == current_epoch(run_dir) == 1
    assert (clock.slept, clock.said) == (0, [])
    held = holder(run_dir)
    assert held
    assert (held.pid, held.owner, held.is_dead()) == (os.getpid(), {"job": "corpus-7"}, False)


def test_a_released_lease_is_succeeded_at_once(run_dir: RunDir, clock: Clock) -> None:
    lease = clock.take(run_dir)
    lease.renew()
    lease.release()
    lease.release()
    assert holder(run_dir) is None
    assert clock.take(run_dir).epoch == 2
    assert (clock.slept, clock.said) == (0, [])


def test_a_late_renewal_does_not_undo_a_release(run_dir: RunDir, clock: Clock) -> None:
    lease = clock.take(run_dir)
    lease.release()
    lease.renew()
    assert holder(run_dir) is None


def test_a_holder_that_renews_keeps_it(run_dir: RunDir, clock: Clock) -> None:
    lease = lease_of_another_machine(run_dir)
    clock.each_second = lambda now: lease.renew() if now % RENEW_EVERY == 0 else None
    with pytest.raises(LeaseHeld, match=rf"node-9, pid {os.getpid()}, job corpus-7, which is alive"):
        clock.take(run_dir)
    assert clock.slept <= RENEW_EVERY + 2
    assert len(clock.said) == 1
    assert "node-9" in clock.said[0]
    assert "waiting up to 60 s" in clock.said[0]
    assert current_epoch(run_dir) == lease.epoch
    lease.renew()


def test_a_living_process_of_this_machine_is_watched_too(run_dir: RunDir, clock: Clock) -> None:
    lease = clock.take(run_dir)
    clock.each_second = lambda now: lease.renew() if now % RENEW_EVERY == 0 else None
    with pytest.raises(LeaseHeld):
        clock.take(run_dir)


def test_a_silent_holder_is_succeeded_after_a_minute(run_dir: RunDir, clock: Clock) -> None:
    lease = lease_of_another_machine(run_dir)
    lease.renew()
    taken = clock.take(run_dir)
    assert taken.epoch == 2
    assert STALE_AFTER <= clock.slept <= STALE_AFTER + 2
    assert "was silent for 60 s" in clock.said[-1]
    with pytest.raises(Superseded, match="epoch 2 follows 1"):
        lease.renew()
    taken.renew()


def test_a_holder_that_wakes_up_destroys_nothing(run_dir: RunDir, clock: Clock) -> None:
    sleeper = lease_of_another_machine(run_dir)
    taken = clock.take(run_dir)
    for act in (sleeper.release, sleeper.renew, sleeper.release):
        try:
            act()
        except Superseded:
            continue
    taken.renew()
    held = holder(run_dir)
    assert held
    assert (held.host, held.beat) == (Holder.this_process({}).host, 1)


def test_a_release_ends_the_wait(run_dir: RunDir, clock: Clock) -> None:
    lease = lease_of_another_machine(run_dir)
    clock.each_second = lambda now: lease.release() if now == 1020 else None
    assert clock.take(run_dir).epoch == 2
    assert clock.slept <= 22


def test_who_took_it_meanwhile_is_respected(run_dir: RunDir, clock: Clock) -> None:
    lease_of_another_machine(run_dir)
    rival: list[Lease] = []

    def world(now: float) -> None:
        if now == 1059:
            rival.append(lease_of_another_machine(run_dir))
        if rival and now % RENEW_EVERY == 0:
            rival[0].renew()

    clock.each_second = world
    with pytest.raises(LeaseHeld):
        clock.take(run_dir)
    rival[0].renew()


# The same machine: what the kernel knows need not be waited for.


def test_a_dead_process_of_this_machine_is_succeeded_at_once(run_dir: RunDir, clock: Clock) -> None:
    script = (
        "import os, sys; from sdf.storage.lease import Lease; from sdf.storage import RunDir\n"
        "Lease.take(RunDir(sys.argv[1]), owner={}, say=print); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, run_dir.root]).returncode == -9
    held = holder(run_dir)
    assert held
    assert held.is_dead()
    assert clock.take(run_dir).epoch == 2
    assert clock.slept == 0


def test_a_zombie_is_dead(run_dir: RunDir, clock: Clock) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    alive = replace(Holder.this_process({}), pid=child.pid, start=process_start(child.pid))
    assert not alive.is_dead()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert alive.is_dead()
    child.communicate()
    assert alive.is_dead()


def process_start(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_a_recycled_pid_is_not_mistaken(run_dir: RunDir, clock: Clock) -> None:
    mine = Holder.this_process({})
    open_epoch(run_dir, replace(mine, start=mine.start - 1).to_json())
    assert clock.take(run_dir).epoch == 2
    assert clock.slept == 0


def test_a_dead_pid_means_nothing_on_another_machine(run_dir: RunDir, clock: Clock) -> None:
    lease_of_another_machine(run_dir, start=1)
    assert clock.take(run_dir).epoch == 2
    assert clock.slept >= STALE_AFTER


# What else may lie there.


def test_an_epoch_opened_without_a_lease_holds_nobody_up(run_dir: RunDir, clock: Clock) -> None:
    open_epoch(run_dir)
    assert holder(run_dir) is None
    assert clock.take(run_dir).epoch == 2
    assert clock.slept == 0


@pytest.mark.parametrize("content", [b"\xff", b"", b"[1]", b'{"host": "a"}', b'{"unknown": 1}'])
def test_a_damaged_lease_is_named(run_dir: RunDir, clock: Clock, content: bytes) -> None:
    open_epoch(run_dir, content)
    with pytest.raises(DamagedError, match=r"ledger/000001/EPOCH: no lease .* make \{\} its content"):
        clock.take(run_dir)


def test_a_deleted_directory_is_not_brought_back(run_dir: RunDir, clock: Clock) -> None:
    lease = clock.take(run_dir)
    run_dir.delete(RunDir.lease(1))
    with pytest.raises(Superseded, match="deleted or moved"):
        lease.renew()
    lease.release()
    assert run_dir.files() == []


def test_no_clock_is_written(tmp_path: Path) -> None:
    first, second = Clock(now=5.0), Clock(now=5000.0)
    for name, clock in (("a", first), ("b", second)):
        clock.take(RunDir(tmp_path / name)).renew()
    assert RunDir(tmp_path / "a").read(RunDir.lease(1)) == RunDir(tmp_path / "b").read(RunDir.lease(1))


# Newcomers that race.

starting_line: Barrier
finish: Event


def line_up(barrier: Barrier, event: Event) -> None:
    global starting_line, finish
    starting_line, finish = barrier, event


def take_and_hold(run_dir: RunDir) -> int | None:
    starting_line.wait()
    try:
        lease = Lease.take(run_dir, owner={}, say=lambda _: None, sleep=lambda _: time.sleep(0.01))
    except LeaseHeld:
        return None
    while not finish.wait(0.005):
        lease.renew()
    lease.renew()
    return lease.epoch


def test_of_racing_newcomers_exactly_one_holds(run_dir: RunDir) -> None:
    context = multiprocessing.get_context("spawn")
    finished = context.Event()
    setup = (context.Barrier(N_RACERS), finished)
    with ProcessPoolExecutor(N_RACERS, context, line_up, setup) as pool:
        futures = [pool.submit(take_and_hold, run_dir) for _ in range(N_RACERS)]
        while sum(future.done() for future in futures) < N_RACERS - 1:
            time.sleep(0.01)
        finished.set()
        epochs = [future.result() for future in futures]
    assert sorted(epochs, key=str) == [1] + [None] * (N_RACERS - 1)
