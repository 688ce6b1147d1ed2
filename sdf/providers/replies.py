"""What the protocols of models share: who answered, how tools are written and called, how tokens are counted."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

from sdf.answers import is_deep, no_constant
from sdf.records import canonical_json

# Tokens of one answer beyond which a count is none: what is kept has 64 bits, and sums of it.
MOST_TOKENS = 10**12

_DATED = re.compile(r"[-@]\d[\d-]*")


def answered_by(asked: str, reported: object) -> str:
    """The model asked for, unless another answered: a dated version of it is not another, nor is a name that cannot be
    shown: a lone surrogate, which no file can hold, or a control character."""
    if not isinstance(reported, str) or not reported or not reported.isprintable():
        return asked
    base = asked.removesuffix("-latest")
    is_version = reported == base or (reported.startswith(base) and _DATED.fullmatch(reported[len(base) :]))
    return asked if is_version else reported


@lru_cache(maxsize=256)
def as_tools(tools: str, schema_key: Literal["input_schema", "parameters"]) -> list[dict[str, Any]]:
    """Tool definitions, in whichever of the two shapes a genre wrote them, in the one that is asked for."""
    found: list[dict[str, Any]] = []
    for each in json.loads(tools):
        tool = each.get("function", each)
        schema = tool.get("input_schema") or tool.get("parameters") or {"type": "object"}
        plain = {"name": tool["name"], "description": tool.get("description", ""), schema_key: schema}
        found.append(plain if schema_key == "input_schema" else {"type": "function", "function": plain})
    return found


def arguments_of(written: object) -> Any:
    """What a call is given, which comes as a JSON text: a model's, that stays the text it is where it is no JSON, or
    none that a file can hold."""
    if isinstance(written, str):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(written, parse_constant=no_constant)
            canonical_json(found).encode()
            return written if is_deep(found) else found
    return written


def as_object(value: object) -> dict[str, Any]:
    """A JSON object as it is, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def counts(usage: object) -> Callable[[str], int]:
    """Reads a count by its name; 0 where the server gives none that can be one."""
    found = as_object(usage)

    def count(name: str) -> int:
        value = found.get(name)
        return value if isinstance(value, int) and 0 < value <= MOST_TOKENS else 0

    return count
