"""What an engine may write where a step asks for a list, a score or JSON, so that what it writes can be read.

Up to the opening tag the model writes what it likes, since a judge that may not think judges worse; from there on
only what `answers` reads is possible, and then the end. Nothing is counted in characters: bounded repetitions cost
10 s to compile and 0.2-1 ms a token at a vocabulary of 200,000, these forms 0.1 s and 5-70 µs. The trade-off: a model
that never comes to its tag is cut off at `max_tokens`, as it would be without a constraint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from sdf.answers import ROLES
from sdf.records import Request, Returns, Wants, canonical_json

Format = dict[str, Any]

MANY_SCORES = 1_000

# Not the start of an item: what `answers` strips, a tag, and emphasis with nothing in it.
_ITEM = r'item ::= [^ \t\r\n<*] [^\n<]* "\n"'

# Escapes by number are left out: half of a pair of them parses and can be written to no file. Looking ahead to what
# follows a string makes its tokens three times as fast to judge.
_JSON = r"""
string ::= "\"" rest
rest ::= ("\"" | [^"\\\x00-\x1f] rest | "\\" ["\\/bfnrt] rest) (= " "? [,}\]:])
ws ::= " "?
"""
_OBJECT = r"""
root ::= "{" ws pair (ws "," ws pair)* ws "}"
pair ::= string ws ":" ws value
value ::= root | "{}" | "[]" | "[" ws value (ws "," ws value)* ws "]" | string | number | "true" | "false" | "null"
number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [-+]? [0-9]+)?
"""
# What is said begins with what shows.
_MESSAGES = rf"""
root ::= "[" ws message (ws "," ws message)* ws "]"
message ::= "{{" ws "\"role\"" ws ":" ws "\"" role "\"" ws "," ws content ws "}}"
role ::= {" | ".join(f'"{role}"' for role in ROLES)}
content ::= "\"content\"" ws ":" ws "\"" [^"\\\x00-\x1f \x7f-\xa0] rest
"""
# Indentation is tokens that nobody reads, and a model may loop on it.
MAX_WHITESPACE = 1


def constraint(request: Request) -> str | None:
    """xgrammar's structural tag (a JSON text) for an answer to the request; None where text of any form will do."""
    wants = request.wants
    if wants.returns == "text":
        return None
    return _constraint(wants.returns, wants.tag, wants.n_items, wants.lowest, wants.highest, request.schema)


@lru_cache(maxsize=1_024)
def _constraint(returns: Returns, tag: str | None, n_items: int, lowest: int, highest: int, schema: str | None) -> str:
    wants = Wants(returns, n_items=n_items, tag=tag, lowest=lowest, highest=highest)
    content = _CONTENTS[returns](wants, schema)
    return canonical_json({"type": "structural_tag", "format": content if tag is None else _tagged(tag, content)})


def _tagged(tag: str, content: Format) -> Format:
    """Any text, once the tag and its content, and nothing more."""
    opening = f"<{tag}>"
    inside = {"type": "tag", "begin": opening, "content": content, "end": f"</{tag}>"}
    return {"type": "sequence", "elements": [{"type": "any_text", "excludes": [opening]}, inside]}


def _list(wants: Wants, _: str | None) -> Format:
    """Exactly the number asked for, numbered, one to a line."""
    items = " ".join(f'"{number}. " item' for number in range(1, wants.n_items + 1))
    first = r'"\n"? ' if wants.tag else ""
    return {"type": "grammar", "grammar": f"root ::= {first}{items}\n{_ITEM}"}


def _score(wants: Wants, _: str | None) -> Format:
    """Each score by itself; of very many any number, which may then lie outside and be unusable."""
    scores = range(wants.lowest, wants.highest + 1)
    return {"type": "regex", "pattern": "|".join(map(str, scores)) if len(scores) <= MANY_SCORES else "[0-9]{1,6}"}


def _messages(_: Wants, schema: str | None) -> Format:
    return _of_schema(schema) if schema else {"type": "grammar", "grammar": _MESSAGES + _JSON}


def _object(_: Wants, schema: str | None) -> Format:
    return _of_schema(schema) if schema else {"type": "grammar", "grammar": _OBJECT + _JSON}


def _of_schema(schema: str) -> Format:
    return {"type": "json_schema", "json_schema": json.loads(schema), "max_whitespace_cnt": MAX_WHITESPACE}


_CONTENTS: Mapping[Returns, Callable[[Wants, str | None], Format]] = {
    "list": _list,
    "score": _score,
    "messages": _messages,
    "json": _object,
}
