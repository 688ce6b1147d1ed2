"""A genre file -> Genre: one Markdown file that says how a kind of text is made, one section per prompt.

Everything that can be wrong is found here, before a model is asked: names, order, axes, prompts, bounds. So a
run never fails on its thousandth document over a typo; the price is that a file is refused whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sdf.errors import GenreError
from sdf.genres.ablation import ablated, depending
from sdf.genres.files import GenreChecks
from sdf.genres.loading import BUILTIN_DIR, PREAMBLE, ROUND_ITEMS, load
from sdf.genres.model import CONFIGS, Axis, Dedup, Genre, Kind, Source, Step
from sdf.genres.scaffold import scaffold

__all__ = [
    "BUILTIN_DIR",
    "CONFIGS",
    "ROUND_ITEMS",
    "Axis",
    "Dedup",
    "Genre",
    "GenreChecks",
    "Kind",
    "Source",
    "Step",
    "ablated",
    "depending",
    "discover",
    "dump",
    "load",
    "restore",
    "scaffold",
]

NOT_GENRES = (PREAMBLE, "README.md")


def discover(dirs: Sequence[str | Path]) -> dict[str, Genre]:
    """Genres by key: the built-in ones, then those of `dirs`, where a later directory overrides an earlier one.

    A genre is any `*.md` in the directory itself but preamble.md and README.md. Raises GenreError.
    """
    found: dict[str, Genre] = {}
    for directory in (BUILTIN_DIR, *dirs):
        found.update(_in_directory(Path(directory)))
    return found


def dump(genre: Genre) -> dict[str, Any]:
    """The genre as JSON data; `restore` gives an equal one where the file is not at hand."""
    return _ADAPTER.dump_python(genre, mode="json")


def restore(data: Mapping[str, Any]) -> Genre:
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise GenreError(f"a stored genre cannot be read: {where}: {first['msg']}") from error


_ADAPTER: TypeAdapter[Genre] = TypeAdapter(Genre)


def _in_directory(directory: Path) -> dict[str, Genre]:
    if not directory.is_dir():
        raise GenreError(f"{directory}: not a directory; genre files are looked for there")
    found: dict[str, Genre] = {}
    for path in sorted(directory.glob("*.md")):
        if path.name in NOT_GENRES:
            continue
        genre = load(path)
        if genre.key in found:
            raise GenreError(f"{path}:2: the key {genre.key!r} is that of {found[genre.key].path} too; change one")
        found[genre.key] = genre
    return found
