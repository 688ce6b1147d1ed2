"""What is known of the values a template names, before there are any: enough to find a typo and to bound a loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from jinja2 import nodes

from sdf.frontmatter import Fault, near


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Shape


@dataclass(frozen=True, slots=True)
class Absent:
    """A name that templates know, though not here; `why` completes "NAME is not known here: "."""

    why: str


# TEXT, NUMBER, ANY (whatever a model or a source row put there), a list of one shape, or a mapping whose keys
# are all known.
Shape: TypeAlias = "str | ListOf | Absent | Mapping[str, Shape]"
TEXT, NUMBER, ANY = "text", "number", "any"

NAME_CALLS = ("person", "given", "place", "organisation")
_COUNTS = ("index", "index0", "revindex", "revindex0", "length")
LOOP: Mapping[str, Shape] = {**dict.fromkeys(_COUNTS, NUMBER), "first": ANY, "last": ANY}

MAX_LOOP = 200
MAX_ITEMS = 64
MAX_NAME = 200
MAX_NUMBER = 10**9


def member(node: nodes.Getattr | nodes.Getitem, shape: Shape, name: str) -> Shape:
    """The shape of `node.name`. Raises Fault for a name that is private or not there."""
    owner = shown(node.node)
    if name.startswith("_"):
        raise Fault(node.lineno, f"{owner}.{name} is refused: names that begin with `_` are not for templates")
    if isinstance(shape, Mapping):
        return known(node, shape, name, f"{owner} has no {name!r}")
    if shape != ANY:
        raise Fault(node.lineno, f"{owner} is {kind(shape)} and has no {name!r}")
    return ANY


def known(node: nodes.Node, shapes: Mapping[str, Shape], name: str, otherwise: str) -> Shape:
    shape = shapes.get(name)
    if isinstance(shape, Absent):
        raise Fault(node.lineno, f"{name!r} is not known here: {shape.why}")
    if shape is None:
        present = [other for other, each in shapes.items() if not isinstance(each, Absent)]
        raise Fault(node.lineno, otherwise + near(name, present))
    return shape


def shown(node: nodes.Node) -> str:
    if isinstance(node, nodes.Name):
        return node.name
    return f"{shown(node.node)}.{node.attr}" if isinstance(node, nodes.Getattr) else "this"


def kind(shape: Shape) -> str:
    if isinstance(shape, ListOf):
        return "a list"
    return {TEXT: "text", NUMBER: "a number"}.get(shape, "a value") if isinstance(shape, str) else "a mapping"


def check_printable(node: nodes.Expr, shape: Shape) -> None:
    if isinstance(shape, ListOf):
        raise Fault(node.lineno, "a list is not printed as it is; loop over it, or use |join(', ') or |tojson")
    if isinstance(shape, Mapping):
        raise Fault(node.lineno, f"{shown(node)} is not text; name one of its parts: {', '.join(shape) or 'none'}")


def item(node: nodes.For, shape: Shape) -> Shape:
    """What a loop over `shape` meets."""
    if isinstance(shape, ListOf):
        return shape.item
    if shape != ANY:
        raise Fault(node.lineno, f"a loop runs over a list; {shown(node.iter)} is {kind(shape)}")
    return ANY


def filtered(name: str, shape: Shape) -> Shape:
    """The shape of `shape|name`."""
    if name in ("sort", "unique", "reverse"):
        return shape
    if name in ("first", "last"):
        return shape.item if isinstance(shape, ListOf) else ANY
    if name == "default":
        return ANY
    return NUMBER if name in ("length", "wordcount") else TEXT


def number(node: nodes.Node | None) -> int | None:
    """The value of a plain, perhaps negative, whole number; None for anything else."""
    if isinstance(node, nodes.Neg):
        positive = number(node.node)
        return None if positive is None else -positive
    if isinstance(node, nodes.Const) and isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    return None


def range_bound(node: nodes.Call) -> int:
    """How many numbers the range holds at most; only what is known before it runs may bound it."""
    ends = [_ends(argument) for argument in node.args]
    known_ends = [end for end in ends if end is not None]
    if len(known_ends) != len(ends) or not 1 <= len(ends) <= 2 or has_other_arguments(node):
        raise Fault(node.lineno, "range takes one or two of: a plain number, n_items, their sum or difference")
    bound = known_ends[-1][1] - (known_ends[0][0] if len(known_ends) == 2 else 0)
    if bound > MAX_LOOP:
        raise Fault(node.lineno, f"the range holds {bound:,} numbers; a loop runs at most {MAX_LOOP} times")
    return max(bound, 0)


def has_other_arguments(node: nodes.Call) -> bool:
    return bool(node.kwargs) or node.dyn_args is not None or node.dyn_kwargs is not None


def _ends(node: nodes.Node) -> tuple[int, int] | None:
    """The lowest and the highest value of an argument of range; None when they are not known."""
    plain = number(node)
    if plain is not None:
        return plain, plain
    if isinstance(node, nodes.Name) and node.name == "n_items":
        return 1, MAX_ITEMS
    if not isinstance(node, nodes.Add | nodes.Sub):
        return None
    left, right = _ends(node.left), _ends(node.right)
    if left is None or right is None:
        return None
    low, high = right if isinstance(node, nodes.Add) else (-right[1], -right[0])
    return left[0] + low, left[1] + high
