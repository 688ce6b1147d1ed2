"""Keys on a cluster: a job asks hosted models, and nothing that Ray tells, keeps or logs of it holds the key.

Each provider once with a key of the environment that the nodes were started in, once with a key file. The server is
careless: it repeats the key in what it says of a bad request, and in the refusal that ends the run.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
from fake_api import Asked, serving
from ray.job_submission import JobSubmissionClient
from ray_nodes import BIN, Cluster, descendants, wait_until
from support import LETTER, NOTE, write_recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a second node needs a second loopback address and /proc"),
]

TIMEOUT = 300.0
LISTING = Path(__file__).parent / "ray_listing.py"
VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
# No prefix that a filter might know, and signs that every encoding changes.
KEYS = {
    ("openai", "environment"): "CANARY/openai+environment=5e2a4860",
    ("openai", "file"): "CANARY/openai+file=9b1c7d5e3f",
    ("anthropic", "environment"): "CANARY/anthropic+environment=d2a46f",
    ("anthropic", "file"): "CANARY/anthropic+file=8e0c71b5",
}
# A completion, which Anthropic's API has none of.
MIX = {"note": NOTE.replace("redraws: 2", "redraws: 0"), "letter": LETTER.replace("form: completion, ", "")}

N_ASKED = 40
FAULTS = ("limited:0.05", "broken", "truncated", "invalid", None, None)


def forms(key: str) -> set[bytes]:
    """The key as it stands, for URLs, in hex, and in base64 wherever it begins within the text that was encoded."""
    found = {key, quote(key, safe=""), quote(key, safe="").lower(), quote(key), key.encode().hex()}
    for n_before in range(3):
        text = base64.b64encode(b"\0" * n_before + key.encode()).decode()
        # Only the signs that the key alone decides.
        sure = text[-(-n_before * 8 // 6) : (n_before + len(key)) * 8 // 6]
        found |= {sure, sure.replace("+", "-").replace("/", "_")}
    return {each.encode() for each in found}


CANARIES = frozenset().union(*(forms(key) for key in KEYS.values()))


def test_every_form_of_a_key_is_known() -> None:
    for key in KEYS.values():
        for said in (f"Bearer {key}", f"x{key}.", f"{key}", f"user:{key}\n"):
            for text in (said, quote(said), base64.b64encode(said.encode()).decode(), said.encode().hex()):
                assert leaks(text.encode())


def leaks(content: bytes) -> list[bytes]:
    return [each for each in CANARIES if each in content]


@dataclass
class Gate:
    """The server's script: trouble on the way, a wait in the middle until the cluster was looked at, then the end."""

    n_asked: int = 0
    was_looked_at: bool = False
    seen: set[str] = field(default_factory=set)

    def __call__(self, asked: Asked) -> str | None:
        self.seen.add(asked.headers["Authorization"])
        self.n_asked += 1
        if self.n_asked > N_ASKED:
            return "bad_key" if self.was_looked_at else "limited:0.2"
        return FAULTS[asked.dice % len(FAULTS)] if asked.attempt == 1 else None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        for provider, variable in VARIABLES.items():
            patch.setenv(variable, KEYS[provider, "environment"])
        with Cluster() as started:
            yield started


def listing(cluster: Cluster) -> str:
    command = [sys.executable, str(LISTING), cluster.address, cluster.dashboard]
    ended = subprocess.run(command, env=cluster.env, capture_output=True, text=True, timeout=TIMEOUT)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


class Submitted:
    """A command as a job of the cluster, with the directory that is uploaded for it."""

    def __init__(self, cluster: Cluster, folder: Path, command: Sequence[str]) -> None:
        self.name = f"job-{secrets.token_hex(4)}"
        headers = {"Authorization": f"Bearer {cluster.env['RAY_AUTH_TOKEN']}"}
        self.client = JobSubmissionClient(cluster.dashboard, headers=headers)
        where = ["--address", cluster.dashboard, "--working-dir", ".", "--submission-id", self.name, "--no-wait"]
        submit = [str(BIN / "ray"), "job", "submit", *where, "--", *command]
        subprocess.run(submit, cwd=folder, env=cluster.env, check=True, capture_output=True, timeout=TIMEOUT)

    def is_over(self) -> bool:
        return self.client.get_job_status(self.name).is_terminal()

    def wait(self, holds: Callable[[], object]) -> None:
        """Until it holds, or the job is over."""
        wait_until(lambda: holds() or self.is_over(), TIMEOUT, self.name)


def told(text: str, source: str) -> str:
    """What one source of a listing told."""
    return text.partition(f"## {source}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("source", ["environment", "file"])
@pytest.mark.parametrize("provider", VARIABLES)
def test_nothing_that_ray_tells_or_keeps_holds_the_key(
    cluster: Cluster, provider: str, source: str, tmp_path: Path
) -> None:
    key, out = KEYS[provider, source], tmp_path / "corpus"
    write_recipe(tmp_path / "job", MIX, tokens=100_000, in_flight=4, workers=2, ray="auto")
    run = ["sdf", "run", "recipe.yaml", "--out", str(out), "--provider", provider, "--model", "claude-opus-5-5"]
    if source == "file":
        (tmp_path / "key").write_text(f"{key}\n")
        run += ["--key-file", str(tmp_path / "key")]
    gate = Gate()
    with serving(gate) as server:
        job = Submitted(cluster, tmp_path / "job", [*run, "--base-url", server.url])
        job.wait(lambda: gate.n_asked > N_ASKED)
        assert not job.is_over(), job.client.get_job_logs(job.name)
        meanwhile, in_memory = listing(cluster), holders(cluster, key) if source == "file" else set()
        gate.was_looked_at = True
        job.wait(job.is_over)
    assert gate.seen == {f"Bearer {key}"}, "the key was used, and came from where it should"
    afterwards = listing(cluster)

    actors = [each for each in json.loads(told(meanwhile, "list_actors")) if each["class_name"] == "_Actor"]
    assert any(each["state"] == "ALIVE" for each in actors)
    said = job.client.get_job_logs(job.name)
    assert "401" in said and "(key)" in said
    assert job.client.get_job_info(job.name).driver_exit_code == 5
    assert list(out.glob("ledger/*/*.sidecar.parquet"))

    for text in (meanwhile, afterwards):
        assert not leaks(text.encode())
    files = [path for folder in (cluster.home, out) for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if path.name == "gcs_server.out"], "the logs of the session are among them"
    for path in files:
        assert not leaks(path.read_bytes()), path
    # A key of the environment lies in that of every process.
    assert bool(in_memory) == (source == "file")
    assert not [name for name in in_memory if not name.startswith(("ray::_Actor", "ray::_preflight", "ray::IDLE"))]


def holders(cluster: Cluster, key: str) -> set[str]:
    """The processes of the cluster with the key in their memory, by what their titles begin with."""
    alive = [pid for node in (cluster.head, cluster.second) for pid in descendants(node.pid)]
    return {title(pid) for pid in alive if key.encode() in memory(pid)}


def title(pid: int) -> str:
    # It may have ended meanwhile, here and below.
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")[:80]
    return "gone"


def memory(pid: int) -> bytes:
    """What the process can write to and has written: its heap, its stacks, its share of the object store."""
    found = bytearray()
    with suppress(OSError), Path(f"/proc/{pid}/mem").open("rb", 0) as content:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(each, 16) for each in span.split("-"))
            if rights.startswith("rw"):
                with suppress(OSError):
                    content.seek(start)
                    found += content.read(end - start)
    return bytes(found)
