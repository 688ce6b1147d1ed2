"""The whole table of checks against one bare regex scan, in one run: `python tests/bench/bench_checks.py`.

Prints MB/s, and our time / the time of `re.findall(r"\\w+", text)` over the same texts.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import Any

from sdf.checks import CHECKS, Checks, reject_reason

N_TEXTS = 500
N_WORDS = 1_000


def best(call: Callable[[str], Any], texts: list[str], n_tries: int = 5) -> float:
    """The shortest of a few runs, in seconds: the one least disturbed."""
    times: list[float] = []
    for _ in range(n_tries):
        start = time.perf_counter()
        for text in texts:
            call(text)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    draw = random.Random(1)
    vocabulary = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(9_000)]
    texts = [
        "\n\n".join(f"{' '.join(draw.choices(vocabulary, k=100))} — so it’s said." for _ in range(N_WORDS // 100))
        for _ in range(N_TEXTS)
    ]
    checks = Checks(n_words=(400, 1_800))
    size_mb = sum(len(text.encode()) for text in texts) / 1e6
    ours = best(lambda text: reject_reason(text, checks, {}), texts)
    reference = best(re.compile(r"\w+").findall, texts)
    print(f"all checks    {size_mb / ours:6.1f} MB/s   {ours / reference:.2f} x a bare scan for words")
    for name, fails in CHECKS.items():
        took = best(lambda text, fails=fails: fails(text, checks), texts)
        print(f"  {name:11} {took / N_TEXTS * 1e6:6.1f} us     {took / reference:.2f} x")


if __name__ == "__main__":
    main()
