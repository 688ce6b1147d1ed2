"""Signatures and index against datasketch, in one run: `python tests/bench/bench_dedup.py [N_ROWS]`.

Prints microseconds per document, and our time / datasketch's (below 1.0: faster).
"""

from __future__ import annotations

import random
import sys
import time
import tracemalloc

import numpy as np
from datasketch import MinHash, MinHashLSH

from sdf.dedup import NUM_PERM, SHINGLE_WORDS, Index, signatures
from sdf.words import encoded_words

N_TEXTS = 300
N_WORDS = 1_000


def bench_signatures() -> None:
    draw = random.Random(1)
    vocabulary = [f"word{n}" for n in range(20_000)]
    texts = [" ".join(draw.choices(vocabulary, k=N_WORDS)) for _ in range(N_TEXTS)]
    start = time.perf_counter()
    signatures(texts)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    permutations = MinHash(num_perm=NUM_PERM, seed=1).permutations
    for text in texts:
        sketch = MinHash(num_perm=NUM_PERM, permutations=permutations, scheme="affine32")
        words = encoded_words(text)
        starts = range(len(words) - SHINGLE_WORDS + 1)
        sketch.update_batch({b" ".join(words[start : start + SHINGLE_WORDS]) for start in starts})
    reference = time.perf_counter() - start
    print(f"signature           {ours / N_TEXTS * 1e6:7.0f} us   {ours / reference:.2f} x datasketch.MinHash")


def bench_index(n_rows: int) -> None:
    rows = np.random.default_rng(1).integers(0, 1 << 32, (n_rows, NUM_PERM), dtype=np.uint32)
    index = Index(0.8)
    start = time.perf_counter()
    for handle, row in enumerate(rows):
        index.candidates(row)
        index.add(handle, row)
    ours = time.perf_counter() - start
    permutations = MinHash(num_perm=NUM_PERM, seed=1).permutations
    lsh = MinHashLSH(num_perm=NUM_PERM, params=(index.n_bands, index.n_rows))
    start = time.perf_counter()
    for handle, row in enumerate(rows):
        sketch = MinHash(hashvalues=row, permutations=permutations, scheme="affine32")
        lsh.query(sketch)
        lsh.insert(handle, sketch, check_duplication=False)
    reference = time.perf_counter() - start
    cost = f"{ours / n_rows * 1e6:7.0f} us   {ours / reference:.2f} x datasketch.MinHashLSH"
    print(f"query and insert    {cost}, {n_rows:,} rows")


def bench_memory(n_rows: int) -> None:
    draw = np.random.default_rng(1)
    tracemalloc.start()
    index = Index(0.8)
    for handle in range(n_rows):
        index.add(handle, draw.integers(0, 1 << 32, NUM_PERM, dtype=np.uint32))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    floor = n_rows * NUM_PERM * 4
    size = f"{held / 1e6:7.0f} MB   {held / floor:.2f} x the signatures alone"
    print(f"index of {n_rows:9,} {size}; peak {peak / 1e6:.0f} MB")


def main() -> None:
    n_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    bench_signatures()
    bench_index(n_rows)
    bench_memory(n_rows)


if __name__ == "__main__":
    main()
