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
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from itertools import count, pairwise
from pathlib import Path

from sdf.constitution.layout import NEXT_SENTENCE, Page, is_item
from sdf.constitution.sections import Section, sections_of
from sdf.errors import ConstitutionError
from sdf.records import Principle, digest

DEFAULT = "default"

# Characters. About 1,500 tokens: a judge still attends to all of it, and a cell still has one subject.
LONGEST = 6_000
LONGEST_ID = 60


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
    return of_text(text, source)


def of_text(text: str, source: str) -> Constitution:
    """The constitution of a text that was read already; raises ConstitutionError."""
    return Constitution(text, digest("constitution", text), parse(text, source=source), source)


def parse(text: str, *, source: str) -> tuple[Principle, ...]:
    """The principles of a text, in its order, each with `text == source_text[start:end]`, never overlapping.

    `source` names the text in errors. An id is a slug of the title, unique in the result: a repeated title
    takes its parents' in front, a repeated fact a hash of itself, and what still repeats a number. Sections
    above `LONGEST` are cut between paragraphs into even parts. Raises ConstitutionError.
    """
    page = Page(text)
    _refuse_unusable(page, source)
    return tuple(_named(text, [part for section in sections_of(page) for part in _parts(page, section)]))


# Reading files


def _read(source: str) -> bytes:
    path = Path(source)
    try:
        if path.is_dir():
            raise ConstitutionError(f"{source}: is a directory; name one Markdown or text file in it")
        return path.read_bytes()
    except FileNotFoundError:
        raise ConstitutionError(f"{source}: no such file{_nearest(path)}; {DEFAULT!r} is the built-in one") from None
    except OSError as error:
        raise ConstitutionError(f"{source}: cannot be read: {error.strerror or error}") from error


def _nearest(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        names = []  # A suggestion is a courtesy: a folder that cannot be listed has none.
    close = difflib.get_close_matches(path.name, [*names, DEFAULT], n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _decode(data: bytes, source: str) -> str:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is not {encoding.removesuffix('-sig').upper()}"
        raise ConstitutionError(f"{source}: {where}; give a plain text or Markdown file saved as UTF-8") from error


def _refuse_unusable(page: Page, source: str) -> None:
    if "\x00" in page.text:
        raise ConstitutionError(f"{source}: holds NUL bytes, so it is not text; give a plain text or Markdown file")
    if not page.filled:
        raise ConstitutionError(f"{source}: is empty; give the text whose content and reasons a model should learn")
    if len(page.filled) == 1:
        raise ConstitutionError(
            f"{source}: has one line; give sections under headings, or one principle or fact a line"
        )


# Cutting long sections


def _parts(page: Page, section: Section) -> Iterator[Section]:
    """The section, or even parts of about `LONGEST` at most, cut between paragraphs, else between sentences."""
    n_parts = -(-(section.end - section.start) // LONGEST)
    ends = [section.start, *(_cuts(page, section, n_parts) if n_parts > 1 else []), section.end]
    for part, (start, end) in enumerate(pairwise(ends), start=1):
        yield replace(section, start=start, end=page.trimmed_end(start, end), part=part, n_parts=len(ends) - 1)


def _cuts(page: Page, section: Section, n_parts: int) -> list[int]:
    """Where the parts after the first begin: the places nearest to an even division."""
    places = _places(page, section)
    size = section.end - section.start
    wanted = [section.start + size * part // n_parts for part in range(1, n_parts)]
    return sorted({min(places, key=lambda place: abs(place - goal)) for goal in wanted}) if places else []


def _places(page: Page, section: Section) -> list[int]:
    inside = [block for block in page.blocks if section.body < block[-1].end <= section.end]
    places = [
        after[0].start
        for before, after in pairwise(inside)
        if not before[-1].text.endswith(":") and not is_item(after[0])
    ]
    for block in inside:
        if block[-1].end - block[0].start > LONGEST and not block[0].fenced:
            prose = page.text[block[0].start : block[-1].end]
            places += [block[0].start + gap.end() for gap in NEXT_SENTENCE.finditer(prose) if gap.end() < len(prose)]
    return [place for place in places if place > section.body]


# Ids


def _slug(title: str) -> str:
    """ASCII words joined by hyphens; letters ASCII cannot spell are stood for by a hash of the title."""
    letters = unicodedata.normalize("NFKD", title.replace("’", "").replace("'", "").casefold())
    folded = "".join(letter for letter in letters if not unicodedata.combining(letter))
    lost = any(letter.isalnum() and not letter.isascii() for letter in folded)
    words = re.findall(r"[a-z0-9]+", folded)
    ending = [digest("title", title)[:8]] if lost or not words else []
    slug = "-".join(words)
    room = LONGEST_ID - len("-".join(["", *ending]))
    if len(slug) > room:
        slug = slug[: room + 1].rsplit("-", 1)[0][:room]
    return "-".join([slug or "principle", *ending])


def _named(text: str, sections: Iterable[Section]) -> Iterator[Principle]:
    used: set[str] = set()
    for section in sections:
        body = text[section.start : section.end]
        name = next(name for name in _candidates(section, body) if name not in used)
        used.add(name)
        part = f" ({section.part} of {section.n_parts})" if section.n_parts > 1 else ""
        yield Principle(name, section.title + part, body, section.start, section.end)


def _candidates(section: Section, body: str) -> Iterator[str]:
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
