"""What a recipe's values may be: sizes, shares, settings without keys, and who is asked by them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast, get_args

from sdf.errors import RecipeError
from sdf.manifest import ALL
from sdf.records import Seat

SUFFIXES = {"k": 1_000, "M": 1_000_000, "B": 1_000_000_000}

# In `sources`: every genre that names no file of its own.
ANY_GENRE = "*"

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
    mix, said = dict(base) if any(changes) else {}, set[str]()
    for entry in entries:
        name, equals, share = entry.lstrip("+").partition("=")
        if name.strip() in said:
            raise RecipeError(f"--mix: {name.strip()} is given twice; name it once")
        said.add(name.strip())
        try:
            mix[name.strip()] = float(share)
        except ValueError:
            raise RecipeError(f"--mix {entry!r}: {share!r} is not a number; write {name}=2") from None
        if not equals:
            raise RecipeError(f"--mix {entry!r}: no share given; write {name}=2")
    return mix


def wanted(value: str | float) -> int:
    """A size, or ALL for "all"."""
    if str(value).strip() == "all":
        return ALL
    try:
        return size(value)
    except ValueError as error:
        raise ValueError(f"{error}; or `all`, where every genre of the mix ends by itself") from None


def positive(mix: dict[str, float]) -> dict[str, float]:
    for name, share in mix.items():
        if not (math.isfinite(share) and share > 0):
            raise ValueError(
                f"share of {name!r} is {share:g}; a share is a number above 0 (leave a genre out to drop it)"
            )
    return mix


def as_text(settings: Any) -> Any:
    """Numbers and truth as a flag would give them: "30", "true". Anything else is left as it is."""
    if not isinstance(settings, dict):
        return settings
    given = cast("dict[Any, Any]", settings)
    return {name: _text(value) if isinstance(value, (bool, int, float)) else value for name, value in given.items()}


def _text(value: float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Backend(NamedTuple):
    """A provider and its settings; equal ones share connections, limits and engines."""

    provider: str
    settings: tuple[tuple[str, str], ...]


SEATS: tuple[Seat, ...] = get_args(Seat)


def settings_of(settings: Mapping[str, str], seat: Seat | None) -> dict[str, str]:
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
