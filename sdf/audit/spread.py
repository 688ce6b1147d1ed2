"""How far the texts lie apart: near-duplicates, topics, distinct runs of words, compression."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from sdf.audit.findings import FEWEST, Finding, Scale
from sdf.dedup import Index, signatures
from sdf.words import runs, words

# Below the threshold of the fold: what it let through as just different enough.
NEAR = 0.5
_CLUSTERED = Scale(0.02, 0.10, "at Jaccard 0.5 texts share most of their sentences; of 240 written one by one none do")

N_TOPICS = 10
# A text is about the words it repeats: those of five letters or more that it says thrice, its five commonest.
REPEATED, N_SUBJECTS, LETTERS = 3, 5, 5
FEWEST_TEXTS = 100
_TOPICS = Scale(
    0.4, 0.47, "plain fan-out put 47 % of its rows into ten domains; 147 documents of one subject have 35 %"
)

DISTINCT_RUN, N_WORDS = 3, 50_000
_DISTINCT = Scale(0.8, 0.65, "documents that models wrote one by one have 0.93 in 50,000 words, chats of one kind 0.88")

ZIP_BYTES = 400_000
_ZIP = Scale(0.33, 0.28, "400 kB of documents written one by one pack to 0.37, one long text of one author to 0.32")


def near_duplicates(config: str, texts: Sequence[str], ids: Sequence[str]) -> Finding:
    """The share of texts that have a near neighbour, by MinHash at 0.5."""
    index, owner = Index(NEAR), list(range(len(texts)))
    for place, row in enumerate(signatures(texts)):
        for other in index.candidates(row):
            owner[_root(owner, place)] = _root(owner, other)
        index.add(place, row)
    sizes = Counter(_root(owner, place) for place in range(len(texts)))
    clustered = sum(size for size in sizes.values() if size > 1)
    example = ""
    if clustered:
        root, size = max(sizes.items(), key=lambda each: (each[1], -each[0]))
        members = [ids[place] for place in range(len(texts)) if _root(owner, place) == root]
        n_clusters = sum(size > 1 for size in sizes.values())
        example = f"{n_clusters} clusters, the largest of {size}: {', '.join(each[:12] for each in members[:4])}"
    value = clustered / len(texts) if texts else None
    return _CLUSTERED.finding("near-duplicates", config, value, n=len(texts), example=example)


def _root(owner: list[int], place: int) -> int:
    while owner[place] != place:
        owner[place] = owner[owner[place]]
        place = owner[place]
    return place


def topics(config: str, texts: Sequence[str], constitution: str) -> Finding:
    """The share of texts that are about one of ten words, chosen one after the other to cover the most.

    Words of the constitution are its subject and name no topic.
    """
    own = set(words(constitution))
    about = [_subjects(text, own) for text in texts]
    left = [subjects for subjects in about if subjects]
    found: list[tuple[str, int]] = []
    while left and len(found) < N_TOPICS:
        word, n = max(Counter(word for each in left for word in each).items(), key=lambda each: (each[1], each[0]))
        left = [each for each in left if word not in each]
        found.append((word, n))
    value = sum(n for _, n in found) / len(texts) if len(texts) >= FEWEST_TEXTS else None
    example = ", ".join(f"{word} ({n})" for word, n in found)
    return _TOPICS.finding("topics", config, value, n=len(texts), example=example)


def _subjects(text: str, own: Collection[str]) -> frozenset[str]:
    counts = Counter(word for word in words(text) if len(word) >= LETTERS)
    repeated = [word for word, n in counts.most_common() if n >= REPEATED and word not in own]
    return frozenset(repeated[:N_SUBJECTS])


def distinct(config: str, texts: Sequence[str]) -> Finding:
    """Different runs of three words / all of them, in the first 50,000 words; shorter samples are not comparable."""
    parts: list[npt.NDArray[np.uint64]] = []
    n_runs = 0
    for text in texts:
        parts.append(runs(text, DISTINCT_RUN)[: N_WORDS - n_runs])
        n_runs += len(parts[-1])
        if n_runs >= N_WORDS:
            break
    value = len(np.unique(np.concatenate(parts))) / n_runs if n_runs >= N_WORDS else None
    return _DISTINCT.finding("distinct runs", config, value)


def compression(config: str, texts: Sequence[str]) -> Finding:
    """Packed size / size of 400 kB of texts by zlib, level 9; English, for scripts differ."""
    data = "\n\n".join(texts[: 1 + ZIP_BYTES // 200]).encode("utf-8", "surrogatepass")[:ZIP_BYTES]
    is_english = re.search(rb"[\xe3-\xe9]", data[:20_000]) is None
    value = len(zlib.compress(data, 9)) / len(data) if len(data) == ZIP_BYTES and is_english else None
    return _ZIP.finding("compression", config, value, unit="packed / size", n=FEWEST)
