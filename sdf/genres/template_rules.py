"""What a prompt template may say: a static reading of its syntax tree, before a line of it runs.

The language is small enough that every template ends, and soon: loops run over lists of at most 200 and nest
twice, nothing multiplies text, nothing is assigned, and nothing is called but names and range. In return a
genre file from a stranger is data: it can be loaded and rendered like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import nodes

from sdf.frontmatter import Fault, near
from sdf.genres.template_filters import FILTERS, SAMPLES
from sdf.genres.template_shapes import (
    ANY,
    LOOP,
    MAX_LOOP,
    MAX_NAME,
    MAX_NUMBER,
    NAME_CALLS,
    NUMBER,
    TEXT,
    Absent,
    ListOf,
    Shape,
    check_printable,
    filtered,
    has_other_arguments,
    item,
    known,
    member,
    number,
    range_bound,
    shown,
)

TESTS = ("defined", "even", "iterable", "mapping", "none", "number", "odd", "sequence", "string", "undefined")
COMPARISONS = ("eq", "ne", "lt", "lteq", "gt", "gteq", "in", "notin")

MAX_CHARS = 400_000
MAX_NESTED_LOOPS = 2
# Deeper trees meet the 100 indents and 200 brackets at which Python stops compiling.
MAX_DEPTH = 40
# Evaluations; filters, comparisons and sums read a whole text and count 100. A million take a second or two.
MAX_WORK = 1_000_000
_HEAVY: tuple[type[nodes.Node], ...] = (nodes.Filter, nodes.Compare, nodes.Add)
# Python warns where it can tell that a value written out has no parts, so parts are taken of these alone.
_WITH_PARTS = (nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Filter)

_NO_FILES = "is refused: a template reads no other file"
_ENDLESS = "is refused: it can call itself for ever"
_GROWS = "is refused: a value that grows in a loop has no bound; name the value where it is used"
_REFUSED: Mapping[type[nodes.Node], str] = {
    nodes.Assign: f"`set` {_GROWS}",
    nodes.AssignBlock: f"`set` {_GROWS}",
    nodes.Block: "`block` is refused: a template is one text",
    nodes.CallBlock: f"`call` {_ENDLESS}",
    nodes.Concat: "`~` is refused: write the two values side by side",
    nodes.Dict: "a mapping in braces is refused: compare in an `if` instead",
    nodes.Div: "`/` is refused: prompts count in whole numbers",
    nodes.Extends: f"`extends` {_NO_FILES}",
    nodes.FilterBlock: "a `filter` block is refused: filter a value instead",
    nodes.FloorDiv: "`//` is refused: prompts count in whole numbers",
    nodes.FromImport: f"`import` {_NO_FILES}",
    nodes.Import: f"`import` {_NO_FILES}",
    nodes.Include: f"`include` {_NO_FILES}",
    nodes.Macro: f"`macro` {_ENDLESS}",
    nodes.Mul: "`*` is refused: it can make a text of any size",
    nodes.Pow: "`**` is refused: it can make a number of any size",
    nodes.Scope: "`autoescape` is refused: prompts are plain text",
    nodes.With: f"`with` {_GROWS}",
}


_NO_LOOP = Absent("the `if` of a loop runs before the loop counts")


def check(tree: nodes.Template, scope: Mapping[str, Shape] | None) -> None:
    """Raises Fault (line within the template). `scope` None: any variable will do, every bound still holds."""
    _check_depth(tree, 0)
    _Reader(scope or {}, scope is None, 1, 0, _Spent()).statements(tree.body)


def check_mentions(tree: nodes.Template, text: str) -> None:
    """Raises Fault unless `text` is among what is sent as it stands."""
    if text and not any(text in part.data for part in tree.find_all(nodes.TemplateData)):
        raise Fault(1, f"the prompt never mentions {text}, where its answer is looked for; ask for the answer in it")


def _check_depth(node: nodes.Node, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Fault(node.lineno or 1, f"nested more than {MAX_DEPTH} deep; split it")
    for child in node.iter_child_nodes():
        _check_depth(child, depth + 1)


def _refused(node: nodes.Node) -> Fault:
    otherwise = f"`{type(node).__name__.lower()}` is not part of the template language here"
    # The parser gives some blocks no line; what is within them has one.
    line = node.lineno or min((each.lineno for each in node.find_all(nodes.Node) if each.lineno), default=1)
    return Fault(line, _REFUSED.get(type(node), otherwise))


def _constant(node: nodes.Expr) -> Any:
    plain = number(node)
    if plain is None and not isinstance(node, nodes.Const):
        raise Fault(node.lineno, "a filter takes plain values, as in |join(', ')")
    return node.value if isinstance(node, nodes.Const) else plain


@dataclass(slots=True)
class _Spent:
    """What the template may do at most, summed over all of it."""

    work: int = 0
    n_chars: int = 0

    def add_work(self, node: nodes.Node, times: int) -> None:
        self.work += times * (100 if isinstance(node, _HEAVY) else 1)
        if self.work > MAX_WORK:
            raise Fault(node.lineno, f"the loops up to here may take more than {MAX_WORK:,} steps; shorten them")

    def add_text(self, part: nodes.TemplateData, times: int) -> None:
        self.n_chars += len(part.data) * times
        if self.n_chars > MAX_CHARS:
            raise Fault(part.lineno, f"the loops up to here may write more than {MAX_CHARS:,} characters")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a part that runs at most `times` times, within `loops` loops. `is_open`: any variable is known."""

    scope: Mapping[str, Shape]
    is_open: bool
    times: int
    loops: int
    spent: _Spent

    def statements(self, body: Iterable[nodes.Node]) -> None:
        for node in body:
            self.spent.add_work(node, self.times)
            handler = _STATEMENTS.get(type(node))
            if handler is None:
                raise _refused(node)
            handler(self, node)

    def shape(self, node: nodes.Node) -> Shape:
        """Checks an expression, and says what it will be."""
        self.spent.add_work(node, self.times)
        handler = _EXPRESSIONS.get(type(node))
        if handler is None:
            raise _refused(node)
        return handler(self, node)

    def output(self, node: nodes.Output) -> None:
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                self.spent.add_text(part, self.times)
            else:
                check_printable(part, self.shape(part))

    def branches(self, node: nodes.If) -> None:
        self.shape(node.test)
        for branch in (node.body, node.elif_, node.else_):
            self.statements(branch)

    def loop(self, node: nodes.For) -> None:
        if self.loops == MAX_NESTED_LOOPS:
            raise Fault(node.lineno, f"loops nest at most {MAX_NESTED_LOOPS} deep")
        if node.recursive:
            raise Fault(node.lineno, "`recursive` is refused: it can run for ever")
        shape, bound = self._iterated(node.iter)
        scope = {**self.scope, **self._targets(node, item(node, shape)), "loop": LOOP}
        inside = replace(self, scope=scope, times=self.times * bound, loops=self.loops + 1)
        if node.test is not None:
            replace(inside, scope={**scope, "loop": _NO_LOOP}).shape(node.test)
        inside.statements(node.body)
        self.statements(node.else_)

    def _iterated(self, node: nodes.Node) -> tuple[Shape, int]:
        """What a loop runs over, and how long that is at most."""
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "range":
            return ListOf(NUMBER), range_bound(node)
        return self.shape(node), MAX_LOOP

    def _targets(self, node: nodes.For, shape: Shape) -> dict[str, Shape]:
        target = node.target
        names = list(target.items) if isinstance(target, nodes.Tuple) else [target]
        targets: dict[str, Shape] = {}
        for name in names:
            if not isinstance(name, nodes.Name):
                raise Fault(node.lineno, "a loop variable is a plain name")
            if name.name in (*self.scope, *targets, "loop", "range", "names") or name.name.startswith("_"):
                raise Fault(node.lineno, f"a loop variable cannot be called {name.name!r}: the name is taken")
            targets[name.name] = shape if target is name else ANY
        return targets

    def name(self, node: nodes.Name) -> Shape:
        if node.name.startswith("_"):
            raise Fault(node.lineno, f"{node.name!r} is refused: names that begin with `_` are not for templates")
        if node.name in ("self", "super", "caller"):
            raise Fault(node.lineno, f"{node.name!r} is refused: a template knows values, not itself")
        if node.name == "names":
            raise Fault(node.lineno, "`names` is called: " + ", ".join(f"names.{call}(1)" for call in NAME_CALLS))
        if self.is_open and node.name not in self.scope:
            return ANY
        return known(node, self.scope, node.name, f"nothing here is called {node.name!r}")

    def attribute(self, node: nodes.Getattr) -> Shape:
        return member(node, self.shape(node.node), node.attr)

    def entry(self, node: nodes.Getitem) -> Shape:
        shape = self.shape(node.node)
        if shape == NUMBER or not isinstance(node.node, _WITH_PARTS):
            raise Fault(node.lineno, f"{shown(node.node)} has no parts to take")
        if isinstance(node.arg, nodes.Slice):
            self._check_slice(node.arg)
            return shape
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return member(node, shape, node.arg.value)
        if number(node.arg) is None:
            raise Fault(node.lineno, "an index is a plain number or text, as in [0] or ['a name']")
        return shape.item if isinstance(shape, ListOf) else ANY

    def _check_slice(self, node: nodes.Slice) -> None:
        for part in (node.start, node.stop, node.step):
            if part is not None and number(part) is None:
                raise Fault(node.lineno, "a slice is written with plain numbers, as in [:5]")

    def call(self, node: nodes.Call) -> Shape:
        called = node.node
        if isinstance(called, nodes.Name) and called.name == "range":
            raise Fault(node.lineno, "`range` stands only behind the `in` of a loop")
        if not (
            isinstance(called, nodes.Getattr) and isinstance(called.node, nodes.Name) and called.node.name == "names"
        ):
            raise Fault(node.lineno, "only names.person(1) and its like, and range, can be called")
        if not self.is_open:
            known(node, self.scope, "names", "nothing here is called 'names'")
        if called.attr not in NAME_CALLS:
            raise Fault(node.lineno, f"names has no {called.attr!r}{near(called.attr, NAME_CALLS)}")
        self._check_name_number(node, called.attr)
        return TEXT

    def _check_name_number(self, node: nodes.Call, call: str) -> None:
        is_one = len(node.args) == 1 and not has_other_arguments(node)
        if not is_one or self.shape(node.args[0]) not in (NUMBER, ANY):
            raise Fault(node.lineno, f"names.{call} takes one whole number, counted from 1")
        plain = number(node.args[0])
        if plain is not None and not 1 <= plain <= MAX_NAME:
            raise Fault(node.lineno, f"names.{call}({plain}): names are numbered from 1 to {MAX_NAME}")

    def filter(self, node: nodes.Filter) -> Shape:
        if node.name not in FILTERS:
            raise Fault(node.lineno, f"there is no filter {node.name!r} here{near(node.name, FILTERS)}")
        if node.node is None or node.dyn_args is not None or node.dyn_kwargs is not None:
            raise Fault(node.lineno, f"the filter {node.name!r} takes plain values only")
        shape = self.shape(node.node)
        args = [_constant(argument) for argument in node.args]
        named = {str(pair.key): _constant(pair.value) for pair in node.kwargs}
        try:
            FILTERS[node.name](SAMPLES[node.name], *args, **named)
        except ValueError as error:
            raise Fault(node.lineno, str(error)) from error
        return filtered(node.name, shape)

    def test(self, node: nodes.Test) -> Shape:
        if node.name not in TESTS:
            raise Fault(node.lineno, f"there is no test {node.name!r} here{near(node.name, TESTS)}")
        if node.args or node.kwargs or node.dyn_args is not None or node.dyn_kwargs is not None:
            raise Fault(node.lineno, f"the test {node.name!r} takes no arguments")
        self.shape(node.node)
        return ANY

    def comparison(self, node: nodes.Compare) -> Shape:
        self.shape(node.expr)
        for operand in node.ops:
            if operand.op not in COMPARISONS:
                raise _refused(operand)
            self.shape(operand.expr)
        return ANY

    def either(self, node: nodes.BinExpr) -> Shape:
        left, right = self.shape(node.left), self.shape(node.right)
        return left if left == right else ANY

    def sum(self, node: nodes.Add) -> Shape:
        shapes = (self.shape(node.left), self.shape(node.right))
        if all(shape in (NUMBER, ANY) for shape in shapes):
            return NUMBER if NUMBER in shapes else ANY
        if all(shape in (TEXT, ANY) for shape in shapes):
            return TEXT
        raise Fault(node.lineno, "`+` adds two numbers or joins two texts")

    def arithmetic(self, node: nodes.BinExpr) -> Shape:
        if not all(self.shape(side) in (NUMBER, ANY) for side in (node.left, node.right)):
            raise Fault(node.lineno, f"`{node.operator}` works on whole numbers only")
        return NUMBER

    def unary(self, node: nodes.UnaryExpr) -> Shape:
        shape = self.shape(node.node)
        return shape if isinstance(node, nodes.Neg) else ANY

    def inline_if(self, node: nodes.CondExpr) -> Shape:
        if node.expr2 is None:
            raise Fault(node.lineno, "an `if` within {{ }} needs its `else`")
        self.shape(node.test)
        first, second = self.shape(node.expr1), self.shape(node.expr2)
        return first if first == second else ANY

    def constant(self, node: nodes.Const) -> Shape:
        if isinstance(node.value, str):
            return TEXT
        plain = number(node)
        if plain is not None and plain > MAX_NUMBER:
            raise Fault(node.lineno, f"a number above {MAX_NUMBER:,}")
        return ANY if plain is None else NUMBER

    def sequence(self, node: nodes.List | nodes.Tuple) -> Shape:
        for each in node.items:
            self.shape(each)
        return ListOf(ANY)


_STATEMENTS: Mapping[type[nodes.Node], Callable[[_Reader, Any], None]] = {
    nodes.For: _Reader.loop,
    nodes.If: _Reader.branches,
    nodes.Output: _Reader.output,
}
_EXPRESSIONS: Mapping[type[nodes.Node], Callable[[_Reader, Any], Shape]] = {
    nodes.Add: _Reader.sum,
    nodes.And: _Reader.either,
    nodes.Call: _Reader.call,
    nodes.Compare: _Reader.comparison,
    nodes.CondExpr: _Reader.inline_if,
    nodes.Const: _Reader.constant,
    nodes.Filter: _Reader.filter,
    nodes.Getattr: _Reader.attribute,
    nodes.Getitem: _Reader.entry,
    nodes.List: _Reader.sequence,
    nodes.Mod: _Reader.arithmetic,
    nodes.Name: _Reader.name,
    nodes.Neg: _Reader.unary,
    nodes.Not: _Reader.unary,
    nodes.Or: _Reader.either,
    nodes.Sub: _Reader.arithmetic,
    nodes.Test: _Reader.test,
    nodes.Tuple: _Reader.sequence,
}
