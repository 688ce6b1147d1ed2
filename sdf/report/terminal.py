"""Text that a model or a user made, on its way to a terminal."""

from __future__ import annotations

import re

# C0, DEL and C1 controls but newline and tab (cursor moves, colours, clipboard), line separators that forge a
# line, bidirectional overrides that reorder what is read, and lone surrogates, which no stream can encode.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """The text with every character that could steer a terminal shown as `�`; newlines and tabs stay."""
    return _UNSAFE.sub("\ufffd", text.replace("\r\n", "\n"))


def plain_json(text: str) -> str:
    """JSON on one line with each such character as its escape: the same data."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain_line(text: str) -> str:
    """The same on one line."""
    return " ".join(plain(text).split())
