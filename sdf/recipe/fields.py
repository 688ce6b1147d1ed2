"""The fields of a recipe, and what each of them decides: text, the corpus, or neither."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

from sdf import checks
from sdf.errors import RecipeError
from sdf.frontmatter import Fault, Location, Marked, near, validated
from sdf.manifest import ALL
from sdf.recipe.values import Backend, as_text, is_secret, positive, settings_of, size, wanted
from sdf.records import Seat

Decides = Literal["text", "corpus", "run"]

# The model that answers when a recipe names none; None: a recipe must name one.
DEFAULT_MODELS: Mapping[str, str | None] = {
    "offline": "offline-grammar",
    "anthropic": None,
    "anthropic-batch": None,
    "openai": None,
    "vllm": None,
}

# Documents in flight at each worker, unless told: a batch is worth its wait when thousands share it.
ONLINE = 64
IN_FLIGHT: Mapping[str, int] = {"anthropic-batch": 5_000}

# Sampling that a provider's API no longer takes: asking for it would change nothing.
DROPPED_SAMPLING: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("temperature", "top_p"),
    "anthropic-batch": ("temperature", "top_p"),
}

# Whose APIs hold conversations alone: a step in `form: completion` cannot be asked of them.
CHATS_ONLY = frozenset({"anthropic", "anthropic-batch"})

# The line of a value that no file holds: it came by flag or environment.
FLAG = 0


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

    @field_validator("shard_tokens", mode="before")
    @classmethod
    def _size(cls, value: str | float) -> int:
        return size(value)

    @field_validator("tokens", mode="before")
    @classmethod
    def _target(cls, value: str | float) -> int:
        return wanted(value)

    @field_serializer("tokens", when_used="json")
    def _said(self, tokens: int) -> int | str:
        return "all" if tokens == ALL else tokens

    @field_validator("mix")
    @classmethod
    def _positive(cls, mix: dict[str, float]) -> dict[str, float]:
        return positive(mix)

    @field_validator("max_cost", "temperature", "top_p", mode="before")
    @classmethod
    def _no_truth(cls, value: object) -> object:
        # It would count as 1.
        if isinstance(value, bool):
            raise ValueError("is a number, and no true or false")  # noqa: TRY004  pydantic knows no other
        return value

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

    @field_validator("provider_settings", mode="before")
    @classmethod
    def _as_text(cls, settings: Any) -> Any:
        return as_text(settings)

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
            return validated(Recipe, marked, model_at)
        except Fault as fault:
            raise RecipeError(fault.message) from None

    def model_of(self, seat: Seat) -> str:
        """RecipeError when its provider has no model of its own and the recipe names none."""
        own = self.models.get(seat) or (self.model if seat != "fallback" else None)
        provider = self.backend_of(seat).provider
        model = own or DEFAULT_MODELS[provider]
        if model is None:
            is_common = seat != "fallback" and provider == self.provider
            ways = ["--model (`model:` in the recipe)"] if is_common else []
            ways += [] if seat == "write" else [f"--{seat}-model (`models: {{{seat}: …}}`)"]
            raise RecipeError(f"provider {provider} needs a model to {_WORK[seat]}; name it with {', or '.join(ways)}")
        return model

    def backend_of(self, seat: Seat) -> Backend:
        """Who is asked: the seat's own provider or the common one, with the settings that are meant for it.

        A setting `ROLE.NAME` is that role's alone; one without a role is for the common provider.
        """
        provider = self.providers.get(seat, self.provider)
        shared = {} if provider != self.provider else settings_of(self.provider_settings, None)
        return Backend(provider, tuple(sorted({**shared, **settings_of(self.provider_settings, seat)}.items())))

    @property
    def n_in_flight(self) -> int:
        """Documents under way at each worker."""
        return self.in_flight or max(IN_FLIGHT.get(name, ONLINE) for name in self._asked)

    def n_open(self, provider: str) -> int:
        """Requests that a worker may have open with a provider: the thousands of documents that wait for a batch must
        not all meet a server at once."""
        shares_with_batches = provider not in IN_FLIGHT and any(name in IN_FLIGHT for name in self._asked)
        return min(ONLINE, self.n_in_flight) if shares_with_batches else self.n_in_flight

    @property
    def _asked(self) -> set[str]:
        return {self.provider, *self.providers.values()}

    @property
    def has_fallback(self) -> bool:
        return "fallback" in self.models or "fallback" in self.providers


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


def model_at(location: Location) -> type[BaseModel]:
    return StageEntry if len(location) == 2 and location[0] == "stages" else Recipe
