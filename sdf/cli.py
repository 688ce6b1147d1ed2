"""The command line: it parses, calls `sdf.api`, prints.

stdout holds the result alone (with --json one object), stderr what is said meanwhile. Every flag that sets a field
of the recipe stands once, in FLAGS; flags win over the environment (SDF_<FIELD>), which wins over the file.
Nothing heavy is imported before a command needs it, so that `sdf --help` answers at once.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from sdf.errors import GenreError, SdfError

if TYPE_CHECKING:
    from sdf.manifest import Manifest
    from sdf.pipeline import Stop
    from sdf.story import Outcome, Progress

EXIT_UNMET = 3
EXIT_SIGNAL = 128

Overrides = dict[str, Any]
Command = Callable[..., "Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found: data for --json, text for people, and how it ends."""

    data: Any
    text: str
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag that sets the recipe's `field`, or the entry `key` of one; `reads` makes the value of what was typed."""

    name: str
    field: str
    help: str
    type: Any = str
    key: str | None = None
    reads: Callable[[Any], Any] | None = None

    @property
    def parameter(self) -> str:
        return self.name.lstrip("-").replace("-", "_")


def fraction(text: str) -> float:
    """0.01 for "1%" and for "0.01"."""
    try:
        return float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a fraction; write 1% or 0.01", param_hint="--holdout") from None


def settings(entries: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{entry!r}: write NAME=VALUE", param_hint="--provider-setting")
        found[name] = value
    return found


def directories(paths: Sequence[str]) -> list[str]:
    """Absolute, since workers may run elsewhere."""
    return [str(Path(path).absolute()) for path in paths]


def absolute(path: str) -> str:
    return str(Path(path).absolute())


def sources(entries: Sequence[str]) -> dict[str, str]:
    """{genre: path}; a path alone is for every genre that names none."""
    found: dict[str, str] = {}
    for entry in entries:
        match = re.fullmatch(r"([a-z0-9][a-z0-9_-]*)=(.+)", entry)
        genre, path = (match[1], match[2]) if match else ("*", entry)
        found[genre] = path if "://" in path or path.startswith("stage:") else absolute(path)
    return found


def engine(entries: Sequence[str]) -> dict[str, str]:
    return {f"engine.{name}": value for name, value in settings(entries).items()}


def principles(text: str) -> str | tuple[str, ...]:
    """A bank is a directory; ids are separated by commas."""
    if text.startswith("stage:") or "://" in text:
        return text
    if Path(text).is_dir() or os.sep in text:
        return absolute(text)
    return tuple(each.strip() for each in text.split(",") if each.strip())


# What folds a ledger: `assemble` takes these alone, for no answer depends on them.
FOLDING = (
    Flag("--tokens", "tokens", "Accepted tokens to reach: 20M, 1.5M, 300k; or all there is (`all`), where genres end."),
    Flag("--mix", "mix", "Shares of accepted tokens: a=4,b=2; or +a=2 to change one and keep the rest."),
    Flag("--ablate", "ablate", "A rewriting step to leave out: what it rewrote stands; repeatable.", list[str]),
    Flag("--shard-tokens", "shard_tokens", "Tokens at which a shard is full."),
    Flag("--tokenizer", "tokenizer", "A tiktoken encoding, or a vocabulary file."),
    Flag("--dedup-threshold", "dedup_threshold", "Jaccard similarity from which a text is a duplicate.", float),
    Flag("--check-off", "checks_off", "A check to turn off; repeatable.", list[str]),
    Flag(
        "--decontaminate",
        "decontaminate",
        "An evaluation set that no text may overlap: Parquet, JSONL, JSON, CSV, text, or a directory; repeatable.",
        list[str],
        reads=directories,
    ),
    Flag("--holdout", "holdout", "Part of the cells that goes to `validation`: 1% or 0.01.", reads=fraction),
)
FLAGS = (
    *FOLDING,
    Flag("--constitution", "constitution", "The text to learn: a file, or `default`."),
    Flag("--provider", "provider", "Who answers."),
    Flag(
        "--provider-setting",
        "provider_settings",
        "NAME=VALUE for the provider, or ROLE.NAME=VALUE for that of one role; repeatable.",
        list[str],
        reads=settings,
    ),
    Flag(
        "--base-url",
        "provider_settings",
        "Where the provider's server is; several take turns by load.",
        list[str],
        key="base_url",
        reads=",".join,
    ),
    Flag("--key-file", "provider_settings", "A file with the key, readable where the workers run.", key="key_file"),
    Flag(
        "--allow-insecure",
        "provider_settings",
        "Plain http beyond this machine, on a network of your own.",
        bool,
        key="allow_insecure",
        reads=lambda value: str(value).lower(),
    ),
    Flag(
        "--tensor-parallel-size",
        "provider_settings",
        "GPUs that share each vLLM engine.",
        key="tensor_parallel_size",
    ),
    Flag(
        "--gpu-memory-utilization",
        "provider_settings",
        "Part of a GPU's memory that vLLM takes.",
        key="gpu_memory_utilization",
    ),
    Flag("--max-model-len", "provider_settings", "Tokens of context that vLLM serves.", key="max_model_len"),
    Flag(
        "--engine",
        "provider_settings",
        "KEY=VALUE, any other argument of the vLLM engine; repeatable.",
        list[str],
        reads=engine,
    ),
    Flag(
        "--max-wait",
        "provider_settings",
        "Seconds to wait for a batch before ending; the same command collects it later.",
        key="max_wait",
    ),
    Flag("--cache-ttl", "provider_settings", "How long prompts stay cached at Anthropic: 5m or 1h.", key="cache_ttl"),
    Flag("--model", "model", "The model of every role that has none of its own."),
    Flag("--rewrite-model", "models", "The model that rewrites.", key="rewrite"),
    Flag("--judge-model", "models", "The model that scores.", key="judge"),
    Flag("--angle-model", "models", "The model that finds angles.", key="angle"),
    Flag("--fallback-model", "models", "The model that answers what another refused.", key="fallback"),
    Flag("--rewrite-provider", "providers", "Who rewrites, if another than --provider.", key="rewrite"),
    Flag("--judge-provider", "providers", "Who scores, if another than --provider.", key="judge"),
    Flag("--angle-provider", "providers", "Who finds angles, if another than --provider.", key="angle"),
    Flag("--fallback-provider", "providers", "Who answers what another refused.", key="fallback"),
    Flag("--assistant", "assistant", "The name of the assistant in the texts."),
    Flag("--maker", "maker", "The name of its maker in the texts."),
    Flag("--worry", "worry", "What the corpus is to prevent, in a sentence, for the prompts that ask."),
    Flag("--bans", "bans", "Phrases to keep out, as an audit wrote them.", reads=absolute),
    Flag(
        "--source",
        "sources",
        "GENRE=PATH: the rows that a genre reads, or PATH for all that name none; repeatable.",
        list[str],
        reads=sources,
    ),
    Flag(
        "--principles",
        "principles",
        "Only these principles: their ids, a,b,c; or the directory of a bank of principles.",
        reads=principles,
    ),
    Flag("--allow", "allow", "A kind of genre that is in no mix unless asked for; repeatable.", list[str]),
    Flag("--seed", "seed", "Another seed is another corpus.", int),
    Flag("--workers", "workers", "Workers.", int),
    Flag("--in-flight", "in_flight", "Documents under way at each worker.", int),
    Flag("--ray", "ray", "auto, local, none (one process), or the address of a cluster."),
    Flag("--genres-dir", "genres_dir", "A directory of genre files; repeatable.", list[str], reads=directories),
    Flag("--max-cost", "max_cost", "Dollars that the directory may cost in all its life; none without it.", float),
    Flag("--prices", "prices", "A file of prices, laid over the built-in table.", reads=absolute),
    Flag("--drain-timeout", "drain_timeout", "Seconds to wait for what is in flight when stopped.", float),
)

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
genres_app = typer.Typer(help="Genre files: list, check, show.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(genres_app, name="genres")


def say(text: str) -> None:
    from sdf.report.terminal import plain

    print(plain(text), file=sys.stderr, flush=True)


def command(
    flags: Sequence[Flag] = (), into: typer.Typer = app, name: str | None = None
) -> Callable[[Command], Command]:
    """Registers a function as a command that prints its Result, with --json and, as `overrides`, these flags."""

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def run(**given: Any) -> None:
            as_json = given.pop("as_json")
            if flags:
                given["overrides"] = overrides_of(flags, {flag: given.pop(flag.parameter) for flag in flags})
            show(function(**given), as_json)

        _declare(run, function, flags)
        into.command(name or function.__name__.rstrip("_"), cls=Once)(run)
        return function

    return register


def _declare(run: Callable[..., None], function: Command, flags: Sequence[Flag]) -> None:
    """Gives `run` the signature that Typer reads: the function's own, then the flags, then --json."""
    own = inspect.signature(function, eval_str=True).parameters
    parameters = [each for each in own.values() if each.name != "overrides"]
    kind = inspect.Parameter.KEYWORD_ONLY
    for flag in flags:
        option = typer.Option(flag.name, help=flag.help, envvar=f"SDF_{flag.parameter.upper()}")
        annotation = Annotated[flag.type | None, option]
        parameters.append(inspect.Parameter(flag.parameter, kind, default=None, annotation=annotation))
    parameters.append(inspect.Parameter("as_json", kind, default=False, annotation=As_json))
    parameters = [each.replace(kind=kind) for each in parameters]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}


def overrides_of(flags: Sequence[Flag], given: dict[Flag, Any]) -> Overrides:
    """Recipe fields from flags; those that were not given are left out."""
    found: Overrides = {}
    for flag in flags:
        value = given[flag]
        if value is None or value == []:
            continue
        value = flag.reads(value) if flag.reads else value
        entries = {flag.key: value} if flag.key is not None else value if isinstance(value, dict) else None
        if entries is None:
            found[flag.field] = value
            continue
        merged = found.setdefault(flag.field, {})
        for name in entries.keys() & merged.keys():
            raise typer.BadParameter(f"{name} is given by two flags; name it once", param_hint=flag.name)
        merged.update(entries)
    return found


def show(result: Result, as_json: bool) -> None:
    from sdf.report.text import json_of

    print(json.dumps(json_of(result.data), ensure_ascii=False) if as_json else result.text)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


Recipe_ = Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in name (see `sdf recipes`) or a YAML file.")]
Directory = Annotated[str, typer.Argument(metavar="DIR", help="The directory of a corpus.")]
Out = Annotated[str, typer.Option("--out", help="Where the corpus goes; created if need be.")]


Reuse = Annotated[list[str] | None, typer.Option(help="A corpus whose answers are used again; repeatable.")]


@command(FLAGS)
def plan(
    recipe: Recipe_,
    overrides: Overrides,
    reuse: Reuse = None,
    forecast: Annotated[
        int | None,
        typer.Option(min=1, max=1_000, help="Write so many documents of each genre, and tell what all take."),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="Where a forecast keeps what it wrote, for the run.")] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(min=1e-3, help="What engines of your own write together, for their hours.")
    ] = None,
) -> Result:
    """What would be made: genres, shares, documents, tokens. Free, but for what --forecast writes."""
    from sdf import api
    from sdf.report.text import plan_text

    if forecast is not None:
        return _forecast(recipe, forecast, out, tokens_per_second, overrides)
    report = api.plan(recipe, reuse=reuse or [], **overrides)
    return Result(report, plan_text(report))


@command(FLAGS)
def run(
    recipe: Recipe_,
    out: Out,
    overrides: Overrides,
    reuse: Reuse = None,
) -> Result:
    """Makes a corpus, or goes on with it; the same command again resumes."""
    from sdf import api
    from sdf.report.progress import reporter

    stop = api.Stop()
    with leaving(out) as last, signals(stop, last) as caught, reporter(sys.stderr) as watched:
        last.tells = watched.tell
        outcome = api.run(recipe, out, reuse=reuse or [], stop=stop, on_progress=last.tell, say=say, **overrides)
    found = _outcome(out, outcome, EXIT_SIGNAL + caught[0] if caught else None)
    if outcome.finished and (held := api.compared(out)):
        found = replace(found, text=f"{found.text}\n{held}")
    return found


@command(FLAGS)
def preflight(
    recipe: Recipe_,
    overrides: Overrides,
    out: Annotated[str | None, typer.Option("--out", help="The directory to look at too.")] = None,
) -> Result:
    """What can be found out before paying: keys, models, endpoints, context lengths, the directory. Free."""
    from sdf import api
    from sdf.report.terminal import plain

    found = api.preflight(recipe, out=out, **overrides)
    lines = [f"{'ok  ' if each.error is None else 'FAIL'}  {each.text}" for each in found]
    failed = [each.error for each in found if each.error is not None]
    data = [{"text": each.text, "ok": each.error is None} for each in found]
    text = "\n".join(lines) or "nothing to look at: the offline provider needs no key, model or network"
    return Result({"findings": data}, plain(text), failed[0].exit_code if failed else 0)


@command(FOLDING)
def assemble(
    directory: Directory,
    out: Out,
    overrides: Overrides,
    exclude: Annotated[
        list[str] | None, typer.Option(help="genre=…, principle=…, model=… or axis.NAME=…; repeatable.")
    ] = None,
    match: Annotated[str | None, typer.Option(help="Keep exactly the briefs that this corpus accepted.")] = None,
) -> Result:
    """Another corpus from the answers of DIR, free: other checks, mix, shard size, tokenizer."""
    from sdf import api

    outcome = api.assemble(directory, out, exclude=exclude or [], match=match, **overrides)
    if match is not None or (exclude and "tokens" not in overrides):
        # What matches another corpus, or is cut from one, has no quota of its own.
        outcome = replace(outcome, finished=True, unmet={})
    result = _outcome(out, outcome, None)
    if outcome.finished:
        return result
    short = "the ledger ends before the target: `sdf run` takes it further, --tokens asks for less"
    return replace(result, text=f"{result.text}\n{short}")


def _forecast(recipe: str, n: int, out: str | None, tokens_per_second: float | None, overrides: Overrides) -> Result:
    from sdf import api
    from sdf.report.forecasts import forecast_text

    if out is None:
        raise typer.BadParameter("a forecast writes documents; name the directory of the run", param_hint="--out")
    stop = api.Stop()
    with leaving(out) as last, signals(stop, last):
        report = api.forecast(
            recipe, n, out, tokens_per_second=tokens_per_second, stop=stop, on_progress=last.tell, say=say, **overrides
        )
    return Result(report, forecast_text(report))


def _outcome(out: str, outcome: Outcome, exit_code: int | None) -> Result:
    if exit_code is None:
        exit_code = EXIT_UNMET if outcome.unmet or not outcome.finished else 0
    lines = [_committed(f"{out}: {stage}", each.manifest) for stage, each in outcome.stages.items()]
    lines = lines or [_committed(out, outcome.manifest)]
    if outcome.manifest is not None or outcome.stages:
        lines.append(f"{outcome.n_requests:,} requests; {outcome.n_overshoot:,} briefs kept for a larger target")
    lines += [f"{genre} fell short: {reason}" for genre, reason in outcome.unmet.items()]
    from sdf.report.costs import outcome_lines
    from sdf.report.terminal import plain

    lines += outcome_lines(outcome)

    return Result(outcome, plain("\n".join(lines)), exit_code)


def _committed(what: str, made: Manifest | None) -> str:
    if made is None:
        return f"{what}: nothing is committed yet"
    counts = f"{made.n_tokens:,} tokens, {made.n_documents:,} documents, {len(made.shards)} shards"
    return f"{what}: {counts}, {made.state}"


@command()
def status(directory: Directory) -> Result:
    """Where a corpus stands: committed, settled, rejected, who writes it."""
    from sdf import api
    from sdf.report.text import status_text

    found = api.status(directory)
    return Result(found, status_text(found))


@command(name="inspect")
def inspect_(directory: Directory) -> Result:
    """What is in a corpus: genres, lengths, principles, axes, rejections."""
    from sdf import api
    from sdf.report.text import inspection_text

    found = api.inspect(directory)
    return Result(found, inspection_text(found))


@command(name="show")
def show_(
    directory: Directory, id: Annotated[str, typer.Argument(metavar="ID", help="An id, or how it begins.")]
) -> Result:
    """One brief: its plan, prompts, answers and outcome."""
    from sdf import api
    from sdf.report.text import trace_text

    trace = api.show(directory, id)
    return Result(trace, trace_text(trace))


@command()
def verify(
    directory: Directory,
    replay: Annotated[bool, typer.Option("--replay", help="Fold the ledger again and compare bytes.")] = False,
) -> Result:
    """Every byte and count of a corpus; names each file that is not what was written."""
    from sdf import api
    from sdf.report.terminal import plain

    found = api.verify(directory, replay=replay)
    replayed = ", and the ledger replays to the same bytes" if replay else ""
    counts = f"{found.n_shards} shards, {found.n_documents:,} documents, {found.n_tokens:,} tokens"
    text = "\n".join(found.problems) if found.problems else f"{directory}: {counts}: all as written{replayed}"
    text += "".join(f"\n{each} (made good since: nothing committed needs it)" for each in found.made_good)
    return Result(found, plain(text), 1 if found.problems else 0)


@command()
def cancel(directory: Directory) -> Result:
    """Cancels the message batches that a run left going on; what they answered is collected by the next run."""
    from sdf import api

    made = api.cancel(directory, say=say)
    lines = [
        f"{batch}: canceled; what it answered already is billed, and the next run collects it"
        for batch in made.canceled
    ]
    lines += [
        f"{batch}: may be ours, since the reply to a batch was lost; look at it in the console"
        for batch in made.unclear
    ]
    lines += [f"{batch}: not known with this key; give that of the workspace that sent it" for batch in made.unknown]
    return Result(made, "\n".join(lines) or "no batch is going on")


@command()
def audit(
    directory: Directory,
    out: Annotated[str | None, typer.Option("--out", help="Write the audit there, for --bans and --before.")] = None,
    before: Annotated[str | None, typer.Option(help="An earlier audit to compare with.")] = None,
) -> Result:
    """What no judge of single texts sees: habits of the whole corpus, with verdicts and phrases to ban."""
    from sdf import api
    from sdf.report.audit import audit_text

    found = api.audit(directory, before=before, out=out)
    return Result(found, audit_text(found))


@command()
def gc(directory: Directory) -> Result:
    """Deletes files that the newest manifest does not name."""
    from sdf import api
    from sdf.report.terminal import plain

    deleted = api.gc(directory)
    return Result({"deleted": deleted}, plain("\n".join(deleted) or "nothing to delete"))


@command(name="export")
def export_(
    directory: Directory,
    to: Annotated[str, typer.Option("--to", help="mds (MosaicML streaming), jsonl, or tokens (ids for sdf.stream).")],
    out: Annotated[str, typer.Option("--out", help="The directory that appears when all of it is written.")],
    config: Annotated[list[str] | None, typer.Option(help="documents, chats, …; all that train, unless given.")] = None,
    columns: Annotated[str, typer.Option(help="all, or training for the text alone.")] = "all",
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="For tokens: a tokenizer.json, a Hugging Face directory, an encoding.")
    ] = "",
    file_mb: Annotated[int, typer.Option("--file-mb", help="MB at which a file is closed.")] = 64,
) -> Result:
    """The committed corpus for another loader; what is read is checked, what is written depends on it alone."""
    from sdf import api
    from sdf.report.terminal import plain

    made = api.export(
        directory, out, to=to, configs=config or [], columns=columns, tokenizer=tokenizer, file_mb=file_mb
    )
    lines = [
        f"{out}: {made.n_documents:,} documents, {made.n_tokens:,} tokens of manifest {made.manifest} "
        f"({made.state}) as {made.to}: {made.n_files:,} files, {made.size_bytes:,} bytes",
        *(["it was there already, whole"] if made.was_there else []),
    ]
    return Result(made, plain("\n".join(lines)))


@command(FLAGS)
def preview(
    recipe: Recipe_,
    overrides: Overrides,
    genre: Annotated[str, typer.Option(help="The genre to look at.")],
    n: Annotated[int, typer.Option("-n", min=1, max=100, help="How many briefs.")] = 3,
    out: Annotated[str | None, typer.Option("--out", help="Keep the answers there, for `sdf run` to use.")] = None,
) -> Result:
    """The first briefs of a genre for real: prompts as rendered, and what comes back."""
    from sdf import api
    from sdf.report.text import trace_text

    traces = api.preview(recipe, genre, n, out=out, **overrides)
    return Result({"briefs": traces}, "\n\n".join(map(trace_text, traces)))


@command()
def recipes() -> Result:
    """The built-in recipes."""
    from sdf.recipe import builtin_recipes, load
    from sdf.report.text import table

    found = {name: load(name, {}).about for name in builtin_recipes()}
    return Result(found, table([("recipe", "about"), *found.items()]))


Genres_dir = Annotated[
    list[str] | None,
    typer.Option("--genres-dir", envvar="SDF_GENRES_DIR", help="A directory of genre files; repeatable."),
]


@command(into=genres_app, name="list")
def list_genres(genres_dir: Genres_dir = None) -> Result:
    """The known genres."""
    from sdf import api
    from sdf.report.text import genres_text

    found = api.genres(genres_dir or [])
    return Result({key: genre.about for key, genre in found.items()}, genres_text(found))


@command(into=genres_app, name="check")
def check_genres(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Genre files.")],
) -> Result:
    """Loads genre files; names file and line of the first fault."""
    from sdf import api
    from sdf.report.text import genres_text

    found = {path: api.check_genre(path) for path in paths}
    return Result({path: genre.key for path, genre in found.items()}, genres_text(found))


@command(into=genres_app, name="new")
def new_genre(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Small letters, digits and _, as in reader_letter.")],
    kind: Annotated[str, typer.Option(help="document, chat, prompt or item.")] = "document",
    dir: Annotated[str, typer.Option("--dir", help="Where the file goes; created if need be.")] = "genres",
) -> Result:
    """Writes a genre file to begin from, with comments that explain it."""
    from sdf import api
    from sdf.report.terminal import plain

    made = api.new_genre(key, kind=kind, directory=dir)
    lines = [
        f"{made.path}: a {made.kind} in the steps {', '.join(step.name for step in made.steps)}",
        f"Edit it; `sdf genres check {made.path}` names what is wrong.",
        f"`sdf preview RECIPE --genres-dir {dir} --mix {key}=1 --genre {key}` shows its prompts and what comes back.",
    ]
    return Result({"path": made.path, "key": key, "kind": made.kind}, plain("\n".join(lines)))


@command(into=genres_app, name="show")
def show_genre(name: Annotated[str, typer.Argument(metavar="NAME")], genres_dir: Genres_dir = None) -> Result:
    """One genre: what it declares, and its prompts."""
    from sdf import api
    from sdf.frontmatter import near
    from sdf.genres import dump
    from sdf.report.text import genre_text

    known = api.genres(genres_dir or [])
    if name not in known:
        raise GenreError(f"unknown genre {name!r}{near(name, known)}")
    return Result(dump(known[name]), genre_text(known[name]))


@dataclass(slots=True)
class Last:
    """A run's last word on where it stands, handed on to whoever shows it."""

    out: str
    tells: Callable[[Progress], None] = lambda _: None
    progress: Progress | None = None

    def tell(self, progress: Progress) -> None:
        self.progress = progress
        self.tells(progress)

    def say_what_is_left(self) -> None:
        from sdf.report.progress import left

        if self.progress is not None and self.progress.under_way:
            say(left(self.progress.under_way, self.out))


@contextmanager
def leaving(out: str) -> Generator[Last]:
    """However the run ends, it says what goes on without it."""
    last = Last(out)
    try:
        yield last
    finally:
        last.say_what_is_left()


@contextmanager
def signals(stop: Stop, last: Last) -> Generator[list[int]]:
    """The first SIGINT or SIGTERM asks for a drain, the second ends the process at once. Yields those caught."""
    caught: list[int] = []

    def on_signal(number: int, _: Any) -> None:
        if caught:
            try:
                last.say_what_is_left()
            finally:
                _abort(EXIT_SIGNAL + number)
        caught.append(number)
        say(f"{signal.Signals(number).name}: finishing what is in flight, then committing; once more to abort")
        stop.request()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _abort(exit_code: int) -> None:
    if sys.stderr.isatty():
        # The live panel hides the cursor.
        sys.stderr.write("\x1b[?25h\n")
    sys.stderr.flush()
    os._exit(exit_code)


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


if __name__ == "__main__":
    main()
