"""Claude through the `anthropic` SDK, whose retries are off: the governor is the one retry layer.

The shared prefix goes as a system block of its own, marked for the cache; the first request of a prefix goes alone
and streams, and its siblings follow once its answer has begun, when the cache can be read. Everything else asks for
whole replies, which cost half the CPU of streams, and reads their JSON itself: building the SDK's models would cost
as much again. The trade-off: what an answer holds is this file's to know, not the SDK's.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import anthropic
import httpx2

from sdf.errors import NotServed, ProviderError, Unavailable
from sdf.money.allowance import Told
from sdf.providers import settings as read
from sdf.providers.anthropic.caching import BYTES_PER_TOKEN, TTLS, Head, Turns, minimum_of
from sdf.providers.anthropic.messages import NAME, answer_of, body_of, check, encoded
from sdf.providers.anthropic.streamed import Streamed
from sdf.providers.endpoints import CONNECT_SECONDS, failure, retry_after, said, unreached
from sdf.providers.keys import key_of, no_key
from sdf.providers.pace import told_by_anthropic
from sdf.providers.replies import as_object
from sdf.providers.served import Served, served
from sdf.records import Answer, Prefix, Request

log = logging.getLogger(__name__)

KEY_VARIABLE = "ANTHROPIC_API_KEY"
# The SDK refuses to ask for more in one piece, since idle connections are cut before such a reply is whole.
MAX_UNSTREAMED_TOKENS = 21_333
JSON = {"Content-Type": "application/json"}
# Errors within a stream come after a status of 200; their type names the status they would have had.
STREAM_ERRORS: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Anthropic:
    """Answers of the Messages API. Build it where it is used: it holds a key and connections, and does not pickle."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        given = read.anthropic(settings)
        self._timeout, (self.base_url,) = given.timeout, given.base_urls
        self.marker = {"type": "ephemeral", "ttl": given.cache_ttl}
        key = key_of(NAME, given.key_file, KEY_VARIABLE)
        if key is None:
            raise no_key(NAME, KEY_VARIABLE)
        self._key = key
        self._turns = Turns(TTLS[given.cache_ttl])
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
        minimum = minimum_of(request.model)
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
        return await self.guarded(self._streamed(prefix, body, begun) if streams else self._whole(prefix, body))

    async def guarded(self, asking: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any] | ProviderError:
        try:
            return await asyncio.wait_for(asking, self._timeout)
        except anthropic.APIStatusError as error:
            return self._status_failure(error)
        except asyncio.TimeoutError:
            return Unavailable(f"{NAME}: no answer within {self._timeout:g} s")
        except (ValueError, RuntimeError):
            # ValueError: of JSON, of UTF-8, or a number of thousands of digits. RuntimeError: nested too deeply, or the
            # events of a stream out of order.
            return Unavailable(f"{NAME}: a reply that breaks off or is no JSON")
        except (anthropic.AnthropicError, httpx2.HTTPError) as error:
            return unreached(NAME, self.base_url, error, is_sent=not _never_connected(error))

    async def _whole(self, prefix: Prefix, body: dict[str, Any]) -> dict[str, Any]:
        response = await self.posted("/v1/messages", encoded(prefix, body))
        self._listen(body["model"], response.headers)
        return as_object(json.loads(response.content))

    async def posted(self, path: str, content: bytes) -> httpx2.Response:
        """A body that is JSON already: the SDK would walk through its every field, and encode its prefix again."""
        return await self.client().post(path, cast_to=httpx2.Response, content=content, options={"headers": JSON})

    async def got(self, path: str) -> dict[str, Any]:
        response = await self.client().get(path, cast_to=httpx2.Response)
        return as_object(json.loads(response.content))

    async def _streamed(self, prefix: Prefix, body: dict[str, Any], begun: Callable[[], None]) -> dict[str, Any]:
        message = Streamed()
        stream = await self.client().post(
            "/v1/messages",
            cast_to=object,
            content=encoded(prefix, {**body, "stream": True}),
            options={"headers": JSON},
            stream=True,
            stream_cls=anthropic.AsyncStream[object],
        )
        async with stream:
            self._listen(body["model"], stream.response.headers)
            async for event in stream:
                begun()
                message.take(as_object(event))
        return message.message

    def _listen(self, model: str, headers: Mapping[str, str]) -> None:
        told = told_by_anthropic(headers)
        if told is not None:
            self.told[model] = told

    def _status_failure(self, error: anthropic.APIStatusError) -> ProviderError:
        code = error.error_code or error.type or ""
        status = STREAM_ERRORS.get(str(error.type), 500) if error.status_code < 300 else error.status_code
        message = self.said(error.api_message or "")
        found = failure(NAME, status, self.said(code), message, retry_after(error.response.headers))
        if error.status_code < 300 and isinstance(found, Unavailable):
            # The answer had begun: what there was of it may be billed.
            found.maybe_billed = True
        return found

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


def _never_connected(error: BaseException) -> bool:
    """Whether no connection was made, so that nothing was sent. The transport alone knows: above it, a reply that was
    cut off is called an error of connecting too."""
    is_so = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    return is_so or (error.__cause__ is not None and _never_connected(error.__cause__))
