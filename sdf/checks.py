"""Cheap checks that reject a finished text, by rules a person can read.

They are conservative: each is meant for what no reader would defend, and stays silent on real documents (the false
alarms of each are measured in docs/checks.md). They know English best; a rule without words holds in any language.
Checks act when a corpus is assembled, so a change here costs no new answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sdf.records import stream

# How far a text may miss the words asked for: models commonly miss by a third either way.
SHORTEST = 0.5
LONGEST = 2.0

# Gopher's limits for repeated lines (by characters) and for repeated five-word runs; real documents reach 0.06.
MAX_REPEATED_LINES = 0.2
MAX_REPEATED_RUNS = 0.15
# With fewer a refrain or a table already reaches the limit.
FEWEST_LINES = 6
FEWEST_RUNS = 50


@dataclass(frozen=True, slots=True)
class Checks:
    """What one genre asks of its texts.

    `n_words` are the fewest and most words asked for; (0, 0) asks for no length. `off` names checks that do not
    apply. `min_score` holds (step, lowest score kept). `banned_names` are names no text may contain.
    """

    n_words: tuple[int, int] = (0, 0)
    off: frozenset[str] = frozenset()
    min_score: tuple[tuple[str, int], ...] = ()
    banned_names: tuple[str, ...] = ()


def reject_reason(text: str, checks: Checks, scores: Mapping[str, int]) -> str | None:
    """The first check that fails, in the order of NAMES; None when the text is kept.

    A step of `min_score` without a score fails: a verdict that is not clear is no approval.
    """
    for name, fails in CHECKS.items():
        if name not in checks.off and fails(text, checks):
            return name
    if "low_score" not in checks.off and any(scores.get(step, least - 1) < least for step, least in checks.min_score):
        return "low_score"
    return None


@lru_cache(maxsize=1)  # Two checks ask for the same text, one after the other.
def n_words(text: str) -> int:
    """Words as a reader counts them: between spaces; each ideograph or kana; four letters where no spaces stand."""
    return len(text.split()) + (0 if text.isascii() else _n_unspaced(text))


def _n_unspaced(text: str) -> int:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    codes = codes[codes >= 0xE00]
    ideographs = (codes >= 0x3040) & (codes < 0xA000) | (codes >= 0xF900) & (codes < 0xFB00) | (codes >= 0x20000)
    letters = (codes < 0xF00) | (codes >= 0x1000) & (codes < 0x10A0) | (codes >= 0x1780) & (codes < 0x1800)
    return int(np.count_nonzero(ideographs)) + int(np.count_nonzero(letters)) // 4


def empty(text: str, _: Checks) -> bool:
    """No letter and no digit."""
    return re.search(r"[^\W_]", text) is None


def too_short(text: str, checks: Checks) -> bool:
    return n_words(text) < checks.n_words[0] * SHORTEST


def too_long(text: str, checks: Checks) -> bool:
    most = checks.n_words[1]
    return most > 0 and n_words(text) > most * LONGEST


def meta_talk(text: str, _: Checks) -> bool:
    """The writer speaks of its task instead of doing it: at the start or the end alone, where no story does."""
    head = text[:400].lstrip("# *_\n\t").replace("’", "'").lower()
    tail = text[-400:].replace("’", "'").lower()
    return bool(_OPENS_META.match(head) or _CLOSES_META.search(tail)) or (
        len(text) < LONGEST_REFUSAL and _REFUSES.match(head) is not None
    )


# A longer text that begins by declining goes on to something: in a chat that is an answer.
LONGEST_REFUSAL = 800

_WORK = (
    "(?:article|blog post|chapter|conversation|dialogue|document|draft|essay|piece|poem|post|rewrite|scene|script|"
    "story|text|transcript|version|content|request)"
)
_WRITE = "(?:write|create|generate|produce|draft|fulfill?|complete|continue|rewrite)"
_CHANGE = "(?:changes|revisions|edits|adjustments|adjust|revise|expand|edit|rewrite|modify|tweak)"
_OPENS_META = re.compile(
    "|".join(
        [
            r"(?:certainly|sure(?: thing)?|of course|absolutely|understood)[\s!.,:—–-]+"
            rf"(?:here(?:'s| is| are)|below is|i(?:'ll| will) {_WRITE})\b[^.\n]{{0,80}}\b{_WORK}\b",
            r"(?:here(?:'s| is| are)|below is|the following is) (?:the|a|an|your|my)\b"
            rf"[^.\n]{{0,80}}\b{_WORK}\b[^.\n]{{0,80}}:\s*\n",
            r"as an ai language model, i\b",
        ]
    )
)
_CLOSES_META = re.compile(
    r"\n[\s*_()\[-]*(?:"
    + "|".join(
        [
            rf"let me know if you(?:'d| would) like (?:me to )?(?:any )?{_CHANGE}\b",
            rf"would you like me to {_CHANGE}\b[^.\n]{{0,60}}\b{_WORK}\b",
            rf"i hope this {_WORK}\b[^.\n]{{0,40}}\b(?:helps|meets|fits|works|captures)\b",
            rf"(?:this|the) {_WORK} (?:is|has|contains) (?:approximately|about|roughly|around|exactly) [\d,]+ words",
            r"\(?word count:? (?:approximately |about |~)?[\d,]+",
            rf"\[?end of {_WORK}\]?\s*\Z",
        ]
    )
    + ")"
)
_REFUSES = re.compile(
    r"(?:(?:i'm sorry|i apologi[sz]e|sorry|unfortunately),?\s(?:but\s)?)?"
    r"i(?: can't| can ?not|'m unable to| am unable to|'m not able to| am not able to)"
    rf" (?:{_WRITE} [^.\n]{{0,60}}\b{_WORK}\b|(?:assist|help) with (?:that|this)\b)"
)


def placeholder(text: str, _: Checks) -> bool:
    """A blank left for someone to fill in."""
    if ("[" in text and _BLANK.search(text)) or ("{{" in text and _TEMPLATE.search(text)):
        return True
    return any(mark in text for mark in ("TODO:", "[TODO", "TODO(", "FIXME", "orem ipsum"))


# Lower-case blanks ("[your actual approach]", "[date]") are left alone: advice uses them in the scripts it offers.
_BLANK = re.compile(
    r"""\[\s*(?:
        (?i:insert|fill\ in|placeholder)\b[^\]\n]{0,60}
      | (?:Your|YOUR|Add|ADD|Enter|ENTER)\s[^\]\n]{1,60}
      | (?:(?:First|Last|Full|Company|City|Client|Customer|Patient|Recipient|Sender|Employee|Author|Speaker)\s)?Names?
      | Company|Organi[sz]ation|City|Town|Country|Address|Phone(?:\ Number)?|E-?mail(?:\ Address)?|Date|Time
      | Job\ Title|Title|Position|Recipient|Sender|Amount|Number|Link|URL
      | NAME|DATE|COMPANY|CITY|ADDRESS|TITLE
    )\s*\]""",
    re.VERBOSE,
)
_TEMPLATE = re.compile(r"\{\{\s*[\w.]+\s*\}\}")


def link(text: str, _: Checks) -> bool:
    """An address on the network, or a DOI: a model invents them, and some exist."""
    if "://" in text or "www." in text or "doi.org" in text:
        return True
    return bool("@" in text and _EMAIL.search(text)) or bool("10." in text and _DOI.search(text))


# Begins at the sign: a name of any length before it would make long words cost their square.
_EMAIL = re.compile(r"\w@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}", re.IGNORECASE)
_DOI = re.compile(r"\b10\.\d{4,9}/\S")


def leaked_tag(text: str, _: Checks) -> bool:
    """A tag of a prompt, or a marker of a chat template."""
    return bool("<" in text and _TAG.search(text)) or "[INST]" in text or "[/INST]" in text


_TAG = re.compile(
    r"</?(?:document|rewrite|rewritten|revised|revision|scratchpad|draft|thinking|think|reasoning|plan|answer|response|"
    r"score|critique|angle|item|constitution|principle|instructions|prompt|brief|example|system|user|assistant)s?\s*/?>"
    r"|<\|[a-z_]+\|>",
    re.IGNORECASE,
)


def repetition(text: str, _: Checks) -> bool:
    """Says the same again and again: whole lines, or runs of 32 bytes (five words of English, ten ideographs)."""
    lines = text.split("\n")
    repeated = len(text) - len(lines) + 1 - sum(map(len, set(lines)))
    if len(lines) >= FEWEST_LINES and repeated > MAX_REPEATED_LINES * len(text):
        return True
    return _repeated_runs(text.encode("utf-8", "surrogatepass")) > MAX_REPEATED_RUNS


def _repeated_runs(data: bytes) -> float:
    """The share of runs that occurred before; they start at words, or at characters where no spaces stand.

    Runs are compared by a 64-bit hash of four unaligned 8-byte reads: twice as fast as a set of tuples of words.
    """
    bytes_ = np.frombuffer(data, np.uint8)
    starts = np.flatnonzero(bytes_ <= ord(" ")) + 1
    if len(starts) * 24 < len(data):
        starts = np.flatnonzero((bytes_ & 0xC0) != 0x80)
    starts = starts[: starts.searchsorted(len(data) - RUN_BYTES, side="right")]
    if len(starts) < FEWEST_RUNS:
        return 0.0
    eights = np.ndarray(len(data) - 7, "<u8", data, strides=1)
    hashes = eights[starts] * _FACTORS[0]
    for at in (1, 2, 3):
        hashes += eights[starts + 8 * at] * _FACTORS[at]
    hashes.sort()
    return np.count_nonzero(hashes[1:] == hashes[:-1]) / len(hashes)


RUN_BYTES = 32
_FACTORS = np.array([stream("repetition", at) | 1 for at in range(RUN_BYTES // 8)], np.uint64)


def cut_off(text: str, _: Checks) -> bool:
    """Ends in the middle of a sentence.

    A truncated answer is known by its finish reason; this is for those that stop there all the same, so it is silent
    wherever an informal, a listed or a signed text may end without a full stop.
    """
    end = text.rstrip()
    last = end[end.rfind("\n") + 1 :]
    if _DANGLES.search(last) or last.rfind("[") > last.rfind("]"):
        return True
    if len(last.encode("utf-8", "surrogatepass")) < LONG_LINE or ";" in last or _ENDS.search(last):
        return False
    prose = [line for line in end.split("\n")[:-1] if len(line.encode("utf-8", "surrogatepass")) >= LONG_LINE]
    n_ended = sum(_ENDS.search(line) is not None for line in prose)
    return len(prose) >= 3 and n_ended >= 0.95 * len(prose)


# Bytes: a sentence or two of English, forty ideographs; signatures and headings of real documents stay below.
LONG_LINE = 120
_ENDS = re.compile(r"""[.!?…。！？।۔؟؛:：]\W{0,4}$|[^\w\s,，、-]$""")
# A word no sentence ends with, an open list item, or punctuation that must go on.
_DANGLES = re.compile(
    r"(?:^|\s)(?:the|a|an|and|or|but|nor|my|your|their|our|whose|because|although|unless|whereas)$"
    r"|^\s*(?:[-*•]|\d+[.)])$|[,，、;；“‘«「『=/&]$"
)


def banned_name(text: str, checks: Checks) -> bool:
    return any(name in text and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in checks.banned_names)


CHECKS: Mapping[str, Callable[[str, Checks], bool]] = {
    "empty": empty,
    "meta_talk": meta_talk,
    "leaked_tag": leaked_tag,
    "placeholder": placeholder,
    "link": link,
    "too_short": too_short,
    "too_long": too_long,
    "repetition": repetition,
    "cut_off": cut_off,
    "banned_name": banned_name,
}
NAMES = (*CHECKS, "low_score")
