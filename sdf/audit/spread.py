"""How far the texts lie apart: near-duplicates, topics, distinct runs of words, compression."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sdf.audit.findings import FEWEST, Finding, Scale, shortened
from sdf.dedup import Index, signatures
from sdf.records import stream
from sdf.words import runs, words

Floats = npt.NDArray[np.float32]

# Below the threshold of the fold: what it let through as just different enough.
NEAR = 0.5
_CLUSTERED = Scale(0.02, 0.10, "at Jaccard 0.5 texts share most of their sentences; of 240 written one by one none do")

N_TOPICS, TOP = 50, 10
N_DIMENSIONS, N_TEXTS, N_ROUNDS = 4_096, 2_000, 12
_TOPICS = Scale(
    0.5, 0.7, "ten of fifty equal topics hold 20 % of the texts; plain fan-out put 47 % of its rows into ten domains"
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


def topics(config: str, texts: Sequence[str]) -> Finding:
    """The share of the ten largest of fifty topics: k-means on the words, weighted by how rare they are."""
    if len(texts) < 4 * N_TOPICS:
        return _TOPICS.finding("topics", config, None)
    chosen = texts[:: -(-len(texts) // N_TEXTS)]
    vectors, names = _vectors(chosen)
    labels = _clusters(vectors)
    sizes = Counter(labels.tolist())
    largest = [topic for topic, _ in sizes.most_common(TOP)]
    value = sum(sizes[topic] for topic in largest) / len(chosen)
    shown = [f"{', '.join(_keywords(vectors, labels == topic, names))} ({sizes[topic]})" for topic in largest[:3]]
    return _TOPICS.finding("topics", config, value, n=len(chosen), example=shortened("; ".join(shown), 240))


def _vectors(texts: Sequence[str]) -> tuple[Floats, Sequence[str]]:
    """Unit rows of tf-idf over the words that say most: those of 4 letters or more in 1 to 20 % of the texts."""
    counts = [Counter(word for word in words(text) if len(word) > 3) for text in texts]
    holding = Counter(word for each in counts for word in each)
    kept = [word for word, n in holding.items() if max(2, 0.005 * len(texts)) <= n <= 0.2 * len(texts)]
    names = sorted(kept, key=lambda word: (-holding[word], word))[:N_DIMENSIONS]
    place = {word: at for at, word in enumerate(names)}
    found = np.zeros((len(texts), max(1, len(names))), np.float32)
    for row, each in zip(found, counts, strict=True):
        for word, n in each.items():
            if word in place:
                row[place[word]] = (1 + np.log(n)) * np.log(len(texts) / holding[word])
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return (found / np.where(lengths == 0, 1, lengths)).astype(np.float32), names


def _clusters(vectors: Floats) -> npt.NDArray[np.int64]:
    """Spherical k-means; each next centre is the text furthest from those before, the first one drawn by seed."""
    first = stream("topics", len(vectors)) % len(vectors)
    centres = [vectors[first]]
    nearest = vectors @ centres[0]
    for _ in range(N_TOPICS - 1):
        centres.append(vectors[int(nearest.argmin())])
        nearest = np.maximum(nearest, vectors @ centres[-1])
    means = np.stack(centres)
    labels = (vectors @ means.T).argmax(axis=1)
    for _ in range(N_ROUNDS):
        for topic in range(N_TOPICS):
            if np.any(labels == topic):
                mean = vectors[labels == topic].mean(axis=0)
                means[topic] = mean / max(float(np.linalg.norm(mean)), 1e-9)
        labels = (vectors @ means.T).argmax(axis=1)
    return labels


def _keywords(vectors: Floats, members: npt.NDArray[np.bool_], names: Sequence[str]) -> list[str]:
    weights = vectors[members].mean(axis=0)
    return [names[int(at)] for at in np.argsort(-weights, kind="stable")[:4]]


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
