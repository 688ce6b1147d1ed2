"""Cheap checks that reject a finished text, by rules a person can read.

They are conservative: each is meant for what no reader would defend, and stays silent on real documents (the false
alarms of each are measured in docs/checks.md). They know English best; a rule without words holds in any language.
Checks act when a corpus is assembled, so a change here costs no new answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

# How far a text may miss the words asked for: models commonly miss by a third either way.
SHORTEST = 0.5
LONGEST = 2.0

# Gopher's limits for repeated lines (by characters) and repeated five-word runs; real documents stay below 0.04.
MAX_REPEATED_LINES = 0.2
MAX_REPEATED_RUNS = 0.15
# Below this many words a refrain already reaches the limit.
FEWEST_WORDS_TO_REPEAT = 50


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


def n_words(text: str) -> int:
    """Words as a reader counts them: between spaces; each ideograph or kana; four letters where no spaces stand."""
    count = len(text.split())
    if not text.isascii():
        count += len(_IDEOGRAPH.findall(text)) + len(_UNSPACED.findall(text)) // 4
    return count


_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")


def empty(text: str, _: Checks) -> bool:
    """No letter and no digit."""
    return re.search(r"[^\W_]", text) is None


def too_short(text: str, checks: Checks) -> bool:
    return n_words(text) < checks.n_words[0] * SHORTEST


def too_long(text: str, checks: Checks) -> bool:
    most = checks.n_words[1]
    return most > 0 and n_words(text) > most * LONGEST


def meta_talk(text: str, _: Checks) -> bool:
    """The writer speaks of its task instead of doing it: only at the start or the end, where a story does not."""
    head, tail = text.lstrip("# *_\n\t")[:400], text[-400:]
    return bool(_OPENS_META.match(head) or _CLOSES_META.search(tail))


_WORK = (
    r"(?:article|blog post|chapter|conversation|dialogue|document|draft|email|essay|letter|list|memo|newsletter|"
    r"paper|paragraph|piece|poem|post|report|request|response|rewrite|scene|script|section|story|text|transcript|"
    r"version|write-?up|content)"
)
_WRITE = r"(?:writ|creat|generat|produc|draft|fulfil|complet|continu|rewrit)(?:e|l|ing|ting|eing|ling)?"
_CHANGE = r"(?:adjust|revise|expand|edit|rewrite|modify|tweak)"
_REFUSES = r"""i\s?(?:can(?:'|’)?t|can\ ?not|won(?:'|’)t|will\ not|must\ decline\ to|(?:don(?:'|’)t\ feel|(?:'|’)m\ not)\ comfortable
        |(?:(?:'|’)?m|\ am)\ (?:unable|not\ able)\ to)"""
_SORRY = r"(?:i(?:'|’)?m\ sorry|i\ apologi[sz]e|sorry|unfortunately)"
_OPENS_META = re.compile(
    rf"""
    (?:certainly|sure(?:\ thing)?|of\ course|absolutely|got\ it|understood|okay|ok|great)[!.,:—–-]+\s+
        (?:here(?:'|’)?(?:s|\ is|\ are)|below\ is|i(?:'|’)?(?:ll|\ will)\ {_WRITE})\b
  | (?:here(?:'|’)s|here\ is|here\ are|below\ is|the\ following\ is)\ (?:the|a|an|your|my)\b
        [^.\n]{{0,80}}\b{_WORK}\b[^.\n]{{0,80}}:\s*\n
  | as\ an\ ai\ (?:language\ )?model\b
  | (?:{_SORRY},?\s(?:but\s)?)?{_REFUSES}\ {_WRITE}\b[^.\n]{{0,60}}\b(?:{_WORK}|that|this|it)\b
  | {_SORRY},?\s(?:but\s)?i\ (?:can(?:'|’)?t|can\ ?not)\ (?:assist|help)\ with\ (?:that|this)(?:\ request)?\.?\s*\Z
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CLOSES_META = re.compile(
    rf"""
    \n[\s*_()\[-]*(?:
        let\ me\ know\ if\ you(?:'|’)?(?:d|\ would)\ like\ (?:me\ to\ )?(?:any\ )?
            (?:changes|revisions|edits|adjustments|{_CHANGE})
      | would\ you\ like\ me\ to\ {_CHANGE}\b[^.\n]{{0,60}}\b{_WORK}\b
      | i\ hope\ this\ {_WORK}\b[^.\n]{{0,40}}\b(?:helps|meets|fits|works|captures)
      | (?:this|the)\ {_WORK}\ (?:is|has|contains|comes\ to)\ (?:approximately|about|roughly|around|exactly)\ [\d,]+\ words
      | \(?word\ count:?\ (?:approximately\ |about\ |~)?[\d,]+
      | \[?end\ of\ {_WORK}\]?\s*\Z
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)


def placeholder(text: str, _: Checks) -> bool:
    """A blank left for someone to fill in."""
    if "[" in text and _BLANK.search(text):
        return True
    return "{{" in text or "TODO" in text or "FIXME" in text or bool(_LOREM.search(text[:2000]))


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
_LOREM = re.compile("lorem ipsum", re.IGNORECASE)


def link(text: str, _: Checks) -> bool:
    """An address on the network, or a DOI: a model invents them, and some exist."""
    if "://" in text or "www." in text or "doi.org" in text:
        return True
    return bool("@" in text and _EMAIL.search(text)) or bool("10." in text and _DOI.search(text))


_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}", re.IGNORECASE)
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
    """Says the same again and again: whole lines, or runs of five words (ten characters where no spaces stand)."""
    lines = text.split("\n")
    repeated = len(text) - len(lines) + 1 - sum(map(len, set(lines)))
    if repeated > MAX_REPEATED_LINES * len(text) and len(lines) > 5:
        return True
    words = text.split()
    if len(words) * 12 < len(text):
        n_runs = len(text) - 9
        return n_runs > FEWEST_WORDS_TO_REPEAT and _share({text[i : i + 10] for i in range(n_runs)}, n_runs)
    n_runs = len(words) - 4
    if n_runs < FEWEST_WORDS_TO_REPEAT:
        return False
    runs = set(zip(words, words[1:], words[2:], words[3:], words[4:]))  # noqa: B905
    return _share(runs, n_runs)


def _share(distinct: AbstractSet[object], n_runs: int) -> bool:
    return 1 - len(distinct) / n_runs > MAX_REPEATED_RUNS


def cut_off(text: str, _: Checks) -> bool:
    """Ends in the middle of a sentence. Whether a model was truncated is known from its finish reason; this is for
    answers that stop there all the same, so it fires only where no informal, headed or signed text would.
    """
    *before, last = text.rstrip().split("\n")
    if _DANGLES.search(last) or last.rfind("[") > last.rfind("]"):
        return True
    if len(last.encode()) < LONG_LINE or ";" in last or _ENDS.search(last):
        return False
    prose = [line for line in before if len(line.encode()) >= LONG_LINE]
    return len(prose) >= 3 and sum(_ENDS.search(line) is not None for line in prose) >= 0.95 * len(prose)


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
