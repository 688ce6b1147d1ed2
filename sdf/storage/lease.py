"""One driver per directory: who opened the highest epoch holds it, until it is released, dead or silent.

The lease file *is* the file that opens an epoch. Each driver creates its own, exclusively, and nobody else ever
rewrites it: so two newcomers cannot both take over, and a holder that slept through its lease can neither
resurrect it nor destroy its successor's. The price is one small file per run, and up to a minute of waiting
when a driver died on another machine.

Nothing here reads a wall clock: a holder counts beats, and a newcomer times their silence on its own clock.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sdf.errors import DamagedError, LeaseHeld, Superseded
from sdf.records import canonical_json
from sdf.storage import RunDir, check_epoch, current_epoch

RENEW_EVERY = 10.0
# Six missed renewals: a driver that merely stalled (a full disk queue, a slow store) keeps its directory.
STALE_AFTER = 60.0
LOOK_EVERY = 2.0

# In place of a start: a process that /proc does not show, and one that is no more.
UNKNOWN, GONE = -1, -2


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lease file says. `machine` is where `pid` means something; `start` tells a recycled pid from its first."""

    host: str
    machine: str
    pid: int
    start: int
    owner: Mapping[str, Any]
    beat: int = 0
    released: bool = False

    @classmethod
    def this_process(cls, owner: Mapping[str, Any]) -> Holder:
        pid = os.getpid()
        return cls(socket.gethostname(), _machine(), pid, _start(pid), dict(owner))

    def to_json(self) -> bytes:
        return f"{canonical_json(asdict(self))}\n".encode()

    def is_dead(self) -> bool:
        """Known for sure: it ran where pids are ours to see, and is gone. False also where that cannot be known."""
        return self.machine == _machine() and _start(self.pid) not in {self.start, UNKNOWN}

    def __str__(self) -> str:
        facts = "".join(f", {name} {value}" for name, value in sorted(self.owner.items()))
        return f"{self.host}, pid {self.pid}{facts}"


class Lease:
    """The right to write to a run directory in `epoch`, kept by calling `renew` every RENEW_EVERY seconds."""

    def __init__(self, run_dir: RunDir, epoch: int, holder: Holder) -> None:
        self.run_dir = run_dir
        self.epoch = epoch
        self._holder = holder

    @classmethod
    def take(
        cls,
        run_dir: RunDir,
        *,
        owner: Mapping[str, Any],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Lease:
        """Opens the next epoch once no one holds the directory; raises LeaseHeld when its holder shows life.

        A released lease and a dead process of this machine are succeeded at once; otherwise the lease is watched,
        and taken when STALE_AFTER seconds pass without a renewal. `owner` is what others are told (the job).
        """
        mine = Holder.this_process(owner)
        while True:
            epoch = current_epoch(run_dir)
            _wait_until_free(run_dir, epoch, say, clock, sleep)
            if run_dir.put_if_absent(run_dir.lease(epoch + 1), mine.to_json()):
                return cls(run_dir, epoch + 1, mine)

    def renew(self) -> None:
        """Raises Superseded when a later epoch is open, or the directory is no longer there."""
        check_epoch(self.run_dir, self.epoch)
        if not self.run_dir.exists(self.run_dir.lease(self.epoch)):
            raise Superseded(f"{self.run_dir.root}: this run's lease is gone: the directory was deleted or moved")
        self._write(replace(self._holder, beat=self._holder.beat + 1))

    def release(self) -> None:
        """The next run need not wait. Harmless when repeated, or after another run took over."""
        if self.run_dir.exists(self.run_dir.lease(self.epoch)):
            self._write(replace(self._holder, released=True))

    def _write(self, holder: Holder) -> None:
        self.run_dir.write(self.run_dir.lease(self.epoch), holder.to_json())
        self._holder = holder


def holder(run_dir: RunDir) -> Holder | None:
    """Who holds the directory, dead or alive; None when it is free, or its epoch was opened without a lease."""
    epoch = current_epoch(run_dir)
    found = _read(run_dir, run_dir.read(run_dir.lease(epoch)), epoch) if epoch else None
    return None if found is None or found.released else found


def _wait_until_free(
    run_dir: RunDir,
    epoch: int,
    say: Callable[[str], None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    if not epoch:
        return
    first = run_dir.read(run_dir.lease(epoch))
    held = _read(run_dir, first, epoch)
    if _is_free(held):
        return
    say(f"{run_dir.root} was last used by {held}; waiting up to {STALE_AFTER:.0f} s to see whether it is alive")
    since = clock()
    while clock() - since < STALE_AFTER:
        sleep(LOOK_EVERY)
        seen = run_dir.read(run_dir.lease(epoch))
        held = _read(run_dir, seen, epoch)
        if _is_free(held):
            return
        if seen != first:
            raise LeaseHeld(f"{run_dir.root} is in use by {held}, which is alive; wait until it ends, or stop it")
    say(f"{held} was silent for {STALE_AFTER:.0f} s; going on in its place")


def _is_free(held: Holder | None) -> bool:
    return held is None or held.released or held.is_dead()


def _read(run_dir: RunDir, data: bytes, epoch: int) -> Holder | None:
    try:
        fields = json.loads(data)
        return Holder(**fields) if fields else None
    except (ValueError, TypeError, RecursionError) as error:
        place = f"{run_dir.root}/{run_dir.lease(epoch)}"
        raise DamagedError(f"{place}: no lease ({error}); if no run is alive there, make {{}} its content") from error


def _machine() -> str:
    """Where pids can be compared: one boot of one kernel, and one process namespace of it (containers have several)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _start(pid: int) -> int:
    """Clock ticks from boot to the start of the process; GONE, or UNKNOWN where it lives but /proc does not tell."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return GONE
    except PermissionError:
        # Another user's: alive, and with hidepid not in our /proc.
        pass
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return UNKNOWN
    # man 5 proc: field 3 is the state, field 22 the start. A zombie does nothing any more.
    return GONE if state in {"Z", "X"} else int(numbers[18])
