"""The filters a prompt template may use: each linear in its input, so that no chain of them can explode.

A filter checks its own arguments and raises ValueError with the reason; the static check calls it once with
an empty value, so that a bad argument is found when the file is loaded and refused again when it runs.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Undefined

# The longest text a filter returns: 4 MB, some eight times the longest prompt.
MAX_CHARS = 4_000_000
MAX_WIDTH = 16
MAX_SEPARATOR = 64


def _join(value: Sequence[Any], separator: str = "") -> str:
    if len(separator) > MAX_SEPARATOR:
        raise ValueError(f"joins with {len(separator):,} characters; at most {MAX_SEPARATOR}")
    return separator.join(str(item) for item in _listed(value))


def _indent(value: str, width: int | str = 4, first: bool = False) -> str:
    margin = " " * min(width, MAX_WIDTH + 1) if isinstance(width, int) else width
    if len(margin) > MAX_WIDTH:
        raise ValueError(f"indents by at most {MAX_WIDTH} characters")
    indented = textwrap.indent(_text(value), margin)
    return indented if first else indented[len(margin) :] if indented.startswith(margin) else indented


def _replace(value: str, old: str, new: str) -> str:
    if not old or len(new) > len(old):
        raise ValueError("replaces a text by one that is no longer (`indent('> ')` puts a mark before every line)")
    return _text(value).replace(old, new)


def _truncate(value: str, length: int) -> str:
    if length < 1:
        raise ValueError("keeps 1 character or more")
    text = _text(value)
    return text if len(text) <= length else text[:length].rsplit(" ", 1)[0].rstrip() + " …"


def _default(value: Any, other: str | int | float | bool) -> Any:
    return other if isinstance(value, Undefined) or value is None else value


def _tojson(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _first(value: Sequence[Any]) -> Any:
    return value[0]


def _last(value: Sequence[Any]) -> Any:
    return value[-1]


def _reverse(value: Sequence[Any]) -> Any:
    return value[::-1]


def _unique(value: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(_listed(value)))


def _sort(value: Sequence[Any]) -> list[Any]:
    return sorted(_listed(value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"works on text; this is a {type(value).__name__}")  # noqa: TRY004 (one kind of fault)
    return value


def _listed(value: Sequence[Any]) -> Sequence[Any]:
    if isinstance(value, str):
        raise ValueError("works on a list; this is text")  # noqa: TRY004 (one kind of fault)
    return value


def _on_text(method: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: method(_text(value))


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def filtered(value: Any, *args: Any, **named: Any) -> Any:
        if isinstance(value, Undefined) and name != "default":
            str(value)  # raises, with the name of what is undefined
        try:
            result = function(value, *args, **named)
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f"the filter {name!r}: {error}") from error
        if isinstance(result, str) and len(result) > MAX_CHARS:
            raise ValueError(f"the filter {name!r} made a text of more than {MAX_CHARS:,} characters")
        return result

    return filtered


# name -> (function, the value its arguments are tried on when a file is loaded)
_TABLE: Mapping[str, tuple[Callable[..., Any], Any]] = {
    "capitalize": (_on_text(str.capitalize), ""),
    "default": (_default, ""),
    "first": (_first, [""]),
    "indent": (_indent, ""),
    "join": (_join, []),
    "last": (_last, [""]),
    "length": (len, ""),
    "lower": (_on_text(str.lower), ""),
    "replace": (_replace, ""),
    "reverse": (_reverse, ""),
    "sort": (_sort, []),
    "tojson": (_tojson, ""),
    "trim": (_on_text(str.strip), ""),
    "truncate": (_truncate, ""),
    "unique": (_unique, []),
    "upper": (_on_text(str.upper), ""),
    "wordcount": (_on_text(lambda text: len(text.split())), ""),
}

FILTERS: Mapping[str, Callable[..., Any]] = {name: _bounded(name, function) for name, (function, _) in _TABLE.items()}
SAMPLES: Mapping[str, Any] = {name: sample for name, (_, sample) in _TABLE.items()}
