"""The whole table of checks against one bare regex scan, in one run: `python tests/bench/bench_checks.py`.

Prints MB/s, and our time / the time of `re.findall(r"\\w+", text)` over the same texts.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import Any

from sdf.checks import CHECKS, FORBIDDEN, TEXT_CHECKS, Checks, Subject, reject_reason
from sdf.names import COMMON_NAMES, TELLING

N_TEXTS = 500
N_WORDS = 1_000
PROMPT = " ".join(f"word{n}" for n in range(3_000))


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
    # A third of running English is words like these, which the language is known by.
    vocabulary += ["the", "of", "and", "to", "a", "in", "that", "is", "was", "it", "for", "on"] * 375
    texts = [
        "\n\n".join(f"{' '.join(draw.choices(vocabulary, k=100))} — so it’s said." for _ in range(N_WORDS // 100))
        for _ in range(N_TEXTS)
    ]
    checks = Checks(
        (400, 1_800), banned_names=TELLING, common_names=COMMON_NAMES, forbids=frozenset(FORBIDDEN), prompts=(PROMPT,)
    )
    text_only = Checks((400, 1_800), frozenset(CHECKS), (), TELLING, COMMON_NAMES, (), frozenset(FORBIDDEN))
    size_mb = sum(len(text.encode()) for text in texts) / 1e6
    reference = best(re.compile(r"\w+").findall, texts)
    ours = best(lambda text: reject_reason(Subject(text), text_only), texts)
    print(f"on the text alone {size_mb / ours:6.1f} MB/s   {ours / reference:.2f} x a bare scan for words")
    ours = best(lambda text: reject_reason(Subject(text, language="en"), checks), texts)
    print(f"the whole table   {size_mb / ours:6.1f} MB/s   {ours / reference:.2f} x")
    for name, fails in TEXT_CHECKS.items():
        took = best(lambda text, fails=fails: fails(text, checks), texts)
        print(f"  {name:15} {took / N_TEXTS * 1e6:6.1f} us     {took / reference:.2f} x")
    for name, judges in CHECKS.items():
        took = best(lambda text, judges=judges: judges(Subject(text, language="en"), checks), texts)
        print(f"  {name:15} {took / N_TEXTS * 1e6:6.1f} us     {took / reference:.2f} x")


if __name__ == "__main__":
    main()
