"""Planted pairs among 5,000 documents: the index proposes, exact Jaccard decides; against the planted truth."""

from __future__ import annotations

import random

from sdf.dedup import Index, jaccard, signatures

N_DOCUMENTS = 5_000
N_PAIRS = 1_000
N_WORDS = 300
THRESHOLD = 0.8


def planted(draw: random.Random) -> tuple[list[str], dict[int, int]]:
    """Documents in shuffled order, and which earlier document each planted copy was made from.

    A copy replaces k words far apart, which costs 5 shingles of 296 each: true Jaccard runs evenly from 0.5 to 1.
    """
    vocabulary = [f"w{n}" for n in range(20_000)]
    originals = [draw.choices(vocabulary, k=N_WORDS) for _ in range(N_DOCUMENTS - N_PAIRS)]
    copies = {len(originals) + n: n for n in range(N_PAIRS)}
    documents = originals + [edited(originals[n], draw, n % 20) for n in range(N_PAIRS)]
    order = draw.sample(range(N_DOCUMENTS), N_DOCUMENTS)
    place = {document: n for n, document in enumerate(order)}
    pairs = [sorted((place[copy], place[original])) for copy, original in copies.items()]
    return [" ".join(documents[n]) for n in order], {late: early for early, late in pairs}


def edited(original: list[str], draw: random.Random, n_edits: int) -> list[str]:
    copy = list(original)
    for place in draw.sample(range(5, N_WORDS - 5, 10), n_edits):
        copy[place] = f"new{draw.random()}"
    return copy


def dropped_of(texts: list[str], threshold: float) -> set[int]:
    """The fold's rule: a document goes if an earlier kept one is as similar as the threshold."""
    index, dropped = Index(threshold), set[int]()
    for place, (text, signature) in enumerate(zip(texts, signatures(texts), strict=True)):
        if any(jaccard(text, texts[other]) >= threshold for other in index.candidates(signature)):
            dropped.add(place)
        else:
            index.add(place, signature)
    return dropped


def test_planted_pairs_are_told_apart() -> None:
    texts, pairs = planted(random.Random(5))
    true = {late: jaccard(texts[late], texts[early]) for late, early in pairs.items()}
    assert min(true.values()) < 0.52
    assert max(true.values()) == 1.0
    duplicates = {late for late, similarity in true.items() if similarity >= THRESHOLD}
    dropped = dropped_of(texts, THRESHOLD)
    assert 300 < len(duplicates) < 700
    assert len(dropped & duplicates) >= 0.99 * len(duplicates)
    assert len(dropped & duplicates) >= 0.99 * len(dropped)
