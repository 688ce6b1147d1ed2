"""Is a judge's proof in the text it judged? Quotations are compared word for word, typography aside.

A judge that must quote cannot wave everything through: a verdict whose quotation was never written is no verdict. The
price is that a judge which tidies what it quotes is asked again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OPENING, CLOSING = "<quote>", "</quote>"

# Two words stand in any text; three in a row seldom do by chance.
FEWEST_WORDS = 3

# What editors, keyboards and models exchange for one another without changing a word.
_FOLDED = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛`´", "'"),
        **dict.fromkeys("“”„‟«»", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        "…": "...",
    }
)
_AROUND = " \"'"


def proves(answer: str, judged: str) -> bool:
    """Whether every `<quote>…</quote>` of the answer stands in `judged`, and at least one has three words or more."""
    quotes = [folded(each).strip(_AROUND) for each in _quotes(answer)]
    source = folded(judged)
    is_long = any(len(each.split()) >= FEWEST_WORDS for each in quotes)
    return is_long and all(each in source for each in quotes)


def quotable(value: Any) -> str:
    """The words of a parsed answer: text as it is, the texts within a list, messages or an object line by line."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join(quotable(each) for each in value.values())
    return "\n".join(quotable(each) for each in value) if isinstance(value, list | tuple) else ""


def folded(text: str) -> str:
    """White space, quotation marks and dashes made alike."""
    return re.sub(r"\s+", " ", text.translate(_FOLDED)).strip()


def _quotes(answer: str) -> list[str]:
    pieces = answer.split(OPENING)[1:]
    return [piece.partition(CLOSING)[0] for piece in pieces if CLOSING in piece]
