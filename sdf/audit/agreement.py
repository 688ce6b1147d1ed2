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
    """A kappa for every pair of judges, and how often each gives its commonest score. No two are of one name: by names
    audits are compared."""
    found: dict[str, Finding] = {}
    n_pairs = Counter(genre for genre, *_ in census.pairs)
    # A judge of several pairs counts where it gave most verdicts.
    for (genre, one, other), pairs in sorted(census.pairs.items(), key=_by_genre):
        judges = genre if n_pairs[genre] == 1 else f"{genre}/{one}, {other}"
        for each in (
            _alike(f"judges of {judges}", one, other, pairs),
            *(_lenient(genre, step, at, pairs) for at, step in enumerate((one, other))),
        ):
            found.setdefault(each.name, each)
    return list(found.values())


def _by_genre(item: tuple[tuple[str, str, str], Counter[tuple[int, int]]]) -> tuple[str, int, str, str]:
    (genre, one, other), pairs = item
    return genre, -pairs.total(), one, other


def _alike(name: str, one: str, other: str, pairs: Mapping[tuple[int, int], int]) -> Finding:
    n = sum(pairs.values())
    near = sum(count for (a, b), count in pairs.items() if abs(a - b) <= 1) / n
    same = sum(count for (a, b), count in pairs.items() if a == b) / n
    example = f"{one} and {other} on {n} texts: equal {same:.0%}, within 1 {near:.0%}"
    return _KAPPA.finding(name, "all", kappa(pairs), unit="kappa", n=n, example=example)


def _lenient(genre: str, step: str, at: int, pairs: Mapping[tuple[int, int], int]) -> Finding:
    scores = Counter[int]()
    for both, count in pairs.items():
        scores[both[at]] += count
    (score, n), *_ = scores.most_common(1)
    total = sum(scores.values())
    example = f"{step} gives {score} to {n} of {total}"
    return _LENIENT.finding(f"one verdict of {genre}/{step}", "all", n / total, n=total, example=example)


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
