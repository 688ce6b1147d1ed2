"""What every command shares: its declaration from a function and flags, its printing, its errors."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from sdf.cli.flags import Flag, overrides_of, placed
from sdf.cli.stopping import EXIT_SIGNAL, say
from sdf.errors import SdfError

Command = Callable[..., "Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found: data for --json, text for people, and how it ends."""

    data: Any
    text: str
    exit_code: int = 0


Recipe_ = Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in name (see `sdf recipes`) or a YAML file.")]
Directory = Annotated[str, typer.Argument(metavar="DIR", help="The directory of a corpus.")]
Out = Annotated[str, typer.Option("--out", help="Where the corpus goes; created if need be.")]
Reuse = Annotated[list[str] | None, typer.Option(help="A corpus whose answers are used again; repeatable.")]
As_json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


class Once(TyperCommand):
    """A command that refuses a flag given twice, where the last would silently win: two providers for one role."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = Counter(id(each) for each in self.make_parser(ctx).parse_args(list(args))[2])
        for option in self.get_params(ctx):
            if given[id(option)] > 1 and not option.multiple:  # type: ignore[attr-defined]
                raise typer.BadParameter("given twice; name it once", ctx=ctx, param_hint=option.opts[0])
        return super().parse_args(ctx, args)


class Commands(TyperGroup):
    """Errors that a user can meet become one sentence on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SdfError as error:
            say(f"error: {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_SIGNAL + signal.SIGINT) from None


app = typer.Typer(
    name="sdf",
    cls=Commands,
    help="Synthetic documents that teach a model why: from a constitution to token-counted Parquet shards.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def command(
    flags: Sequence[Flag] = (), into: typer.Typer = app, name: str | None = None
) -> Callable[[Command], Command]:
    """Registers a function as a command that prints its Result, with --json and, as `overrides`, these flags."""

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def run(ctx: typer.Context, **given: Any) -> None:
            as_json = given.pop("as_json")
            said, variables = _given_by(ctx, flags, "COMMANDLINE", "ENVIRONMENT"), _given_by(ctx, flags, "ENVIRONMENT")
            if flags:
                given["overrides"] = overrides_of(flags, {flag: given.pop(flag.parameter) for flag in flags}, variables)
            with placed(said, variables):
                result = function(**given)
            show(result, as_json)

        _declare(run, function, flags)
        into.command(name or function.__name__.rstrip("_"), cls=Once)(run)
        return function

    return register


def _given_by(ctx: typer.Context, flags: Sequence[Flag], *sources: str) -> list[Flag]:
    """Those whose values came from there."""
    found = {flag: ctx.get_parameter_source(flag.parameter) for flag in flags}
    return [flag for flag, source in found.items() if source is not None and source.name in sources]


def _declare(run: Callable[..., None], function: Command, flags: Sequence[Flag]) -> None:
    """Gives `run` the signature that Typer reads: the function's own, then the flags, then --json."""
    own = inspect.signature(function, eval_str=True).parameters
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("ctx", kind, annotation=typer.Context)]
    parameters += [each for each in own.values() if each.name != "overrides"]
    for flag in flags:
        option = typer.Option(flag.name, help=flag.help, envvar=flag.variable)
        annotation = Annotated[flag.type | None, option]
        parameters.append(inspect.Parameter(flag.parameter, kind, default=None, annotation=annotation))
    parameters.append(inspect.Parameter("as_json", kind, default=False, annotation=As_json))
    parameters = [each.replace(kind=kind) for each in parameters]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}


def show(result: Result, as_json: bool) -> None:
    from sdf.report.terminal import plain_json
    from sdf.report.text import json_of

    print(plain_json(json.dumps(json_of(result.data), ensure_ascii=False)) if as_json else result.text)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


class _Said(logging.Handler):
    """Log records as lines on stderr, wherever that points now (a live panel puts itself in between)."""

    def emit(self, record: logging.LogRecord) -> None:
        said = self.format(record)
        say(said if record.levelno == logging.INFO else f"{record.levelname}: {said}")


def main() -> None:
    """The entry point `sdf`."""
    handler = _Said()
    logging.getLogger("sdf").addHandler(handler)
    logging.getLogger("sdf").setLevel(logging.INFO)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a mark instead.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app()
