"""CPU-seconds and seconds per 1,000 documents of the API providers, against a server in another process.

    python tests/bench/bench_providers.py [n_answers] [n_documents]

First the providers alone: prefixes of 1 kB and 120 kB, 64 and 256 in flight, a server that answers at once and one that
takes 200 ms, beside a bare aiohttp client that posts the same bodies ready-made and the Anthropic SDK as it comes. Then
whole runs, everything included (plan, prompts, purse, governor, ledger, checks, dedup, shards), of documents of one
request each. Ratios are to the bare client of the same row.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import anthropic
from aiohttp import web

from sdf import api
from sdf.providers import make
from sdf.providers.offline import Offline
from sdf.records import Message, Prefix, Request, Sampling, Wants

MODEL = "claude-opus-5-5"
PREFIX_BYTES, IN_FLIGHT, LATENCIES = (1_000, 120_000), (64, 256), (0.0, 0.2)
# About 4.5 kB each: what a document of 700 words takes. Written before anything is measured.
N_TEXTS, TOKENS = 4_096, 900
TEXTS: list[str] = []


async def write_texts() -> None:
    """Answers that no check finds fault with, none of them like another."""
    grammar = Offline({})
    for number in range(N_TEXTS):
        wants = Wants("text", 700, tag="document")
        request = Request(
            "offline-grammar", Prefix.of(""), (Message("user", "A page."),), Sampling(9_000), wants, number
        )
        TEXTS.append((await grammar.answer(request)).text)


def text_of(number: int) -> str:
    return TEXTS[number % N_TEXTS]


def message_of(number: int) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": text_of(number)}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 100, "output_tokens": 1_000, "cache_read_input_tokens": 9_000},
    }


def completion_of(number: int) -> dict[str, Any]:
    return {
        "model": MODEL,
        "choices": [{"message": {"role": "assistant", "content": text_of(number)}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1_000},
    }


def stream_of(message: dict[str, Any]) -> str:
    """The first request of a prefix streams."""
    events = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": message["content"][0]["text"]},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": message["usage"]},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def serve(ports: Any, latency: float) -> None:
    replies = {"/v1/messages": message_of, "/v1/chat/completions": completion_of}
    n_asked = 0

    async def reply(request: web.Request) -> web.Response:
        nonlocal n_asked
        n_asked += 1
        body = await request.read()
        answer = replies[request.path](n_asked)
        if latency:
            await asyncio.sleep(latency)
        if request.path == "/v1/messages" and b'"stream": true' in body:
            return web.Response(text=stream_of(answer), content_type="text/event-stream")
        return web.Response(text=json.dumps(answer), content_type="application/json")

    async def run() -> None:
        await write_texts()
        app = web.Application(client_max_size=1 << 24)
        for path in replies:
            app.router.add_post(path, reply)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


class Taken(NamedTuple):
    """Per 1,000: CPU-seconds of this process, and seconds of wall clock."""

    cpu: float
    wall: float


async def taken(ask: Callable[[int], Awaitable[Any]], n_answers: int, n_in_flight: int) -> Taken:
    """The first answer, which opens connections and caches, is not counted."""
    await ask(0)
    draws = iter(range(1, n_answers + 1))

    async def asking() -> None:
        for draw in draws:
            await ask(draw)

    cpu, wall = time.process_time(), time.monotonic()
    await asyncio.gather(*(asking() for _ in range(n_in_flight)))
    return Taken((time.process_time() - cpu) / n_answers * 1_000, (time.monotonic() - wall) / n_answers * 1_000)


def prompt(draw: int) -> str:
    return f"Write number {draw}. " + "Keep to the angle you were given. " * 12


async def of_provider(name: str, url: str, prefix: Prefix, n_answers: int, n_in_flight: int) -> Taken:
    provider = make(name, {"base_url": url})

    async def ask(draw: int) -> None:
        message = Message("user", prompt(draw))
        await provider.answer(Request(MODEL, prefix, (message,), Sampling(2_000), Wants("text"), draw))

    try:
        return await taken(ask, n_answers, n_in_flight)
    finally:
        await provider.close()


async def of_bare_client(url: str, prefix: Prefix, n_answers: int, n_in_flight: int) -> Taken:
    body = json.dumps({"model": MODEL, "messages": [{"role": "system", "content": prefix.text}]}).encode()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(draw: int) -> None:
            async with session.post(f"{url}/v1/chat/completions", data=body) as response:
                json.loads(await response.read())

        return await taken(ask, n_answers, n_in_flight)


async def of_bare_sdk(url: str, prefix: Prefix, n_answers: int, n_in_flight: int) -> Taken:
    async with anthropic.AsyncAnthropic(api_key="none", base_url=url, max_retries=0) as client:

        async def ask(draw: int) -> None:
            await client.messages.create(
                model=MODEL,
                max_tokens=2_000,
                system=[{"type": "text", "text": prefix.text, "cache_control": {"type": "ephemeral"}}],
                messages=[{"role": "user", "content": prompt(draw)}],
            )

        return await taken(ask, n_answers, n_in_flight)


GENRE = """\
---
key: page
kind: document
about: A page.
n_words: [600, 800]
dedup: body
preamble: none
axes:
  tone: [warm, plain, dry]
steps:
  page: {role: write, context: full, returns: text, tag: document}
emit: {text: page}
---
## step: page
A {{ brief.axes.tone }} page by {{ names.person(1) }}, between <document> and </document>.
"""
RECIPE = """\
name: bench
assistant: Ada
maker: Oak
constitution: constitution.md
mix: {page: 1}
genres_dir: [genres]
ray: none
workers: 1
"""


def of_run(name: str, url: str, n_prefix: int, n_documents: int, n_in_flight: int, max_cost: float | None) -> Taken:
    """A whole run in this process, less a shorter one: what starts and ends a run is not of its documents."""
    found: list[tuple[int, float, float]] = []
    for n in (n_documents // 4, n_documents):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "genres").mkdir()
            (root / "genres" / "page.md").write_text(GENRE)
            (root / "constitution.md").write_text(
                "## Saying what is so\n\n" + "It says what is so. " * (n_prefix // 20)
            )
            (root / "recipe.yaml").write_text(RECIPE)
            cpu, wall = time.process_time(), time.monotonic()
            outcome = api.run(
                str(root / "recipe.yaml"),
                root / "out",
                provider=name,
                provider_settings={"base_url": url},
                model=MODEL,
                max_cost=max_cost,
                in_flight=n_in_flight,
                tokens=n * TOKENS,
            )
            found.append((outcome.n_requests, time.process_time() - cpu, time.monotonic() - wall))
    (few, cpu_few, wall_few), (many, cpu_many, wall_many) = found
    return Taken((cpu_many - cpu_few) / (many - few) * 1_000, (wall_many - wall_few) / (many - few) * 1_000)


def show(what: str, size: int, latency: float, n_in_flight: int, found: Taken, bare: Taken) -> None:
    per_second = 1_000 / found.wall if found.wall else 0.0
    print(
        f"{what:22}{size:>9,}{latency * 1_000:>6.0f} ms{n_in_flight:>6}{found.cpu:>9.2f}{per_second:>9,.0f}"
        f"{found.cpu / bare.cpu:>7.1f}",
        flush=True,
    )


def main(n_answers: int, n_documents: int) -> None:
    os.environ["ANTHROPIC_API_KEY"] = os.environ["OPENAI_API_KEY"] = "none"
    logging.disable(logging.WARNING)
    print(f"{'':22}{'prefix':>9}{'latency':>9}{'flying':>6}{'CPU-s/k':>9}{'a second':>9}{'ratio':>7}")
    for latency in LATENCIES:
        ports: Any = multiprocessing.Queue()
        server = multiprocessing.Process(target=serve, args=(ports, latency), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{ports.get()}"
        # Modules, vocabulary and templates are read once in a process.
        of_run("openai", url, PREFIX_BYTES[0], 40, IN_FLIGHT[0], None)
        for size in PREFIX_BYTES:
            prefix = Prefix.of("word " * (size // 5))
            for n_in_flight in IN_FLIGHT:
                at = (size, latency, n_in_flight)
                bare = asyncio.run(of_bare_client(url, prefix, n_answers, n_in_flight))
                show("bare aiohttp", *at, bare, bare)
                show(
                    "bare Anthropic SDK", *at, asyncio.run(of_bare_sdk(url, prefix, n_answers // 2, n_in_flight)), bare
                )
                for name in ("openai", "anthropic"):
                    found = asyncio.run(of_provider(name, url, prefix, n_answers, n_in_flight))
                    show(name, *at, found, bare)
                for name in ("openai", "anthropic"):
                    found = of_run(name, url, size, n_documents, n_in_flight, None)
                    show(f"{name}, whole run", *at, found, bare)
                found = of_run("anthropic", url, size, n_documents, n_in_flight, 10_000.0)
                show("anthropic, with a cap", *at, found, bare)
        server.terminate()
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024:,.0f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000, int(sys.argv[2]) if len(sys.argv) > 2 else 2_000)
