"""Four readings of a text, each a guess at which of its spans are principles.

The first that yields more than one is taken: headings (Markdown's, else bare title lines), list items, one fact
per line, paragraphs. Headings that merely group a long list give way to its items.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise, zip_longest

from sdf.constitution.layout import (
    HEADING,
    ITEM,
    LONGEST_TITLE,
    SENTENCE_END,
    UNDERLINE,
    Line,
    Page,
    is_filler,
    is_item,
    lead,
    may_be_title,
    plain,
)

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
BARE_LEVEL = 7


@dataclass(frozen=True, slots=True)
class Section:
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


def sections_of(page: Page) -> list[Section]:
    """In source order, never overlapping; at least one for a page with a filled line."""
    return _grouped(page) or _under_headings(page) or _listed(page) or _one_per_line(page) or _paragraphs(page)


# First reading: headings


@dataclass(frozen=True, slots=True)
class _Head:
    title: str
    level: int
    start: int
    body: int


def _under_headings(page: Page) -> list[Section]:
    """One section per heading; empty unless there are two. Bare titles count where Markdown has fewer."""
    heads = list(_markdown_heads(page))
    if len(heads) < 2:
        heads = sorted([*heads, *_bare_heads(page, heads)], key=lambda head: head.start)
    if len(heads) < 2:
        return []
    sections = _merged(page, _with_parents(_sections(page, heads)))
    return sections if len(sections) > 1 else []


def _markdown_heads(page: Page) -> Iterator[_Head]:
    before = Line(-1, 0, 0, "", fenced=False)
    for line, after in pairwise([*page.lines, before]):
        heading, underline = HEADING.match(line.text), UNDERLINE.match(after.text)
        if line.fenced:
            pass
        elif heading and plain(heading[2]):
            yield _Head(plain(heading[2]), len(heading[1]), line.start, line.end)
        elif underline and before.blank and may_be_title(line.text):
            yield _Head(plain(line.text), 1 if "=" in underline[1] else 2, line.start, after.end)
        before = line


def _bare_heads(page: Page, markdown: Sequence[_Head]) -> Iterator[_Head]:
    """Short lines with no final punctuation that prose follows, where the line was broken on purpose."""
    taken = {head.start for head in markdown}
    filled = [line for line in page.filled if not line.fenced and line.start not in taken]
    titles = _bare_titles(page, filled)
    for is_title, run in groupby(filled, key=lambda line: line.start in titles):
        lines = list(run)
        # A run of short lines is a list, not a tower of titles: at most two may stand together.
        if is_title and len(lines) <= 2:
            yield from (_Head(plain(line.text), BARE_LEVEL, line.start, line.end) for line in lines)


def _bare_titles(page: Page, filled: Sequence[Line]) -> set[int]:
    titles: set[int] = set()
    # From the end, since a title may stand on another title.
    for index in range(len(filled) - 2, -1, -1):
        line, after = filled[index], filled[index + 1]
        before = filled[index - 1].text if index and filled[index - 1].number + 1 == line.number else ""
        opens = not before or bool(SENTENCE_END.search(before)) or may_be_title(before) or is_filler(before)
        prose = after.start in titles or (not ITEM.match(after.text) and bool(SENTENCE_END.search(after.text)))
        prose = prose or len(after.text) > LONGEST_TITLE or after.text.endswith(":")
        if opens and prose and may_be_title(line.text) and _broken_on_purpose(page, line, after):
            titles.add(line.start)
    return titles


def _broken_on_purpose(page: Page, line: Line, after: Line) -> bool:
    """A blank line follows, or the next word would have fitted: 0.8 leaves room for ragged hand-wrapped lines."""
    if after.number > line.number + 1:
        return True
    return not after.text[0].islower() and len(line.text) + 1 + len(after.text.split()[0]) <= 0.8 * page.width


def _sections(page: Page, heads: Sequence[_Head]) -> Iterator[Section]:
    first = page.filled[0].start
    if first < heads[0].start:
        end = page.trimmed_end(first, heads[0].start)
        yield Section(lead(page.text[first:end]), 0, first, first, end, titled=False)
    for head, after in zip(heads, [*(head.start for head in heads[1:]), len(page.text)], strict=True):
        yield Section(head.title, head.level, head.start, head.body, page.trimmed_end(head.start, after))


def _with_parents(sections: Iterable[Section]) -> list[Section]:
    stack: list[Section] = []
    result: list[Section] = []
    for section in sections:
        stack = [above for above in stack if 0 < above.level < section.level]
        result.append(replace(section, parents=tuple(above.title for above in stack)))
        stack.append(section)
    return result


def _merged(page: Page, sections: Sequence[Section]) -> list[Section]:
    """Sections with nothing of their own to say open the next one; the last closes the one before."""
    result: list[Section] = []
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
    return len(body.split()) < FEWEST_WORDS and not SENTENCE_END.search(body)


# Second and third reading: facts


def _grouped(page: Page) -> list[Section]:
    """List items under a few headings that only group them."""
    headings = list(_markdown_heads(page))
    items = _listed(page, 0.8) if headings else []
    return items if len(items) >= ITEMS_PER_GROUP * len(headings) else []


def _listed(page: Page, least: float = 0.5) -> list[Section]:
    """One section per item of the outermost list, if at least this share of the lines under headings is in one.

    What stands outside the items (a title, an introduction, labels of groups) belongs to no principle.
    """
    marked = [line for line in page.filled if is_item(line)]
    if len(marked) < 2:
        return []
    indent = min(line.indent for line in marked)
    items = list(_item_lines(page, indent))
    prose = [line for line in page.filled if line.fenced or not HEADING.match(line.text)]
    if len(items) < 2 or sum(len(lines) for lines in items) < least * len(prose):
        return []
    return [_fact(page, lines[0].start, lines[-1].end) for lines in items]


def _item_lines(page: Page, indent: int) -> Iterator[list[Line]]:
    """The filled lines of each item: its first, those indented below it, those that go on without a gap."""
    item: list[Line] = []
    gap = False
    for line in page.lines:
        if line.blank:
            gap = True
        elif is_item(line) and line.indent == indent:
            if item:
                yield item
            item, gap = [line], False
        elif item and (line.indent > indent or line.fenced or not (gap or HEADING.match(line.text))):
            item, gap = [*item, line], False
        elif item:
            yield item
            item = []
    if item:
        yield item


def _fact(page: Page, start: int, end: int) -> Section:
    return Section(lead(page.text[start:end]), 1, start, start, end, titled=False)


def _one_per_line(page: Page) -> list[Section]:
    titles = {head.start for head in [*_markdown_heads(page), *_bare_heads(page, [])]}
    lines = [line for line in page.filled if line.start not in titles and re.search(r"[^\W_]", line.text)]
    following = [line for block in page.blocks for line in block[1:]]
    if len(lines) < 2 or any(line.fenced for line in lines):
        return []
    # Wrapped prose goes on in lower case on most of its lines (German, with its capitals: 7 in 10).
    wrapped = 4 * sum(line.text.lstrip()[:1].islower() for line in following) >= max(1, len(following))
    whole = sum(bool(SENTENCE_END.search(line.text)) for line in lines) >= 0.8 * len(lines)
    cased = page.text.casefold() != page.text
    if wrapped or statistics.median(len(line.text) for line in lines) > LONGEST_FACT or not (whole or cased):
        return []
    return [_fact(page, line.start, line.end) for line in lines]


# Last reading: paragraphs


def _paragraphs(page: Page) -> list[Section]:
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
