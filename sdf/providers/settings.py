"""What each provider may be told, and all that can be found wrong with it without its SDK, a key or a network.

The providers read their settings by these functions, so that what passes here is what they take. An address or a key
that is missing is no fault yet: it may be given where the workers run, or later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import NamedTuple

from sdf.errors import RecipeError
from sdf.providers.addresses import base_url
from sdf.providers.anthropic.caching import TTLS
from sdf.providers.endpoints import checked, seconds, truth, whole
from sdf.providers.offline import Settings as Offline
from sdf.providers.vllm.arguments import PREFIX, gpus_per_engine, split, template_kwargs
from sdf.providers.vllm.arguments import SETTINGS as VLLM

# The defaults. `base_url` is always passed on, so that no environment variable sends the key elsewhere.
ANTHROPIC: Mapping[str, str] = {
    "base_url": "https://api.anthropic.com",
    "key_file": "",
    "allow_insecure": "false",
    "cache_ttl": "5m",
    "timeout": "600",
}
# `gather`: seconds without a new request after which a pool goes out. `poll`: between looks at a batch. `max_wait`:
# for a batch, before the run ends and leaves it to be collected later; a batch lives 24 hours. `lost_reply`: how long
# a batch whose `create` got no reply is looked for before it counts as never created.
ANTHROPIC_BATCH: Mapping[str, str] = {
    **ANTHROPIC,
    "cache_ttl": "1h",
    "batch_size": "5000",
    "gather": "2",
    "poll": "30",
    "max_wait": "90000",
    "lost_reply": "60",
}
OPENAI: Mapping[str, str] = {"base_url": "", "key_file": "", "allow_insecure": "false", "timeout": "600"}
# The names alone; those of an engine's arguments are the engine's to know.
KNOWN: Mapping[str, frozenset[str]] = {
    "anthropic": frozenset(ANTHROPIC),
    "anthropic-batch": frozenset(ANTHROPIC_BATCH),
    "offline": frozenset(each.name for each in fields(Offline)),
    "openai": frozenset(OPENAI),
    "vllm": frozenset(VLLM),
}

# The API takes 100,000 requests.
MOST_REQUESTS = 100_000
# Seconds; a batch lives a day.
MAX_WAIT = 30 * 86_400.0


class Hosted(NamedTuple):
    """Servers and how to ask them: `timeout` in seconds, `key_file` "" where none is named."""

    base_urls: tuple[str, ...]
    key_file: str
    timeout: float
    cache_ttl: str = ""


class Batches(NamedTuple):
    """The size of a batch in requests, durations in seconds, and the half that goes without batches."""

    size: int
    gather: float
    poll: float
    max_wait: float
    lost_reply: float
    online: Hosted


def check(provider: str, settings: Mapping[str, str]) -> None:
    """RecipeError for a setting that the provider does not take, or a value that it cannot be."""
    for name in settings:
        takers = [other for other in KNOWN if _takes(other, name)]
        if takers and provider not in takers:
            raise RecipeError(
                f"provider {provider}: takes no {name}, which is a setting of {' and '.join(takers)}; leave it out, or "
                f"write ROLE.{name} for a role whose provider takes it"
            )
    _CHECKS[provider](settings)


def _takes(provider: str, name: str) -> bool:
    return name in KNOWN[provider] or (provider == "vllm" and name.startswith(PREFIX))


def anthropic(settings: Mapping[str, str]) -> Hosted:
    given = checked("anthropic", settings, ANTHROPIC)
    timeout = seconds("anthropic", "timeout", given["timeout"])
    if given["cache_ttl"] not in TTLS:
        raise RecipeError(f"provider anthropic: cache_ttl is {given['cache_ttl']!r}; write {' or '.join(TTLS)}")
    insecure = truth("anthropic", "allow_insecure", given["allow_insecure"])
    url = base_url("anthropic", given["base_url"], allow_insecure=insecure)
    if url.endswith("/v1"):
        raise RecipeError(f"provider anthropic: base_url {url!r} ends in /v1, which the SDK adds; write {url[:-3]!r}")
    return Hosted((url,), given["key_file"], timeout, given["cache_ttl"])


def anthropic_batch(settings: Mapping[str, str]) -> Batches:
    name = "anthropic-batch"
    given = checked(name, settings, ANTHROPIC_BATCH)
    gather, poll, lost_reply = (seconds(name, each, given[each]) for each in ("gather", "poll", "lost_reply"))
    return Batches(
        whole(name, "batch_size", given["batch_size"], MOST_REQUESTS),
        gather,
        poll,
        seconds(name, "max_wait", given["max_wait"], most=MAX_WAIT),
        lost_reply,
        anthropic({each: value for each, value in given.items() if each in ANTHROPIC}),
    )


def openai(settings: Mapping[str, str]) -> Hosted:
    """`base_urls` is empty where none is named."""
    given = checked("openai", settings, OPENAI)
    timeout = seconds("openai", "timeout", given["timeout"])
    insecure = truth("openai", "allow_insecure", given["allow_insecure"])
    urls = dict.fromkeys(each.strip() for each in given["base_url"].split(",") if each.strip())
    addresses = tuple(base_url("openai", url, allow_insecure=insecure, root="/v1") for url in urls)
    return Hosted(addresses, given["key_file"], timeout)


def _vllm(settings: Mapping[str, str]) -> None:
    own, _ = split(settings)
    seconds("vllm", "stall_timeout", own["stall_timeout"])
    template_kwargs(own)
    gpus_per_engine(settings, has_gpus=True)


_CHECKS: Mapping[str, Callable[[Mapping[str, str]], object]] = {
    "anthropic": anthropic,
    "anthropic-batch": anthropic_batch,
    "offline": Offline.of,
    "openai": openai,
    "vllm": _vllm,
}
