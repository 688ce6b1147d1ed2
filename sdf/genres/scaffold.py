"""A new genre file to begin from: one for each kind, complete, and with comments that say why each line is there."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import get_args

from sdf.errors import GenreError
from sdf.frontmatter import near
from sdf.genres.loading import load
from sdf.genres.model import Genre, Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def scaffold(key: str, kind: str, directory: Path) -> Genre:
    """Writes DIRECTORY/KEY.md, which loads as it is. GenreError for no key, no kind, or a file in its place."""
    if not KEY.fullmatch(key):
        raise GenreError(f"{key!r} is no key: small letters, digits, `_` and `-`, as in reader_letter")
    if kind not in KINDS:
        raise GenreError(f"unknown kind {kind!r}{near(kind, KINDS)}")
    path = directory / f"{key}.md"
    text = resources.files("sdf").joinpath(f"data/scaffold/{kind}.md").read_text(encoding="utf-8")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text.replace("key: KEY", f"key: {key}").replace("KEY=PATH", f"{key}=PATH"))
    except FileExistsError:
        raise GenreError(f"{path}: is there already; choose another key, or edit that file") from None
    except OSError as error:
        raise GenreError(f"{path}: cannot be written ({error.strerror}); give another --dir") from None
    return load(path)
