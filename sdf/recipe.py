"""Recipe: a YAML file, and what each of its fields decides: text, the corpus, or neither.

Environment and flags override the file. Unknown fields fail, with the nearest known name and the line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sdf import checks
from sdf import genres as genre_files
from sdf.errors import RecipeError
from sdf.frontmatter import Fault, Location, Marked, near, read, validated
from sdf.genres.model import STAGE
from sdf.records import Seat

Decides = Literal["text", "corpus", "run"]

SUFFIXES = {"k": 1_000, "M": 1_000_000, "B": 1_000_000_000}

# The model that answers when a recipe names none; None: a recipe must name one.
DEFAULT_MODELS: Mapping[str, str | None] = {
    "offline": "offline-grammar",
    "anthropic": None,
    "anthropic-batch": None,
    "openai": None,
    "vllm": None,
}

# Documents in flight at each worker, unless told: a batch is worth its wait when thousands share it.
IN_FLIGHT: Mapping[str, int] = {"anthropic-batch": 5_000}

# Sampling that a provider's API no longer takes: asking for it would change nothing.
DROPPED_SAMPLING: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("temperature", "top_p"),
    "anthropic-batch": ("temperature", "top_p"),
}

_SECRET_NAMES = ("key", "token", "secret", "password", "auth", "credential")
_SECRET_VALUE = re.compile(r"\b(sk-[\w-]{16,}|Bearer\s)")

_SECRET_IN_URL = re.compile(r"://[^/\s]*@|[?&][^=&\s]*(key|token|secret|password)[^=&\s]*=", re.IGNORECASE)


def is_secret(name: str, value: str) -> bool:
    """Whether a provider setting would hold a key. `key_file` names a file."""
    words = re.split(r"[^a-z]+", name.lower().replace("apikey", "key"))
    named = name.rpartition(".")[2] != "key_file" and any(word in _SECRET_NAMES for word in words)
    return named or _SECRET_VALUE.search(value) is not None or _SECRET_IN_URL.search(value) is not None


def size(value: str | float) -> int:
    """A count such as 500_000, "200k", "1.5M" or "2B". ValueError when it is not a positive whole number."""
    text = str(value).strip().replace("_", "")
    factor = SUFFIXES.get(text[-1:], 1)
    try:
        number = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 1 and number == int(number)):
        raise ValueError(f"{value!r} is not a positive whole number; write 20M, 1.5M, 300k or 5000")
    return int(number)


def shares(value: str, base: Mapping[str, float]) -> dict[str, float]:
    """A mix as typed: "a=4,b=2" replaces `base`; "+a=2" changes or adds one share and keeps the rest."""
    entries = [entry.strip() for entry in value.split(",") if entry.strip()]
    changes = [entry.startswith("+") for entry in entries]
    if not entries or (any(changes) and not all(changes)):
        raise RecipeError(f"--mix {value!r}: write a=4,b=2 for a whole mix, or +a=2 to change one share of it")
    mix = dict(base) if any(changes) else {}
    for entry in entries:
        name, equals, share = entry.lstrip("+").partition("=")
        try:
            mix[name.strip()] = float(share)
        except ValueError:
            raise RecipeError(f"--mix {entry!r}: {share!r} is not a number; write {name}=2") from None
        if not equals:
            raise RecipeError(f"--mix {entry!r}: no share given; write {name}=2")
    return mix


# The line of a value that no file holds: it came by flag or environment.
FLAG = 0


def positive(mix: dict[str, float]) -> dict[str, float]:
    for name, share in mix.items():
        if not (math.isfinite(share) and share > 0):
            raise ValueError(
                f"share of {name!r} is {share:g}; a share is a number above 0 (leave a genre out to drop it)"
            )
    return mix


StageName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


class StageEntry(BaseModel):
    """A stage of a recipe: a corpus of its own, with its share of the tokens. What it does not say is the recipe's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(gt=0, le=1_000_000)
    mix: dict[str, float] = Field(min_length=1)
    sources: dict[str, str] = {}
    allow: tuple[str, ...] = ()
    checks_off: tuple[str, ...] | None = None

    @field_validator("mix")
    @classmethod
    def _positive(cls, mix: dict[str, float]) -> dict[str, float]:
        return positive(mix)


class Recipe(BaseModel):
    """The fields of a recipe file. DECIDES says what each of them decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=80)
    about: str = ""
    seed: int = 0
    constitution: str = "default"
    assistant: str = Field(min_length=1)
    maker: str = Field(min_length=1)
    worry: str = ""
    bans: str | None = None
    decontaminate: tuple[str, ...] = ()
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    model: str | None = None
    models: dict[Seat, str] = {}

    # Empty of a recipe with stages, which have a mix each.
    mix: dict[str, float] = Field(default={}, min_length=1)
    stages: dict[StageName, StageEntry] = {}
    principles: str | tuple[str, ...] = ()
    ablate: tuple[str, ...] = ()
    checks_off: tuple[str, ...] = ()
    dedup_threshold: float = Field(default=0.8, gt=0, le=1)
    tokenizer: str = "o200k_base"
    shard_tokens: int = 2_000_000
    holdout: float = Field(default=0.0, ge=0, lt=1)

    tokens: int
    genres_dir: tuple[str, ...] = ()
    sources: dict[str, str] = {}
    allow: tuple[str, ...] = ()
    provider: str = "offline"
    providers: dict[Seat, str] = {}
    provider_settings: dict[str, str] = {}
    workers: int = Field(default=2, ge=1, le=10_000)
    in_flight: int | None = Field(default=None, ge=1, le=100_000)
    ray: str = "auto"
    drain_timeout: float = Field(default=20.0, ge=0)
    max_cost: float | None = None
    prices: str | None = None

    @field_validator("tokens", "shard_tokens", mode="before")
    @classmethod
    def _size(cls, value: str | float) -> int:
        return size(value)

    @field_validator("mix")
    @classmethod
    def _positive(cls, mix: dict[str, float]) -> dict[str, float]:
        return positive(mix)

    @field_validator("max_cost")
    @classmethod
    def _some_money(cls, cap: float | None) -> float | None:
        if cap is not None and not (math.isfinite(cap) and cap > 0):
            raise ValueError(f"{cap:g} is no amount to spend; write dollars above 0, or leave it out for no cap")
        return cap

    @field_validator("provider")
    @classmethod
    def _known_provider(cls, name: str) -> str:
        if name not in DEFAULT_MODELS:
            raise ValueError(f"unknown provider {name!r}{near(name, DEFAULT_MODELS)}")
        return name

    @field_validator("providers")
    @classmethod
    def _known_providers(cls, providers: dict[Seat, str]) -> dict[Seat, str]:
        for name in providers.values():
            cls._known_provider(name)
        return providers

    @field_validator("provider_settings")
    @classmethod
    def _no_key(cls, settings: dict[str, str]) -> dict[str, str]:
        for name, value in settings.items():
            if is_secret(name, value):
                raise ValueError(
                    f"{name!r} would hold a key, and a recipe is kept with its corpus; write key_file: PATH, "
                    "or set the provider's environment variable where the workers run"
                )
        return settings

    @field_validator("checks_off")
    @classmethod
    def _known_checks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in checks.NAMES:
                raise ValueError(f"unknown check {name!r}{near(name, checks.NAMES)}")
        return names

    def changed(self, given: Mapping[str, Any]) -> Recipe:
        """The recipe with other values, checked as if a file held them; RecipeError names the field."""
        marked = Marked({**self.model_dump(), **given}, {(): FLAG, **{(key,): FLAG for key in given}})
        try:
            return validated(Recipe, marked, _model_at)
        except Fault as fault:
            raise RecipeError(fault.message) from None

    def model_of(self, seat: Seat) -> str:
        """RecipeError when its provider has no model of its own and the recipe names none."""
        own = self.models.get(seat) or (self.model if seat != "fallback" else None)
        provider = self.backend_of(seat).provider
        model = own or DEFAULT_MODELS[provider]
        if model is None:
            ways = [] if seat == "fallback" else ["--model (`model:` in the recipe)"]
            ways += [] if seat == "write" else [f"--{seat}-model (`models: {{{seat}: …}}`)"]
            raise RecipeError(f"provider {provider} needs a model to {_WORK[seat]}; name it with {', or '.join(ways)}")
        return model

    def backend_of(self, seat: Seat) -> Backend:
        """Who is asked: the seat's own provider or the common one, with the settings that are meant for it.

        A setting `ROLE.NAME` is that role's alone; one without a role is for the common provider.
        """
        provider = self.providers.get(seat, self.provider)
        shared = {} if provider != self.provider else _settings(self.provider_settings, None)
        return Backend(provider, tuple(sorted({**shared, **_settings(self.provider_settings, seat)}.items())))

    @property
    def n_in_flight(self) -> int:
        """Documents under way at each worker."""
        return self.in_flight or IN_FLIGHT.get(self.provider, 64)

    @property
    def has_fallback(self) -> bool:
        return "fallback" in self.models or "fallback" in self.providers


class Backend(NamedTuple):
    """A provider and its settings; equal ones share connections, limits and engines."""

    provider: str
    settings: tuple[tuple[str, str], ...]


SEATS: tuple[Seat, ...] = get_args(Seat)


def _settings(settings: Mapping[str, str], seat: Seat | None) -> dict[str, str]:
    """Those of one seat, named without it; with None those of no seat."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        owner, dot, own = name.partition(".")
        if dot and owner in SEATS:
            if owner == seat:
                found[own] = value
        elif seat is None:
            found[name] = value
    return found


_WORK: Mapping[Seat, str] = {
    "write": "write",
    "rewrite": "rewrite",
    "judge": "judge",
    "angle": "find angles",
    "fallback": "answer what others refuse",
}

# Fields that count only where a recipe says something by them; one that does not keeps the hash it had before them.
UNSAID = ("worry", "ablate")

# Text: another value asks models something else. Corpus: the same answers, folded otherwise, free. Run: neither.
TEXT = ("seed", "assistant", "maker", "worry", "temperature", "top_p", "model", "models")
CORPUS = ("mix", "ablate", "checks_off", "dedup_threshold", "tokenizer", "shard_tokens", "holdout")
DECIDES: Mapping[str, Decides] = {
    name: "text" if name in TEXT else "corpus" if name in CORPUS else "run" for name in Recipe.model_fields
}


def _model_at(location: Location) -> type[BaseModel]:
    return StageEntry if len(location) == 2 and location[0] == "stages" else Recipe


def builtin_recipes() -> dict[str, Path]:
    return {path.stem: path for path in sorted((genre_files.BUILTIN_DIR / "recipes").glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a recipe given by path or by built-in name."""
    builtin = builtin_recipes()
    path = Path(name)
    if name in builtin:
        return builtin[name]
    if path.suffix in (".yaml", ".yml"):
        return path
    raise RecipeError(f"unknown recipe {name!r}{near(name, builtin)}; a YAML file is given by its path")


def place_of(name: str, overrides: Mapping[str, Any], at: tuple[str | int, ...]) -> str:
    """Where a recipe that was loaded says the field `at`: "FILE:LINE", or the command line."""
    if overrides.get(str(at[0])) is not None:
        return "on the command line"
    path = find(name)
    return f"{path}:{read(path.read_text(encoding='utf-8-sig'), 1).line(*at)}"


def load(name: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with `overrides` (field -> value, None = not given) laid over the file's fields.

    Files and directories named in the file are relative to it.
    """
    path = find(name)
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        file = read(path.read_text(encoding="utf-8-sig"), 1)
        if not isinstance(file.data, dict):
            raise Fault(1, "expected `key: value` lines")
        fields: dict[str, Any] = {"name": path.stem, **_anchored(file.data, path.parent)}
        if isinstance(given.get("mix"), str):
            base = fields.get("mix")
            given["mix"] = shares(given["mix"], base if isinstance(base, dict) else {})
        for entries in ("models", "providers", "provider_settings", "sources"):
            # One entry by flag leaves the file's others alone.
            if entries in given and isinstance(fields.get(entries), dict):
                given[entries] = {**fields[entries], **given[entries]}
        lines = {**file.lines, **{(key,): FLAG for key in given}}
        _check_mix({**fields, **given}, lines)
        return validated(Recipe, Marked({**fields, **given}, lines), _model_at)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); known recipes: {', '.join(builtin_recipes())}") from None
    except Fault as fault:
        where = "on the command line" if fault.line == FLAG else f"{path}:{fault.line}"
        raise RecipeError(f"{where}: {fault.message}") from None


# In `sources`: every genre that names no file of its own.
ANY_GENRE = "*"

def _check_mix(fields: Mapping[str, Any], lines: Mapping[Any, int]) -> None:
    """Genres stand in one mix, or in that of each stage."""
    if not fields.get("mix") and not fields.get("stages"):
        raise Fault(lines.get(("mix",), 1), "'mix' is missing: genres and their shares, or `stages` with a mix each")
    if fields.get("mix") and fields.get("stages"):
        raise Fault(lines[("mix",)], "the recipe has stages, and each has a mix of its own; leave this one out")


def _anchored(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    found = dict(fields)
    if isinstance(found.get("constitution"), str) and found["constitution"] != "default":
        found["constitution"] = str(folder / found["constitution"])
    if isinstance(found.get("genres_dir"), list):
        found["genres_dir"] = [str(folder / str(each)) for each in found["genres_dir"]]
    if isinstance(found.get("decontaminate"), list):
        found["decontaminate"] = [str(folder / str(each)) for each in found["decontaminate"]]
    for name in ("bans", "prices"):
        if isinstance(found.get(name), str):
            found[name] = str(folder / found[name])
    if isinstance(found.get("principles"), str):
        found["principles"] = _source(found["principles"], folder)
    if isinstance(found.get("sources"), dict):
        found["sources"] = {genre: _source(path, folder) for genre, path in found["sources"].items()}
    if isinstance(found.get("stages"), dict):
        found["stages"] = {
            name: _anchored(stage, folder) if isinstance(stage, dict) else stage
            for name, stage in found["stages"].items()
        }
    return found


def _source(path: Any, folder: Path) -> Any:
    is_elsewhere = not isinstance(path, str) or path.startswith(STAGE) or "://" in path
    return path if is_elsewhere else str((folder / path).absolute())
