"""Recipe: a YAML file, and what each of its fields decides: text, the corpus, or neither.

Environment and flags override the file. Unknown fields fail, with the nearest known name and the line.
"""

from __future__ import annotations

from sdf.recipe.fields import (
    CHATS_ONLY,
    DECIDES,
    DEFAULT_MODELS,
    DROPPED_SAMPLING,
    IN_FLIGHT,
    UNSAID,
    Decides,
    Recipe,
    StageEntry,
)
from sdf.recipe.files import builtin_recipes, find, load, place_of
from sdf.recipe.values import ANY_GENRE, SEATS, Backend, is_secret, settings_of, shares, size, wanted

__all__ = [
    "ANY_GENRE",
    "CHATS_ONLY",
    "DECIDES",
    "DEFAULT_MODELS",
    "DROPPED_SAMPLING",
    "IN_FLIGHT",
    "SEATS",
    "UNSAID",
    "Backend",
    "Decides",
    "Recipe",
    "StageEntry",
    "builtin_recipes",
    "find",
    "is_secret",
    "load",
    "place_of",
    "settings_of",
    "shares",
    "size",
    "wanted",
]
