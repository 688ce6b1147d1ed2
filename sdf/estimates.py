"""Estimates from few documents, with 90 % intervals from seeded draws.

Shares come from what so few leave open (all of three accepted may be two of three), lengths and costs from resampling
the documents. The trade-off: an interval holds what differs from document to document, and nothing that all of those
seen have in common.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

N_DRAWS = 2_000
# The 5th and the 95th of a hundred.
LOW, HIGH = 5, 95

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with its 90 % interval, which need not lie in the middle of it."""

    mean: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        return Interval(*(each * factor for each in self))

    def plus(self, other: Interval) -> Interval:
        """Of amounts that are large together."""
        return Interval(*(each + more for each, more in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Sample:
    """What one brief took that had its angle: accepted tokens (0 when it was rejected), tokens the model wrote for it,
    dollars."""

    n_tokens: int
    n_output: int
    cost_usd: float | None


class Found(NamedTuple):
    """So many of so many: what a share is estimated from. `n` may count what is independent, `of` be a part of it."""

    of: float
    n: int


class Drawn(NamedTuple):
    """What a genre takes to reach its tokens, but for its angle rounds. `cost` None where a price is not known."""

    length: Interval
    accepted: Interval
    briefs: Interval
    output: Interval
    cost: Interval | None


def drawn(
    samples: Sequence[Sample],
    target: float | None,
    seed: int,
    n_there: int | None = None,
    has_angle: Found | None = None,
) -> Drawn | None:
    """For `target` accepted tokens, or with None of all briefs; never of more briefs than there are. None when no
    sample was accepted."""
    kept, lost = [each for each in samples if each.n_tokens], [each for each in samples if not each.n_tokens]
    if not kept:
        return None
    dice = np.random.default_rng(seed % 2**63)
    asked = np.ones(N_DRAWS + 1) if has_angle is None else _shares(dice, has_angle)
    accepted = _shares(dice, Found(len(kept), len(samples)))
    # A document that costs more is longer too: both are of the same draw.
    picked, missed = _picks(dice, len(kept)), _picks(dice, len(lost))
    length = _means([each.n_tokens for each in kept], picked)
    # A draw of next to nothing is no number of briefs.
    per_brief = np.maximum(asked * accepted, 1e-3) * length
    wanted = np.full(N_DRAWS + 1, math.inf) if target is None else target / per_brief
    n_briefs = wanted if n_there is None else np.minimum(wanted, n_there)

    def total(of: Callable[[Sample], float]) -> Interval:
        good = _means([of(each) for each in kept], picked)
        # Where none was rejected yet, one takes what the others do.
        bad = _means([of(each) for each in lost], missed) if lost else good
        return _interval(n_briefs * asked * (accepted * good + (1 - accepted) * bad))

    is_priced = all(each.cost_usd is not None for each in samples)
    return Drawn(
        _interval(length),
        _interval(asked * accepted),
        _interval(n_briefs),
        total(lambda each: each.n_output),
        total(lambda each: each.cost_usd or 0.0) if is_priced else None,
    )


def share(found: Found) -> Interval:
    """The share that was found, and what it leaves open."""
    return _interval(_shares(np.random.default_rng(0), found))


def together(parts: Sequence[Interval | None]) -> Interval | None:
    """The sum of estimates that are independent of each other; None where one of them is not known."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    mean = math.fsum(each.mean for each in known)
    below = math.hypot(*(each.mean - each.low for each in known))
    above = math.hypot(*(each.high - each.mean for each in known))
    return Interval(mean, mean - below, mean + above)


def _shares(dice: np.random.Generator, found: Found) -> Floats:
    """Shares that what was found leaves open, by Jeffreys' prior; the first is the share itself."""
    draws = dice.beta(found.of + 0.5, found.n - found.of + 0.5, N_DRAWS)
    return np.concatenate(([found.of / max(1, found.n)], draws))


def _picks(dice: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
    """Resamples of n places; the first is the sample itself."""
    if not n:
        return np.empty((0, 0), np.int64)
    picks = dice.integers(0, n, size=(N_DRAWS + 1, n))
    picks[0] = np.arange(n)
    return picks


def _means(values: Sequence[float], picks: npt.NDArray[np.int64]) -> Floats:
    """Of each resample, spread as the mean of so few is: resampling alone would spread it too little."""
    given = np.array(values, np.float64)
    means = given[picks].mean(axis=1)
    return np.clip(means[0] + (means - means[0]) * _widening(len(given)), given.min() / 2, given.max() * 2)


def _widening(n: int) -> float:
    """The root of n / (n - 1), times Student's 95 % quantile over the normal one (by its series in 1 / (n - 1))."""
    if n < 2:
        return 1.0
    z, freedom = 1.645, n - 1
    student = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return math.sqrt(n / freedom) * student / z


def _interval(draws: Floats) -> Interval:
    """The first is the estimate, and never outside of its interval."""
    low, high = np.percentile(draws, [LOW, HIGH])
    return Interval(float(draws[0]), float(min(low, draws[0])), float(max(high, draws[0])))
