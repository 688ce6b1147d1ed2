"""The embedded provider: a seeded grammar that answers any request, with no key, model or network.

It is the default of a fresh laptop and the fake of tests and benchmarks. Text depends on the request's draw,
prefix hash and body alone, so reruns agree; it is readable and of the asked length, and says nothing. Faults
that shape an answer (refuse, truncate, unparsable, tool_use) are drawn from the request key; those of the
transport (rate limits, outages, hangs, crashes) from the number of calls this process has made.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sdf.errors import RateLimited, RecipeError, Unavailable
from sdf.frontmatter import near
from sdf.providers.offline.prompt import writer_for
from sdf.providers.offline.shapes import SHAPES, tool_call, unusable
from sdf.providers.pace import SILENT
from sdf.providers.served import Served
from sdf.records import Answer, FinishReason, Request, Usage, stream

MODEL = "offline-grammar"
# What English costs in common vocabularies; the grammar has none of its own.
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """How the provider behaves; fractions are shares of requests, `_every` and `_after` count calls (0: never).

    `latency` is in seconds, and what a rate limit asks to wait. `sampled` draws true randomness for each answer,
    as a hosted model does: two answers to one request then differ. `tic` is a phrase that every text ends with, as a
    habit of a model would be, unless what its requests begin with speaks of it.
    """

    latency: float = 0.0
    rate_limit_every: int = 0
    unavailable_every: int = 0
    hang_every: int = 0
    crash_after: int = 0
    refuse: float = 0.0
    truncate: float = 0.0
    unparsable: float = 0.0
    tool_use: float = 0.0
    sampled: bool = False
    tic: str = ""

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Settings:
        """Raises RecipeError naming the unknown setting or the value that does not parse."""
        known = {field.name: str(field.type) for field in fields(cls)}
        for name in settings:
            if name not in known:
                raise RecipeError(f"provider offline: unknown setting {name!r}{near(name, known)}")
        values: dict[str, Any] = {name: _PARSERS[known[name]](name, value) for name, value in settings.items()}
        return cls(**values)


def _float(name: str, value: str) -> float:
    most, wanted = (3600.0, "seconds from 0 to 3600") if name == "latency" else (1.0, "a fraction from 0 to 1")
    try:
        number = float(value)
    except ValueError:
        raise _bad(name, value, wanted) from None
    if not 0 <= number <= most:
        raise _bad(name, value, wanted)
    return number


def _int(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 12):
        raise _bad(name, value, "a whole number of calls, 0 for never")
    return int(value)


def _bool(name: str, value: str) -> bool:
    if value not in {"true", "false"}:
        raise _bad(name, value, "true or false")
    return value == "true"


def _bad(name: str, value: str, wanted: str) -> RecipeError:
    return RecipeError(f"provider offline: {name} is {value!r}; write {wanted}")


_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "float": _float,
    "int": _int,
    "bool": _bool,
    "str": lambda _, value: value,
}


class Offline:
    """Answers from the grammar. Every call yields to the event loop at least once."""

    told = SILENT

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = Settings.of(settings)
        self._n_calls = self._n_answers = 0

    async def answer(self, request: Request) -> Answer:
        await self._transport()
        self._n_answers += 1
        return self._answer(request)

    async def served(self, model: str) -> Served:
        return Served(model, "this process", is_known=True)

    async def close(self) -> None:
        """Nothing is held."""

    async def _transport(self) -> None:
        """What happens on the way: by number of the call, as a network would, never by what was asked."""
        settings = self.settings
        self._n_calls += 1
        if settings.crash_after and self._n_answers >= settings.crash_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if _is_due(self._n_calls, settings.hang_every):
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(settings.latency)
        if _is_due(self._n_calls, settings.rate_limit_every):
            raise RateLimited(f"offline: call {self._n_calls} was rate limited, as set", settings.latency)
        if _is_hit(self._n_calls, settings.unavailable_every):
            raise Unavailable(f"offline: call {self._n_calls} was unavailable, as set")

    def _answer(self, request: Request) -> Answer:
        if self._befalls("refuse", request):
            return _as_answer(request, "", "refusal", "offline")
        if self._befalls("unparsable", request):
            return _as_answer(request, unusable(request.wants), "stop")
        writer = writer_for(request, os.urandom(16) if self.settings.sampled else b"")
        if request.tools and self._befalls("tool_use", request):
            return replace(_as_answer(request, "", "tool_use"), tool_calls=tool_call(writer, request.tools))
        text = SHAPES[request.wants.returns](writer, request)
        if self.settings.tic and request.wants.returns == "text":
            text = _with_tic(request, text, self.settings.tic)
        if self._befalls("truncate", request):
            return _as_answer(request, text[: len(text) * 2 // 5], "length")
        return _as_answer(request, *_within_limits(request, text))

    def _befalls(self, fault: str, request: Request) -> bool:
        share: float = getattr(self.settings, fault)
        return share > 0 and stream(fault, request.key()) < share * 2**64


def _with_tic(request: Request, text: str, tic: str) -> str:
    if tic.casefold() in request.prefix.text.casefold():
        return text
    prose, closing, end = text.rpartition("\n</") if request.wants.tag else (text, "", "")
    return f"{prose} And that was that, {tic}.{closing}{end}"


def _is_due(n_call: int, every: int) -> bool:
    return every > 0 and n_call % every == 0


def _is_hit(n_call: int, every: int) -> bool:
    """One call in `every` on average, scattered: in step, a retry could meet every outage and look at fault."""
    return every > 0 and stream("unavailable", n_call) % every == 0


def _as_answer(request: Request, text: str, reason: FinishReason, detail: str | None = None) -> Answer:
    n_characters = len(request.prefix.text) + sum(len(message.content) for message in request.messages)
    n_characters += len(request.prompt or "")
    usage = Usage(n_characters // CHARACTERS_PER_TOKEN, -(-len(text) // CHARACTERS_PER_TOKEN))
    return Answer(text, reason, MODEL, usage, detail=detail)


def _within_limits(request: Request, text: str) -> tuple[str, FinishReason]:
    """`text` up to its first stop sequence and within `max_tokens`."""
    for stop in request.sampling.stop:
        text = text.partition(stop)[0]
    most = request.sampling.max_tokens * CHARACTERS_PER_TOKEN
    return (text, "stop") if len(text) <= most else (text[:most], "length")
