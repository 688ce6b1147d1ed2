"""What is chosen of what lies at an address: the files, and the rows by their columns."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from sdf.errors import StreamError
from sdf.stream.order import Rows
from sdf.stream.places import Place

# Of a directory. A file of JSON lines that is called .json is read when it is named: beside data lie .json files that
# are none.
SUFFIXES = (".parquet", ".jsonl", ".ndjson")
# What `sdf export` writes beside the directories that are read.
EXPORT = "export.json"
Allowed = tuple[Any, ...] | range


def names_files(place: Place) -> bool:
    """Whether an address is that of a file, or a pattern of files, rather than of a directory."""
    return place.name.lower().endswith((*SUFFIXES, ".json", ".gz", ".zst")) or any(mark in place.name for mark in "*?[")


def data_files(place: Place) -> tuple[Place, list[str]]:
    """The directory, and the sorted data files in it that the address names."""
    if names_files(place):
        found = place.parent, [name for name in place.parent.names("") if fnmatch.fnmatchcase(name, place.name)]
    else:
        found = place, [name for name in place.names("") if name.lower().endswith(SUFFIXES)]
    if not found[1]:
        raise _nothing_at(place)
    return found


def _nothing_at(place: Place) -> StreamError:
    if not names_files(place) and EXPORT in place.names(""):
        return StreamError(f"{place}: an export; give one of its directories, as in {place}/documents/train")
    return StreamError(
        f"{place}: neither a corpus (no manifests/), nor a tokens export (no tokens.json), nor a directory or "
        "pattern with .parquet or uncompressed .jsonl files; check the address"
    )


def holds_nothing(place: Place) -> bool:
    """Whether no data lies there yet."""
    return not names_files(place) and not any(name.lower().endswith((*SUFFIXES, EXPORT)) for name in place.names(""))


def without(items: Sequence[Any], paths: Sequence[str], skip: Sequence[str], place: Place) -> list[Any]:
    """The items whose path is not in `skip`; StreamError for a path that none has."""
    for path in skip:
        if path not in paths:
            near = get_close_matches(path, paths, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {len(paths)}, such as {paths[0]!r}"
            raise StreamError(f"{place}: skip={path!r} is none of its files; {hint}")
    return [item for item, path in zip(items, paths, strict=True) if path not in skip]


def allowed_of(value: Any) -> Allowed:
    """The values that a column may hold, from one, several or a range."""
    if isinstance(value, range):
        return value
    return (value,) if isinstance(value, str | int | float | bool) or value is None else tuple(value)


def matches(column: Any, allowed: Allowed, where: str, name: str) -> Rows:
    """Where the column holds an allowed value; StreamError when its type cannot."""
    # In Python: pyarrow imports pandas, where there is one, to make an array or a scalar of what `allowed` holds.
    values = column.to_pylist()
    wanted = _kinds((allowed.start,) if isinstance(allowed, range) else allowed)
    try:
        if (found := _kinds(values)) and wanted and not found & wanted:
            raise TypeError
        if isinstance(allowed, range):
            return np.array([value is not None and allowed.start <= value < allowed.stop for value in values], bool)
        chosen = frozenset(allowed)
        return np.array([value in chosen for value in values], bool)
    except TypeError:
        raise StreamError(f"{where}: column {name!r} ({column.type}) cannot be compared with {allowed!r}") from None


def _kinds(values: Iterable[Any]) -> set[type]:
    """The types of values, all numbers alike; nothing for None."""
    types = {type(value) for value in values if value is not None}
    return {float if each in (int, bool) else each for each in types}
