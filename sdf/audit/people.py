"""One name in many texts: what is left to models comes out as the same few people, towns and firms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from sdf.audit.findings import FEWEST_ALIKE, Finding, Scale

_SAME_NAME = Scale(
    0.05,
    0.15,
    "no name stands in more than 8 % of 76 documents of one subject; left alone, models reused one 439,000 times",
)
# Within a sentence: what begins one is capitalised anyway.
_NAME = re.compile(r"(?<=[a-z,;] )[A-ZÀ-Þ][a-zà-ÿ]{2,}\b")
# Capitals that English gives to what is no name.
_CALENDAR = frozenset(
    """Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August
    September October November December Easter Christmas English French German Spanish Internet God Doctor Professor
    Street Road Chapter Section Part Table Figure University College School Church""".split()  # noqa: SIM905
)
# A word seen in lower case this often for each capital is a word.
_WORDS_SHARE = 0.5
N_BANS = 8


def names(config: str, texts: Sequence[str], known: Collection[str]) -> Finding:
    """`known` are names that belong in every text: the assistant's, the maker's, those of the constitution."""
    holding, lower = Counter[str](), Counter[str]()
    for text in texts:
        found = set(_NAME.findall(text))
        holding.update(found)
        if found:
            said = set(re.findall(r"\b[a-zà-ÿ]{3,}\b", text))
            lower.update(name for name in found if name.lower() in said)
    skipped = {word for name in known for word in re.findall(r"\w+", name)} | _CALENDAR
    counts = {
        name: n
        for name, n in holding.items()
        if n >= FEWEST_ALIKE and name not in skipped and lower[name] < _WORDS_SHARE * n
    }
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    value = counts[ranked[0]] / len(texts) if ranked else (0.0 if texts else None)
    example = "; ".join(f"{name} in {counts[name]} of {len(texts)}" for name in ranked[:5])
    bans = tuple(f"the name {name}" for name in ranked[:N_BANS] if counts[name] / len(texts) >= _SAME_NAME.look)
    return _SAME_NAME.finding("names", config, value, n=len(texts), example=example, bans=bans)
