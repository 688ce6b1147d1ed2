"""YAML that a person wrote -> plain data in which every value still knows its line.

Stricter than YAML: no aliases, no merge keys, no duplicate keys; keys are text, and so are yes, no, on and off.
What that loses in brevity it wins in errors that name the line, and in files that cannot expand to more than
they hold.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

# Hand-written front matter is a few kB; a larger one is a mistake or an attack on the parser.
MAX_CHARS = 100_000
# Names that an error lists: servers serve hundreds of models, engines take hundreds of arguments.
MAX_NAMES = 40

_SCALARS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null"))


@dataclass(frozen=True, slots=True)
class Marked:
    """`data`, and the line of each value by its path of keys and indices: of a list or mapping that of its key, of a
    block text that of its first line."""

    data: Any
    lines: Mapping[Location, int]

    def line(self, *location: str | int) -> int:
        """The line of the value, else of the nearest one around it."""
        while location not in self.lines and location:
            location = location[:-1]
        return self.lines[location]


class Fault(Exception):  # noqa: N818 (a fault of the file; what a user meets is the error made of it)
    """A fault on a line; the caller knows the file and turns it into its own error."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message


def near(name: str, known: Iterable[str]) -> str:
    """How every error about an unknown name ends: `; did you mean 'x'?`, else `; known: a, b`, of many the first."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    rest = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return f"; known: {', '.join(names[:MAX_NAMES])}{rest}" if names else ""


def read(text: str, first_line: int) -> Marked:
    """Parse `text`, whose first line is `first_line` of its file. Raises Fault."""
    if len(text) > MAX_CHARS:
        raise Fault(first_line, f"{len(text):,} characters of YAML; at most {MAX_CHARS:,} are read")
    lines: dict[Location, int] = {}
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        data = _plain(loader, root, (), lines, first_line) if root else {}
    except yaml.reader.ReaderError as error:
        line = first_line + text.count("\n", 0, error.position)
        raise Fault(line, f"the character {error.character:#04x} cannot stand in YAML") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Fault(first_line + (mark.line if mark else 0), f"not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise Fault(first_line, f"not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise Fault(first_line, "YAML nested too deeply") from error
    return Marked(data, {(): first_line, **lines})


# YAML 1.1 also reads yes, no, on, off as truth, 2020-01-01 as a date, << as a merge; to a person they are text.
_AS_TEXT = frozenset(f"tag:yaml.org,2002:{name}" for name in ("bool", "timestamp", "merge", "value"))


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read; write the value out", problem_mark=mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _AS_TEXT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))


def _plain(loader: _Loader, node: yaml.Node, at: Location, lines: dict[Location, int], first: int) -> Any:
    line = first + node.start_mark.line
    lines[at] = line + (1 if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") else 0)
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(loader, node, at, lines, first)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, child, (*at, i), lines, first) for i, child in enumerate(node.value)]
    if node.tag not in _SCALARS:
        raise Fault(line, f"{node.value!r} is read as {node.tag.rpartition(':')[2]}; put it in quotes to have text")
    try:
        return loader.construct_object(node)
    except ValueError as error:
        raise Fault(line, f"{node.value[:40]!r} is not a number that can be read; put it in quotes") from error


def _plain_mapping(
    loader: _Loader, node: yaml.MappingNode, at: Location, lines: dict[Location, int], first: int
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, child in node.value:
        line = first + key_node.start_mark.line
        if not isinstance(key_node, yaml.ScalarNode) or not key_node.tag.endswith(":str"):
            shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
            raise Fault(line, f"the key {shown} is not text; put it in quotes")
        if key_node.value in found:
            raise Fault(line, f"{key_node.value!r} stands here a second time; keep one")
        found[key_node.value] = _plain(loader, child, (*at, key_node.value), lines, first)
        if not isinstance(child, yaml.ScalarNode):
            lines[(*at, key_node.value)] = line
    return found


def validated(model: type[Model], marked: Marked, models: Callable[[Location], type[BaseModel]]) -> Model:
    """The data as `model`. Raises Fault for the first fault; `models(location)` is the model at a place, whose
    fields are the known keys there."""
    try:
        return model.model_validate(marked.data)
    except ValidationError as error:
        # A misspelt key is unknown and the right one missing: the misspelling is what to show.
        faults = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        location = tuple(faults[0]["loc"])
        raise Fault(marked.line(*location), _reason(faults[0], location, models)) from error


def _reason(error: Any, location: Location, models: Callable[[Location], type[BaseModel]]) -> str:
    where = ".".join(str(part) for part in location) or "the front matter"
    if error["type"] == "extra_forbidden":
        fields = models(location[:-1]).model_fields
        return f"unknown key {where!r}{near(str(location[-1]), [each.alias or name for name, each in fields.items()])}"
    if error["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{where}: unknown value {error['input']!r}{near(str(error['input']), known)}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    if error["type"] == "string_pattern_mismatch":
        return f"{where}: {error['input']!r} has not the form {error['ctx']['pattern']}"
    if error["type"] in ("dict_type", "model_type"):
        return f"{where}: expected `key: value` pairs; found {str(error['input'])[:60]!r}"
    return f"{where}: {error['msg']}; found {str(error['input'])[:60]!r}"
