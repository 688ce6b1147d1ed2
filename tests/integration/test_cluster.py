"""On a running cluster of two nodes with a shared directory: the oracle's bytes, even when a node dies half-way."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray_nodes import BIN, Cluster, Node, descendants, wait_until

from sdf import api
from sdf.ledger import read_ledger
from sdf.shards import read_manifest
from sdf.storage import RunDir

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a second node needs a second loopback address and /proc"),
]

N_WORKERS = 4
# Slow and narrow enough that half-way lasts for seconds; neither decides a byte.
PACE = ("--workers", str(N_WORKERS), "--in-flight", "4", "--provider-setting", "latency=0.3")
TIMEOUT = 300.0

RECIPE = """
name: on a cluster
constitution: default
assistant: Tavrin
maker: Ostermead
tokens: 400k
shard_tokens: 50k
mix: {blog_post: 2, podcast_transcript: 1}
"""


@dataclass(frozen=True)
class Oracle:
    recipe: Path
    digests: dict[str, str]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """What one process makes of the recipe. The recipe's directory holds nothing else: a job uploads it."""
    recipe = tmp_path_factory.mktemp("job") / "recipe.yaml"
    recipe.write_text(RECIPE)
    out = tmp_path_factory.mktemp("oracle") / "corpus"
    assert api.run(str(recipe), out, ray="none").finished
    return Oracle(recipe, digests_of(out))


@pytest.fixture
def cluster() -> Generator[Cluster]:
    with Cluster() as started:
        yield started


def digests_of(out: Path) -> dict[str, str]:
    """Every shard of the newest manifest, by its path: what was written, not what the manifest says of it."""
    manifest = read_manifest(RunDir(out))
    assert manifest is not None
    assert manifest.state == "complete"
    return {each.path: hashlib.sha256((out / each.path).read_bytes()).hexdigest() for each in manifest.shards}


class Command:
    """One of our programs with what it says in a file. It is dead when the block ends."""

    def __init__(self, cluster: Cluster, log: Path, *arguments: str, cwd: Path | None = None) -> None:
        self._log = log
        with log.open("w") as out:
            self._process = subprocess.Popen(
                [str(BIN / arguments[0]), *arguments[1:]],
                env=cluster.env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def wait_until_half_way(self, out: Path) -> None:
        wait_until(lambda: is_half_way(out) or self._process.poll() is not None, TIMEOUT, "half of the corpus")
        assert self._process.poll() is None, self._log.read_text()
        assert json.loads(sorted(out.glob("manifests/*.json"))[-1].read_bytes())["state"] == "growing"

    def finish(self) -> str:
        """What it said; it must end well."""
        assert self._process.wait(TIMEOUT) == 0, self._log.read_text()
        return self._log.read_text()


def parts_of(out: Path, pattern: str) -> Sequence[Path]:
    return sorted(out.glob(f"ledger/*/{pattern}.sidecar.parquet"))


def is_half_way(out: Path) -> bool:
    """Shards are committed, and every first worker has handed in receipts."""
    workers = [f"w{number:04d}-000-*" for number in range(N_WORKERS)]
    return any(out.glob("manifests/*.json")) and all(parts_of(out, worker) for worker in workers)


def check(out: Path, oracle: Oracle) -> None:
    assert digests_of(out) == oracle.digests
    reasons = {receipt.reason for receipt in read_ledger(RunDir(out)).receipts}
    assert "failed" not in reasons
    assert api.verify(out, replay=True).problems == ()


def test_a_submitted_job_survives_the_loss_of_a_node(cluster: Cluster, oracle: Oracle, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    submit = ("ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--")
    run = ("sdf", "run", "recipe.yaml", "--out", str(out), "--ray", "auto", *PACE)
    with Command(cluster, tmp_path / "log", *submit, *run, cwd=oracle.recipe.parent) as job:
        job.wait_until_half_way(out)
        assert actors_of(cluster.second)
        cluster.second.kill()
        said = job.finish()
    assert " is lost (" in said, "no worker was lost with the node"
    check(out, oracle)


def test_a_run_started_on_a_node_joins_the_cluster(cluster: Cluster, oracle: Oracle, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    arguments = ("sdf", "run", str(oracle.recipe), "--out", str(out), "--ray", cluster.address, *PACE)
    with Command(cluster, tmp_path / "log", *arguments) as run:
        run.wait_until_half_way(out)
        assert actors_of(cluster.head)
        assert actors_of(cluster.second)
        run.finish()
    check(out, oracle)


def actors_of(node: Node) -> list[int]:
    """Processes of the node that run our actors, as Ray titles them."""
    return [pid for pid in descendants(node.pid) if b"_Actor" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""
