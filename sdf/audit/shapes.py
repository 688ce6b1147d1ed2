"""How texts begin and end: the words they share there, and the shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from sdf.audit.findings import FEWEST_ALIKE, Finding, Scale, shortened
from sdf.words import words

OPENING_WORDS = 3

_SAME_WORDS = Scale(0.03, 0.10, "no first three words are those of more than 2 of 147 documents written one by one")
_SAME_SHAPE = Scale(
    0.5, 0.8, "one way to begin or end, other than plain prose, is a habit once it is every second text"
)

# The first that fits is the shape of a line.
_OPENINGS: Mapping[str, re.Pattern[str]] = {
    "a heading": re.compile(r"#{1,6}\s"),
    "a bold line": re.compile(r"\*\*[^*]+\*\*\W*$"),
    "a list": re.compile(r"[-*•]\s|\d+[.)]\s"),
    "a stage direction": re.compile(r"[\[(*_][^\])*_]{2,80}[\])*_]"),
    "a quotation": re.compile(r"[\"“‘«]"),
    "a speaker": re.compile(r"\**[A-Z][\w .'-]{1,30}:\**(\s|$)"),
    "a short title": re.compile(r"(?=.{1,80}$)[^.!?]*[^.!?:,;]$"),
    "a question": re.compile(r"[^.!]{1,200}\?"),
    "plain prose": re.compile(""),
}
_CLOSINGS: Mapping[str, re.Pattern[str]] = {
    "a question": re.compile(r".*\?\W*$"),
    "a list": re.compile(r"[-*•]\s|\d+[.)]\s"),
    "a signature": re.compile(r"[—–-]{1,2}\s*\w.{0,60}$|.{1,40}(?<![.!?…:\"”'*)\]])$"),
    "a quotation": re.compile(r".*[\"”»]\W{0,2}$"),
    "one short sentence": re.compile(r"(?=(\S+\s+){0,11}\S+$)[^.!?]*[.!?…]$"),
    "plain prose": re.compile(""),
}


def openings(config: str, texts: Sequence[str]) -> list[Finding]:
    firsts = [_first_line(text) for text in texts]
    return [
        _same_words("opening words", "begin", config, [words(line)[:OPENING_WORDS] for line in firsts], texts, False),
        _same_shape("opening shape", "begin with", config, [_shape(line, _OPENINGS) for line in firsts], firsts),
    ]


def closings(config: str, texts: Sequence[str]) -> list[Finding]:
    lasts = [_last_line(text) for text in texts]
    return [
        _same_words("closing words", "end", config, [words(line)[-OPENING_WORDS:] for line in lasts], texts, True),
        _same_shape("closing shape", "end with", config, [_shape(line, _CLOSINGS) for line in lasts], lasts),
    ]


def _same_words(
    name: str, verb: str, config: str, parts: Sequence[list[str]], texts: Sequence[str], at_end: bool
) -> Finding:
    counts = Counter(" ".join(part) for part in parts if len(part) == OPENING_WORDS)
    (phrase, n), *_ = counts.most_common(1) or [("", 0)]
    share = n / len(texts) if n >= FEWEST_ALIKE else 0.0
    place = next((at for at, part in enumerate(parts) if " ".join(part) == phrase), 0)
    shown = texts[place].rstrip()[-160:] if at_end else texts[place].lstrip()[:160]
    bans = tuple(
        f"texts that {verb} “{said}”"
        for said, count in counts.most_common(3)
        if count >= FEWEST_ALIKE and count / len(texts) >= _SAME_WORDS.look
    )
    example = f"{n} of {len(texts)} {verb} “{phrase}”: {shortened(shown)}" if n else ""
    return _SAME_WORDS.finding(name, config, share, n=len(texts), example=example, bans=bans)


def _same_shape(name: str, verb: str, config: str, shapes: Sequence[str], lines: Sequence[str]) -> Finding:
    counts = Counter(shape for shape in shapes if shape != "plain prose")
    (shape, n), *_ = counts.most_common(1) or [("", 0)]
    example = f"{n} of {len(shapes)} {verb} {shape}: {shortened(lines[shapes.index(shape)])}" if n else ""
    value = n / len(shapes) if shapes else None
    return _SAME_SHAPE.finding(
        name, config, value, n=len(shapes), example=example, bans=(f"texts that {verb} {shape}",)
    )


def _shape(line: str, shapes: Mapping[str, re.Pattern[str]]) -> str:
    match: Callable[[re.Pattern[str]], object] = lambda pattern: pattern.match(line[:400])  # noqa: E731
    return next(name for name, pattern in shapes.items() if match(pattern))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()
