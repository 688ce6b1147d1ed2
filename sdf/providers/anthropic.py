"""Claude through the `anthropic` SDK, whose retries are off: the governor is the one retry layer.

The shared prefix goes as a system block of its own, marked for the cache; the first request of a prefix goes alone
and streams, and its siblings follow once its answer has begun, when the cache can be read. Everything else asks for
whole replies, which cost half the CPU of streams, and reads their JSON itself: building the SDK's models would cost
as much again. The trade-off: what an answer holds is this file's to know, not the SDK's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import anthropic
import httpx2

from sdf.errors import NotServed, ProviderError, RecipeError, Unavailable
from sdf.money.allowance import Told
from sdf.providers.endpoints import (
    CONNECT_SECONDS,
    base_url,
    checked,
    failure,
    key_of,
    no_key,
    retry_after,
    said,
    seconds,
    truth,
)
from sdf.providers.pace import told_by_anthropic
from sdf.providers.replies import answered_by, as_object, as_tools, counts
from sdf.providers.served import Served, served
from sdf.records import Answer, FinishReason, Prefix, Request, Usage, canonical_json

log = logging.getLogger(__name__)

NAME = "anthropic"
KEY_VARIABLE = "ANTHROPIC_API_KEY"
# The defaults. `base_url` is always passed on, so that no environment variable sends the key elsewhere.
SETTINGS: Mapping[str, str] = {
    "base_url": "https://api.anthropic.com",
    "key_file": "",
    "allow_insecure": "false",
    "cache_ttl": "5m",
    "timeout": "600",
}
# What `cache_ttl` may be, in seconds.
TTLS: Mapping[str, float] = {"5m": 300.0, "1h": 3_600.0}

# Tokens below which a prefix is never cached, by how a model's name begins; the longest match counts.
MINIMA: Mapping[str, int] = {
    "claude-haiku": 4_096,
    "claude-sonnet": 1_024,
    "claude-opus-4": 1_024,
    "claude-opus-5": 512,
    "claude-fable": 512,
}
# For a model that is not listed. A marker too many is free, one too few costs ten times the input.
LEAST_MINIMUM = 512
# English has four or more, Chinese three: three never calls a prefix short that is not.
BYTES_PER_TOKEN = 3

# Encoded prefixes that are kept: a job has one per genre, and one per cell where the context is a principle.
N_PREFIXES = 256

# The SDK refuses to ask for more in one piece, since idle connections are cut before such a reply is whole.
MAX_UNSTREAMED_TOKENS = 21_333
# Seconds that siblings wait for the first of a prefix, should it hang.
LEAD_SECONDS = 30.0

# `error` ends a turn that no step can use; anything new counts as such, with its name.
STOP_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_use",
    "refusal": "refusal",
}
# Errors within a stream come after a status of 200; their type names the status they would have had.
STREAM_ERRORS: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Head(NamedTuple):
    """What two requests must share for one to read what the other wrote to the cache."""

    model: str
    prefix: str
    tools: str | None
    schema: str | None


class Turns:
    """Who goes first: of requests with a head that the cache does not hold, one leads and the others wait for it."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._used_at: dict[Head, float] = {}
        self._leading: dict[Head, asyncio.Event] = {}

    async def take(self, head: Head) -> bool:
        """Whether the caller leads, and so must call `over` at its end. Returns to others once they may go."""
        now = asyncio.get_running_loop().time()
        if now - self._used_at.get(head, float("-inf")) < self._ttl:
            return False
        if head not in self._leading:
            self._leading[head] = asyncio.Event()
            return True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._leading[head].wait(), LEAD_SECONDS)
        return False

    def begun(self, head: Head) -> None:
        """An answer has begun: the cache holds the head, and every use keeps it there."""
        self._used_at[head] = asyncio.get_running_loop().time()
        self._release(head)

    def over(self, head: Head) -> None:
        """The leader has ended, well or not: nobody waits for it any longer."""
        self._release(head)

    def _release(self, head: Head) -> None:
        leading = self._leading.pop(head, None)
        if leading is not None:
            leading.set()


class Anthropic:
    """Answers of the Messages API. Build it where it is used: it holds a key and connections, and does not pickle."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        given = checked(NAME, settings, SETTINGS)
        self._timeout = seconds(NAME, "timeout", given["timeout"])
        if given["cache_ttl"] not in TTLS:
            raise RecipeError(f"provider {NAME}: cache_ttl is {given['cache_ttl']!r}; write {' or '.join(TTLS)}")
        self.marker = {"type": "ephemeral", "ttl": given["cache_ttl"]}
        insecure = truth(NAME, "allow_insecure", given["allow_insecure"])
        self.base_url = base_url(NAME, given["base_url"], allow_insecure=insecure)
        key = key_of(NAME, given["key_file"], KEY_VARIABLE)
        if key is None:
            raise no_key(NAME, KEY_VARIABLE)
        self._key = key
        self._turns = Turns(TTLS[given["cache_ttl"]])
        self._warned: set[str] = set()
        self.told: dict[str, Told] = {}
        self._opened: anthropic.AsyncAnthropic | None = None

    async def answer(self, request: Request) -> Answer:
        """The model's answer; raises a ProviderError, or RecipeError for what this API cannot be asked."""
        check(request)
        is_marked = self.is_marked(request)
        body = body_of(request, self.marker if is_marked else None)
        head = Head(request.model, request.prefix.hash, request.tools, request.schema)
        leads = is_marked and await self._turns.take(head)
        try:
            reply = await self._outcome(request.prefix, body, leads, lambda: self._turns.begun(head))
        finally:
            if leads:
                self._turns.over(head)
        # Raised here, where no error of the SDK is being handled: it would ride along as context, key and all.
        if isinstance(reply, ProviderError):
            raise reply
        if is_marked:
            self._turns.begun(head)
        return answer_of(request, reply)

    async def served(self, model: str) -> Served:
        """What the server tells of a model. A server that lists no models tells nothing."""
        for path in (f"/v1/models/{quote(model, safe='')}", "/v1/models?limit=1000"):
            found = await self.guarded(self.got(path))
            if not isinstance(found, ProviderError):
                return served(NAME, self.base_url, found, model)
            if not isinstance(found, NotServed):
                raise found
        return Served(model, self.base_url)

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    def is_marked(self, request: Request) -> bool:
        """Whether the prefix can be cached; said once per model when it cannot."""
        minimum = _minimum(request.model)
        if len(request.prefix.text.encode()) >= minimum * BYTES_PER_TOKEN:
            return True
        if request.prefix.text and request.model not in self._warned:
            self._warned.add(request.model)
            log.warning(
                "%s: a prefix of %d characters is below what %s caches (%d tokens): it is paid in full each time",
                NAME,
                len(request.prefix.text),
                request.model,
                minimum,
            )
        return False

    async def _outcome(
        self, prefix: Prefix, body: dict[str, Any], leads: bool, begun: Callable[[], None]
    ) -> dict[str, Any] | ProviderError:
        """The reply, or the error that stands for what went wrong: returned, not raised."""
        streams = leads or body["max_tokens"] > MAX_UNSTREAMED_TOKENS
        return await self.guarded(self._streamed(body, begun) if streams else self._whole(prefix, body))

    async def guarded(self, asking: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any] | ProviderError:
        try:
            return await asyncio.wait_for(asking, self._timeout)
        except anthropic.APIStatusError as error:
            return self._status_failure(error)
        except asyncio.TimeoutError:
            return Unavailable(f"{NAME}: no answer within {self._timeout:g} s")
        except (json.JSONDecodeError, UnicodeDecodeError, RuntimeError):
            # RuntimeError: nested too deeply, or the events of a stream out of order.
            return Unavailable(f"{NAME}: a reply that breaks off or is no JSON; check base_url if it stays so")
        except (anthropic.AnthropicError, httpx2.HTTPError) as error:
            text = f"{NAME}: {_root(error)} on the way to {self.base_url}"
            return Unavailable(text, maybe_billed=not _never_connected(error))

    async def _whole(self, prefix: Prefix, body: dict[str, Any]) -> dict[str, Any]:
        response = await self.posted("/v1/messages", encoded(prefix, body))
        self._listen(body["model"], response.headers)
        return as_object(json.loads(response.content))

    async def posted(self, path: str, content: bytes) -> httpx2.Response:
        """A body that is JSON already: the SDK would walk through its every field, and encode its prefix again."""
        headers = {"Content-Type": "application/json"}
        return await self.client().post(path, cast_to=httpx2.Response, content=content, options={"headers": headers})

    async def got(self, path: str) -> dict[str, Any]:
        response = await self.client().get(path, cast_to=httpx2.Response)
        return as_object(json.loads(response.content))

    async def _streamed(self, body: dict[str, Any], begun: Callable[[], None]) -> dict[str, Any]:
        async with self.client().messages.stream(**body) as stream:
            self._listen(body["model"], stream.response.headers)
            has_ended = False
            async for event in stream:
                begun()
                has_ended = event.type == "message_stop"
            # The SDK gives the message of a stream that broke off as if it were whole.
            return (await stream.get_final_message()).to_dict(mode="json") if has_ended else {}

    def _listen(self, model: str, headers: Mapping[str, str]) -> None:
        told = told_by_anthropic(headers)
        if told is not None:
            self.told[model] = told

    def _status_failure(self, error: anthropic.APIStatusError) -> ProviderError:
        code = error.error_code or error.type or ""
        status = STREAM_ERRORS.get(str(error.type), 500) if error.status_code < 300 else error.status_code
        message = self.said(error.api_message or "")
        return failure(NAME, status, self.said(code), message, retry_after(error.response.headers))

    def said(self, text: object) -> str:
        """Words of the server, fit to be shown: without the key."""
        return said(text, self._key)

    def client(self) -> anthropic.AsyncAnthropic:
        """Opened at the first request: connections belong to the event loop."""
        if self._opened is None:
            timeout = httpx2.Timeout(self._timeout, connect=min(CONNECT_SECONDS, self._timeout))
            self._opened = anthropic.AsyncAnthropic(
                api_key=self._key.reveal(),
                base_url=self.base_url,
                max_retries=0,
                timeout=timeout,
                # Half the CPU of the default transport.
                http_client=anthropic.DefaultAioHttpClient(follow_redirects=False, timeout=timeout),
            )
        return self._opened


def check(request: Request) -> None:
    if request.prompt is not None:
        raise RecipeError(
            f"provider {NAME} has no completion endpoint; write `form: chat` in the genre, or use provider openai"
        )
    if request.sampling.temperature is not None or request.sampling.top_p is not None:
        raise RecipeError(f"provider {NAME}: its API takes temperature and top_p no longer; take them out")


def _minimum(model: str) -> int:
    matches = [start for start in MINIMA if model.startswith(start)]
    return MINIMA[max(matches, key=len)] if matches else LEAST_MINIMUM


def body_of(request: Request, marker: Mapping[str, str] | None) -> dict[str, Any]:
    """The arguments of the call. System texts follow the prefix, which is the first block and the marked one."""
    system: list[dict[str, Any]] = []
    if request.prefix.text.strip():
        system.append({"type": "text", "text": request.prefix.text} | ({"cache_control": marker} if marker else {}))
    system += [{"type": "text", "text": each.content} for each in request.messages if each.role == "system"]
    turns = [{"role": each.role, "content": each.content} for each in request.messages if each.role != "system"]
    body: dict[str, Any] = {"model": request.model, "max_tokens": request.sampling.max_tokens, "messages": turns}
    if system:
        body["system"] = system
    if request.sampling.stop:
        body["stop_sequences"] = list(request.sampling.stop)
    if request.tools:
        body["tools"] = as_tools(request.tools, "input_schema")
    schema = _schema(request.schema) if request.schema else None
    if schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return body


def encoded(prefix: Prefix, body: Mapping[str, Any]) -> bytes:
    """The body as JSON, its prefix as the bytes it was encoded to once."""
    system = body.get("system", [])
    if not system or system[0]["text"] is not prefix.text:
        return json.dumps(body).encode()
    rest = {name: value for name, value in body.items() if name != "system"}
    block = {name: value for name, value in system[0].items() if name != "text"}
    return b"".join(
        (
            json.dumps(rest).encode()[:-1],
            b', "system": [{"text": ',
            _json_text(prefix),
            b", ",
            json.dumps(block).encode()[1:],
            b", " if system[1:] else b"",
            json.dumps(system[1:]).encode()[1:],
            b"}",
        )
    )


@lru_cache(maxsize=N_PREFIXES)
def _json_text(prefix: Prefix) -> bytes:
    return json.dumps(prefix.text).encode()


@lru_cache(maxsize=256)
def _schema(text: str) -> dict[str, Any] | None:
    """The schema in the dialect of the API; None for one that it does not speak: then the prompt alone asks."""
    try:
        schema = anthropic.transform_schema(json.loads(text))
    except (ValueError, TypeError, AssertionError):
        return None
    return schema if schema.get("type") == "object" else None


def answer_of(request: Request, reply: dict[str, Any]) -> Answer:
    """Raises Unavailable for what is no message: something between here and the API answered in its place."""
    content, reason = reply.get("content"), reply.get("stop_reason")
    if not isinstance(content, list) or not isinstance(reason, str):
        raise Unavailable(f"{NAME}: a reply that is no finished message; check base_url if it stays so")
    blocks = [as_object(block) for block in content]
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    used = counts(reply.get("usage"))
    return Answer(
        "".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text"),
        STOP_REASONS.get(reason, "error"),
        answered_by(request.model, reply.get("model")),
        Usage(
            used("input_tokens"),
            used("output_tokens"),
            used("cache_read_input_tokens"),
            used("cache_creation_input_tokens"),
        ),
        canonical_json(calls) if calls else None,
        _detail(reason, reply.get("stop_details")),
    )


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": block.get("id"), "name": block.get("name"), "arguments": block.get("input")}


def _detail(reason: str, details: Any) -> str | None:
    """The category of a refusal; the reason itself where the finish reason does not tell it."""
    if reason == "refusal":
        category = as_object(details).get("category")
        return str(category) if category else None
    return reason if reason not in STOP_REASONS or reason == "model_context_window_exceeded" else None


def _never_connected(error: BaseException) -> bool:
    """Whether no connection was made, so that nothing was sent. The transport alone knows: above it, a reply that was
    cut off is called an error of connecting too."""
    is_so = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    return is_so or (error.__cause__ is not None and _never_connected(error.__cause__))


def _root(error: BaseException) -> str:
    """The kind of the innermost error, which says more than "connection error"; its words may hold an address."""
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__
