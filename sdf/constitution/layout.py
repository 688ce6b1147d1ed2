"""What the lines of a text look like: blank, fenced, a heading, a list item, something that may be a title.

Positions count characters of the text as given, so that a span cut by them is the source itself. Only "\\n" ends
a line here; a "\\r" before it is white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

LONGEST_TITLE = 80

HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t#]*$")
UNDERLINE = re.compile(r" {0,3}(=+|-{3,})\s*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_NUMBER = r"\(?\d{1,4}(?:\.\d{1,4})*[.)]"
ITEM = re.compile(rf"(\s*)(?:[-*+•‣–—]|{_NUMBER}|[a-zA-Z]\))\s+(\S.*)$")
_NUMBERED = re.compile(rf"\s*(?:{_NUMBER}|\d+(?:\.\d+)+)\s+")
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]*_]*$")
NEXT_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])")
_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n[\w-]+[ \t]*:.*?\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|$)", re.DOTALL)
_BOLD_LEAD = re.compile(r"(\*\*|__)(?=\S)(.{2,80}?)\1")
_COLON_LEAD = re.compile(r"((?:[^\s:.!?]+ ){0,3}[^\s:.!?]+):\s")
_MARKUP = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|<[^>]+>|\{#[^}]*\}|[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}")
_NOT_A_TITLE = frozenset(("read more", "learn more", "show more", "see more", "see also", "back to top", "show less"))


@dataclass(frozen=True, slots=True)
class Line:
    """`start:end` spans the line without its line end; `text` is the same without white space on the right."""

    number: int
    start: int
    end: int
    text: str
    fenced: bool

    @property
    def blank(self) -> bool:
        return not self.text

    @property
    def indent(self) -> int:
        return len(self.text) - len(self.text.lstrip())


@dataclass(frozen=True)
class Page:
    text: str

    @cached_property
    def lines(self) -> list[Line]:
        return list(_lines(self.text))

    @cached_property
    def filled(self) -> list[Line]:
        return [line for line in self.lines if not line.blank]

    @cached_property
    def blocks(self) -> list[list[Line]]:
        """Runs of lines with no blank line between; a fenced block is never cut."""
        blocks: list[list[Line]] = []
        previous_blank = True
        for line in self.lines:
            if line.blank and not line.fenced:
                previous_blank = True
                continue
            if previous_blank:
                blocks.append([])
            blocks[-1].append(line)
            previous_blank = False
        return blocks

    @cached_property
    def width(self) -> float:
        """Where prose breaks its lines: nine in ten filled lines are no longer."""
        lengths = sorted(len(line.text) for line in self.filled)
        return lengths[min(int(0.9 * len(lengths)), len(lengths) - 1)]

    def trimmed_end(self, start: int, end: int) -> int:
        return start + len(self.text[start:end].rstrip())


def _lines(text: str) -> Iterator[Line]:
    front_matter = _FRONT_MATTER.match(text)
    start = front_matter.end() if front_matter else int(text.startswith("\ufeff"))
    fence = ""
    for number, raw in enumerate(text[start:].split("\n")):
        mark = _FENCE.match(raw)
        opens, closes = mark and not fence, mark and mark[1] == fence
        fence = mark[1] if mark and opens else fence
        yield Line(number, start, start + len(raw.rstrip()), raw.rstrip(), bool(fence))
        fence = "" if closes else fence
        start += len(raw) + 1


def may_be_title(text: str) -> bool:
    bare = _NUMBERED.sub("", text, count=1)
    title = plain(bare)
    shaped = (
        bool(title) and len(title) <= LONGEST_TITLE and not title[0].islower() and title[-1] not in ".:;,!…。：；，！—"
    )
    return shaped and not ITEM.match(bare) and bool(re.search(r"[^\W\d_]", title)) and not is_filler(text)


def is_filler(text: str) -> bool:
    return plain(text).casefold().rstrip(".…") in _NOT_A_TITLE


def is_item(line: Line) -> bool:
    return bool(ITEM.match(line.text)) and not line.fenced and not UNDERLINE.match(line.text)


def plain(text: str) -> str:
    """A title without its number and markup, so that renumbering keeps the id."""
    bare = _NUMBERED.sub("", text.strip(), count=1)
    return " ".join(_MARKUP.sub(lambda match: match[1] or "", bare).split())


def lead(text: str) -> str:
    """A title for text that has none: its bold or colon lead, else its first words."""
    heading = HEADING.match(text.split("\n")[0].rstrip())
    if heading and plain(heading[2]):
        return plain(heading[2])
    item = ITEM.match(text.split("\n")[0].rstrip())
    first = " ".join((text[item.start(2) :] if item else text).split()).lstrip("> ")
    lead = _BOLD_LEAD.match(first) or _COLON_LEAD.match(first)
    if lead:
        return plain(lead[lead.lastindex or 0]).rstrip(".:")
    words = plain(NEXT_SENTENCE.split(first)[0])
    cut = words if len(words) <= LONGEST_TITLE else words[:LONGEST_TITLE].rsplit(" ", 1)[0] + "…"
    return cut.rstrip(".。") or "untitled"
