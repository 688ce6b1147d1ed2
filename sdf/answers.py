"""What a model returned -> the value a step works with, or None when it is unusable.

Judged by what the step declared and nothing else, so that the same answer is always the same value. Tolerant
where the meaning is plain (a forgotten closing tag, a fenced JSON block, bullets for numbers); a score fails
closed, because an unclear verdict must never keep a document. Every scan is linear in the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from sdf.quotes import proves
from sdf.records import Answer, Returns, Wants, canonical_json

Value = str | int | list[str] | list[dict[str, Any]] | dict[str, Any]

USABLE = ("stop", "tool_use")
ROLES = ("system", "user", "assistant")
MAX_DEPTH = 64

# Models number in bold as often as not: "**1. A clinic.** ...", "**1.** A clinic".
_NUMBERED = re.compile(r"[ \t]*(?:\*\*)?\(?\d{1,4}[.):](?:\*\*)?[ \t]+(\S.*)")
_BULLETED = re.compile(r"[ \t]*[-*•–][ \t]+(\S.*)")
_SCORE = re.compile(r"(\d{1,6})(?:\s*/\s*(\d{1,6}))?")


def value(wants: Wants, answer: Answer) -> Value | None:
    """The usable value: text -> str, list -> list[str] (at most `wants.n_items`), score -> int in range,
    messages -> list of {role, content}, json -> dict. None: refused, truncated, empty or unparsable."""
    if answer.finish_reason not in USABLE:
        return None
    return _READERS[wants.returns](wants, answer.text)


def _text(wants: Wants, text: str) -> str | None:
    """Without its opening tag a text cannot be told from the notes around it, so it is not used."""
    return (_block(text, wants.tag) or "").strip() or None


def _list(wants: Wants, text: str) -> list[str] | None:
    inside = _unfenced(_inside(wants, text))
    items = _json_items(inside) or _tagged_items(inside) or _marked_items(inside)
    kept = [item.strip() for item in items if item.strip()]
    return kept[: wants.n_items or None] or None


def _score(wants: Wants, text: str) -> int | None:
    if wants.quotes is not None and not proves(text, wants.quotes):
        return None
    verdicts = {_verdict(wants, block) for block in _verdict_blocks(text, wants.tag)}
    return verdicts.pop() if len(verdicts) == 1 else None


def _verdict_blocks(text: str, tag: str | None) -> list[str]:
    """Every closed part, wherever it stands: two verdicts that differ are none. Else what follows the last tag."""
    if tag is None:
        return [text]
    closing = f"</{tag}>"
    pieces = text.split(f"<{tag}>")[1:]
    return [piece.partition(closing)[0] for piece in pieces if closing in piece] or pieces[-1:]


def _verdict(wants: Wants, block: str) -> int | None:
    match = _SCORE.fullmatch(block.strip())
    if match is None or (match[2] is not None and int(match[2]) != wants.highest):
        return None
    score = int(match[1])
    return score if wants.lowest <= score <= wants.highest else None


def _messages(wants: Wants, text: str) -> list[dict[str, Any]] | None:
    found = _json(_inside(wants, text), "[")
    if not isinstance(found, list) or not found:
        return None
    messages = [_message(entry) for entry in found]
    return None if None in messages else [message for message in messages if message is not None]


def _message(entry: object) -> dict[str, Any] | None:
    if not isinstance(entry, Mapping):
        return None
    role, content = entry.get("role"), entry.get("content")
    if role not in ROLES or not isinstance(content, str) or not content.strip():
        return None
    return {"role": role, "content": content}


def _object(wants: Wants, text: str) -> dict[str, Any] | None:
    found = _json(_inside(wants, text), "{")
    return found if isinstance(found, dict) and found else None


_READERS: Mapping[Returns, Callable[[Wants, str], Value | None]] = {
    "text": _text,
    "list": _list,
    "score": _score,
    "messages": _messages,
    "json": _object,
}


def _inside(wants: Wants, text: str) -> str:
    """The tagged part, or all of it: a list or JSON value is recognised by its own form without the tag."""
    block = _block(text, wants.tag)
    return (text if block is None else block).strip()


def _block(text: str, tag: str | None) -> str | None:
    """The tagged part, to the end where it is never closed; None without one. No tag: the whole text.

    Of several the last: a model that drafts, then corrects itself, means the second. Opening tags that begin a
    line win over those within one, which may only be spoken of.
    """
    if tag is None:
        return text
    opening, closing = f"<{tag}>", f"</{tag}>"
    start = _start_of_block(text, opening)
    if start is None:
        return None
    end = text.rfind(closing, start)
    return text[start:] if end < 0 else text[start:end]


def _start_of_block(text: str, opening: str) -> int | None:
    """Line by line from the end, by plain searches: a pattern over the whole text takes fifteen times as long."""
    last = at = text.rfind(opening)
    while at >= 0:
        line = text.rfind("\n", 0, at) + 1
        first = text.find(opening, line)
        if not text[line:first].strip(" \t"):
            return first + len(opening)
        at = text.rfind(opening, 0, line)
    return None if last < 0 else last + len(opening)


def _unfenced(text: str) -> str:
    """Without the ``` lines around it, if it has them."""
    if not (text.startswith("```") and text.endswith("```") and "\n" in text):
        return text
    return text[text.index("\n") : -3].strip()


def _json(text: str, opener: str) -> Any:
    """The first JSON value that begins with `opener`, whatever prose surrounds it; None when there is none."""
    start = text.find(opener)
    if start < 0:
        return None
    try:
        found, _ = _DECODER.raw_decode(text, start)
        # A lone surrogate ("\ud800") parses, yet can be written to no file.
        canonical_json(found).encode()
    except (ValueError, RecursionError):
        return None
    return None if is_deep(found) else found


def is_deep(found: Any) -> bool:
    """Judged by a number of its own: how deep Python can read varies with the stack it is called from."""
    level = [found]
    for _ in range(MAX_DEPTH):
        nested = [each for each in level if isinstance(each, dict | list)]
        level = [child for each in nested for child in (each.values() if isinstance(each, dict) else each)]
    return bool(level)


def no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=no_constant)


def _json_items(text: str) -> list[str]:
    found = _json(text, "[") if text.startswith("[") else None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        return []
    return [str(item) for item in found]


def _tagged_items(text: str) -> list[str]:
    return [block.partition("</item>")[0] for block in text.split("<item>")[1:]]


def _marked_items(text: str) -> list[str]:
    """Lines with the kind of mark that the first one has, numbers or bullets, so that bullets under a number are
    part of its item. A line without a mark goes on with the item above it, up to a blank line or a heading."""
    lines = text.splitlines()
    mark = next((mark for line in lines for mark in (_NUMBERED, _BULLETED) if mark.fullmatch(line)), _NUMBERED)
    items: list[str] = []
    is_open = False
    for line in lines:
        match = mark.fullmatch(line)
        if match:
            items.append(match[1])
        elif is_open and line.strip() and not line.startswith("#"):
            items[-1] += f" {line.strip()}"
        is_open = match is not None or (is_open and bool(line.strip()) and not line.startswith("#"))
    return [item.replace("**", "") for item in items]
