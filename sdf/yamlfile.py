"""YAML from others, read safely and with line numbers, so that every error can point at its place.

Refused: duplicate keys, anchors and aliases (a 1 kB file can expand to gigabytes), files above 1 MB, anything
but plain mappings, lists and scalars.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sdf.errors import UsageError

MAX_BYTES = 1_000_000


def nearest(name: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: the nearest known one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names) or 'none'}"


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A mapping with the line of every key and list item; `lines` maps a key path to a line from 1."""

    path: str
    data: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    def line(self, *where: str) -> int:
        """The line of a key path, or of its nearest enclosing one."""
        for end in range(len(where), 0, -1):
            if where[:end] in self.lines:
                return self.lines[where[:end]]
        return self.lines.get((), 1)

    @classmethod
    def read(cls, path: Path, error: type[UsageError]) -> YamlFile:
        """Raises `error` for a file that is missing, too large or no mapping."""
        try:
            data = path.read_bytes()
            text = data.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as cause:
            raise error(f"{path}: cannot be read as UTF-8 text ({cause})") from None
        return cls.parse(text, str(path), error)

    @classmethod
    def parse(cls, text: str, path: str, error: type[UsageError], first_line: int = 1) -> YamlFile:
        """As `read`, for a text that begins at `first_line` of the file."""
        if len(text) > MAX_BYTES:
            raise error(f"{path}:{first_line}: {len(text):,} characters of YAML; at most {MAX_BYTES:,} are read")
        reader = _Reader(path, error, first_line)
        try:
            root = yaml.compose(text, Loader=_NoAliases)
        except yaml.MarkedYAMLError as cause:
            mark = cause.problem_mark or cause.context_mark
            line = (mark.line if mark else 0) + first_line
            raise error(f"{path}:{line}: not valid YAML: {cause.problem or cause.context}") from None
        except yaml.YAMLError as cause:
            raise error(f"{path}:{first_line}: not valid YAML: {cause}") from None
        if not isinstance(root, yaml.MappingNode):
            raise error(f"{path}:{first_line}: expected `key: value` lines, found {_kind(root)}")
        return cls(path, reader.mapping(root, ()), reader.lines)


class _NoAliases(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed here", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


class _Reader:
    """Builds values from nodes, keeping lines and refusing what safe YAML still allows."""

    def __init__(self, path: str, error: type[UsageError], first_line: int) -> None:
        self.lines: dict[tuple[str, ...], int] = {(): first_line}
        self._path, self._error, self._first = path, error, first_line
        self._scalars = yaml.SafeLoader("")

    def mapping(self, node: yaml.MappingNode, where: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + self._first
            key = self._value(key_node, where)
            if not isinstance(key, str | int | float | bool):
                raise self._error(f"{self._path}:{line}: a key must be a plain word")
            name = str(key_node.value)
            if name in found:
                raise self._error(f"{self._path}:{line}: key {name!r} stands twice")
            self.lines[(*where, name)] = line
            found[name] = self._value(value_node, (*where, name))
        return found

    def _value(self, node: yaml.Node, where: tuple[str, ...]) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            items: list[Any] = []
            for number, item in enumerate(node.value):
                self.lines[(*where, str(number))] = item.start_mark.line + self._first
                items.append(self._value(item, (*where, str(number))))
            return items
        try:
            return self._scalars.construct_object(node, deep=True)
        except yaml.MarkedYAMLError as cause:
            line = node.start_mark.line + self._first
            raise self._error(f"{self._path}:{line}: {cause.problem}") from None
        except ValueError as cause:
            raise self._error(f"{self._path}:{node.start_mark.line + self._first}: {cause}") from None


def _kind(node: yaml.Node | None) -> str:
    return "nothing" if node is None else {"SequenceNode": "a list", "ScalarNode": "a single value"}[type(node).__name__]
