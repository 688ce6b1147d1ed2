"""Recipe files: found by path or name, read with what flags and environment lay over them; errors name the line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdf import genres as genre_files
from sdf.errors import RecipeError
from sdf.frontmatter import Fault, Marked, near, read, validated
from sdf.genres.model import STAGE
from sdf.recipe.fields import FLAG, Recipe, model_at
from sdf.recipe.values import shares


def builtin_recipes() -> dict[str, Path]:
    found = {path.stem: path for path in (genre_files.BUILTIN_DIR / "recipes").glob("*.yaml")}
    return dict(sorted(found.items()))


def find(name: str) -> Path:
    """The file of a recipe given by path or by built-in name."""
    builtin = builtin_recipes()
    path = Path(name)
    if name in builtin:
        return builtin[name]
    if path.suffix in (".yaml", ".yml"):
        return path
    raise RecipeError(f"unknown recipe {name!r}; a YAML file is given by its path{near(name, builtin)}")


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
        return validated(Recipe, Marked({**fields, **given}, lines), model_at)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); known recipes: {', '.join(builtin_recipes())}") from None
    except Fault as fault:
        where = "on the command line" if fault.line == FLAG else f"{path}:{fault.line}"
        raise RecipeError(f"{where}: {fault.message}") from None


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
