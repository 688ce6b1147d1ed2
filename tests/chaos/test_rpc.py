"""Ray's own messages get lost, on the way there and on the way back: the oracle's bytes all the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from sdf import api
from sdf.ledger import read_ledger
from sdf.shards import read_manifest
from sdf.storage import RunDir

pytestmark = pytest.mark.slow

# Percent of all remote calls: never sent, sent without a reply, reply lost. Higher ones stall Ray's ordered calls.
FAILURES = {"num_failures": -1, "req_failure_prob": 2, "resp_failure_prob": 2, "in_flight_failure_prob": 2}

# The driver in a process of its own: Ray reads its environment once, and warns in ways pytest makes errors of.
DRIVER = """
import sys
import ray
from sdf import api
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[2])
outcome = api.run("quickstart", sys.argv[1], tokens="150k", shard_tokens="50k", ray="local", workers=3, in_flight=8)
assert outcome.finished
"""


@pytest.fixture
def short() -> Generator[Path]:
    """A directory with a short name, for Ray's sockets."""
    path = Path(tempfile.mkdtemp(prefix="sdf", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def shards_of(out: Path) -> list[tuple[str, bytes]]:
    manifest = read_manifest(RunDir(out))
    assert manifest is not None
    return [(each.path, (out / each.path).read_bytes()) for each in manifest.shards]


def test_lost_messages_change_nothing(short: Path, tmp_path: Path) -> None:
    oracle, out = tmp_path / "oracle", tmp_path / "corpus"
    api.run("quickstart", oracle, tokens="150k", shard_tokens="50k", ray="none")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SDF_"))}
    env["RAY_testing_rpc_failure"] = json.dumps({"*": FAILURES})
    driver = [sys.executable, "-c", DRIVER, str(out), str(short)]
    run = subprocess.run(driver, env=env, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    # Proof that messages were lost: Ray logs each.
    assert any("Inject RPC" in log.read_text(errors="replace") for log in short.glob("session_*/logs/*.log"))
    assert shards_of(out) == shards_of(oracle)
    assert "failed" not in {receipt.reason for receipt in read_ledger(RunDir(out)).receipts}
    assert api.verify(out, replay=True).problems == ()
