"""Do two judges of the same texts agree? From the score steps that both have a verdict on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sdf.audit.findings import Finding, Scale
from sdf.audit.sample import Census

_KAPPA = Scale(
    0.4, 0.2, "Landis and Koch call agreement below 0.4 fair and below 0.2 slight: little better than chance. Only "
    "accepted texts are seen, which lowers it"
)  # fmt: skip
_LENIENT = Scale(
    0.9, 0.98, "a judge that gives one verdict to nearly every text tells nothing: weak ones pass 67 of 67"
)


def agreement(census: Census) -> list[Finding]:
    """A kappa for every pair of judges, and how often each gives its commonest score."""
    found: list[Finding] = []
    for (genre, one, other), pairs in sorted(census.pairs.items()):
        n = sum(pairs.values())
        near = sum(count for (a, b), count in pairs.items() if abs(a - b) <= 1) / n
        same = sum(count for (a, b), count in pairs.items() if a == b) / n
        example = f"{one} and {other} on {n} texts: equal {same:.0%}, within 1 {near:.0%}"
        found.append(_KAPPA.finding(f"judges of {genre}", "all", kappa(pairs), unit="kappa", n=n, example=example))
        found += [_lenient(genre, step, at, pairs) for at, step in enumerate((one, other))]
    return list({(each.name, each.example): each for each in found}.values())


def _lenient(genre: str, step: str, at: int, pairs: Mapping[tuple[int, int], int]) -> Finding:
    scores = Counter[int]()
    for both, count in pairs.items():
        scores[both[at]] += count
    (score, n), *_ = scores.most_common(1)
    total = sum(scores.values())
    example = f"{step} gives {score} to {n} of {total}"
    return _LENIENT.finding(f"one verdict of {genre}", "all", n / total, n=total, example=example)


def kappa(pairs: Mapping[tuple[int, int], int]) -> float | None:
    """Cohen's, with linear weights: 1 for equal, 0 for what chance gives; None where both never vary."""
    n = sum(pairs.values())
    ones, others = Counter[int](), Counter[int]()
    for (a, b), count in pairs.items():
        ones[a] += count
        others[b] += count
    seen = sum(abs(a - b) * count for (a, b), count in pairs.items()) / n
    expected = sum(abs(a - b) * ones[a] * others[b] for a in ones for b in others) / n**2
    return None if expected == 0 else 1 - seen / expected
