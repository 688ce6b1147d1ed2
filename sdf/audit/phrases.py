"""Phrases that too many texts share. Exact, in memory that does not grow with the corpus.

First every run of four words is counted in a table of buckets by its hash, one count a text; then those in full buckets
are counted by themselves, with their words. The reference is the corpus itself: in texts written independently a run of
four words that is not grammar ("at the end of") is rare, however often its words occur. Runs of the constitution are
its subject and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdf.audit.findings import FEWEST_ALIKE, Finding, Scale, shortened
from sdf.words import runs, words

RUN_WORDS = 4
N_BUCKETS = 1 << 22
# A longer phrase is shown whole when its parts are about as common as itself.
PART = 0.8

_SHARED = Scale(
    0.1, 0.2, "no run of four words that is not grammar stands in more than 16 % of 76 English documents of one subject"
)
# What English needs: runs made of these alone are grammar.
_GRAMMAR = frozenset(
    """a about after all an and are as at back be because been before being but by can could did do does down end for
    from had has have he her him his how i if in into is it its just like made make me more most my not of on one or
    other our out over part rest same she side so some than that the their them then there they thing this through to
    time two up us was way we were what when where which while who will with would you your first for last
    middle don didn doesn isn wasn can t s m re ll ve d day days know think""".split()  # noqa: SIM905  a list of quoted words would hide them
)


@dataclass(slots=True)
class _Phrase:
    words: list[str]
    n: int
    place: int


def shared_phrases(config: str, texts: Sequence[str], constitution: str) -> Finding:
    found = _shared(texts, constitution)
    value = found[0].n / len(texts) if found else (0.0 if texts else None)
    example = ""
    if found:
        worst = found[0]
        around = shortened(_around(texts[worst.place], worst.words))
        example = f"{worst.n} of {len(texts)} hold “{_said(worst.words)}”: {around}"
    bans = tuple(_said(each.words) for each in found if each.n / len(texts) >= _SHARED.look)
    return _SHARED.finding("phrases", config, value, n=len(texts), example=example, bans=bans[:12])


def _shared(texts: Sequence[str], constitution: str) -> list[_Phrase]:
    """Phrases by how many texts hold them, the commonest first."""
    least = max(FEWEST_ALIKE, round(_SHARED.look * len(texts) / 2))
    own = runs(constitution, RUN_WORDS)
    counts = np.zeros(N_BUCKETS, np.uint32)
    for text in texts:
        counts[np.unique(runs(text, RUN_WORDS) % np.uint64(N_BUCKETS))] += 1
    exact: dict[int, _Phrase] = {}
    for place, text in enumerate(texts):
        hashes = runs(text, RUN_WORDS)
        full = np.flatnonzero(counts[hashes % np.uint64(N_BUCKETS)] >= least)
        full = full[~np.isin(hashes[full], own)]
        if len(full):
            _count(exact, place, hashes[full].tolist(), full.tolist(), words(text))
    common = [each for each in exact.values() if each.n >= least and not _GRAMMAR.issuperset(each.words)]
    return _joined(sorted(common, key=lambda each: (-each.n, each.words)))


def _count(exact: dict[int, _Phrase], place: int, hashes: list[int], starts: list[int], said: list[str]) -> None:
    for run, start in dict(zip(reversed(hashes), reversed(starts), strict=True)).items():
        known = exact.setdefault(run, _Phrase(said[start : start + RUN_WORDS], 0, place))
        known.n += 1


def _joined(common: list[_Phrase]) -> list[_Phrase]:
    """Overlapping runs of about one frequency put together, longest possible; each run is used once."""
    by_head = {tuple(each.words[:-1]): each for each in reversed(common)}
    by_tail = {tuple(each.words[1:]): each for each in reversed(common)}
    used: set[tuple[str, ...]] = set()
    found: list[_Phrase] = []
    for seed in common:
        if tuple(seed.words) in used:
            continue
        whole, said = seed, list(seed.words)
        used.add(tuple(seed.words))
        for index, key, grow in ((by_head, _tail, _append), (by_tail, _head, _prepend)):
            while (near := index.get(key(said))) and near.n >= PART * seed.n and tuple(near.words) not in used:
                used.add(tuple(near.words))
                grow(said, near)
        found.append(_Phrase(said, whole.n, whole.place))
    return found


def _tail(said: list[str]) -> tuple[str, ...]:
    return tuple(said[-(RUN_WORDS - 1) :])


def _head(said: list[str]) -> tuple[str, ...]:
    return tuple(said[: RUN_WORDS - 1])


def _append(said: list[str], near: _Phrase) -> None:
    said.append(near.words[-1])


def _prepend(said: list[str], near: _Phrase) -> None:
    said.insert(0, near.words[0])


def _said(found: Sequence[str]) -> str:
    """As a reader would write it: words are parted at apostrophes, and here put together again."""
    return re.sub(r"(?<=\w) (t|s|m|re|ll|ve|d)\b", r"'\1", " ".join(found))


def _around(text: str, found: Sequence[str]) -> str:
    """The text about the place where the phrase stands."""
    hit = re.search(r"\W+".join(map(re.escape, found)), text, re.IGNORECASE)
    at = max(0, hit.start() - 40) if hit else 0
    return text[at : at + 160]
