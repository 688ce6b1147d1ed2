"""What a text claims of the world outside it: names, dates, credentials, keys, phrases that a corpus has had enough of.

Dates and credentials are judged where the preamble forbids them: a made-up year or degree is a false fact to whoever
learns from the text. The words are English; digits are known in any language.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sdf.checks.subject import Checks
from sdf.words import encoded_words

# What a preamble may forbid; it says so in a comment: {# forbids: dates, credentials #}.
FORBIDDEN = ("dates", "credentials")
_FORBIDS = re.compile(r"\{#-?\s*forbids:([^#]*)#\}")


def forbidden_by(preamble: str) -> frozenset[str]:
    """What a preamble's comments say that it forbids; words that are not in FORBIDDEN are talk."""
    said = {word for listed in _FORBIDS.findall(preamble) for word in re.findall(r"\w+", listed)}
    return frozenset(FORBIDDEN) & said


def banned_name(text: str, checks: Checks) -> bool:
    """A name that is banned outright, as a whole word; or a common first name before a common surname."""
    if checks.banned_names and any(_starts(text, hit.start()) for hit in _names(checks.banned_names).finditer(text)):
        return True
    given, surnames = checks.common_names
    return bool(given) and any(first in given and last in surnames for first, last in _PAIR.findall(text))


def _starts(text: str, place: int) -> bool:
    return place == 0 or not (text[place - 1].isalnum() or text[place - 1] == "_")


# The first of the two is looked at again as the second of none: "Ana Maria Silva" is read as "Maria Silva" too.
_PAIR = re.compile(r"\b(?=([A-ZÀ-Þ][\w'-]{1,40}) ([A-ZÀ-Þ][\w'-]{1,40}))")


@lru_cache(maxsize=8)
def _names(names: tuple[str, ...]) -> re.Pattern[str]:
    # Without an anchor before them the alternatives are searched by their first letters, four times as fast.
    return re.compile(rf"(?:{'|'.join(map(re.escape, sorted(names, reverse=True)))})(?!\w)")


def overused(text: str, checks: Checks) -> bool:
    """Holds a phrase that an audit banned, whatever its case, punctuation and line breaks."""
    if not checks.overused:
        return False
    folded = _folded(text)
    return any(phrase in folded for phrase in _phrases(checks.overused))


@lru_cache(maxsize=8)
def _phrases(phrases: tuple[str, ...]) -> tuple[bytes, ...]:
    # What holds no word ("—") is for the prompt alone.
    return tuple(folded for folded in map(_folded, phrases) if folded.strip())


def _folded(text: str) -> bytes:
    return b" " + b" ".join(encoded_words(text)) + b" "


def date(text: str, checks: Checks) -> bool:
    """A year of the last or this century, told as one: in a date, after “in” or “since”, in a citation."""
    if "dates" not in checks.forbids:
        return False
    return _YEAR.search(text) is not None and _DATE.search(text) is not None


_YEAR = re.compile(r"(?:19|20)\d\d")
_Y = r"(?:19|20)\d\d(?![\d,.]?\d|-\d\d\d|\s*(?:%|kg|km|m\b|cm|words|people|miles|years|hours|dollars|euros|pounds))"
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?"
)
_DATE = re.compile(
    rf"\b{_MONTH}(?:\s\d{{1,2}}(?:st|nd|rd|th)?,?)?\s{_Y}"
    rf"|\b(?:19|20)\d\d-(?:0[1-9]|1[0-2])-[0-3]\d\b|\b\d{{1,2}}[./]\d{{1,2}}[./]{_Y}"
    rf"|\b(?:[Ii]n|[Ss]ince|[Uu]ntil|[Bb]y|[Dd]uring|[Ff]rom|[Aa]round|early|late|mid|spring|summer|autumn|fall|winter)"
    rf"[ -]{_Y}\b(?!\s[a-z]+s\b)|\([^()\n]{{0,60}}\b{_Y}[a-z]?\)|(?:19|20)\d\d\s?[年년]|©\s?{_Y}"
)


def credential(text: str, checks: Checks) -> bool:
    """Authority borrowed from outside: letters after a name, a licence number, a famous institution."""
    return "credentials" in checks.forbids and _CREDENTIAL.search(text) is not None


_CREDENTIAL = re.compile(
    r"(?<=\w),?\s(?:Ph\.?\s?D|M\.D|MD|J\.D|D\.Phil|M\.?B\.?A|R\.N|LCSW|CFA|CPA)\b\.?(?=[\s,;.)]|$)"
    r"|\b(?:Harvard|Stanford|Princeton|Yale|Cornell|Caltech|Johns Hopkins|Carnegie Mellon|UC Berkeley|Mayo Clinic|MIT"
    r"|(?:Oxford|Cambridge) University|University of (?:Oxford|Cambridge)|World Health Organi[sz]ation)\b"
    r"|\b(?:[Ll]icen[cs]e|[Rr]egistration|[Cc]ertificate|[Bb]adge) (?:[Nn]o\.?|[Nn]umber|#):?\s?[A-Z]*[-\d]{4,}"
    r"|\bISBN\b[ :-]*[\dX-]{10}"
)


def secret(text: str, _: Checks) -> bool:
    """Something shaped like a key or a token that opens a real service; an invented one has the same shape."""
    return _SECRET.search(text) is not None


_SECRET = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{20}|AKIA[0-9A-Z]{16}\b|gh[pousr]_[A-Za-z0-9]{30}|xox[abpr]-[A-Za-z0-9-]{10}"
    r"|AIza[\w-]{30}|eyJ[\w-]{10,}\.eyJ[\w-]{10})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
