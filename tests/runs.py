"""Runs that die, and what is asked of the corpus that they leave: for the integration and chaos tests.

A run that is to be killed is a process of its own; what resumes it runs here, in the test's process.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from support import HELP, LETTER, NOTE, TALK, write_recipe

from sdf import api
from sdf.shards import read_manifest
from sdf.storage import RunDir
from sdf.story import Outcome

ROOT = Path(__file__).resolve().parent.parent

# Twins whose first step is one question for both.
DIARY = """\
---
key: diary
kind: document
about: A page of a diary in two voices.
n_words: [40, 60]
dedup: body
preamble: none
twin: voice
axes:
  voice: [you, the assistant]
  mood: [calm, hurried]
steps:
  scene: {role: write, context: principle, returns: text, tag: scene}
  page: {role: write, context: none, returns: text, tag: document}
emit: {text: page}
---
## step: scene
A {{ brief.axes.mood }} scene, between <scene> and </scene>.

## step: page
{{ scene }} A page that calls the reader {{ brief.twin }}, between <document> and </document>.
"""

# Angles by round, lanes, a judge, twins with and without a shared step, a chat in one answer, dedup of three kinds.
MIX = {"note": NOTE, "letter": LETTER, "diary": DIARY, "talk": TALK, "help": HELP}

# Slow enough (milliseconds a call, few at once) that a run spans several flushes and can be hit in its middle.
SLOW = {"latency": "0.01"}

PATIENCE = 120.0


def recipe(folder: Path, **fields: Any) -> str:
    """15,000 tokens of short documents in some ten shards: a second of work, or three when SLOW."""
    settings = {"name": "chaos", "tokens": 15_000, "shard_tokens": 2_000, "holdout": 0.3, "in_flight": 8} | fields
    return write_recipe(folder, MIX, **settings)


def make(source: str, out: Path, **fields: Any) -> Outcome:
    return api.run(source, out, **fields)


def corpus(out: Path) -> dict[str, str]:
    """The sha256 of each committed shard as it lies there, by path, in order."""
    manifest = read_manifest(RunDir(out))
    assert manifest is not None
    return {shard.path: hashlib.sha256((out / shard.path).read_bytes()).hexdigest() for shard in manifest.shards}


def is_complete(out: Path) -> bool:
    manifest = read_manifest(RunDir(out))
    return manifest is not None and manifest.state == "complete"


def rows_of(out: Path, *kinds: str) -> list[dict[str, Any]]:
    """The rows of all intact sidecars."""
    found: list[dict[str, Any]] = []
    for path in sorted(out.glob("ledger/*/*.sidecar.parquet")):
        found += [row for row in pq.read_table(path).to_pylist() if row["kind"] in kinds]
    return found


def answers(out: Path, files: str = "ledger/*/*.answers.parquet") -> Counter[str]:
    """How often each request key was answered, as far as it is durable; parts count that lost their sidecar."""
    found: Counter[str] = Counter()
    for path in sorted(out.glob(files)):
        found.update(pq.read_table(path, columns=["key"])["key"].to_pylist())
    return found


def check_whole(out: Path, expected: dict[str, str]) -> None:
    """The one assertion: the oracle's bytes; nothing failed; nothing settled or answered durably was made again."""
    assert corpus(out) == expected
    settled = rows_of(out, "settlement")
    assert not [row for row in settled if row["reason"] == "failed"]
    assert set(Counter(row["id"] for row in rows_of(out, "settlement", "round")).values()) == {1}
    assert set(answers(out).values()) == {1}
    assert api.verify(out, replay=True).problems == ()


class Oracle(NamedTuple):
    """A recipe, where an undisturbed run in one process made its corpus, and the bytes of that."""

    source: str
    out: Path
    corpus: dict[str, str]


def make_oracle(folder: Path, **fields: Any) -> Oracle:
    source, out = recipe(folder, **fields), folder / "out"
    assert make(source, out).finished
    check_whole(out, corpus(out))
    return Oracle(source, out, corpus(out))


class Process:
    """`sdf run` as a process of its own group, its output in a file beside the corpus."""

    def __init__(
        self, source: str, out: Path, failpoint: str | None = None, log: Path | None = None, **flags: Any
    ) -> None:
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SDF_"))}
        env |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        if failpoint is not None:
            env["SDF_FAILPOINT"] = failpoint
        self.out = out
        self._log = log or out.with_suffix(".log")
        with self._log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sdf.cli", "run", source, "--out", str(out), *arguments],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit status; negative for a signal."""
        return self._process.wait(timeout)

    def until(self, holds: Callable[[], object]) -> None:
        """Waits for what the process does to the outer world; fails when it ends first."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert not self.is_over, f"ended with {self._process.returncode} too early:\n{self.said}"
            assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s:\n{self.said}"
            time.sleep(0.02)

    def until_flushed(self, n_parts: int = 1) -> None:
        """Waits until so many parts of this corpus have their sidecar."""
        self.until(lambda: len(list(self.out.glob("ledger/*/*.sidecar.parquet"))) >= n_parts)

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """The whole group at once, as when a machine dies."""
        if not self.is_over:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
