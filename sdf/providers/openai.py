"""Any server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, a hosted API; through bare aiohttp.

The SDK costs ten times the CPU of this, most of it in re-encoding what does not change. Here a prefix is
JSON-encoded once and spliced into each body as bytes. Of several addresses the least busy is asked, and one that
fails rests for a while, or its quick failures would draw every request. The trade-off: a prefix is cached by each
server for itself, so a genre's prefix is computed once per address.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import aiohttp

from sdf.errors import NotServed, ProviderError, RateLimited, RecipeError, Unauthorized, Unavailable
from sdf.money.allowance import Told
from sdf.providers import settings as read
from sdf.providers.endpoints import CONNECT_SECONDS, failure, retry_after, said, unreached
from sdf.providers.keys import key_of
from sdf.providers.pace import told_by_openai
from sdf.providers.replies import answered_by, arguments_of, as_object, as_tools, counts
from sdf.providers.served import Served, served
from sdf.records import Answer, FinishReason, Prefix, Request, Usage, canonical_json

log = logging.getLogger(__name__)

NAME = "openai"
KEY_VARIABLE = "OPENAI_API_KEY"
HOSTED = "https://api.openai.com"

# Encoded prefixes that are kept: a job has one per genre, and one per cell where the context is a principle.
N_PREFIXES = 256
# From this size on aiohttp warns of bytes sent in one piece.
LARGE_BODY = 1 << 20
# Some servers hold a seed in 32 bits, signed or not; equal questions of different slots differ in 31.
SEED_BITS = 0x7FFF_FFFF
# Seconds that an address rests after its first failure in a row, doubled by each further one up to the longest.
FIRST_REST, LONGEST_REST = 1.0, 30.0
# Failures of one of several addresses in a row of which the user hears.
N_TOLD = 3

FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
# These say all there is to say; any other reason is kept as the answer's detail.
TELLING = FINISH_REASONS.keys() - {"content_filter"}
# The server gave up on the request, not the model on the text.
BROKEN_OFF = frozenset({"abort", "error"})


@dataclass(slots=True)
class Address:
    """One server: how busy it is, how often in a row it failed, and until when it rests (the loop's clock)."""

    url: str
    n_in_flight: int = 0
    n_failures: int = 0
    rests_until: float = 0.0

    def failed(self, now: float) -> None:
        self.rests_until = now + min(LONGEST_REST, FIRST_REST * 2 ** min(self.n_failures, 10))
        self.n_failures += 1

    def succeeded(self) -> None:
        self.n_failures, self.rests_until = 0, 0.0


class OpenAI:
    """Answers of `/chat/completions`, and of `/completions` where a step asks for completion."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        given = read.openai(settings)
        self._timeout = given.timeout
        if not given.base_urls:
            raise RecipeError(
                f"provider {NAME}: no address; write --provider-setting base_url=http://localhost:8000/v1 "
                "(several are separated by commas)"
            )
        self._addresses = [Address(url) for url in dict.fromkeys(map(_rooted, given.base_urls))]
        self._key = key_of(NAME, given.key_file, KEY_VARIABLE)
        self.told: dict[str, Told] = {}
        self._opened: aiohttp.ClientSession | None = None

    async def answer(self, request: Request) -> Answer:
        """The model's answer; raises a ProviderError."""
        address = self._least_busy()
        address.n_in_flight += 1
        try:
            reply = await self._outcome(address, request)
        finally:
            address.n_in_flight -= 1
        # Raised here, where no foreign error is being handled that would ride along as context.
        if isinstance(reply, ProviderError):
            raise reply
        return reply

    async def served(self, model: str) -> Served:
        """What the servers tell of a model: all must serve it, and the shortest context counts."""
        found = [await self._served_at(address.url, model) for address in self._addresses]
        least = min(found, key=lambda each: (each.is_known, each.n_context or sys.maxsize))
        if len(found) == 1:
            return least
        are_alike = all(replace(each, where=least.where) == least for each in found)
        where = ", ".join(each.where for each in found) if are_alike else f"{least.where}, the least of {len(found)}"
        return replace(least, where=where)

    async def _served_at(self, url: str, model: str) -> Served:
        reply = await self._guarded(url, self._sent("GET", f"{url}/models"))
        if isinstance(reply, NotServed):
            return Served(model, url)
        if isinstance(reply, ProviderError):
            raise reply
        return served(NAME, url, reply, model)

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    def _least_busy(self) -> Address:
        """Of the addresses that do not rest; of all, the one soonest back, when every one does. Ties go in turn."""
        now = asyncio.get_running_loop().time()
        found = min(
            self._addresses,
            key=lambda each: (each.rests_until if each.rests_until > now else 0.0, each.n_in_flight),
        )
        self._addresses.remove(found)
        self._addresses.append(found)
        return found

    async def _outcome(self, address: Address, request: Request) -> Answer | ProviderError:
        """The answer, or the error that stands for what went wrong: returned, not raised."""
        outcome = await self._exchange(address, request)
        if isinstance(outcome, Unavailable) and not isinstance(outcome, RateLimited):
            address.failed(asyncio.get_running_loop().time())
            if address.n_failures == N_TOLD and len(self._addresses) > 1:
                log.warning("%s; that is %d times in a row: others are asked first until it answers", outcome, N_TOLD)
        elif not isinstance(outcome, ProviderError):
            if address.n_failures >= N_TOLD and len(self._addresses) > 1:
                log.warning("%s: %s answers again", NAME, address.url)
            address.succeeded()
        return outcome

    async def _exchange(self, address: Address, request: Request) -> Answer | ProviderError:
        url, body = _asked(address.url, request)
        data = body if len(body) < LARGE_BODY else io.BytesIO(body)
        reply = await self._guarded(address.url, self._sent("POST", url, data, request.model))
        return reply if isinstance(reply, ProviderError) else _answer(request, reply)

    async def _sent(
        self, method: str, url: str, data: Any = None, model: str | None = None
    ) -> dict[str, Any] | ProviderError:
        asking = self._session().request(method, url, data=data, headers=self._headers(), allow_redirects=False)
        async with asking as response:
            if model is not None and (told := told_by_openai(response.headers)) is not None:
                self.told[model] = told
            content = await response.read()
            if response.status != 200:
                return self._status_failure(response.status, content, response.headers)
        return as_object(json.loads(content))

    async def _guarded(
        self, url: str, sending: Coroutine[Any, Any, dict[str, Any] | ProviderError]
    ) -> dict[str, Any] | ProviderError:
        """The reply, or the error that stands for what went wrong on the way to `url`."""
        try:
            return await sending
        except aiohttp.ConnectionTimeoutError as error:
            return unreached(NAME, url, error, is_sent=False)
        except asyncio.TimeoutError:
            return Unavailable(f"{NAME}: no answer within {self._timeout:g} s from {url}")
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            return Unauthorized(f"{NAME}: {url} is not an address; check base_url")
        except (ValueError, RecursionError):
            # ValueError: of JSON, of UTF-8, or a number of thousands of digits.
            return Unavailable(f"{NAME}: a reply of {url} that breaks off or is no JSON")
        except (aiohttp.ClientError, OSError) as error:
            # Where no connection was made, nothing was sent.
            return unreached(NAME, url, error, is_sent=not isinstance(error, aiohttp.ClientConnectorError))

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return headers

    def _session(self) -> aiohttp.ClientSession:
        """Opened at the first request: connections belong to the event loop. The governor bounds their number."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(CONNECT_SECONDS, self._timeout)),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._opened

    def _status_failure(self, status: int, content: bytes, headers: Mapping[str, str]) -> ProviderError:
        code, message = _complaint(content)
        return failure(NAME, status, said(code, self._key), said(message, self._key), retry_after(headers))


def _rooted(url: str) -> str:
    """A bare host is meant with `/v1`, as every such server has it; a path is taken as it stands."""
    return url if url.count("/") > 2 else f"{url}/v1"


def _asked(url: str, request: Request) -> tuple[str, bytes]:
    """Where to post what. The prefix enters as the bytes it was encoded to once."""
    body: dict[str, Any] = {"model": request.model, "seed": request.draw & SEED_BITS}
    # The hosted API has renamed it, and refuses the old name; servers of one's own know the old one.
    limit = "max_completion_tokens" if url.startswith(HOSTED) else "max_tokens"
    body[limit] = request.sampling.max_tokens
    for name, value in (("temperature", request.sampling.temperature), ("top_p", request.sampling.top_p)):
        if value is not None:
            body[name] = value
    if request.sampling.stop:
        body["stop"] = list(request.sampling.stop)
    if request.tools:
        body["tools"] = as_tools(request.tools, "parameters")
    if request.schema:
        schema = {"name": "answer", "schema": json.loads(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    head = json.dumps(body).encode()[:-1]
    if request.prompt is not None:
        return f"{url}/completions", b"".join((head, b', "prompt": ', _spliced(request.prefix, request.prompt), b"}"))
    return f"{url}/chat/completions", b"".join((head, b', "messages": ', _messages(request), b"}"))


def _messages(request: Request) -> bytes:
    """One system message at most, the prefix and then the request's own: some chat templates take no second one."""
    system = "\n\n".join(each.content for each in request.messages if each.role == "system")
    turns = [{"role": each.role, "content": each.content} for each in request.messages if each.role != "system"]
    rest = json.dumps(turns).encode()[1:]
    if not (system or request.prefix.text):
        return b"[" + rest
    return b"".join((b'[{"role": "system", "content": ', _spliced(request.prefix, system), b"}, ", rest))


def _spliced(prefix: Prefix, text: str) -> bytes:
    """The JSON string of the prefix, a blank line and the text; either may be empty."""
    if not prefix.text:
        return json.dumps(text).encode()
    if not text:
        return _encoded(prefix) + b'"'
    return b"".join((_encoded(prefix), b"\\n\\n", json.dumps(text).encode()[1:]))


@lru_cache(maxsize=N_PREFIXES)
def _encoded(prefix: Prefix) -> bytes:
    """The JSON string of the prefix without its closing quote."""
    return json.dumps(prefix.text).encode()[:-1]


def _answer(request: Request, reply: dict[str, Any]) -> Answer | ProviderError:
    choices = reply.get("choices")
    choice = as_object(choices[0]) if isinstance(choices, list) and choices else {}
    reason = choice.get("finish_reason")
    if not isinstance(reason, str) or reason in BROKEN_OFF:
        return Unavailable(f"{NAME}: a reply that is no finished answer (finish_reason {said(reason, None)})")
    message = as_object(choice.get("message"))
    text = choice.get("text") if request.prompt is not None else message.get("content")
    is_refusal = bool(message.get("refusal"))
    listed = message.get("tool_calls")
    calls = [_call(as_object(each)) for each in listed] if isinstance(listed, list) else []
    return Answer(
        str(text or ""),
        "refusal" if is_refusal else FINISH_REASONS.get(reason, "error"),
        answered_by(request.model, reply.get("model")),
        _usage(as_object(reply.get("usage"))),
        canonical_json(calls) if calls else None,
        "refusal" if is_refusal else None if reason in TELLING else reason,
    )


def _usage(usage: dict[str, Any]) -> Usage:
    """Prompt tokens as billed include those that the cache read; ours do not."""
    used = counts(usage)
    n_cached = min(counts(usage.get("prompt_tokens_details"))("cached_tokens"), used("prompt_tokens"))
    return Usage(used("prompt_tokens") - n_cached, used("completion_tokens"), n_cached)


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = as_object(call.get("function"))
    return {"id": call.get("id"), "name": function.get("name"), "arguments": arguments_of(function.get("arguments"))}


def _complaint(content: bytes) -> tuple[str, str]:
    """Code and message of an error body: OpenAI's, the flat one of older servers, or whatever text it is."""
    try:
        found: Any = json.loads(content)
    except ValueError:
        return "", content[:1_000].decode(errors="replace")
    nested = as_object(found).get("error", found)
    if not isinstance(nested, dict):
        return "", str(nested)
    error = as_object(nested)
    code = error.get("code")
    name = code if isinstance(code, str) and code else error.get("type")
    return str(name or ""), str(error.get("message") or "")
