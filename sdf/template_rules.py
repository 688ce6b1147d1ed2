"""What a prompt template may say: a static reading of its syntax tree, before a line of it runs.

The language is small enough that every template ends, and soon: loops run over lists of at most 200 and nest
twice, nothing multiplies text, nothing is assigned or called but names and range. In return a genre file from
a stranger is data: it can be loaded and rendered like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from jinja2 import nodes

from sdf.frontmatter import Fault, near
from sdf.template_filters import FILTERS, SAMPLES


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Shape


@dataclass(frozen=True, slots=True)
class Absent:
    """A name that templates know, though not here; `why` completes "NAME is not known here: "."""

    why: str


# What is known of a value: TEXT, NUMBER, ANY (whatever a model or a source row put there), a list of one shape,
# or a mapping whose keys are all known.
Shape: TypeAlias = "str | ListOf | Absent | Mapping[str, Shape]"
TEXT, NUMBER, ANY = "text", "number", "any"

NAME_CALLS = ("person", "given", "place", "organisation")
LOOP: Mapping[str, Shape] = {
    "index": NUMBER, "index0": NUMBER, "revindex": NUMBER, "revindex0": NUMBER, "length": NUMBER,
    "first": ANY, "last": ANY,
}  # fmt: skip
TESTS = ("defined", "even", "iterable", "mapping", "none", "number", "odd", "sequence", "string", "undefined")
COMPARISONS = ("eq", "ne", "lt", "lteq", "gt", "gteq", "in", "notin")

MAX_LOOP = 200
MAX_NESTED_LOOPS = 2
MAX_NAME = 200
MAX_ITEMS = 64
MAX_NUMBER = 10**9
MAX_CHARS = 400_000
# Deeper trees meet the 100 indents and 200 brackets at which Python stops compiling.
MAX_DEPTH = 40
# Evaluations; filters, comparisons and sums read a whole text and count 100. A million take about a second.
MAX_WORK = 1_000_000
HEAVY: tuple[type[nodes.Node], ...] = (nodes.Filter, nodes.Compare, nodes.Add)

REFUSED: Mapping[type[nodes.Node], str] = {
    nodes.Mul: "`*` is refused: it can make a text of any size",
    nodes.Pow: "`**` is refused: it can make a number of any size",
    nodes.Concat: "`~` is refused: write the two values side by side",
    nodes.Div: "`/` is refused: prompts count in whole numbers",
    nodes.FloorDiv: "`//` is refused: prompts count in whole numbers",
    nodes.Assign: "`set` is refused: a value that grows in a loop has no bound",
    nodes.AssignBlock: "`set` is refused: a value that grows in a loop has no bound",
    nodes.With: "`with` is refused: name the value where it is used",
    nodes.Macro: "`macro` is refused: it can call itself for ever",
    nodes.CallBlock: "`call` is refused: it can call itself for ever",
    nodes.Include: "`include` is refused: a template reads no other file",
    nodes.Import: "`import` is refused: a template reads no other file",
    nodes.FromImport: "`import` is refused: a template reads no other file",
    nodes.Extends: "`extends` is refused: a template reads no other file",
    nodes.Block: "`block` is refused: a template is one text",
    nodes.FilterBlock: "`filter` blocks are refused: filter a value instead",
    nodes.Dict: "a mapping in braces is refused: compare in an `if` instead",
}


def check(tree: nodes.Template, scope: Mapping[str, Shape] | None) -> None:
    """Raises Fault (line within the template). `scope` None: any variable is allowed, every bound still holds."""
    _check_depth(tree, 0)
    checker = _Checker(scope)
    checker.statements(tree.body, dict(scope or {}), 1, 0)


def literal_text(tree: nodes.Template) -> str:
    """The parts of the template that are sent as they stand."""
    return "".join(part.data for part in tree.find_all(nodes.TemplateData))


def _check_depth(node: nodes.Node, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Fault(node.lineno or 1, f"expressions nested more than {MAX_DEPTH} deep; split them")
    for child in node.iter_child_nodes():
        _check_depth(child, depth + 1)


class _Checker:
    """Reads one template; `times` is how often a node runs at most, `loops` how many loops surround it."""

    def __init__(self, scope: Mapping[str, Shape] | None) -> None:
        self.is_open = scope is None
        self.work = 0
        self.n_chars = 0

    def statements(self, body: list[nodes.Node], scope: dict[str, Shape], times: int, loops: int) -> None:
        for node in body:
            self._spend(node, times)
            handler = _STATEMENTS.get(type(node))
            if handler is None:
                raise _refused(node)
            handler(self, node, scope, times, loops)

    def _spend(self, node: nodes.Node, times: int) -> None:
        self.work += times * (100 if isinstance(node, HEAVY) else 1)
        if self.work > MAX_WORK:
            raise Fault(node.lineno, f"the loops up to here may run for more than {MAX_WORK:,} steps; shorten them")

    def _output(self, node: nodes.Output, scope: dict[str, Shape], times: int, loops: int) -> None:
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                self._emit(part, times)
            else:
                _printable(part, self.expression(part, scope, times))

    def _emit(self, part: nodes.TemplateData, times: int) -> None:
        self.n_chars += len(part.data) * times
        if self.n_chars > MAX_CHARS:
            raise Fault(part.lineno, f"the loops up to here may write more than {MAX_CHARS:,} characters; shorten them")

    def _if(self, node: nodes.If, scope: dict[str, Shape], times: int, loops: int) -> None:
        self.expression(node.test, scope, times)
        for branch in (node.body, node.elif_, node.else_):
            self.statements(list(branch), scope, times, loops)

    def _for(self, node: nodes.For, scope: dict[str, Shape], times: int, loops: int) -> None:
        if loops == MAX_NESTED_LOOPS:
            raise Fault(node.lineno, f"loops nest at most {MAX_NESTED_LOOPS} deep")
        if node.recursive:
            raise Fault(node.lineno, "`recursive` loops are refused: they can run for ever")
        shape, bound = self._iterated(node.iter, scope, times)
        inner = times * bound
        inside = {**scope, **self._targets(node, _item_shape(node, shape), scope), "loop": LOOP}
        if node.test is not None:
            self.expression(node.test, inside, inner)
        self.statements(node.body, inside, inner, loops + 1)
        self.statements(node.else_, scope, times, loops)

    def _iterated(self, node: nodes.Expr, scope: Mapping[str, Shape], times: int) -> tuple[Shape, int]:
        """The shape of what a loop runs over, and how long that is at most."""
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "range":
            return ListOf(NUMBER), _range_bound(node)
        return self.expression(node, scope, times), MAX_LOOP

    def _targets(self, node: nodes.For, item: Shape, scope: Mapping[str, Shape]) -> dict[str, Shape]:
        if isinstance(node.target, nodes.Name):
            targets = {node.target.name: item}
        elif isinstance(node.target, nodes.Tuple) and all(isinstance(name, nodes.Name) for name in node.target.items):
            targets = {name.name: ANY for name in node.target.find_all(nodes.Name)}
        else:
            raise Fault(node.lineno, "a loop variable is a plain name")
        for name in targets:
            if name in scope or name in ("loop", "range", "names"):
                raise Fault(node.lineno, f"the loop variable {name!r} hides another of that name; rename it")
        return targets

    def expression(self, node: nodes.Expr, scope: Mapping[str, Shape], times: int) -> Shape:
        self._spend(node, times)
        handler = _EXPRESSIONS.get(type(node))
        if handler is None:
            raise _refused(node)
        return handler(self, node, scope, times)

    def _name(self, node: nodes.Name, scope: Mapping[str, Shape], times: int) -> Shape:
        if node.name.startswith("_"):
            raise Fault(node.lineno, f"{node.name!r} is refused: names that begin with `_` are not for templates")
        if node.name == "names":
            raise Fault(node.lineno, "`names` is called: " + ", ".join(f"names.{call}(1)" for call in NAME_CALLS))
        if self.is_open:
            return scope.get(node.name, ANY)
        return _known(node, scope, node.name, f"nothing here is called {node.name!r}")

    def _getattr(self, node: nodes.Getattr, scope: Mapping[str, Shape], times: int) -> Shape:
        return _field(node, self.expression(node.node, scope, times), node.attr)

    def _getitem(self, node: nodes.Getitem, scope: Mapping[str, Shape], times: int) -> Shape:
        shape = self.expression(node.node, scope, times)
        if isinstance(node.arg, nodes.Slice):
            for part in (node.arg.start, node.arg.stop, node.arg.step):
                if part is not None and _number(part) is None:
                    raise Fault(node.lineno, "a slice is written with plain numbers, as in [:5]")
            return shape
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return _field(node, shape, node.arg.value)
        if _number(node.arg) is None:
            raise Fault(node.lineno, "an index is a plain number or text, as in [0] or ['a name']")
        return shape.item if isinstance(shape, ListOf) else ANY

    def _call(self, node: nodes.Call, scope: Mapping[str, Shape], times: int) -> Shape:
        called = node.node
        if node.kwargs or node.dyn_args is not None or node.dyn_kwargs is not None:
            raise Fault(node.lineno, "calls take plain numbers only")
        if isinstance(called, nodes.Name) and called.name == "range":
            raise Fault(node.lineno, "`range` stands only behind `in` of a loop")
        if isinstance(called, nodes.Getattr) and isinstance(called.node, nodes.Name) and called.node.name == "names":
            return self._names_call(node, called.attr, scope, times)
        raise Fault(node.lineno, "only names.person(1) and its like, and range, can be called")

    def _names_call(self, node: nodes.Call, call: str, scope: Mapping[str, Shape], times: int) -> Shape:
        if not self.is_open:
            _known(node, scope, "names", "nothing here is called 'names'")
        if call not in NAME_CALLS:
            raise Fault(node.lineno, f"names has no {call!r}{near(call, NAME_CALLS)}")
        if len(node.args) != 1 or self.expression(node.args[0], scope, times) not in (NUMBER, ANY):
            raise Fault(node.lineno, f"names.{call} takes one whole number, counted from 1")
        number = _number(node.args[0])
        if number is not None and not 1 <= number <= MAX_NAME:
            raise Fault(node.lineno, f"names.{call}({number}): names are numbered from 1 to {MAX_NAME}")
        return TEXT

    def _filter(self, node: nodes.Filter, scope: Mapping[str, Shape], times: int) -> Shape:
        if node.name not in FILTERS:
            raise Fault(node.lineno, f"there is no filter {node.name!r} here{near(node.name, FILTERS)}")
        if node.node is None or node.dyn_args is not None or node.dyn_kwargs is not None:
            raise Fault(node.lineno, f"the filter {node.name!r} takes plain values only")
        shape = self.expression(node.node, scope, times)
        args = [_constant(argument) for argument in node.args]
        named = {pair.key: _constant(pair.value) for pair in node.kwargs}
        try:
            FILTERS[node.name](SAMPLES[node.name], *args, **named)
        except ValueError as error:
            raise Fault(node.lineno, str(error)) from error
        return _filtered(node, shape)

    def _test(self, node: nodes.Test, scope: Mapping[str, Shape], times: int) -> Shape:
        if node.name not in TESTS:
            raise Fault(node.lineno, f"there is no test {node.name!r} here{near(node.name, TESTS)}")
        if node.args or node.kwargs:
            raise Fault(node.lineno, f"the test {node.name!r} takes no arguments")
        self.expression(node.node, scope, times)
        return ANY

    def _compare(self, node: nodes.Compare, scope: Mapping[str, Shape], times: int) -> Shape:
        self.expression(node.expr, scope, times)
        for operand in node.ops:
            if operand.op not in COMPARISONS:
                raise _refused(operand)
            self.expression(operand.expr, scope, times)
        return ANY

    def _either(self, node: nodes.BinExpr, scope: Mapping[str, Shape], times: int) -> Shape:
        left, right = self.expression(node.left, scope, times), self.expression(node.right, scope, times)
        return left if left == right else ANY

    def _add(self, node: nodes.Add, scope: Mapping[str, Shape], times: int) -> Shape:
        shape = self._either(node, scope, times)
        if shape not in (TEXT, NUMBER, ANY):
            raise Fault(node.lineno, "`+` joins two texts or adds two numbers")
        return shape

    def _arithmetic(self, node: nodes.BinExpr, scope: Mapping[str, Shape], times: int) -> Shape:
        shapes = [self.expression(side, scope, times) for side in (node.left, node.right)]
        if not all(shape in (NUMBER, ANY) for shape in shapes):
            raise Fault(node.lineno, f"`{node.operator}` works on whole numbers only")
        return NUMBER

    def _unary(self, node: nodes.UnaryExpr, scope: Mapping[str, Shape], times: int) -> Shape:
        return self.expression(node.node, scope, times)

    def _inline_if(self, node: nodes.CondExpr, scope: Mapping[str, Shape], times: int) -> Shape:
        if node.expr2 is None:
            raise Fault(node.lineno, "an `if` within {{ }} needs its `else`")
        self.expression(node.test, scope, times)
        first, second = self.expression(node.expr1, scope, times), self.expression(node.expr2, scope, times)
        return first if first == second else ANY

    def _const(self, node: nodes.Const, scope: Mapping[str, Shape], times: int) -> Shape:
        if isinstance(node.value, str):
            return TEXT
        if isinstance(node.value, int) and node.value > MAX_NUMBER:
            raise Fault(node.lineno, f"a number above {MAX_NUMBER:,}")
        return NUMBER if isinstance(node.value, int) and not isinstance(node.value, bool) else ANY

    def _sequence(self, node: nodes.List | nodes.Tuple, scope: Mapping[str, Shape], times: int) -> Shape:
        for item in node.items:
            self.expression(item, scope, times)
        return ListOf(ANY)


_STATEMENTS: Mapping[type[nodes.Node], Callable[..., None]] = {
    nodes.Output: _Checker._output,
    nodes.If: _Checker._if,
    nodes.For: _Checker._for,
}
_EXPRESSIONS: Mapping[type[nodes.Node], Callable[..., Shape]] = {
    nodes.Add: _Checker._add,
    nodes.And: _Checker._either,
    nodes.Call: _Checker._call,
    nodes.Compare: _Checker._compare,
    nodes.CondExpr: _Checker._inline_if,
    nodes.Const: _Checker._const,
    nodes.Filter: _Checker._filter,
    nodes.Getattr: _Checker._getattr,
    nodes.Getitem: _Checker._getitem,
    nodes.List: _Checker._sequence,
    nodes.Mod: _Checker._arithmetic,
    nodes.Name: _Checker._name,
    nodes.Neg: _Checker._unary,
    nodes.Not: _Checker._unary,
    nodes.Or: _Checker._either,
    nodes.Sub: _Checker._arithmetic,
    nodes.Test: _Checker._test,
    nodes.Tuple: _Checker._sequence,
}


def _refused(node: nodes.Node) -> Fault:
    reason = REFUSED.get(type(node), f"`{type(node).__name__.lower()}` is not part of the template language here")
    return Fault(node.lineno or 1, reason)


def _field(node: nodes.Getattr | nodes.Getitem, shape: Shape, name: str) -> Shape:
    shown = _shown(node.node)
    if name.startswith("_"):
        raise Fault(node.lineno, f"{shown}.{name} is refused: names that begin with `_` are not for templates")
    if isinstance(shape, Mapping):
        return _known(node, shape, name, f"{shown} has no {name!r}")
    if shape != ANY:
        kind = "a list" if isinstance(shape, ListOf) else "text" if shape == TEXT else "a number"
        raise Fault(node.lineno, f"{shown} is {kind} and has no {name!r}")
    return ANY


def _known(node: nodes.Node, shapes: Mapping[str, Shape], name: str, otherwise: str) -> Shape:
    shape = shapes.get(name)
    if isinstance(shape, Absent):
        raise Fault(node.lineno, f"{name!r} is not known here: {shape.why}")
    if shape is None:
        present = [known for known, each in shapes.items() if not isinstance(each, Absent)]
        raise Fault(node.lineno, otherwise + near(name, present))
    return shape


def _shown(node: nodes.Node) -> str:
    if isinstance(node, nodes.Name):
        return node.name
    return f"{_shown(node.node)}.{node.attr}" if isinstance(node, nodes.Getattr) else "this"


def _printable(node: nodes.Expr, shape: Shape) -> None:
    if isinstance(shape, ListOf):
        raise Fault(node.lineno, "a list is not printed as it is; loop over it, or use |join(', ') or |tojson")
    if isinstance(shape, Mapping):
        raise Fault(node.lineno, f"{_shown(node)} is not a text; it has {', '.join(shape) or 'nothing'}")


def _item_shape(node: nodes.For, shape: Shape) -> Shape:
    if isinstance(shape, ListOf):
        return shape.item
    if shape == ANY:
        return ANY
    raise Fault(node.lineno, "a loop runs over a list; this is " + (shape if isinstance(shape, str) else "a mapping"))


def _filtered(node: nodes.Filter, shape: Shape) -> Shape:
    if node.name in ("length", "wordcount"):
        return NUMBER
    if node.name in ("sort", "unique", "reverse"):
        return shape
    if node.name in ("first", "last"):
        return shape.item if isinstance(shape, ListOf) else ANY
    return ANY if node.name == "default" else TEXT


def _number(node: nodes.Node | None) -> int | None:
    """The value of a plain, perhaps negative, whole number; None for anything else."""
    if isinstance(node, nodes.Neg):
        number = _number(node.node)
        return None if number is None else -number
    is_whole = isinstance(node, nodes.Const) and isinstance(node.value, int) and not isinstance(node.value, bool)
    return node.value if is_whole else None


def _constant(node: nodes.Expr) -> Any:
    number = _number(node)
    if number is None and not isinstance(node, nodes.Const):
        raise Fault(node.lineno, "a filter takes plain values, as in |join(', ')")
    return node.value if isinstance(node, nodes.Const) else number


def _range_bound(node: nodes.Call) -> int:
    """How many numbers the range holds at most. Only what is known before it runs may bound it."""
    ends = [_ends(argument) for argument in node.args]
    if (
        node.kwargs
        or node.dyn_args is not None
        or node.dyn_kwargs is not None
        or None in ends
        or not 1 <= len(ends) <= 2
    ):
        raise Fault(node.lineno, "range takes one or two of: a plain number, n_items, their sum or difference")
    known = [end for end in ends if end is not None]
    bound = known[-1][1] - (known[0][0] if len(known) == 2 else 0)
    if bound > MAX_LOOP:
        raise Fault(node.lineno, f"the range holds {bound:,} numbers; a loop runs at most {MAX_LOOP} times")
    return max(bound, 0)


def _ends(node: nodes.Expr) -> tuple[int, int] | None:
    """The lowest and the highest value an argument of range can take; None when that is not known."""
    number = _number(node)
    if number is not None:
        return number, number
    if isinstance(node, nodes.Name) and node.name == "n_items":
        return 1, MAX_ITEMS
    if not isinstance(node, nodes.Add | nodes.Sub):
        return None
    left, right = _ends(node.left), _ends(node.right)
    if left is None or right is None:
        return None
    low, high = right if isinstance(node, nodes.Add) else (-right[1], -right[0])
    return left[0] + low, left[1] + high
