"""Real engines on the CPU for tests: the model they run, the settings that keep them small, and where they live.

Importing this needs neither vLLM nor torch; the fixtures that use it do.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from support import write_recipe

from sdf.checks import NAMES as CHECKS
from sdf.providers.vllm.process import MARK

# Loading takes half a minute alone on two cores; the machine may be shared.
PATIENCE = 240.0
N_CONTEXT = 8_192

# Tags that a genre asks for, which the model then writes as one token.
TAGS = ("<document>", "<angles>", "<score>", "<facts>")
# And calls of a tool, in the words of the `hermes` parser: one as asked for, one whose arguments are no object.
CALL = '<tool_call>\n{"name": "look_up", "arguments": {"term": "rain"}}\n</tool_call>'
ODD_CALL = '<tool_call>\n{"name": "look_up", "arguments": "rain"}\n</tool_call>'

ARGUMENTS = {
    "max_model_len": str(N_CONTEXT),
    "engine.enforce_eager": "true",
    "engine.kv_cache_memory_bytes": "268435456",
}

# The model is too small for threads to help, and on a busy machine they wait for each other at every step.
os.environ.update({"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})

# Two texts and an object held to a schema: nothing that a server must hold to a form by itself.
MEMO = """\
---
key: memo
kind: document
about: A memo of nonsense.
n_words: [10, 60]
dedup: none
redraws: 4
preamble: none
axes:
  mood: [calm, hurried]
steps:
  scene: {role: write, context: principle, returns: json, max_tokens: 100, schema: {type: object,
    required: [place, crowded], additionalProperties: false,
    properties: {place: {enum: [kitchen, garden]}, crowded: {type: boolean}}}}
  draft: {role: write, context: full, returns: text, tag: document, max_tokens: 200}
  polish: {role: rewrite, context: full, returns: text, tag: document, max_tokens: 200}
emit: {text: polish}
---
## step: scene
A {{ brief.axes.mood }} scene about {{ principle.title }}, as JSON.

## step: draft
A memo from the {{ scene.place }}, between <document> and </document>.

## step: polish
{{ draft }}
Write it anew, between <document> and </document>.
"""

# What an engine of our own is held to: a list of angles, a list by itself, a conversation, a score.
FORMS = """\
---
key: forms
kind: chat
about: Every form of an answer.
n_words: [10, 60]
dedup: none
redraws: 4
steps:
  angle: {per: round, role: angle, context: principle, returns: list, tag: angles, n_items: 4, max_tokens: 400}
  facts: {role: write, context: none, returns: list, n_items: 3, max_tokens: 300}
  question: {role: write, form: completion, context: none, returns: text, max_tokens: 200}
  verdict: {role: judge, context: principle, returns: score, tag: score, lowest: 1, highest: 5, max_tokens: 200}
  reply: {role: write, context: full, returns: text, tag: document, max_tokens: 200,
    tools: [{name: look_up, description: Finds a fact., input_schema: {type: object}}]}
emit: {user: question, assistant: reply}
---
## step: angle
{{ n_items }} ideas about {{ principle.title }}, numbered, between <angles> and </angles>.

## step: facts
{{ n_items }} facts about {{ angle }}, numbered.

## step: question
On {{ facts[0] }} a person asked:

## step: verdict
{{ question }} From 1 to 5, between <score> and </score>.

## step: reply
{{ question }} Reply between <document> and </document>.
"""


def recipe(folder: Path, genres: dict[str, str], **fields: Any) -> str:
    """Nonsense passes no check on language, so all are off."""
    settings = {"name": "engines", "tokens": 4_000, "shard_tokens": 2_000, "checks_off": list(CHECKS)} | fields
    return write_recipe(folder, genres, **settings)


def own_engine(model: Path, **settings: str) -> dict[str, Any]:
    return {"provider": "vllm", "model": str(model), "provider_settings": ARGUMENTS | settings}


def until(holds: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What `holds` returns, once it holds."""
    deadline = time.monotonic() + patience
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {patience:.0f} s"
        time.sleep(0.05)
    return found


class Server:
    """vLLM's own server, which speaks OpenAI's protocol and Anthropic's. It loads while others do."""

    def __init__(self, model: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self._log = f"http://127.0.0.1:{port}", log
        # Prompts whole, as the provider has them: with a seed, one read in pieces ends the engine on CPU.
        command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--port", str(port), "--host", "127.0.0.1"),
            *("--model", str(model), "--served-model-name", "tiny", "--enforce-eager"),
            *(
                "--max-model-len",
                str(N_CONTEXT),
                "--max-num-batched-tokens",
                str(N_CONTEXT),
                "--no-enable-chunked-prefill",
            ),
            *("--kv-cache-memory-bytes", "268435456"),
            # As the provider asks for it: a model of nonsense would write little but white space.
            *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
        ]
        environment = os.environ | {"VLLM_NO_USAGE_STATS": "1"}
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, stdout=sink, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def wait(self) -> None:
        """Until it answers."""
        until(self._is_up)

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()[-4_000:]
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:
            return reply.status == 200
        return False

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def engine_processes(ancestor: int) -> dict[int, list[int]]:
    """The processes of living engines by the process that owns them, of those that `ancestor` started."""
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            marks = [entry for entry in path.read_bytes().split(b"\0") if entry.startswith(f"{MARK}=".encode())]
            owner = int(marks[0].partition(b"=")[2].partition(b"-")[0]) if marks else 0
            if owner and (ancestor in _ancestors(owner) or owner == ancestor):
                found.setdefault(owner, []).append(int(path.parent.name))
    return found


def core_of(pids: list[int]) -> int | None:
    """The engine's own process, once it has taken its name."""
    for pid in pids:
        with suppress(OSError):
            if "EngineCor" in Path(f"/proc/{pid}/comm").read_text():
                return pid
    return None


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _ancestors(pid: int) -> list[int]:
    found: list[int] = []
    while pid > 1:
        with suppress(OSError):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            found.append(pid)
            continue
        break
    return found
