"""The written form of a genre: its front matter as models that refuse unknown keys, and its sections by line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sdf import frontmatter
from sdf.frontmatter import Fault, Location, Marked
from sdf.records import Returns, Role

# A genre is prose for people to read; the longest step takes a few pages.
MAX_BYTES = 500_000

# As many texts to stop at as every provider takes.
MAX_STOPS = 4

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Key = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


_Stop = Annotated[str, Field(min_length=1, max_length=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class StepEntry(_Strict):
    per: Literal["brief", "round"] = "brief"
    role: Role | None = None
    form: Literal["chat", "completion"] = "chat"
    context: Literal["full", "principle", "none"]
    returns: Returns
    tag: Name | None = None
    n_items: int | None = Field(None, ge=1, le=64)
    lowest: int = Field(1, ge=0)
    highest: int = Field(10, le=100_000)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    tools: list[dict[str, Any]] | None = Field(None, min_length=1)
    inject: str | None = None
    rewrites: str | None = None
    quotes: str | None = None
    sample: float | None = Field(None, gt=0, lt=1)
    follows: str | None = None
    stop: Annotated[tuple[_Stop, ...], Field(strict=False, max_length=MAX_STOPS)] = ()


class SourceEntry(_Strict):
    path: str | None = Field(None, min_length=1)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    columns: list[Annotated[str, Field(pattern=r"^[^_]")]] = Field(min_length=1)


class GenreChecks(_Strict):
    """What the genre changes of the checks: names of those turned off, the lowest accepted score by step."""

    off: Annotated[tuple[str, ...], Field(strict=False)] = ()
    min_score: Mapping[str, int] = {}


class FrontMatter(_Strict):
    key: Key
    kind: Literal["document", "chat", "prompt", "item"]
    about: str = Field(min_length=1)
    # The bounds of a length and the weights of an axis are judged as a whole, in `loading`.
    n_words: Any
    dedup: Literal["body", "assistant", "user", "scenario", "none"]
    redraws: int = Field(2, ge=0, le=10)
    lanes: int | None = Field(None, ge=1, le=1000)
    cell_size: int | None = Field(None, ge=1, le=1_000_000)
    opt_in: Key | None = None
    twin: str | None = None
    axes: dict[Name, Any] = {}
    steps: dict[Name, StepEntry] = Field(min_length=1)
    emit: dict[Name, str] = Field(min_length=1)
    source: SourceEntry | None = None
    checks: GenreChecks = GenreChecks()
    preamble: Literal["none"] | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """The prompt under one heading, from its first to its last line that is not blank."""

    name: str
    text: str
    line: int
    heading_line: int


@dataclass(frozen=True, slots=True)
class Sections:
    """`emits` holds the templates of columns, by column."""

    instructions: Section | None
    steps: Mapping[str, Section]
    emits: Mapping[str, Section]


_HEADING = re.compile(r"## (?:(instructions)|(step|emit): ([a-z][a-z0-9_]{0,63}))[ \t]*")
# What was probably meant as a heading: it would otherwise be sent to a model as prose.
_NEAR_HEADING = re.compile(r"#+[ \t]*(?:(?:steps?|emits?)\b[ \t]*:|instructions?[ \t]*$)", re.IGNORECASE)
_HEADINGS = "`## step: NAME`, `## emit: COLUMN` or `## instructions`"


def read_text(path: Path) -> str:
    """The file's text with plain newlines. Raises Fault."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Fault(1, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise Fault(1, f"{len(data):,} bytes; a genre file has at most {MAX_BYTES:,}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Fault(line, f"not UTF-8: byte {data[error.start]:#04x}; save the file as UTF-8") from error
    text = text.replace("\r\n", "\n")
    if "\0" in text:
        raise Fault(text.count("\n", 0, text.index("\0")) + 1, "a NUL character; this is not a text file")
    return text


def parse(text: str) -> tuple[FrontMatter, Marked, Sections]:
    """Raises Fault with the line in the file."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        raise Fault(1, "a genre file begins with front matter: a line `---`, YAML, and another line `---`")
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise Fault(1, "the front matter is not closed by a line `---`")
    marked = frontmatter.read("\n".join(lines[1:end]) + "\n", 2)
    front = frontmatter.validated(FrontMatter, marked, _model_at)
    return front, marked, _sections(lines, end + 1)


def _model_at(location: Location) -> type[BaseModel]:
    if location[:1] == ("steps",):
        return StepEntry
    if location == ("source",):
        return SourceEntry
    return GenreChecks if location == ("checks",) else FrontMatter


def _sections(lines: list[str], start: int) -> Sections:
    headings = [(i, match) for i in range(start, len(lines)) if (match := _heading(lines[i], i + 1))]
    first = headings[0][0] if headings else len(lines)
    for i in range(start, first):
        if lines[i].strip():
            raise Fault(i + 1, f"text before the first section; sections are {_HEADINGS}")
    ends = [i for i, _ in headings[1:]] + [len(lines)]
    found: dict[str, dict[str, Section]] = {"instructions": {}, "step": {}, "emit": {}}
    for (i, match), end in zip(headings, ends, strict=True):
        kind, name = match[1] or match[2], match[3] or ""
        if name in found[kind]:
            raise Fault(i + 1, f"the section {lines[i].strip()!r} stands here a second time; keep one")
        found[kind][name] = _section(name, lines, i, end)
    return Sections(found["instructions"].get(""), found["step"], found["emit"])


def _heading(line: str, number: int) -> re.Match[str] | None:
    match = _HEADING.fullmatch(line)
    if match is None and _NEAR_HEADING.match(line):
        raise Fault(number, f"{line.strip()!r} is not a section; write {_HEADINGS}")
    return match


def _section(name: str, lines: list[str], heading: int, end: int) -> Section:
    first = next((i for i in range(heading + 1, end) if lines[i].strip()), None)
    if first is None:
        raise Fault(heading + 1, f"the section {lines[heading].strip()!r} is empty")
    return Section(name, "\n".join(lines[first:end]).rstrip(), first + 1, heading + 1)
