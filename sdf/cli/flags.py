"""The flags that set fields of a recipe, each once.

They win over the environment (SDF_<FIELD>), which wins over the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from sdf.errors import RecipeError

Overrides = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag that sets the recipe's `field`, or the entry `key` of one; `reads` makes the value of what was typed, or
    raises ValueError for what has none."""

    name: str
    field: str
    help: str
    type: Any = str
    key: str | None = None
    reads: Callable[[Any], Any] | None = None

    @property
    def parameter(self) -> str:
        return self.name.lstrip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that stands for it."""
        return f"SDF_{self.parameter.upper()}"


def fraction(text: str) -> float:
    """0.01 for "1%" and for "0.01"."""
    try:
        return float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ValueError(f"{text!r} is not a fraction; write 1% or 0.01") from None


def amount(text: str) -> float:
    """Dollars."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no amount; write dollars, such as 25 or 0.50") from None


def settings(entries: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise ValueError(f"{entry!r}: write NAME=VALUE")
        _put(found, name, value)
    return found


def _put(found: dict[str, str], name: str, value: str) -> None:
    """ValueError for a name that is there, whose last value would silently win."""
    if name in found:
        raise ValueError(f"{name if name != '*' else 'the path of every genre'} is given twice; name it once")
    found[name] = value


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
        _put(found, genre, path if "://" in path or path.startswith("stage:") else absolute(path))
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
    Flag(
        "--max-cost",
        "max_cost",
        "Dollars that the directory may cost in all its life; no cap without it.",
        reads=amount,
    ),
    Flag("--prices", "prices", "A file of prices, laid over the built-in table.", reads=absolute),
    Flag("--drain-timeout", "drain_timeout", "Seconds to wait for what is in flight when stopped.", float),
)


def overrides_of(flags: Sequence[Flag], given: dict[Flag, Any], variables: Collection[Flag] = ()) -> Overrides:
    """Recipe fields from flags; those that were not given are left out. `variables` came by the environment."""
    found: Overrides = {}
    for flag in flags:
        value = given[flag]
        if value is None or value == []:
            continue
        hint = flag.variable if flag in variables else flag.name
        value = _read(flag, value, hint)
        entries = {flag.key: value} if flag.key is not None else value if isinstance(value, dict) else None
        if entries is None:
            found[flag.field] = value
            continue
        merged = found.setdefault(flag.field, {})
        for name in entries.keys() & merged.keys():
            raise typer.BadParameter(f"{name} is given by two flags; name it once", param_hint=hint)
        merged.update(entries)
    return found


def _read(flag: Flag, value: Any, hint: str) -> Any:
    try:
        return flag.reads(value) if flag.reads else value
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None


# How an error begins whose cause no file holds.
TYPED = "on the command line"


@contextmanager
def placed(given: Collection[Flag], variables: Collection[Flag]) -> Generator[None]:
    """Of what a recipe cannot be, names the environment variable that says it. `variables` are those of the flags
    `given` that came by the environment."""
    try:
        yield
    except RecipeError as error:
        text = str(error)
        named = re.match(rf"{TYPED}: '?(\w+)", text)
        asked = [flag for flag in given if named and flag.field == named[1]] or given
        places = [flag.variable for flag in asked if flag in variables]
        if not text.startswith(TYPED) or not places:
            raise
        where = f"in {' or '.join(places)}"
        if len(places) < len(asked):
            where = f"{TYPED} or {where}"
        raise RecipeError(f"{where}{text[len(TYPED) :]}") from None
