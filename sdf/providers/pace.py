"""Rate limits as servers tell them, and a worker's pace within its part of them: token buckets, one per kind.

What a request will take is not known before it is answered, so it takes what the last ones took on average, and the
difference is settled afterwards. The trade-off: the first requests of a run go unpaced, and their debt is waited off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from sdf.money.allowance import Limits, Told
from sdf.records import Usage

# Of a provider that has no rate limits, or says nothing of them.
SILENT: Mapping[str, Told] = MappingProxyType({})

MINUTE = 60.0
# Seconds of pace that may gather while nothing is sent.
GATHERED = 2.0
# Requests over which an average is taken.
N_REMEMBERED = 50

# header words of a limit, by its field of Limits.
_ANTHROPIC = {
    "requests": "requests",
    "tokens": "tokens",
    "input_tokens": "input-tokens",
    "output_tokens": "output-tokens",
}


def told_by_anthropic(headers: Mapping[str, str]) -> Told | None:
    """What `anthropic-ratelimit-*` says; None when it says nothing."""
    if "anthropic-ratelimit-requests-limit" not in headers and "anthropic-ratelimit-tokens-limit" not in headers:
        return None
    pairs = {
        name: (
            headers.get(f"anthropic-ratelimit-{word}-limit"),
            headers.get(f"anthropic-ratelimit-{word}-remaining"),
        )
        for name, word in _ANTHROPIC.items()
    }
    return _told(pairs)


def told_by_openai(headers: Mapping[str, str]) -> Told | None:
    """What `x-ratelimit-*` says; None when it says nothing."""
    if "x-ratelimit-limit-requests" not in headers and "x-ratelimit-limit-tokens" not in headers:
        return None
    pairs = {
        name: (headers.get(f"x-ratelimit-limit-{name}"), headers.get(f"x-ratelimit-remaining-{name}"))
        for name in ("requests", "tokens")
    }
    return _told(pairs)


def _told(pairs: Mapping[str, tuple[str | None, str | None]]) -> Told | None:
    limits: dict[str, float] = {}
    left = 1.0
    for name, (limit, remaining) in pairs.items():
        most, rest = _count(limit), _count(remaining)
        if most is not None and most > 0:
            limits[name] = most
            left = min(left, rest / most) if rest is not None else left
    return Told(Limits(**limits), left) if limits else None


def _count(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


@dataclass(slots=True)
class _Bucket:
    """What may be sent now, in its unit; below zero it is owed."""

    per_second: float
    level: float
    at: float

    def fill(self, now: float) -> None:
        most = max(1.0, self.per_second * GATHERED)
        self.level = min(most, self.level + (now - self.at) * self.per_second)
        self.at = now


@dataclass
class Pace:
    """When the next request may go. `now` is in seconds and never goes back."""

    _buckets: dict[str, _Bucket] = field(default_factory=dict[str, _Bucket])
    _mean: dict[str, float] = field(default_factory=dict[str, float])

    def follow(self, limits: Limits, now: float) -> None:
        """A minute's limits from now on; what was gathered or is owed stays."""
        for kind in fields(limits):
            limit = getattr(limits, kind.name)
            bucket = self._buckets.get(kind.name)
            if limit is None:
                self._buckets.pop(kind.name, None)
            elif bucket is None:
                self._buckets[kind.name] = _Bucket(limit / MINUTE, max(1.0, limit / MINUTE), now)
            else:
                bucket.fill(now)
                bucket.per_second = limit / MINUTE

    def wait(self, now: float) -> float:
        """Seconds until a request may go."""
        longest = 0.0
        for bucket in self._buckets.values():
            bucket.fill(now)
            if bucket.level <= 0:
                # A rate near zero would be waited for for ever, and may have been raised long before.
                longest = max(longest, min(MINUTE, -bucket.level / bucket.per_second) if bucket.per_second else MINUTE)
        return longest

    def sent(self) -> None:
        for kind, bucket in self._buckets.items():
            bucket.level -= 1 if kind == "requests" else self._mean.get(kind, 0.0)

    def answered(self, usage: Usage) -> None:
        n_input = usage.input_tokens + usage.cache_write_tokens
        took = {
            "input_tokens": n_input,
            "output_tokens": usage.output_tokens,
            "tokens": n_input + usage.cache_read_tokens + usage.output_tokens,
        }
        for kind, n_tokens in took.items():
            mean = self._mean.get(kind)
            if kind in self._buckets:
                self._buckets[kind].level -= n_tokens - (mean or 0.0)
            self._mean[kind] = n_tokens if mean is None else mean + (n_tokens - mean) / N_REMEMBERED
