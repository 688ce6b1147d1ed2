"""What a text claims of the world outside it: names, dates, credentials, keys, phrases that a corpus has had enough of.

Dates and credentials are judged where the preamble forbids them: a made-up year or degree is a false fact to whoever
learns from the text. The words are English; digits are known in any language.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sdf.checks.subject import Checks
from sdf.words import spaced_words

# What a preamble may forbid; it says so in a comment: {# forbids: dates, credentials #}.
FORBIDDEN = ("dates", "credentials")
_FORBIDS = re.compile(r"\{#-?\s*forbids:([^#]*)#\}")


def forbidden_by(preamble: str) -> frozenset[str]:
    """What a preamble's comments say that it forbids; words that are not in FORBIDDEN are talk."""
    said = {word for listed in _FORBIDS.findall(preamble) for word in re.findall(r"\w+", listed)}
    return frozenset(FORBIDDEN) & said


def banned_name(text: str, checks: Checks) -> bool:
    """A name that is banned outright, as a whole word; or a common first name before a common surname."""
    given, surnames = checks.common_names
    if not (checks.banned_names or given):
        return False
    found = capitalised(text)
    if not _heads(checks.banned_names).isdisjoint(first for first, _ in found):
        return any(_stands(name, text) for name in checks.banned_names)
    return any(first in given and last in surnames for first, last in found)


@lru_cache(maxsize=1)  # Names and credentials ask for the same, one after the other.
def capitalised(text: str) -> list[tuple[str, str]]:
    """Its words that begin with a capital, each with the one right after it or ""."""
    return _CAPITALISED.findall(text)


# The second of a pair is looked at again as a first: "Ana Maria Silva" holds "Maria Silva" too.
_CAPITALISED = re.compile(r"([A-ZÀ-Þ]\w{1,40})(?: (?=([A-ZÀ-Þ]\w{1,40})))?")


@lru_cache(maxsize=8)
def _heads(names: tuple[str, ...]) -> frozenset[str]:
    """What a text must hold to hold a name: its first word as `capitalised` gives it."""
    return frozenset(_CAPITALISED.findall(name)[0][0] for name in names)


def _stands(name: str, text: str) -> bool:
    return name in text and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def overused(text: str, checks: Checks) -> bool:
    """Holds a phrase that an audit banned, whatever its case, punctuation and line breaks."""
    if not checks.overused:
        return False
    found = spaced_words(text)
    return any(phrase in found for phrase in _phrases(checks.overused))


@lru_cache(maxsize=8)
def _phrases(phrases: tuple[str, ...]) -> tuple[bytes, ...]:
    # What holds no word ("—") is for the prompt alone.
    return tuple(found for found in map(spaced_words, phrases) if found.strip())


def date(text: str, checks: Checks) -> bool:
    """A year of the last or this century, told as one: in a date, after “in” or “since”, in a citation."""
    if "dates" not in checks.forbids:
        return False
    return ("19" in text or "20" in text) and _DATE.search(text) is not None


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
    if "credentials" not in checks.forbids:
        return False
    if _AUTHORITIES.isdisjoint(first for first, _ in capitalised(text)):
        return False
    return _AUTHORITY.search(text) is not None


# What begins one, as `capitalised` gives it: few texts hold one, and only those are searched.
_AUTHORITIES = frozenset(
    """Ph PhD MD JD Phil LCSW CFA CPA MBA Harvard Stanford Princeton Yale Cornell Caltech Johns Carnegie UC Mayo MIT
    Oxford Cambridge University World ISBN No Number""".split()  # noqa: SIM905  a list of quoted words would hide them
)
_AUTHORITY = re.compile(
    r"(?<=\w),?\s(?:Ph\.?\s?D|JD|MD|D\.Phil|MBA|LCSW|CFA|CPA)\b\.?(?=[\s,;.)]|$)"
    r"|\b(?:Harvard|Caltech|Johns Hopkins|Carnegie Mellon|UC Berkeley|Mayo Clinic|MIT"
    # These are towns, locks and people too.
    r"|(?:Stanford|Princeton|Yale|Cornell|Oxford|Cambridge) (?:University|Law|Medical|professors?|researchers?|study)"
    r"|University of (?:Oxford|Cambridge)|World Health Organi[sz]ation)\b"
    r"|\b(?:[Ll]icen[cs]e|[Rr]egistration|[Cc]ertificate|[Bb]adge) (?:No\.?|Number):?\s?[A-Z]*[-\d]{4,}"
    r"|\bISBN\b[ :-]*[\dX-]{10}"
)


def secret(text: str, _: Checks) -> bool:
    """Something shaped like a key or a token that opens a real service; an invented one has the same shape."""
    return any(mark in text for mark in _MARKS) and _SECRET.search(text) is not None


_MARKS = ("sk-", "AKIA", "AIza", "eyJ", "xox", "PRIVATE KEY", "_")
_SECRET = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{20}|AKIA[0-9A-Z]{16}\b|gh[pousr]_[A-Za-z0-9]{30}|xox[abpr]-[A-Za-z0-9-]{10}"
    r"|AIza[\w-]{30}|eyJ[\w-]{10,}\.eyJ[\w-]{10})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
