"""What tokens cost: a dated table as data, a file that replaces entries of it, and no guess beyond either.

A model is found by its own name, or by that name with a date behind it. One that is not found has no price, and then
nothing is computed from it: a cost is "unknown", never 0. The trade-off: a discount, a credit or a minimum that only a
contract knows must be written into a price file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from sdf.errors import RecipeError
from sdf.frontmatter import Fault, Marked, near, read, validated
from sdf.records import Usage

TABLE = Path(__file__).parents[1] / "data" / "prices.json"

Ttl = Literal["5m", "1h"]

# A dated version of a model costs what the model costs: -20260901, @20260901, -2026-09-01, and nothing else.
DATE = re.compile(r"[-@]20\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])|-20\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")

MILLION = 1_000_000


# Strict: `true` is no dollar.
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class Rates(BaseModel):
    """Dollars per million tokens. What a table leaves out of the cache's rates costs as much as input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Dollars
    output: Dollars
    cache_write_5m: Dollars | None = None
    cache_write_1h: Dollars | None = None
    cache_read: Dollars | None = None

    def write(self, ttl: Ttl) -> float:
        written = self.cache_write_5m if ttl == "5m" else self.cache_write_1h
        return self.input if written is None else written

    @property
    def read(self) -> float:
        return self.input if self.cache_read is None else self.cache_read


class Tier(Rates):
    """The rates of a request whose prompt has more tokens than this."""

    prompt_tokens: int = Field(gt=0)


class Price(Rates):
    """What a model's answers cost; in a batch, `batch_factor` of it."""

    above: tuple[Tier, ...] = ()
    batch_factor: float = Field(default=0.5, ge=0, le=1)

    def cost(self, usage: Usage, *, cache_ttl: Ttl, batch: bool) -> float:
        """Dollars for one answer. All of it is billed at the rates of its prompt's length, cached tokens included."""
        n_prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        rates = self.rates(n_prompt)[-1]
        dollars = (
            usage.input_tokens * rates.input
            + usage.output_tokens * rates.output
            + usage.cache_read_tokens * rates.read
            + usage.cache_write_tokens * rates.write(cache_ttl)
        )
        return dollars / MILLION * (self.batch_factor if batch else 1)

    def worst(self, n_prompt: int, n_output: int, *, cache_ttl: Ttl, batch: bool) -> float:
        """Dollars that an answer to at most so many tokens, of at most so many, can cost."""
        reached = self.rates(n_prompt)
        dearest = max(max(each.input, each.read, each.write(cache_ttl)) for each in reached)
        dollars = n_prompt * dearest + n_output * max(each.output for each in reached)
        return dollars / MILLION * (self.batch_factor if batch else 1)

    def rates(self, n_prompt: int) -> list[Rates]:
        """The rates that prompts of up to so many tokens meet, by length; the last are those of just so many."""
        return [self, *(tier for tier in _by_length(self.above) if tier.prompt_tokens < n_prompt)]


def _by_length(tiers: tuple[Tier, ...]) -> list[Tier]:
    return sorted(tiers, key=lambda tier: tier.prompt_tokens)


class Prices(BaseModel):
    """A table: when it was right, where it is from, and the price of each model by the provider that sells it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: str = Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")
    source: str = Field(min_length=1)
    models: dict[str, dict[str, Price]]

    def price_of(self, provider: str, model: str) -> Price | None:
        """The price of the model, or of the one it is a dated version of. None when neither is listed."""
        billed = BILLED[provider]
        if billed.table is None:
            return FREE
        listed = self.models.get(billed.table, {})
        if model in listed:
            return listed[model]
        return next((price for name, price in listed.items() if _is_version(model, name)), None)

    def over(self, base: Prices) -> Prices:
        """This table's entries, and for the rest those of `base`."""
        models = {table: {**base.models.get(table, {}), **self.models.get(table, {})} for table in TABLES}
        return Prices(date=self.date, source=self.source, models=models)


def _is_version(model: str, name: str) -> bool:
    return model.startswith(name) and DATE.fullmatch(model[len(name) :]) is not None


FREE = Price(input=0, output=0)


class Billed(NamedTuple):
    """How a provider is billed: by which table (None: nobody bills), for how long it caches, whether in batches."""

    table: str | None
    cache_ttl: Ttl = "5m"
    batch: bool = False


BILLED: Mapping[str, Billed] = {
    "anthropic": Billed("anthropic"),
    "anthropic-batch": Billed("anthropic", "1h", batch=True),
    "offline": Billed(None),
    "openai": Billed("openai"),
    "vllm": Billed(None),
}
TABLES = tuple(dict.fromkeys(each.table for each in BILLED.values() if each.table is not None))


class Tariff(NamedTuple):
    """What answers of one model cost at one provider, with the settings it is asked with."""

    price: Price | None
    cache_ttl: Ttl
    batch: bool

    def cost(self, usage: Usage) -> float | None:
        """Dollars; None where the price is not known."""
        return None if self.price is None else self.price.cost(usage, cache_ttl=self.cache_ttl, batch=self.batch)

    def worst(self, n_prompt: int, n_output: int) -> float:
        """Dollars at most; 0.0 where the price is not known, and so nothing is bounded."""
        if self.price is None:
            return 0.0
        return self.price.worst(n_prompt, n_output, cache_ttl=self.cache_ttl, batch=self.batch)


UNKNOWN = Tariff(None, "5m", batch=False)


def tariff(prices: Prices, provider: str, settings: Mapping[str, str], model: str) -> Tariff:
    billed = BILLED[provider]
    ttl: Ttl = "1h" if settings.get("cache_ttl", billed.cache_ttl) == "1h" else "5m"
    return Tariff(prices.price_of(provider, model), ttl, billed.batch)


def example(provider: str, model: str) -> str:
    """A price file for one model."""
    content = {
        "date": "2026-11-20",
        "source": "our contract",
        "models": {BILLED[provider].table: {model: {"input": 3.0, "output": 15.0}}},
    }
    return json.dumps(content)


@lru_cache(maxsize=1)
def builtin() -> Prices:
    return Prices.model_validate_json(TABLE.read_bytes())


def load_prices(path: str) -> Prices:
    """The table in a file, laid over the built-in one. RecipeError names file and line."""
    try:
        marked = read(Path(path).read_text(encoding="utf-8-sig"), 1)
        found = validated(Prices, marked, _model_at)
        _check_tables(found, marked)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"prices {path}: cannot be read ({error})") from None
    except Fault as fault:
        raise RecipeError(f"prices {path}:{fault.line}: {fault.message}") from None
    return found.over(builtin())


def _check_tables(found: Prices, marked: Marked) -> None:
    for table in found.models:
        if table not in TABLES:
            raise Fault(marked.line("models", table), f"no provider {table!r} bills{near(table, TABLES)}")


def _model_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    """What stands at a place of the file: the table, a price (models.TABLE.MODEL), or one of its tiers."""
    return Prices if len(location) < 3 else Price if len(location) == 3 else Tier
