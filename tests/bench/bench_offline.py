"""How fast the offline provider writes on one thread, and how far apart its texts are.

    python tests/bench/bench_offline.py [n_documents]

Speed is the whole of `Offline.answer`, hashing and prompt reading included, against a plain join of as many
bytes of words in the same run: the ratio carries between machines, megabytes a second do not. Distance is the
largest MinHash estimate of Jaccard among all pairs of documents, all on one prompt.
"""

from __future__ import annotations

import asyncio
import sys
import time

import numpy as np

from sdf.angles import Gate
from sdf.answers import value
from sdf.dedup import NUM_PERM, signatures
from sdf.providers import make
from sdf.records import Answer, Message, Prefix, Request, Returns, Sampling, Wants

PREFIX = Prefix.of("You write documents that touch on honesty, transparency and oversight. " * 300)
N_WORDS, N_ITEMS, BLOCK = 800, 50, 256


def request(draw: int, returns: Returns = "text") -> Request:
    body = Message("user", "Write a post for a community blog, on honesty. Keep to the angle you were given. " * 8)
    wants = Wants(returns, N_WORDS, N_ITEMS, "document")
    return Request("offline-grammar", PREFIX, (body,), Sampling(8000), wants, draw)


async def written(n_documents: int, returns: Returns = "text") -> list[str]:
    provider = make("offline", {})
    return [(await provider.answer(request(draw, returns))).text for draw in range(n_documents)]


def speed(texts: list[str], seconds: float) -> float:
    return sum(map(len, texts)) / seconds / 1e6


def plain_join(texts: list[str]) -> float:
    words = [text.split(" ") for text in texts]
    start = time.perf_counter()
    joined = [" ".join(each) for each in words]
    return speed(joined, time.perf_counter() - start)


def most_alike(texts: list[str]) -> float:
    marks = np.concatenate([signatures(texts[at : at + 500]) for at in range(0, len(texts), 500)])
    columns = [np.ascontiguousarray(column) for column in marks.T]
    most = 0
    for at in range(0, len(texts), BLOCK):
        equal = np.zeros((min(BLOCK, len(texts) - at), len(texts) - at), np.uint8)
        for column in columns:
            equal += column[at : at + BLOCK, None] == column[None, at:]
        for row in range(len(equal)):
            equal[row, : row + 1] = 0
        most = max(most, int(equal.max()))
    return most / NUM_PERM


def gated_share(lists: list[str]) -> float:
    """Items refused by the similarity gate, of cells of two lists each."""
    n_refused = 0
    for at in range(0, len(lists), 2):
        gate = Gate()
        found = (value(request(0, "list").wants, Answer(text, "stop", "")) for text in lists[at : at + 2])
        n_refused += sum(not gate.admit(str(item)) for items in found if isinstance(items, list) for item in items)
    return n_refused / (len(lists) * N_ITEMS)


def main(n_documents: int) -> None:
    asyncio.run(written(50))
    for returns, n_texts in (("text", n_documents), ("list", 400)):
        start = time.perf_counter()
        texts = asyncio.run(written(n_texts, returns))
        rate = speed(texts, time.perf_counter() - start)
        print(
            f"{returns}: {rate:.1f} MB/s on one thread, 1/{plain_join(texts) / rate:.0f} of a plain join of its words"
        )
        if returns == "text":
            print(f"most alike of {n_texts:,} documents: estimated Jaccard {most_alike(texts):.3f}")
        else:
            print(f"items refused by the gate within 100 of a cell: {gated_share(texts):.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
