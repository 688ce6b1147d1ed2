"""A conversation's form: whose turn it is, who speaks in it, and whether its tool calls are calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sdf.checks.subject import Checks, Subject

# Who may speak after whom; None is the beginning.
_FOLLOWS: Mapping[str | None, tuple[str, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}


def malformed_turns(subject: Subject, _: Checks) -> bool:
    """An empty turn, or roles out of order: system first if at all, then user and assistant in turn.

    A conversation that is to be answered (a prompt) may end with the user.
    """
    before: str | None = None
    for turn in subject.messages or ():
        if turn["role"] not in _FOLLOWS[before] or not str(turn["content"]).strip():
            return True
        before = turn["role"]
    return before in ("system", "tool")


def user_in_reply(subject: Subject, _: Checks) -> bool:
    """The assistant goes on as the user, or the user speaks as an assistant does."""
    for turn in subject.messages or ():
        pattern = {"assistant": _SPEAKS_FOR_USER, "user": _SPEAKS_AS_ASSISTANT}.get(turn["role"])
        if pattern is not None and pattern.search(str(turn["content"])):
            return True
    return False


# At a paragraph's start, so that a transcript quoted within a line or a list is left alone.
_SPEAKS_FOR_USER = re.compile(r"(?:\A|\n\n)\**(?:User|USER|Human|HUMAN|H)\**:\**\s")
_SPEAKS_AS_ASSISTANT = re.compile(
    r"\A\W*(?:as an ai\b|i'?m an ai\b|how (?:can|may) i (?:help|assist) you\b"
    r"|i(?:'d| would) be (?:happy|glad) to (?:help|assist)"
    r"|(?:certainly|sure|of course|absolutely)[!,.]? (?:here(?:'s| is| are)|i(?:'d| would| can|'ll)))",
    re.IGNORECASE,
)


def tool_call(subject: Subject, _: Checks) -> bool:
    """A `<tool_call>` that is never closed, is no JSON object with a name, or calls what is not offered."""
    for turn in subject.messages or ():
        content = str(turn["content"])
        if turn["role"] == "assistant" and "<tool_call>" in content:
            offered = set(_names(subject.tools))
            if any(_is_no_call(piece, offered) for piece in content.split("<tool_call>")[1:]):
                return True
    return False


def _is_no_call(piece: str, offered: set[str]) -> bool:
    inside, closing, _ = piece.partition("</tool_call>")
    try:
        call = json.loads(inside) if closing else None
    except (ValueError, RecursionError):
        return True
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return True
    return bool(offered) and call["name"] not in offered


def _names(tools: str | None) -> Iterator[str]:
    """The names of the tools in their common layouts: a list of them, or one under `tools`; flat or as functions."""
    try:
        found: Any = json.loads(tools) if tools else []
    except (ValueError, RecursionError):
        return
    found = found.get("tools", []) if isinstance(found, dict) else found
    for entry in found if isinstance(found, list) else []:
        own = entry.get("function", entry) if isinstance(entry, dict) else {}
        if isinstance(own, dict) and isinstance(own.get("name"), str):
            yield own["name"]
