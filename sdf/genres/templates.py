"""A prompt template: text in, text out, in time and size that its own source bounds.

Compiled once per process, after the static check of `template_rules`; what a static check cannot know (the
values) meets a sandbox that reads items of plain data and nothing else. A template is its source: it pickles,
compares and hashes as text.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sdf.errors import GenreError
from sdf.frontmatter import Fault
from sdf.genres import template_rules
from sdf.genres.template_filters import FILTERS
from sdf.genres.template_rules import MAX_CHARS, TESTS
from sdf.genres.template_shapes import LOOP, MAX_LOOP, NAME_CALLS, Shape

# Ten times the longest prompt anyone wrote for one step.
MAX_SOURCE = 100_000

# What rendering can raise over values that a static check cannot know.
_RENDER_ERRORS = (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Template:
    """A template whose first line is `line` of the file `path`, so that every error names the line in the file."""

    source: str
    path: str = "<template>"
    line: int = 1

    def check(self, scope: Mapping[str, Shape] | None = None, *, mentions: Sequence[str] = ()) -> None:
        """Raises GenreError where it does not parse, says what templates may not, names what `scope` lacks, or
        never says one of `mentions` in so many words."""
        try:
            tree = _parsed(self.source)
            template_rules.check(tree, scope)
            for text in mentions:
                template_rules.check_mentions(tree, text)
        except Fault as fault:
            raise self._error(fault.line, fault.message) from fault

    @property
    def names(self) -> frozenset[str]:
        """The variables it uses, those of its own loops left out."""
        return _names(self.source)

    def render(self, context: Mapping[str, Any]) -> str:
        """The text, at most 400,000 characters longer than the values given. Raises GenreError with the line."""
        try:
            compiled = _compiled(self.source)
        except Fault as fault:
            raise self._error(fault.line, fault.message) from fault
        try:
            return _written(compiled, context)
        except Fault as fault:
            raise self._error(fault.line, fault.message) from fault
        except _RENDER_ERRORS as error:
            line = _failed_line(compiled, error.__traceback__)
            raise self._error(line, f"cannot be filled in: {error}") from error

    def _error(self, line: int, message: str) -> GenreError:
        return GenreError(f"{self.path}:{self.line + line - 1}: {message}")


def _written(compiled: jinja2.Template, context: Mapping[str, Any]) -> str:
    chunks: list[str] = []
    n_chars, limit = 0, MAX_CHARS
    for chunk in compiled.root_render_func(compiled.new_context(dict(context))):
        chunks.append(chunk)
        n_chars += len(chunk)
        if n_chars > limit:
            # Sized only now: few prompts come this far.
            limit = MAX_CHARS + _size(context)
            if n_chars > limit:
                raise Fault(1, f"the text grows beyond {limit:,} characters")
    return "".join(chunks)


def _size(value: Any) -> int:
    """Characters within plain data."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_size(item) for item in value.values())
    return sum(_size(item) for item in value) if isinstance(value, list | tuple) else 0


def _failed_line(compiled: jinja2.Template, traceback: TracebackType | None) -> int:
    line = 1
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == compiled.root_render_func.__code__.co_filename:
            line = compiled.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return line


class _Sandbox(ImmutableSandboxedEnvironment):
    """Attributes and items are those of plain data, of `loop` and of `names`; anything else is undefined."""

    intercepted_binops = frozenset({"+", "-", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if isinstance(obj, LoopContext) and attribute in LOOP:
            return getattr(obj, attribute)
        if attribute in NAME_CALLS and not isinstance(obj, str | list | tuple | int):
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if not isinstance(obj, Mapping | list | tuple | str):
            return self.undefined(obj=obj, name=argument)
        try:
            return obj[argument]
        except (LookupError, TypeError):
            return self.undefined(obj=obj, name=argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if type(left) is int and type(right) is int:
            return super().call_binop(context, operator, left, right)
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return left + right
        raise TypeError(f"`{operator}` of {type(left).__name__} and {type(right).__name__}")


def _printed(value: Any) -> Any:
    if isinstance(value, str | jinja2.Undefined) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise TypeError(f"a {type(value).__name__} is not printed as it is; use |join(', '), |tojson or an if")


def _bounded(value: Any) -> list[Any]:
    n_values = len(value)  # of an undefined value: raises, with its name
    if isinstance(value, str):
        raise TypeError("a loop runs over a list; this is text")
    if n_values > MAX_LOOP:
        raise ValueError(f"a loop over {n_values:,} values; at most {MAX_LOOP}")
    return list(value)


_LOOP_GUARD = "_bounded"


def _environment() -> _Sandbox:
    # Any: what jinja2 infers for its tables is the union of its own entries.
    environment: Any = _Sandbox(
        undefined=jinja2.StrictUndefined, finalize=_printed, trim_blocks=True, lstrip_blocks=True
    )
    # What is refused when it runs must not run when it is compiled.
    environment.optimized = False
    environment.filters = {**FILTERS, _LOOP_GUARD: _bounded}
    environment.tests = {name: environment.tests[name] for name in TESTS}
    # Its arguments were bounded before it runs; the guard of the loop around it holds nevertheless.
    environment.globals = {"range": range}
    return environment


_ENVIRONMENT = _environment()


def _parsed(source: str) -> nodes.Template:
    if len(source) > MAX_SOURCE:
        raise Fault(1, f"a template of {len(source):,} characters; at most {MAX_SOURCE:,}")
    try:
        return _ENVIRONMENT.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise Fault(error.lineno, f"not a template: {error.message}") from error
    except RecursionError as error:
        raise Fault(1, "expressions nested too deeply; split them") from error
    except ValueError as error:
        raise Fault(1, f"not a template: {error}") from error


@functools.lru_cache(maxsize=4096)
def _names(source: str) -> frozenset[str]:
    return frozenset(meta.find_undeclared_variables(_parsed(source)))


# Some hundred genres of a handful of templates each.
@functools.lru_cache(maxsize=4096)
def _compiled(source: str) -> jinja2.Template:
    """Checked, then compiled with a guard around what every loop runs over."""
    tree = _parsed(source)
    template_rules.check(tree, None)
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = nodes.Filter(loop.iter, _LOOP_GUARD, [], [], None, None, lineno=loop.lineno)
    tree.set_environment(_ENVIRONMENT)
    try:
        return _ENVIRONMENT.from_string(tree)
    except jinja2.TemplateSyntaxError as error:
        raise Fault(error.lineno, f"not a template: {error.message}") from error
