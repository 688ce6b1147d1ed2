"""Ray nodes as processes of this machine, each with a loopback address of its own, and each killed as a machine dies.

Nothing here asks `ray stop`, which ends every Ray process it sees: a node is a tree of processes below one `sh`
that adopts its orphans, and dying means SIGKILL to that tree. Linux alone: /proc and PR_SET_CHILD_SUBREAPER.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

PR_SET_CHILD_SUBREAPER = 36
BIN = Path(sys.executable).parent

# Not 127.0.0.1, in whose place Ray puts the machine's outer address.
HEAD_IP, SECOND_IP = "127.0.0.2", "127.0.0.3"

# `ray start` takes 3 s here; a busy machine may need many times that.
START_TIMEOUT = 120.0


def environment(token: str = "") -> dict[str, str]:
    """What a process of the cluster is started with: this interpreter's programs first, no other cluster in sight."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SDF_"))}
    found["PATH"] = f"{BIN}{os.pathsep}{found['PATH']}"
    found["RAY_USAGE_STATS_ENABLED"] = "0"
    return found | ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {})


def free_ports(address: str, n: int) -> list[int]:
    sockets = [socket.create_server((address, 0)) for _ in range(n)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until(holds: Callable[[], object], timeout: float, what: str) -> None:
    """Polls what other processes do; fails loudly."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.05)


class Node:
    """A tree of processes that `ray start` began."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        # The shell goes on as `sleep`, which stays the parent of whatever loses its own.
        script = '"$@" && echo node-is-up && exec sleep 3600'
        with log.open("wb") as out:
            self._root = subprocess.Popen(
                ["sh", "-c", script, "sh", str(BIN / "ray"), "start", *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_adopt_orphans,
            )

    @property
    def pid(self) -> int:
        return self._root.pid

    def wait(self) -> None:
        wait_until(lambda: self._is_up() or self._root.poll() is not None, START_TIMEOUT, f"ray start ({self.log})")
        assert self._is_up(), self.log.read_text()

    def _is_up(self) -> bool:
        return "\nnode-is-up\n" in self.log.read_text()

    def kill(self) -> None:
        """No process of the node is left on return. Harmless when repeated."""
        if self._root.poll() is not None:
            return
        wait_until(self._kill_descendants, 30.0, "killing a node")
        self._root.kill()
        self._root.wait()

    def _kill_descendants(self) -> bool:
        alive = descendants(self._root.pid)
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not alive


def _adopt_orphans() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Living processes below `root`, zombies left out."""
    children: dict[int, list[int]] = {}
    dead: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(parent), []).append(int(entry.name))
            if state in "ZX":
                dead.add(int(entry.name))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += [pid for pid in below if pid not in dead]
        queue += below
    return found


# `ray start` returns before the cluster knows of the node.
JOINED = """
import sys, time, ray
ray.init(sys.argv[1], log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(0.1)
"""


class Cluster:
    """A head and a second node of one CPU each, behind a token. `home` is short, because socket paths must be."""

    def __enter__(self) -> Cluster:
        self.home = Path(tempfile.mkdtemp(prefix="sdf", dir="/tmp"))
        self.env = environment(secrets.token_hex(16))
        gcs, dashboard, client = free_ports(HEAD_IP, 3)
        self.address, self.dashboard = f"{HEAD_IP}:{gcs}", f"http://{HEAD_IP}:{dashboard}"
        self._nodes: list[Node] = []
        try:
            self.head = self._start(
                *("--head", "--node-ip-address", HEAD_IP, "--port", str(gcs), "--temp-dir", str(self.home / "r")),
                *("--dashboard-host", HEAD_IP, "--dashboard-port", str(dashboard), "--include-dashboard", "true"),
                *("--ray-client-server-port", str(client)),
            )
            self.second = self._start("--address", self.address, "--node-ip-address", SECOND_IP)
            joined = [sys.executable, "-c", JOINED, self.address, "2"]
            subprocess.run(joined, env=self.env, check=True, capture_output=True, timeout=START_TIMEOUT)
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._clear()

    def _start(self, *arguments: str) -> Node:
        shared = ("--num-cpus", "1", "--object-store-memory", "100000000", "--disable-usage-stats")
        # Ports are taken as they are free: the fixed defaults would collide, here and with other clusters.
        ports = ("--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", "0")
        node = Node([*arguments, *shared, *ports], self.env, self.home / f"node{len(self._nodes)}.log")
        self._nodes.append(node)
        node.wait()
        return node

    def _clear(self) -> None:
        for node in reversed(self._nodes):
            node.kill()
        shutil.rmtree(self.home, ignore_errors=True)
