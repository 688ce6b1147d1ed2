"""Habits of punctuation and layout, which no one text is wrong to have."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sdf.audit.findings import Finding, Scale, shortened

_PER_1000 = "a thousand words"

# (name, what is counted, share of texts or rate, scale, what to ask for)
_DASH = re.compile(r"—|(?<=\w) ?-- ?(?=\w)|(?<=\s)–(?=\s)")
_CONTRAST = re.compile(
    r"\b(?:is|was|are|were|it|that|this|'s|’s)(?:n['’]t| not) (?:just |only |merely |simply |about )?[^.!?\n]{1,50}"
    r"[,.;—–-] ?(?:but|it['’]s|it is|it was|that['’]s|they['’]re)\b",
    re.IGNORECASE,
)
_SHAPES: tuple[tuple[str, re.Pattern[str], Scale, str], ...] = (
    (
        "bold",
        re.compile(r"\*\*[^*\n]+\*\*"),
        Scale(0.3, 0.5, "a corpus was found to hold it in 52 % of its rows before it was banned; prose needs none"),
        "bold type",
    ),
    (
        "headings",
        re.compile(r"^#{1,6}\s", re.MULTILINE),
        Scale(0.5, 0.8, "documents with sections have them; four in five texts do not have sections"),
        "Markdown headings",
    ),
    (
        "lists",
        re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE),
        Scale(0.5, 0.8, "enumerations suit some texts; four in five texts do not enumerate"),
        "bulleted or numbered lists",
    ),
    (
        "contrasts",
        _CONTRAST,
        Scale(
            0.3, 0.5, "models left alone use “not this, but that” in half of their texts, and readers know them by it"
        ),
        "the figure “not this, but that”",
    ),
)
_DASHES = Scale(
    3.0, 6.0, "models left alone write 10.6 in a thousand words, in every document; a reader notices a third of that"
)


def habits(config: str, texts: Sequence[str]) -> list[Finding]:
    return [_dashes(config, texts), *(_share(config, texts, *shape) for shape in _SHAPES)]


def _dashes(config: str, texts: Sequence[str]) -> Finding:
    counts = [len(_DASH.findall(text)) for text in texts]
    n_words = sum(len(text.split()) for text in texts)
    rate = 1_000 * sum(counts) / n_words if n_words else None
    holding = sum(map(bool, counts))
    example = f"in {holding} of {len(texts)}: {_found(texts, _DASH)}" if holding else ""
    return _DASHES.finding(
        "dashes", config, rate, unit=_PER_1000, n=len(texts), example=example, bans=("dashes between clauses",)
    )


def _share(config: str, texts: Sequence[str], name: str, pattern: re.Pattern[str], scale: Scale, ban: str) -> Finding:
    holding = sum(pattern.search(text) is not None for text in texts)
    example = f"{holding} of {len(texts)}: {_found(texts, pattern)}" if holding else ""
    value = holding / len(texts) if texts else None
    return scale.finding(name, config, value, n=len(texts), example=example, bans=(ban,))


def _found(texts: Sequence[str], pattern: re.Pattern[str]) -> str:
    search: Callable[[str], re.Match[str] | None] = pattern.search
    text, hit = next((text, hit) for text in texts if (hit := search(text)))
    return shortened(text[max(0, hit.start() - 60) : hit.end() + 60])
