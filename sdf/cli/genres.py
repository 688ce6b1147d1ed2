"""The commands on recipes and genre files."""

from __future__ import annotations

from typing import Annotated

import typer

from sdf.cli.app import Result, app, command
from sdf.errors import GenreError

genres_app = typer.Typer(help="Genre files: list, new, check, show.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(genres_app, name="genres")


@command()
def recipes() -> Result:
    """The built-in recipes."""
    from sdf.recipe import builtin_recipes, load
    from sdf.report.text import table

    found = {name: load(name, {}).about for name in builtin_recipes()}
    return Result(found, table([("recipe", "about"), *found.items()]))


Genres_dir = Annotated[
    list[str] | None,
    typer.Option("--genres-dir", envvar="SDF_GENRES_DIR", help="A directory of genre files; repeatable."),
]


@command(into=genres_app, name="list")
def list_genres(genres_dir: Genres_dir = None) -> Result:
    """The known genres."""
    from sdf import api
    from sdf.report.text import genres_text

    found = api.genres(genres_dir or [])
    return Result({key: genre.about for key, genre in found.items()}, genres_text(found))


@command(into=genres_app, name="check")
def check_genres(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Genre files.")],
) -> Result:
    """Loads genre files; names file and line of the first fault."""
    from sdf import api
    from sdf.report.text import genres_text

    found = {path: api.check_genre(path) for path in paths}
    return Result({path: genre.key for path, genre in found.items()}, genres_text(found))


@command(into=genres_app, name="new")
def new_genre(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Small letters, digits and _, as in reader_letter.")],
    kind: Annotated[str, typer.Option(help="document, chat, prompt or item.")] = "document",
    dir: Annotated[str, typer.Option("--dir", help="Where the file goes; created if need be.")] = "genres",
) -> Result:
    """Writes a genre file to begin from, with comments that explain it."""
    from sdf import api
    from sdf.report.terminal import plain

    made = api.new_genre(key, kind=kind, directory=dir)
    lines = [
        f"{made.path}: kind {made.kind}, steps {', '.join(step.name for step in made.steps)}",
        f"Edit it; `sdf genres check {made.path}` names what is wrong.",
        f"`sdf preview RECIPE --genres-dir {dir} --mix {key}=1 --genre {key}` shows its prompts and what comes back.",
    ]
    return Result({"path": made.path, "key": key, "kind": made.kind}, plain("\n".join(lines)))


@command(into=genres_app, name="show")
def show_genre(name: Annotated[str, typer.Argument(metavar="NAME")], genres_dir: Genres_dir = None) -> Result:
    """One genre: what it declares, and its prompts."""
    from sdf import api
    from sdf.frontmatter import near
    from sdf.genres import dump
    from sdf.report.text import genre_text

    known = api.genres(genres_dir or [])
    if name not in known:
        raise GenreError(f"unknown genre {name!r}{near(name, known)}")
    return Result(dump(known[name]), genre_text(known[name]))
