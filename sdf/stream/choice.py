"""What is chosen of what lies at an address: the files, and the rows by their columns."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import compute

from sdf.errors import StreamError
from sdf.stream.order import Rows
from sdf.stream.places import Place
from sdf.stream.tables import no_column

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json")
Allowed = tuple[Any, ...] | range

_COMPUTE: Any = compute  # its functions are made when it is imported, so that no type checker knows them


def names_files(place: Place) -> bool:
    """Whether an address is that of a file, or a pattern of files, rather than of a directory."""
    return place.name.lower().endswith(SUFFIXES) or any(mark in place.name for mark in "*?[")


def data_files(place: Place) -> tuple[Place, list[str]]:
    """The directory, and the sorted data files in it that the address names."""
    if names_files(place):
        found = place.parent, [name for name in place.parent.names("") if fnmatch.fnmatchcase(name, place.name)]
    else:
        found = place, [name for name in place.names("") if name.lower().endswith(SUFFIXES)]
    if not found[1]:
        raise StreamError(
            f"{place}: neither a corpus (no manifests/), nor a tokens export (no tokens.json), nor a directory or "
            "pattern with .parquet or .jsonl files; check the address"
        )
    return found


def without(items: Sequence[Any], paths: Sequence[str], skip: Sequence[str], place: Place) -> list[Any]:
    """The items whose path is not in `skip`; StreamError for a path that none has."""
    for path in skip:
        if path not in paths:
            raise no_column(f"{place}: skip", path, paths)
    return [item for item, path in zip(items, paths, strict=True) if path not in skip]


def allowed_of(value: Any) -> Allowed:
    """The values that a column may hold, from one, several or a range."""
    if isinstance(value, range):
        return value
    return (value,) if isinstance(value, str | int | float | bool) or value is None else tuple(value)


def matches(column: Any, allowed: Allowed, where: str, name: str) -> Rows:
    """Where the column holds an allowed value; StreamError when its type cannot."""
    try:
        if isinstance(allowed, range):
            mask = _COMPUTE.and_(_COMPUTE.greater_equal(column, allowed.start), _COMPUTE.less(column, allowed.stop))
        else:
            mask = _COMPUTE.is_in(column, value_set=pa.array(list(allowed), column.type))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise StreamError(f"{where}: column {name!r} ({column.type}) cannot be compared with {allowed!r}") from error
    return _COMPUTE.fill_null(mask, False).to_numpy().astype(bool)
