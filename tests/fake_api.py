"""A server on 127.0.0.1 that speaks both protocols, bills what it answers, and plays faults by script.

Its answers are a pure function of the request, written by the offline grammar, so that a corpus made through any storm
can be compared with the undisturbed one. It runs on an event loop of its own, in a thread.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sdf.money.prices import Tariff
from sdf.providers.offline import Offline
from sdf.records import (
    Answer,
    Message,
    Prefix,
    Request,
    Returns,
    Sampling,
    Usage,
    Wants,
    canonical_json,
    digest,
    stream,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived. `name` is the same for the same body, streamed or not, and `attempt` counts them."""

    path: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    name: str
    attempt: int
    raw: bytes

    @property
    def dice(self) -> int:
        """A number that the body alone decides."""
        return int(self.name[:8], 16)


Script = Callable[[Asked], str | None]


def never(asked: Asked) -> None:
    return None


def first_of(fault: str, every: int = 3) -> Script:
    """One request in `every` meets the fault at its first attempt."""
    return lambda asked: fault if asked.attempt == 1 and asked.dice % every == 0 else None


@dataclass
class FakeAPI:
    """`fault` names what befalls a request (see `_FAULTS`); `shape` changes what the model answers: "refusal", "empty",
    "length", "tool_use", "no_usage" or None, and must depend on the request alone."""

    fault: Script = never
    shape: Script = never
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    billed: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    # What the server put on the bill, lost or not: a model and what it took.
    bills: list[tuple[str, Usage]] = field(default_factory=list)
    # Headers of every answer.
    headers: dict[str, str] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    n_redirected: int = 0
    # What the server tells of its models, each with its `id`; None: it tells of none, as many do.
    models: list[dict[str, Any]] | None = None

    def bill(self, asked: Asked, answer: Answer) -> dict[str, Any]:
        """The reply, which is paid for from here on, whatever becomes of it."""
        self.billed[asked.name] += 1
        message = PROTOCOLS[asked.path](asked, answer, self.shape(asked))
        self.bills.append((asked.body["model"], taken(message["usage"])))
        # Billed all the same, and not told.
        return {**message, "usage": None} if self.shape(asked) == "no_usage" else message

    def billed_usd(self, tariff: Tariff) -> float:
        return sum(tariff.cost(usage) or 0.0 for _, usage in self.bills)

    @property
    def n_billed_again(self) -> int:
        """Answers that were billed though an earlier one of the same request had reached the client."""
        return sum(
            self.billed[name] - self.lost[name] - 1 for name in self.billed if self.billed[name] > self.lost[name]
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        name = digest(canonical_json({key: body[key] for key in body if key != "stream"}))
        self.attempts[name] += 1
        asked = Asked(request.path, body, dict(request.headers), name, self.attempts[name], raw)
        self.asked.append(asked)
        kind, _, parameter = (self.fault(asked) or "").partition(":")
        if kind:
            return await _FAULTS[kind](self, asked, request, parameter)
        return await self.reply(asked, request)

    async def reply(self, asked: Asked, request: web.Request) -> web.StreamResponse:
        answer = await self.answer(asked)
        message = self.bill(asked, answer)
        if asked.body.get("stream"):
            return await self.streamed(asked, request, answer)
        return web.json_response(message, headers=self.headers)

    async def streamed(self, asked: Asked, request: web.Request, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in events(anthropic_message(asked, answer, self.shape(asked))):
            await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            await asyncio.sleep(0)
        return response

    async def answer(self, asked: Asked) -> Answer:
        if self.shape(asked) in ("refusal", "empty"):
            return Answer("", "stop", asked.body["model"])
        return await Offline({}).answer(_question(asked.body))


# --- what was asked ----------------------------------------------------------------------------------------------

_TAGS = re.compile(r"between\s+<(\w+)>\s+and\s+</\1>")
_N_WORDS = re.compile(r"some\s+(\d+)\s+words")
_N_ITEMS = re.compile(r"Think of (\d+)")
_RETURNS: Mapping[str, Returns] = {"angles": "list", "score": "score"}


def _question(body: dict[str, Any]) -> Request:
    """The request that the grammar answers: its wants are read from the prompt, as a model would."""
    system = body.get("system", "")
    prefix = system if isinstance(system, str) else "\n\n".join(block["text"] for block in system)
    prompt = body.get("prompt") or body["messages"][-1]["content"]
    tags = _TAGS.findall(prompt)
    tag = tags[-1] if tags else None
    n_words, n_items = _N_WORDS.search(prompt), _N_ITEMS.search(prompt)
    wants = Wants(
        _RETURNS.get(tag or "", "text"),
        int(n_words[1]) if n_words else 60,
        int(n_items[1]) if n_items else 0,
        tag,
        1,
        5,
    )
    draw = stream(body["model"], prompt, body.get("seed", 0))
    return Request(body["model"], Prefix.of(prefix), (Message("user", prompt),), Sampling(9_000), wants, draw)


# --- how each protocol says it -----------------------------------------------------------------------------------


def anthropic_message(asked: Asked, answer: Answer, shape: str | None) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
    if shape == "tool_use":
        content.append({"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"term": "rain"}})
    reasons = {"refusal": "refusal", "length": "max_tokens", "tool_use": "tool_use"}
    n_prefix = sum(len(block["text"]) for block in asked.body.get("system", ())) // 4
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked.body["model"],
        "content": content,
        "stop_reason": reasons.get(shape or "", "end_turn"),
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": "frontier_llm"} if shape == "refusal" else None,
        "usage": {
            "input_tokens": 40,
            "output_tokens": len(answer.text) // 4 + 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": n_prefix,
        },
    }


def events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The message as a stream: begun, each block in one piece, its reason, its end."""
    begun = {**message, "content": [], "stop_reason": None, "stop_details": None}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
        delta = {"type": "text_delta", "text": block.get("text", "")}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {key: message[key] for key in ("stop_reason", "stop_sequence", "stop_details")}
    yield {"type": "message_delta", "delta": ended, "usage": message["usage"]}
    yield {"type": "message_stop"}


def _openai_reply(asked: Asked, answer: Answer, shape: str | None, said: dict[str, Any]) -> dict[str, Any]:
    reasons = {"refusal": "content_filter", "length": "length", "tool_use": "tool_calls"}
    usage = {"prompt_tokens": 140, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 100}}
    choice = {"index": 0, "finish_reason": reasons.get(shape or "", "stop"), **said}
    return {"id": "cmpl-1", "model": asked.body["model"], "choices": [choice], "usage": usage}


def chat_completion(asked: Asked, answer: Answer, shape: str | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if shape == "tool_use":
        function = {"name": "look_up", "arguments": '{"term": "rain"}'}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    return _openai_reply(asked, answer, shape, {"message": message})


def completion(asked: Asked, answer: Answer, shape: str | None) -> dict[str, Any]:
    return _openai_reply(asked, answer, shape, {"text": answer.text})


def taken(usage: Mapping[str, Any]) -> Usage:
    """What a reply of either protocol says it took."""
    if "prompt_tokens" in usage:
        n_cached = usage["prompt_tokens_details"]["cached_tokens"]
        return Usage(usage["prompt_tokens"] - n_cached, usage["completion_tokens"], n_cached)
    cached = (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"])
    return Usage(usage["input_tokens"], usage["output_tokens"], *cached)


PROTOCOLS: Mapping[str, Callable[[Asked, Answer, str | None], dict[str, Any]]] = {
    "/v1/messages": anthropic_message,
    "/v1/chat/completions": chat_completion,
    "/v1/completions": completion,
}


def error_body(asked: Asked, kind: str, message: str, code: str | None) -> dict[str, Any]:
    """An error as each protocol words it. `message` repeats the key, as careless servers do."""
    key = asked.headers.get("Authorization", "").removeprefix("Bearer ")
    words = f"{message} (key {key}, see https://api.example/help?key=QUERYSECRET)"
    if asked.path == "/v1/messages":
        details = {"error_code": code} if code else None
        return {"type": "error", "error": {"type": kind, "message": words, "details": details}, "request_id": "req_1"}
    return {"error": {"message": words, "type": kind, "code": code, "param": None}}


async def _begun_then_hang(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    """A stream that says its first word and no other."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    begun = next(events(anthropic_message(asked, await api.answer(asked), None)))
    await response.write(f"event: message_start\ndata: {json.dumps(begun)}\n\n".encode())
    await asyncio.sleep(60)
    return response


async def _stream_disorder(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    event = {"type": "content_block_stop", "index": 0}
    return web.Response(text=f"event: {event['type']}\ndata: {json.dumps(event)}\n\n", content_type="text/event-stream")


async def _told(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    """The events that stand in the script, as a stream."""
    told = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in json.loads(parameter))
    return web.Response(text=told, content_type="text/event-stream")


# --- faults ------------------------------------------------------------------------------------------------------

Fault = Callable[[FakeAPI, Asked, web.Request, str], Awaitable[web.StreamResponse]]

_STATUSES: Mapping[str, tuple[int, str, str | None]] = {
    "invalid": (400, "invalid_request_error", None),
    "no_credit": (400, "invalid_request_error", None),
    "hold": (400, "invalid_request_error", "organization_on_hold"),
    "bad_key": (401, "authentication_error", None),
    "billing": (402, "billing_error", None),
    "forbidden": (403, "permission_error", None),
    "no_model": (404, "not_found_error", None),
    "timeout": (408, "timeout_error", None),
    "conflict": (409, "conflict_error", None),
    "too_large": (413, "request_too_large", None),
    "limited": (429, "rate_limit_error", None),
    "spend_cap": (429, "rate_limit_error", "enforced_spend_limit_reached"),
    "quota": (429, "insufficient_quota", "insufficient_quota"),
    "broken": (500, "api_error", None),
    "gateway": (502, "api_error", None),
    "overloaded": (529, "overloaded_error", None),
}
_WORDS = {"no_credit": "Your credit balance is too low to access the API."}


def _status(fault: str) -> Fault:
    status, kind, code = _STATUSES[fault]

    async def played(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
        body = error_body(asked, kind, _WORDS.get(fault, f"played: {fault}"), code)
        return web.json_response(body, status=status, headers={"retry-after": parameter} if parameter else {})

    return played


async def _lost(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    """Answered and billed; the reply never arrives."""
    api.bill(asked, await api.answer(asked))
    api.lost[asked.name] += 1
    return await _cut(request)


async def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _hang(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def _drip(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    """A byte now and then: never silent, never done."""
    api.bill(asked, await api.answer(asked))
    api.lost[asked.name] += 1
    response = web.StreamResponse(headers={"content-type": "application/json"})
    await response.prepare(request)
    for _ in range(1_000):
        await response.write(b" ")
        await asyncio.sleep(0.05)
    return response


async def _slow(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    """Nothing is wrong; it takes so many seconds."""
    await asyncio.sleep(float(parameter))
    return await api.reply(asked, request)


async def _truncated(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    """The first half of the reply, as if that were all."""
    api.lost[asked.name] += 1
    message = api.bill(asked, await api.answer(asked))
    if asked.body.get("stream"):
        # All of its text, and no word on how it ended.
        half = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events(message)][:3]
        return web.Response(text="".join(half), content_type="text/event-stream")
    text = json.dumps(message)
    return web.Response(text=text[: len(text) // 2], content_type="application/json")


async def _redirect(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    return web.Response(status=int(parameter), headers={"location": f"{api.url}/elsewhere?token=QUERYSECRET"})


async def _page(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    """What a captive portal or a misconfigured gateway answers."""
    return web.Response(text="<html>Welcome!</html>", content_type="text/html")


async def _body(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    """The reply that stands in the script."""
    return web.Response(text=parameter, content_type="application/json")


async def _spoken(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    """The status and the body that stand in the script."""
    status, _, body = parameter.partition(":")
    return web.Response(status=int(status), text=body, content_type="application/json")


async def _stream_error(api: FakeAPI, asked: Asked, request: web.Request, parameter: str) -> web.StreamResponse:
    """An error in the middle of a stream that began with 200."""
    event = error_body(asked, parameter, "played", None)
    text = f"event: error\ndata: {json.dumps(event)}\n\n"
    return web.Response(text=text, content_type="text/event-stream")


_FAULTS: Mapping[str, Fault] = {
    **{fault: _status(fault) for fault in _STATUSES},
    "lost": _lost,
    "hang": _hang,
    "begun_then_hang": _begun_then_hang,
    "drip": _drip,
    "slow": _slow,
    "truncated": _truncated,
    "redirect": _redirect,
    "page": _page,
    "body": _body,
    "status": _spoken,
    "stream_error": _stream_error,
    "stream_disorder": _stream_disorder,
    "told": _told,
}


# --- its thread --------------------------------------------------------------------------------------------------


Extend = Callable[[web.Application, FakeAPI], None]


@contextmanager
def serving(fault: Script = never, shape: Script = never, extend: Extend = lambda app, api: None) -> Iterator[FakeAPI]:
    """The server, up on a free port of 127.0.0.1 until the block ends; `extend` adds routes to it."""
    api = FakeAPI(fault, shape)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(_start(api, extend), loop).result(10)
    try:
        yield api
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def error_body_of(kind: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": "played"}}


async def _start(api: FakeAPI, extend: Extend) -> web.AppRunner:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        api.n_redirected += 1
        return web.json_response({})

    async def listed(request: web.Request) -> web.StreamResponse:
        if api.models is None:
            raise web.HTTPNotFound
        if "Authorization" not in request.headers:
            return web.json_response(error_body_of("authentication_error"), status=401)
        name = request.match_info.get("model")
        found = [each for each in api.models if name in (None, each["id"])]
        if name is None:
            return web.json_response({"data": found})
        return web.json_response(*found) if found else web.json_response(error_body_of("not_found_error"), status=404)

    app = web.Application(client_max_size=1 << 24)
    extend(app, api)
    app.router.add_get("/v1/models", listed)
    app.router.add_get("/v1/models/{model}", listed)
    for path in PROTOCOLS:
        app.router.add_post(path, api.handle)
    app.router.add_route("*", "/elsewhere", elsewhere)
    runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return runner
