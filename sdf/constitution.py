"""Cut any text a model should learn into principles, each with its span in the source.

Four readings are tried in order, and the first that yields more than one principle is taken: headings
(Markdown's, else bare title lines), list items, one fact per line, paragraphs. A reading is a guess about
layout, never about meaning: it needs no model and gives the same principles everywhere, at the price of an
odd title now and then. A principle's id comes from its title, so editing a section leaves other ids alone.
"""

from __future__ import annotations

import difflib
import os
import re
import statistics
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from itertools import count, groupby, pairwise, zip_longest
from pathlib import Path

from sdf.errors import ConstitutionError
from sdf.records import Principle, digest

DEFAULT = "default"

# Characters. About 1,500 tokens: a judge still attends to all of it, and a cell still has one subject.
LONGEST = 6_000
# What a document says before its first deeper heading is no principle of its own below this.
SHORTEST_INTRODUCTION = 120
# Neighbouring plain paragraphs are joined until they hold this much.
SHORTEST_PARAGRAPH = 100
# Under a heading, fewer words than this that make no sentence are "Read more" or "See below".
FEWEST_WORDS = 4
# With this many list items a heading, headings group facts, and each fact is a principle.
ITEMS_PER_GROUP = 8
# Lines with a median above this are paragraphs that were not wrapped, not facts.
LONGEST_FACT = 240
LONGEST_TITLE = 80
LONGEST_ID = 60

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t#]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})\s*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_NUMBER = r"\(?\d{1,4}(?:\.\d{1,4})*[.)]"
_ITEM = re.compile(rf"(\s*)(?:[-*+•‣–—]|{_NUMBER}|[a-zA-Z]\))\s+(\S.*)$")
_NUMBERED = re.compile(rf"\s*(?:{_NUMBER}|\d+(?:\.\d+)+)\s+")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]*_]*$")
_NEXT_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])")
_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n[\w-]+[ \t]*:.*?\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|$)", re.DOTALL)
_BOLD_LEAD = re.compile(r"(\*\*|__)(?=\S)(.{2,80}?)\1")
_COLON_LEAD = re.compile(r"((?:[^\s:.!?]+ ){0,3}[^\s:.!?]+):\s")
_MARKUP = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|<[^>]+>|\{#[^}]*\}|[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}")
_NOT_A_TITLE = frozenset(("read more", "learn more", "show more", "see more", "see also", "back to top", "show less"))


@dataclass(frozen=True, slots=True)
class Constitution:
    """`text` is what was read (line ends as "\\n", no byte order mark); spans of `principles` count in it."""

    text: str
    hash: str
    principles: tuple[Principle, ...]
    source: str


def load(path: str | os.PathLike[str]) -> Constitution:
    """Read a UTF-8 or UTF-16 text file, or the built-in constitution for "default"; raises ConstitutionError."""
    source = os.fspath(path)
    data = resources.files("sdf").joinpath("data/constitution.md").read_bytes() if source == DEFAULT else _read(source)
    text = _decode(data, source).replace("\r\n", "\n").replace("\r", "\n")
    return Constitution(text, digest("constitution", text), parse(text, source=source), source)


def parse(text: str, *, source: str) -> tuple[Principle, ...]:
    """The principles of a text, in its order, each with `text == source_text[start:end]`, never overlapping.

    `source` names the text in errors. An id is a slug of the title, unique in the result: a repeated title
    takes its parents' in front, a repeated fact a hash of itself, and what still repeats a number. Sections
    above `LONGEST` are cut between paragraphs into even parts. Raises ConstitutionError.
    """
    page = _Page(text)
    _refuse_unusable(page, source)
    sections = _grouped(page) or _under_headings(page) or _listed(page) or _one_per_line(page) or _paragraphs(page)
    return tuple(_named(text, [part for section in sections for part in _parts(page, section)]))


# Reading files


def _read(source: str) -> bytes:
    path = Path(source)
    if path.is_dir():
        raise ConstitutionError(f"{source}: is a directory; name one Markdown or text file in it")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConstitutionError(f"{source}: no such file{_nearest(path)}; {DEFAULT!r} is the built-in one") from None
    except OSError as error:
        raise ConstitutionError(f"{source}: cannot be read: {error.strerror or error}") from error


def _nearest(path: Path) -> str:
    names = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, [*names, DEFAULT], n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _decode(data: bytes, source: str) -> str:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is not {encoding.removesuffix('-sig').upper()}"
        raise ConstitutionError(f"{source}: {where}; give a plain text or Markdown file saved as UTF-8") from error


def _refuse_unusable(page: _Page, source: str) -> None:
    if "\x00" in page.text:
        raise ConstitutionError(f"{source}: holds NUL bytes, so it is not text; give a plain text or Markdown file")
    if not page.filled:
        raise ConstitutionError(f"{source}: is empty; give the text whose content and reasons a model should learn")
    if len(page.filled) == 1:
        raise ConstitutionError(
            f"{source}: has one line; give sections under headings, or one principle or fact a line"
        )


# Lines and sections


@dataclass(frozen=True, slots=True)
class _Line:
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


@dataclass(frozen=True, slots=True)
class _Section:
    """`start:end` spans it all, `body:end` what stands below its heading. `level` 0 stands before any heading."""

    title: str
    level: int
    start: int
    body: int
    end: int
    parents: tuple[str, ...] = ()
    titled: bool = True
    part: int = 1
    n_parts: int = 1


@dataclass(frozen=True)
class _Page:
    text: str

    @cached_property
    def lines(self) -> list[_Line]:
        return list(_lines(self.text))

    @cached_property
    def filled(self) -> list[_Line]:
        return [line for line in self.lines if not line.blank]

    @cached_property
    def blocks(self) -> list[list[_Line]]:
        """Runs of lines with no blank line between; a fenced block is never cut."""
        blocks: list[list[_Line]] = []
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


def _lines(text: str) -> Iterator[_Line]:
    front_matter = _FRONT_MATTER.match(text)
    start = front_matter.end() if front_matter else int(text.startswith("\ufeff"))
    fence = ""
    for number, raw in enumerate(text[start:].split("\n")):
        mark = _FENCE.match(raw)
        opens, closes = mark and not fence, mark and mark[1] == fence
        fence = mark[1] if mark and opens else fence
        yield _Line(number, start, start + len(raw.rstrip()), raw.rstrip(), bool(fence))
        fence = "" if closes else fence
        start += len(raw) + 1


# First reading: headings


@dataclass(frozen=True, slots=True)
class _Head:
    title: str
    level: int
    start: int
    body: int


BARE_LEVEL = 7


def _under_headings(page: _Page) -> list[_Section]:
    """One section per heading; empty unless there are two. Bare titles count where Markdown has fewer."""
    heads = list(_markdown_heads(page))
    if len(heads) < 2:
        heads = sorted([*heads, *_bare_heads(page, heads)], key=lambda head: head.start)
    if len(heads) < 2:
        return []
    sections = _merged(page, _with_parents(_sections(page, heads)))
    return sections if len(sections) > 1 else []


def _markdown_heads(page: _Page) -> Iterator[_Head]:
    before = _Line(-1, 0, 0, "", fenced=False)
    for line, after in pairwise([*page.lines, before]):
        heading, underline = _HEADING.match(line.text), _UNDERLINE.match(after.text)
        if line.fenced:
            pass
        elif heading and _plain(heading[2]):
            yield _Head(_plain(heading[2]), len(heading[1]), line.start, line.end)
        elif underline and before.blank and _may_be_title(line.text):
            yield _Head(_plain(line.text), 1 if "=" in underline[1] else 2, line.start, after.end)
        before = line


def _bare_heads(page: _Page, markdown: Sequence[_Head]) -> Iterator[_Head]:
    """Short lines with no final punctuation that prose follows, where the line was broken on purpose."""
    taken = {head.start for head in markdown}
    filled = [line for line in page.filled if not line.fenced and line.start not in taken]
    titles = _bare_titles(page, filled)
    for is_title, run in groupby(filled, key=lambda line: line.start in titles):
        lines = list(run)
        # A run of short lines is a list, not a tower of titles: at most two may stand together.
        if is_title and len(lines) <= 2:
            yield from (_Head(_plain(line.text), BARE_LEVEL, line.start, line.end) for line in lines)


def _bare_titles(page: _Page, filled: Sequence[_Line]) -> set[int]:
    titles: set[int] = set()
    # From the end, since a title may stand on another title.
    for index in range(len(filled) - 2, -1, -1):
        line, after = filled[index], filled[index + 1]
        before = filled[index - 1].text if index and filled[index - 1].number + 1 == line.number else ""
        opens = not before or bool(_SENTENCE_END.search(before)) or _may_be_title(before) or _is_filler(before)
        prose = after.start in titles or (not _ITEM.match(after.text) and bool(_SENTENCE_END.search(after.text)))
        prose = prose or len(after.text) > LONGEST_TITLE or after.text.endswith(":")
        if opens and prose and _may_be_title(line.text) and _broken_on_purpose(page, line, after):
            titles.add(line.start)
    return titles


def _may_be_title(text: str) -> bool:
    bare = _NUMBERED.sub("", text, count=1)
    title = _plain(bare)
    shaped = (
        bool(title) and len(title) <= LONGEST_TITLE and not title[0].islower() and title[-1] not in ".:;,!…。：；，！—"
    )
    return shaped and not _ITEM.match(bare) and bool(re.search(r"[^\W\d_]", title)) and not _is_filler(text)


def _is_filler(text: str) -> bool:
    return _plain(text).casefold().rstrip(".…") in _NOT_A_TITLE


def _broken_on_purpose(page: _Page, line: _Line, after: _Line) -> bool:
    """A blank line follows, or the next word would have fitted: 0.8 leaves room for ragged hand-wrapped lines."""
    if after.number > line.number + 1:
        return True
    return not after.text[0].islower() and len(line.text) + 1 + len(after.text.split()[0]) <= 0.8 * page.width


def _sections(page: _Page, heads: Sequence[_Head]) -> Iterator[_Section]:
    first = page.filled[0].start
    if first < heads[0].start:
        end = page.trimmed_end(first, heads[0].start)
        yield _Section(_lead(page.text[first:end]), 0, first, first, end, titled=False)
    for head, after in zip(heads, [*(head.start for head in heads[1:]), len(page.text)], strict=True):
        yield _Section(head.title, head.level, head.start, head.body, page.trimmed_end(head.start, after))


def _with_parents(sections: Iterable[_Section]) -> list[_Section]:
    stack: list[_Section] = []
    result: list[_Section] = []
    for section in sections:
        stack = [above for above in stack if 0 < above.level < section.level]
        result.append(replace(section, parents=tuple(above.title for above in stack)))
        stack.append(section)
    return result


def _merged(page: _Page, sections: Sequence[_Section]) -> list[_Section]:
    """Sections with nothing of their own to say open the next one; the last closes the one before."""
    result: list[_Section] = []
    start: int | None = None
    for section, after in zip_longest(sections, sections[1:]):
        whole = section if start is None else replace(section, start=start)
        start = None
        introduces = section is sections[0] and after is not None and after.level > section.level
        if not _too_short(page.text[section.body : section.end].strip(), introduces):
            result.append(whole)
        elif after:
            start = whole.start
        elif result:
            result[-1] = replace(result[-1], end=whole.end)
        else:
            result.append(whole)
    return result


def _too_short(body: str, introduces: bool) -> bool:
    if introduces and len(body) < SHORTEST_INTRODUCTION:
        return True
    return len(body.split()) < FEWEST_WORDS and not _SENTENCE_END.search(body)


# Second and third reading: facts


def _grouped(page: _Page) -> list[_Section]:
    """List items under a few headings that only group them."""
    headings = list(_markdown_heads(page))
    items = _listed(page, 0.8) if headings else []
    return items if len(items) >= ITEMS_PER_GROUP * len(headings) else []


def _listed(page: _Page, least: float = 0.5) -> list[_Section]:
    """One section per item of the outermost list, if at least this share of the lines under headings is in one.

    What stands outside the items (a title, an introduction, labels of groups) belongs to no principle.
    """
    marked = [line for line in page.filled if _is_item(line)]
    if len(marked) < 2:
        return []
    indent = min(line.indent for line in marked)
    items = list(_item_lines(page, indent))
    prose = [line for line in page.filled if line.fenced or not _HEADING.match(line.text)]
    if len(items) < 2 or sum(len(lines) for lines in items) < least * len(prose):
        return []
    return [_fact(page, lines[0].start, lines[-1].end) for lines in items]


def _is_item(line: _Line) -> bool:
    return bool(_ITEM.match(line.text)) and not line.fenced and not _UNDERLINE.match(line.text)


def _item_lines(page: _Page, indent: int) -> Iterator[list[_Line]]:
    """The filled lines of each item: its first, those indented below it, those that go on without a gap."""
    item: list[_Line] = []
    gap = False
    for line in page.lines:
        if line.blank:
            gap = True
        elif _is_item(line) and line.indent == indent:
            if item:
                yield item
            item, gap = [line], False
        elif item and (line.indent > indent or line.fenced or not (gap or _HEADING.match(line.text))):
            item, gap = [*item, line], False
        elif item:
            yield item
            item = []
    if item:
        yield item


def _fact(page: _Page, start: int, end: int) -> _Section:
    return _Section(_lead(page.text[start:end]), 1, start, start, end, titled=False)


def _one_per_line(page: _Page) -> list[_Section]:
    titles = {head.start for head in [*_markdown_heads(page), *_bare_heads(page, [])]}
    lines = [line for line in page.filled if line.start not in titles and re.search(r"[^\W_]", line.text)]
    following = [line for block in page.blocks for line in block[1:]]
    if len(lines) < 2 or any(line.fenced for line in lines):
        return []
    # Wrapped prose goes on in lower case on most of its lines (German, with its capitals: 7 in 10).
    wrapped = 4 * sum(line.text.lstrip()[0].islower() for line in following) >= max(1, len(following))
    whole = sum(bool(_SENTENCE_END.search(line.text)) for line in lines) >= 0.8 * len(lines)
    cased = page.text.casefold() != page.text
    if wrapped or statistics.median(len(line.text) for line in lines) > LONGEST_FACT or not (whole or cased):
        return []
    return [_fact(page, line.start, line.end) for line in lines]


# Last reading: paragraphs


def _paragraphs(page: _Page) -> list[_Section]:
    groups: list[tuple[int, int]] = []
    open_group = False
    for block in page.blocks:
        start = groups.pop()[0] if open_group else block[0].start
        groups.append((start, block[-1].end))
        open_group = block[-1].end - start < SHORTEST_PARAGRAPH or block[-1].text.endswith(":")
    if open_group and len(groups) > 1:
        _, end = groups.pop()
        groups[-1] = (groups[-1][0], end)
    return [_fact(page, start, end) for start, end in groups]


# Cutting long sections


def _parts(page: _Page, section: _Section) -> Iterator[_Section]:
    """The section, or even parts of about `LONGEST` at most, cut between paragraphs, else between sentences."""
    n_parts = -(-(section.end - section.start) // LONGEST)
    ends = [section.start, *(_cuts(page, section, n_parts) if n_parts > 1 else []), section.end]
    for part, (start, end) in enumerate(pairwise(ends), start=1):
        yield replace(section, start=start, end=page.trimmed_end(start, end), part=part, n_parts=len(ends) - 1)


def _cuts(page: _Page, section: _Section, n_parts: int) -> list[int]:
    """Where the parts after the first begin: the places nearest to an even division."""
    places = _places(page, section)
    size = section.end - section.start
    wanted = [section.start + size * part // n_parts for part in range(1, n_parts)]
    return sorted({min(places, key=lambda place: abs(place - goal)) for goal in wanted}) if places else []


def _places(page: _Page, section: _Section) -> list[int]:
    inside = [block for block in page.blocks if section.body <= block[0].start and block[-1].end <= section.end]
    places = [
        after[0].start
        for before, after in pairwise(inside)
        if not before[-1].text.endswith(":") and not _is_item(after[0])
    ]
    for block in inside:
        if block[-1].end - block[0].start > LONGEST and not block[0].fenced:
            prose = page.text[block[0].start : block[-1].end]
            places += [block[0].start + gap.end() for gap in _NEXT_SENTENCE.finditer(prose) if gap.end() < len(prose)]
    return [place for place in places if place > section.body]


# Titles and ids


def _plain(text: str) -> str:
    """A title without its number and markup, so that renumbering keeps the id."""
    bare = _NUMBERED.sub("", text.strip(), count=1)
    return " ".join(_MARKUP.sub(lambda match: match[1] or "", bare).split())


def _lead(text: str) -> str:
    """A title for text that has none: its bold or colon lead, else its first words."""
    heading = _HEADING.match(text.split("\n")[0].rstrip())
    if heading and _plain(heading[2]):
        return _plain(heading[2])
    item = _ITEM.match(text.split("\n")[0].rstrip())
    first = " ".join((text[item.start(2) :] if item else text).split()).lstrip("> ")
    lead = _BOLD_LEAD.match(first) or _COLON_LEAD.match(first)
    if lead:
        return _plain(lead[lead.lastindex or 0]).rstrip(".:")
    words = _plain(_NEXT_SENTENCE.split(first)[0])
    cut = words if len(words) <= LONGEST_TITLE else words[:LONGEST_TITLE].rsplit(" ", 1)[0] + "…"
    return cut.rstrip(".。") or "untitled"


def _slug(title: str) -> str:
    """ASCII words joined by hyphens; letters ASCII cannot spell are stood for by a hash of the title."""
    folded = unicodedata.normalize("NFKD", title.replace("’", "").replace("'", "").casefold())
    lost = any(letter.isalnum() and not letter.isascii() for letter in folded)
    words = re.findall(r"[a-z0-9]+", folded.encode("ascii", "ignore").decode())
    ending = [digest("title", title)[:8]] if lost or not words else []
    slug = "-".join(words)
    room = LONGEST_ID - len("-".join(["", *ending]))
    if len(slug) > room:
        slug = slug[: room + 1].rsplit("-", 1)[0][:room]
    return "-".join([slug or "principle", *ending])


def _named(text: str, sections: Iterable[_Section]) -> Iterator[Principle]:
    used: set[str] = set()
    for section in sections:
        body = text[section.start : section.end]
        name = next(name for name in _candidates(section, body) if name not in used)
        used.add(name)
        part = f" ({section.part} of {section.n_parts})" if section.n_parts > 1 else ""
        yield Principle(name, section.title + part, body, section.start, section.end)


def _candidates(section: _Section, body: str) -> Iterator[str]:
    """Names for a section, best first; endless."""
    base = _slug(section.title)
    ending = f"-{section.part}" if section.part > 1 else ""
    yield base + ending
    if section.parents:
        base = _slug(" ".join([*section.parents[-2:], section.title]))
        yield base + ending
    if not section.titled:
        base = f"{base[:50].rstrip('-')}-{digest('fact', body)[:8]}"
        yield base + ending
    yield from (f"{base}-{number}" for number in count(2))
