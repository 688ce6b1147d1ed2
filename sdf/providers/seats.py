"""Errors of a provider, with the seat it answers for.

A provider does not know whom it serves: it speaks of `base_url` and of `--model`. Where a seat has settings or a model
of its own, following those words would move the others, so here alone it is added how the seat's are given.
"""

from __future__ import annotations

import copy

from sdf.errors import RecipeError, SdfError
from sdf.frontmatter import near
from sdf.providers.settings import check
from sdf.recipe import SEATS, Backend, Recipe, settings_of
from sdf.records import Seat


def of_seat(recipe: Recipe, seat: Seat, error: SdfError) -> SdfError:
    """The same error, or a copy that tells by which flags the seat's model and settings are given."""
    own = [f"its settings --provider-setting {seat}.NAME=…"] if recipe.backend_of(seat) != _common(recipe) else []
    if _has_own_model(recipe, seat):
        own.append(f"its model --{seat}-model" if seat != "write" else "its model `models: {write: …}` in the recipe")
    if not own:
        return error
    found = copy.copy(error)
    found.args = (f"{error} [{seat}: {', '.join(own)}]", *error.args[1:])
    return found


def _has_own_model(recipe: Recipe, seat: Seat) -> bool:
    is_elsewhere = seat != "write" and recipe.providers.get(seat, recipe.provider) != recipe.provider
    return seat in recipe.models or seat == "fallback" or is_elsewhere


def _common(recipe: Recipe) -> Backend:
    return Backend(recipe.provider, tuple(sorted(settings_of(recipe.provider_settings, None).items())))


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
            raise of_seat(recipe, seat, error) from None
