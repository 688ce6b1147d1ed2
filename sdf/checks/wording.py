"""What belongs to the writing of a text and not to the text: talk of the task, blanks, addresses, tags, a torn end.

`meta_talk` and the words of `placeholder` know English; the others hold in any language.
"""

from __future__ import annotations

import re

from sdf.checks.subject import Checks


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
    if ("[" in text and _BLANK.search(text)) or ("{" in text and _TEMPLATE.search(text)):
        return True
    return ("TODO" in text and _TODO.search(text) is not None) or "FIXME" in text or "orem ipsum" in text


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
_TODO = re.compile(r"TODO[:(]|\[TODO")
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


def cut_off(text: str, _: Checks) -> bool:
    """Ends in the middle of a sentence.

    A truncated answer is known by its finish reason; this is for those that stop there all the same, so it is silent
    wherever an informal, a listed or a signed text may end without a full stop.
    """
    end = text.rstrip()
    last = end[end.rfind("\n") + 1 :]
    if _DANGLES.search(last[-LONGEST_DANGLING:]) or last.rfind("[") > last.rfind("]"):
        return True
    if len(last.encode("utf-8", "surrogatepass")) < LONG_LINE or ";" in last or _ENDS.search(last[-LONGEST_DANGLING:]):
        return False
    prose = [line for line in end.split("\n")[:-1] if len(line.encode("utf-8", "surrogatepass")) >= LONG_LINE]
    n_ended = sum(_ENDS.search(line[-LONGEST_DANGLING:]) is not None for line in prose)
    return len(prose) >= 3 and n_ended >= 0.95 * len(prose)


# Characters at the end of a line that tell how it ends; a search through the rest would only take time.
LONGEST_DANGLING = 40
# Bytes: a sentence or two of English, forty ideographs; signatures and headings of real documents stay below.
LONG_LINE = 120
_ENDS = re.compile(r"""[.!?…。！？।۔؟؛:：]\W{0,4}$|[^\w\s,，、-]$""")
# A word no sentence ends with, an open list item, or punctuation that must go on.
_DANGLES = re.compile(
    r"(?:^|\s)(?:the|a|an|and|or|but|nor|my|your|their|our|whose|because|although|unless|whereas)$"
    r"|^\s*(?:[-*•]|\d+[.)])$|[,，、;；“‘«「『=/&]$"
)
