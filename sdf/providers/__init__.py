"""Who answers requests: one Protocol, and the table of those who speak it.

A provider turns one `Request` into one `Answer` and translates every foreign error at its edge. It never
retries, never limits itself and never sleeps on a 429: `governor.Governor` does that once, for all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sdf.errors import RecipeError
from sdf.frontmatter import near
from sdf.money.allowance import Told
from sdf.providers.batch_log import BatchLog, Cancellation, Sent, UnderWay
from sdf.providers.served import Served
from sdf.records import Answer, Request

# Imported only when chosen, so that no provider's SDK is needed by a run that does not use it.
PROVIDERS: Mapping[str, str] = {
    "anthropic": "sdf.providers.anthropic.online:Anthropic",
    "anthropic-batch": "sdf.providers.anthropic.batch:AnthropicBatch",
    "offline": "sdf.providers.offline:Offline",
    "openai": "sdf.providers.openai:OpenAI",
    "vllm": "sdf.providers.vllm.provider:Vllm",
}


class Provider(Protocol):
    """Answers many requests at once; safe to share between the coroutines of one event loop."""

    @property
    def told(self) -> Mapping[str, Told]:
        """What the server last said of its rate limits, by model; nothing where it says nothing."""
        ...

    async def answer(self, request: Request) -> Answer:
        """The model's answer. Raises a `ProviderError`: RequestRejected, Unavailable, RateLimited, Unauthorized."""
        ...

    async def served(self, model: str) -> Served:
        """Asks, at no price, what is known of the model. Raises a `ProviderError`; never answers a prompt."""
        ...

    async def close(self) -> None:
        """Gives connections and engines back; no request may follow."""
        ...


# Their requests gather into batches, which are kept on record and take hours.
BATCHED = frozenset({"anthropic-batch"})
# Whose answers take as long as they take: hours for a batch; an engine of our own has a watchdog and a long queue.
UNTIMED = BATCHED | {"vllm"}


class Batched(Provider, Protocol):
    """A provider whose requests go on at the API when nobody waits for them."""

    @property
    def under_way(self) -> Sequence[UnderWay]:
        """The batches that answers are waited for."""
        ...

    async def answer(self, request: Request, worst: float = 0.0) -> Answer:
        """As of any provider; `worst` dollars are set aside for the request, and stand in its record."""
        ...

    async def take_over(self, request: Request, worst: float) -> float:
        """Before `worst` dollars are set aside for the request: those that an earlier run set aside for it, if a batch
        of that run holds it. From now on they are this worker's, and so is the waiting."""
        ...

    def is_at_stake(self, request: Request) -> bool:
        """Whether this worker has submitted the request, or taken it over, and nothing came of it yet."""
        ...

    def drain(self) -> None:
        """No other batch goes out: a request that waits to be sent raises Stopped. Those under way may still end."""
        ...

    async def cancel(self, sent: Sent) -> Cancellation:
        """Cancels a batch that is on record."""
        ...


def make(name: str, settings: Mapping[str, str]) -> Provider:
    """The provider called `name`. RecipeError for an unknown name or setting, a bad value, or a missing package.

    One of BATCHED can tell what is served, and no more: to answer it must be on record.
    """
    return _named(name, "online_half" if name in BATCHED else None)(settings)


def make_batched(name: str, settings: Mapping[str, str], batches: BatchLog) -> Batched:
    """One of BATCHED, which keeps its records in `batches`; errors as `make`."""
    return _named(name)(settings, batches)


def _named(name: str, attribute: str | None = None) -> Any:
    """The class, or another `attribute` of its module."""
    if name not in PROVIDERS:
        raise RecipeError(f"unknown provider {name!r}{near(name, PROVIDERS)}")
    path, _, kind = PROVIDERS[name].partition(":")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        extra = name.partition("-")[0]
        raise RecipeError(
            f"provider {name} needs {error.name}, which is not installed here: pip install 'sdf[{extra}]'"
        ) from None
    return getattr(module, attribute or kind)
