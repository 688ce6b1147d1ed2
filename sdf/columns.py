"""A brief's answers -> the text columns of its document. Packaging: it asks no one, and is done anew at every fold.

A column comes from a step, from the source row, or from a template of the genre over all of them, so nothing that was
only sent (an injected system text, a prompt) can reach a corpus. What a template or a row makes of a column is known
only here; a draft that cannot be put together is the brief's own fault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdf.answers import ROLES
from sdf.errors import GenreError
from sdf.genres import Genre
from sdf.genres.model import ROW, TEMPLATE
from sdf.job import Job
from sdf.prompts import brief_context
from sdf.records import Brief, canonical_json

Columns = Mapping[str, Any]

TURNS = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Draft:
    """A brief with the parsed answers of its steps: all that a document is made from."""

    brief: Brief
    angle: str | None
    values: Mapping[str, Any]


def emit(job: Job, genre: Genre, draft: Draft) -> dict[str, Any]:
    """The text columns of a document: `text`; or `messages` (role and content) and `tools`; or `item` (JSON).

    GenreError for a row or a template that does not give what its column holds. A blank `system` is no turn.
    """
    found = _values(job, genre, draft)
    if genre.kind == "document":
        return {"text": _text(genre, "text", found["text"])}
    if genre.kind == "item":
        return {"item": canonical_json(found)}
    return {"messages": _turns(genre, found), "tools": _tools(genre, found.get("tools"))}


def check_row(genre: Genre, brief: Brief) -> None:
    """Raises GenreError where a column taken from the row cannot be what it should: known before anything is asked."""
    row = brief.row or {}
    for column, origin in genre.emit.items():
        if genre.kind == "item" or not origin.startswith(ROW):
            continue
        value = row.get(origin.removeprefix(ROW))
        if column == "messages":
            _messages(genre, value)
        elif column == "tools":
            _tools(genre, value)
        elif column != "system" and not _text(genre, column, value).strip():
            raise _fault(genre, column, "a text", value)


def _values(job: Job, genre: Genre, draft: Draft) -> dict[str, Any]:
    row = draft.brief.row or {}
    context: dict[str, Any] = {}
    if genre.emit_templates:
        context = {**brief_context(job, genre, draft.brief, draft.angle, draft.values), "row": dict(row)}
    found: dict[str, Any] = {}
    for column, origin in genre.emit.items():
        if origin == TEMPLATE:
            found[column] = genre.emit_templates[column].render(context)
        elif origin.startswith(ROW):
            found[column] = row.get(origin.removeprefix(ROW))
        else:
            found[column] = draft.values[origin]
    return found


def _turns(genre: Genre, found: Columns) -> list[dict[str, str]]:
    if "messages" in found:
        return _messages(genre, found["messages"])
    said = {role: found[role] for role in TURNS if role in found}
    if said.get("system") is None:
        said.pop("system", None)
    turns = [{"role": role, "content": _text(genre, role, content)} for role, content in said.items()]
    return [turn for turn in turns if turn["role"] != "system" or turn["content"].strip()]


def _messages(genre: Genre, value: Any) -> list[dict[str, str]]:
    found = _parsed(genre, "messages", value) if isinstance(value, str) else value
    if not isinstance(found, list) or not found:
        raise _fault(genre, "messages", "a list of messages", value)
    return [_message(genre, message) for message in found]


def _message(genre: Genre, message: Any) -> dict[str, str]:
    """Nothing of a message may be lost: what is neither role nor content is refused unless it is null."""
    if isinstance(message, Mapping):
        extra = [name for name, value in message.items() if name not in ("role", "content") and value is not None]
        role, content = message.get("role"), message.get("content")
        if not extra and role in ROLES and isinstance(content, str):
            return {"role": role, "content": content}
    raise _fault(genre, "messages", f"messages of a role ({', '.join(ROLES)}) and a text", message)


def _tools(genre: Genre, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return canonical_json(_parsed(genre, "tools", value) if isinstance(value, str) else value)


def _parsed(genre: Genre, column: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _fault(genre, column, "JSON", text) from None


def _text(genre: Genre, column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _fault(genre, column, "a text", value)
    return value


def _fault(genre: Genre, column: str, wanted: str, found: Any) -> GenreError:
    return GenreError(f"{genre.path}: emit.{column} ({genre.emit[column]}) takes {wanted}; found {str(found)[:60]!r}")
