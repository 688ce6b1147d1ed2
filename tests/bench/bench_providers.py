"""CPU-seconds of this process per 1,000 answers of the API providers, against a server in another that answers at once.

    python tests/bench/bench_providers.py [n_answers]

With prefixes of 1 kB and 120 kB, and 64 and 256 requests in flight: neither should cost much. The ratio is to a bare
aiohttp client that posts the same bodies ready-made, in the same run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web

from sdf.providers import make
from sdf.records import Message, Prefix, Request, Sampling, Wants

MODEL = "claude-opus-5-5"
TEXT = "A sentence that says something. " * 140
PREFIX_BYTES, IN_FLIGHT = (1_000, 120_000), (64, 256)

MESSAGE = {
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [{"type": "text", "text": TEXT}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 100, "output_tokens": 1_000},
}
COMPLETION = {
    "model": MODEL,
    "choices": [{"message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 1_000},
}
# The first request of a prefix streams.
EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": MESSAGE["usage"]},
    {"type": "message_stop"},
]
STREAM = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS)
REPLIES = {"/v1/messages": json.dumps(MESSAGE), "/v1/chat/completions": json.dumps(COMPLETION)}


def serve(ports: Any) -> None:
    async def reply(request: web.Request) -> web.Response:
        body = await request.read()
        if request.path == "/v1/messages" and b'"stream":true' in body:
            return web.Response(text=STREAM, content_type="text/event-stream")
        return web.Response(text=REPLIES[request.path], content_type="application/json")

    async def run() -> None:
        app = web.Application(client_max_size=1 << 24)
        for path in REPLIES:
            app.router.add_post(path, reply)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


async def cpu_seconds(ask: Callable[[int], Awaitable[Any]], n_answers: int, n_in_flight: int) -> float:
    """Per 1,000 answers; the first, which opens connections and caches, is not counted."""
    await ask(0)
    draws = iter(range(1, n_answers + 1))

    async def asking() -> None:
        for draw in draws:
            await ask(draw)

    before = time.process_time()
    await asyncio.gather(*(asking() for _ in range(n_in_flight)))
    return (time.process_time() - before) / n_answers * 1_000


async def of_provider(name: str, url: str, prefix: Prefix, n_answers: int, n_in_flight: int) -> float:
    provider = make(name, {"base_url": url})

    async def ask(draw: int) -> None:
        message = Message("user", f"Write number {draw}. " + "Keep to the angle you were given. " * 12)
        await provider.answer(Request(MODEL, prefix, (message,), Sampling(2_000), Wants("text"), draw))

    try:
        return await cpu_seconds(ask, n_answers, n_in_flight)
    finally:
        await provider.close()


async def of_bare_client(url: str, prefix: Prefix, n_answers: int, n_in_flight: int) -> float:
    body = json.dumps({"model": MODEL, "messages": [{"role": "system", "content": prefix.text}]}).encode()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(draw: int) -> None:
            async with session.post(f"{url}/v1/chat/completions", data=body) as response:
                json.loads(await response.read())

        return await cpu_seconds(ask, n_answers, n_in_flight)


def main(n_answers: int) -> None:
    os.environ["ANTHROPIC_API_KEY"] = os.environ["OPENAI_API_KEY"] = "none"
    logging.disable(logging.WARNING)
    ports: Any = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(ports,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ports.get()}"
    print(f"{'':12}{'prefix':>10}{'in flight':>12}{'CPU-s/1,000':>14}{'ratio':>8}")
    for size in PREFIX_BYTES:
        prefix = Prefix.of("word " * (size // 5))
        for n_in_flight in IN_FLIGHT:
            bare = asyncio.run(of_bare_client(url, prefix, n_answers, n_in_flight))
            print(f"{'bare client':12}{size:>10,}{n_in_flight:>12}{bare:>14.2f}{1:>8.1f}")
            for name in ("openai", "anthropic"):
                found = asyncio.run(of_provider(name, url, prefix, n_answers, n_in_flight))
                print(f"{name:12}{size:>10,}{n_in_flight:>12}{found:>14.2f}{found / bare:>8.1f}")
    server.terminate()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
