"""Counting against bare tiktoken, in one run: `python tests/bench/bench_tokens.py`.

Prints MB/s, and our time / bare time (1.0: counting costs nothing beside encoding).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from sdf import tokens

N_TEXTS = 400
N_WORDS = 1_000


def best(call: Callable[[], object], n_tries: int = 3) -> float:
    """The shortest of a few runs, in seconds: the one least disturbed."""
    times: list[float] = []
    for _ in range(n_tries):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    tokenizer = tokens.load("o200k_base")
    bare = tokenizer._encoding
    draw = random.Random(1)
    vocabulary = [bare.decode([n]).strip() or "and" for n in range(300, 30_000)]
    texts = [" ".join(draw.choices(vocabulary, k=N_WORDS)) for _ in range(N_TEXTS)]
    size_mb = sum(len(text.encode()) for text in texts) / 1e6
    ours = best(lambda: tokenizer.count(texts))
    reference = best(lambda: [len(bare.encode_ordinary(text)) for text in texts])
    print(f"counting            {size_mb / ours:6.1f} MB/s   {ours / reference:.2f} x bare tiktoken, one thread")
    threaded = best(lambda: tokenizer.count(texts, num_threads=4))
    print(
        f"counting, 4 threads {size_mb / threaded:6.1f} MB/s   {threaded / reference:.2f} x bare tiktoken, one thread"
    )
    for name, text in {"letters": "a" * 1_000_000, "spaces": " " * 1_000_000, "ideographs": "的" * 333_333}.items():
        took = best(lambda text=text: tokenizer.count([text]))
        per_byte = took / len(text.encode()) / (reference / size_mb / 1e6)
        print(f"1 MB of {name:11} {took:6.2f} s      {per_byte:.2f} x bare tiktoken on words, per byte")


if __name__ == "__main__":
    main()
