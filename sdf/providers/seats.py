"""What a provider says, in the words of the seat it answers for.

A provider does not know whom it serves: it speaks of `base_url` and of `--model`. Where a seat has a provider, settings
or a model of its own, following those words would move the others; here alone they become `judge.base_url` and
`--judge-model`. The trade-off: it is done in the text, so that no provider needs to know of seats.
"""

from __future__ import annotations

import copy
import re

from sdf.errors import RecipeError, SdfError
from sdf.frontmatter import near
from sdf.providers.settings import KNOWN, check
from sdf.recipe import SEATS, Backend, Recipe, settings_of
from sdf.records import Seat

# Settings whose names are no words of prose, of whichever provider.
_COMPOUND = frozenset(name for known in KNOWN.values() for name in known if "_" in name)


def in_words_of(recipe: Recipe, seat: Seat, error: SdfError) -> SdfError:
    """The same error, or a copy that names the flags and settings of the seat."""
    text = str(error)
    if _has_own_model(recipe, seat):
        own = f"--{seat}-model" if seat != "write" else "`models: {write: …}`"
        text = re.sub(r"--model(?![\w-])", own, text)
    if recipe.backend_of(seat) != _common(recipe):
        text = _with_own_settings(text, seat, KNOWN[recipe.backend_of(seat).provider])
    if text == str(error):
        return error
    found = copy.copy(error)
    found.args = (text, *error.args[1:])
    return found


def _has_own_model(recipe: Recipe, seat: Seat) -> bool:
    is_elsewhere = seat != "write" and recipe.providers.get(seat, recipe.provider) != recipe.provider
    return seat in recipe.models or seat == "fallback" or is_elsewhere


def _common(recipe: Recipe) -> Backend:
    return Backend(recipe.provider, tuple(sorted(settings_of(recipe.provider_settings, None).items())))


def _with_own_settings(text: str, seat: Seat, known: frozenset[str]) -> str:
    flags = "|".join(name.replace("_", "-") for name in sorted(known))
    text = re.sub(rf"--({flags})(?![\w-])", lambda found: f"--provider-setting {found[1].replace('-', '_')}=…", text)
    text = re.sub(r"--engine (?=\w)", "--provider-setting engine.", text)
    # A name of one word is a word of prose too, unless it stands as a name does.
    names = [rf"{name}\b" if "_" in name else rf"{name}(?=[=',;]| is '|$)" for name in sorted(known | _COMPOUND)]
    return re.sub(rf"(?<![\w./=?&-])({'|'.join([*names, 'engine[.](?=.)'])})", rf"{seat}.\1", text)


def check_settings(recipe: Recipe) -> None:
    """RecipeError for a setting of the recipe, common or of a seat, that its provider does not take as it stands."""
    for name in recipe.provider_settings:
        owner, dot, _ = name.partition(".")
        if dot and owner not in SEATS and owner != "engine":
            raise RecipeError(f"provider setting {name!r}: no role {owner!r}{near(owner, SEATS)}")
    common = _common(recipe)
    check(common.provider, dict(common.settings))
    for seat in SEATS:
        backend = recipe.backend_of(seat)
        try:
            check(backend.provider, dict(backend.settings))
        except RecipeError as error:
            raise in_words_of(recipe, seat, error) from None
