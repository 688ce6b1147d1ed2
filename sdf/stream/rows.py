"""Rows of an Arrow table as plain Python values, one row at a time.

Long texts are decoded when their row is asked for, straight from Arrow's buffer, so that a window of rows is held once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Getter = Callable[[int], Any]

# Below this a column is turned into a list at once, which is faster a value and small.
SMALL_BYTES = 512 * 1024


class PlainRows:
    """`rows[i]` is row `i` as a dict of the columns."""

    def __init__(self, table: Any) -> None:
        self._getters = [(name, getter_of(table[name])) for name in table.column_names]

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {name: get(number) for name, get in self._getters}


def getter_of(column: Any) -> Getter:
    """Value by row number."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks)
    if array.nbytes <= SMALL_BYTES:
        return array.to_pylist().__getitem__
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return _text_getter(array)

    def value(number: int) -> Any:
        return array[number].as_py()

    return value


def texts_of(column: Any, numbers: Sequence[int]) -> list[str | None]:
    get = getter_of(column)
    return [get(number) for number in numbers]


def _text_getter(array: Any) -> Getter:
    kind = np.int64 if pa.types.is_large_string(array.type) else np.int32
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, kind)[array.offset : array.offset + len(array) + 1]
    starts, stops, view = bounds[:-1].tolist(), bounds[1:].tolist(), memoryview(data)
    nulls = array.is_null().to_pylist() if array.null_count else None

    def text(number: int) -> str | None:
        return None if nulls and nulls[number] else str(view[starts[number] : stops[number]], "utf-8")

    return text
