"""The genres of a mix, as a job takes them: those asked for, with their rows, without what is ablated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sdf import genres as genre_files
from sdf.errors import RecipeError
from sdf.frontmatter import near
from sdf.genres import Genre
from sdf.genres.model import STAGE
from sdf.manifest import ALL
from sdf.names import LOCALES
from sdf.recipe import ANY_GENRE, Recipe
from sdf.sources import pin


def genres_of(recipe: Recipe) -> tuple[Genre, ...]:
    """In the order of the mix, their sources pinned by what they hold now.

    RecipeError, with its place, for a genre that cannot be had.
    """
    known = genre_files.discover([Path(each) for each in recipe.genres_dir])
    for name in recipe.mix:
        if name not in known:
            raise RecipeError(f"unknown genre {name!r} in the mix{near(name, known)}", ("mix", name))
    _check_sources(recipe, known)
    _check_allowed(recipe, known)
    check_ends([known[name] for name in recipe.mix], recipe)
    arms = without([known[name] for name in recipe.mix], recipe)
    genres = tuple(_pinned(_with_path(genre, recipe)) for genre in arms)
    for genre in genres:
        _check_locales(genre)
    return genres


def without(genres: Sequence[Genre], recipe: Recipe) -> list[Genre]:
    """The genres without the rewrites that the recipe leaves out. RecipeError for a name that is none of theirs."""
    for place, name in enumerate(recipe.ablate):
        check_ablated(genres, name, ("ablate", place))
    return [genre_files.ablated(genre, recipe.ablate) for genre in genres]


def check_ablated(genres: Sequence[Genre], name: str, at: tuple[str | int, ...]) -> None:
    steps = [(genre, step) for genre in genres for step in genre.steps]
    rewrites = [step.name for _, step in steps if step.rewrites is not None]
    if name in rewrites or any(name in genre.ablated for genre in genres):
        return
    nearest = near(name, dict.fromkeys(rewrites)) if rewrites else "; no step of the mix rewrites another"
    found = next((f"{genre.path}:{step.line}" for genre, step in steps if step.name == name), None)
    if found is None:
        raise RecipeError(f"ablate: no step {name!r} in the genres of the mix{nearest}", at)
    raise RecipeError(
        f"ablate: {name!r} ({found}) rewrites no other step, so nothing could stand in its place{nearest}", at
    )


def check_ends(genres: Sequence[Genre], recipe: Recipe) -> None:
    """All there is can be made of genres that end: those that read rows or fill cells of a size."""
    endless = [genre.key for genre in genres if genre.source is None and genre.cell_size is None]
    if recipe.tokens == ALL and endless:
        raise RecipeError(
            f"tokens: all, but genre {endless[0]!r} never ends (it has neither a `source` nor a `cell_size`); "
            "give a number, such as 20M",
            ("tokens",),
        )


def _check_allowed(recipe: Recipe, known: Mapping[str, Genre]) -> None:
    """What must be asked for by name, such as text in the shape of an evaluation, is in no recipe by accident."""
    kinds = {genre.opt_in for genre in known.values() if genre.opt_in is not None}
    for kind in recipe.allow:
        if kind not in kinds:
            raise RecipeError(f"allow: no genre is opt_in: {kind!r}{near(kind, sorted(kinds))}", ("allow",))
    for name in recipe.mix:
        kind = known[name].opt_in
        if kind is not None and kind not in recipe.allow:
            raise RecipeError(
                f"genre {name!r} is in no mix unless asked for; say so with `allow: [{kind}]` in the recipe "
                f"or --allow {kind}",
                ("mix", name),
            )


def _check_sources(recipe: Recipe, known: Mapping[str, Genre]) -> None:
    reading = [name for name in recipe.mix if known[name].source is not None]
    for name in recipe.sources:
        if name == ANY_GENRE and not reading:
            raise RecipeError("sources: no genre of the mix reads rows", ("sources", name))
        if name != ANY_GENRE and name not in reading:
            raise RecipeError(
                f"sources: no genre {name!r} in the mix that reads rows{near(name, reading)}", ("sources", name)
            )


def _with_path(genre: Genre, recipe: Recipe) -> Genre:
    """The genre with the rows that the recipe gives it; a pin is of the file that the genre names itself."""
    if genre.source is None:
        return genre
    own = recipe.sources.get(genre.key)
    path = own or (recipe.sources.get(ANY_GENRE) if genre.source.path is None else None)
    if path is not None:
        return replace(genre, source=replace(genre.source, path=path, sha256=None))
    if genre.source.path is None:
        columns = ", ".join(genre.source.columns)
        raise RecipeError(
            f"genre {genre.key!r} ({genre.path}:{genre.source.line}) reads rows with {columns}, and nothing says from "
            f"where; give --source {genre.key}=PATH, or `sources: {{{genre.key}: PATH}}` in the recipe"
        )
    return genre


def _pinned(genre: Genre) -> Genre:
    """A stage that is not made yet has nothing to pin."""
    source = genre.source
    if source is None or source.sha256 is not None or str(source.path).startswith(STAGE):
        return genre
    found = pin(source, genre.path)
    return replace(genre, source=replace(source, sha256=found.sha256, lineage=found.lineage))


def _check_locales(genre: Genre) -> None:
    """An axis named `locale` picks the pools that names come from."""
    for axis in genre.axes:
        unknown = [value for value in axis.values if axis.name == "locale" and value not in LOCALES]
        if unknown:
            raise RecipeError(f"{genre.path}: axis locale: no names for {unknown[0]!r}{near(unknown[0], LOCALES)}")
