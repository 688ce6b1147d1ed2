"""Rows of an Arrow table as plain Python values.

All at once, in the order in which they are wanted, while Arrow's memory is still warm: cheaper than decoding each row
when its turn comes. Or one value at a time, for who wants few of many.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from sdf.errors import DamagedError
from sdf.stream.order import Rows

Getter = Callable[[int], Any]

# Below this a column is turned into a list at once, which is faster a value and small.
SMALL_BYTES = 512 * 1024


@contextmanager
def decoding(where: str) -> Generator[None]:
    """DamagedError for a text of `where` that is not UTF-8: Parquet takes it, and pyarrow looks when it is taken out.
    To look at all of a row group at once would cost a third of what reading it does."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DamagedError(
            f"{where}: a text that is not UTF-8 ({error.reason}); write or copy the file again"
        ) from error


def stack_of(table: Any, numbers: Rows) -> list[dict[str, Any]]:
    """The rows `numbers` as dicts, the first one last: `pop` gives them in order and lets each go as it is given."""
    if len(numbers) < table.num_rows:
        wanted, numbers = np.unique(numbers, return_inverse=True)
        # By its buffer: pyarrow would import pandas, where there is one, to look at an array of numpy's.
        table = table.take(
            pa.Array.from_buffers(pa.int64(), len(wanted), [None, pa.py_buffer(wanted.astype(np.int64))])
        )
    order = numbers[::-1].tolist()
    if table.num_columns == 1:
        name, values = table.column_names[0], table.column(0).to_pylist()
        return [{name: values[number]} for number in order]
    names = table.column_names
    rows = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    return [dict(zip(names, rows[number], strict=True)) for number in order]


def getter_of(column: Any) -> Getter:
    """Value by row number."""
    # One chunk is taken as it is: combining would copy it.
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if array.nbytes <= SMALL_BYTES:
        return array.to_pylist().__getitem__
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return _text_getter(array)

    def value(number: int) -> Any:
        return array[number].as_py()

    return value


def _text_getter(array: Any) -> Getter:
    kind = np.int64 if pa.types.is_large_string(array.type) else np.int32
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, kind)[array.offset : array.offset + len(array) + 1]
    starts, stops, view = bounds[:-1].tolist(), bounds[1:].tolist(), memoryview(data)
    nulls = array.is_null().to_pylist() if array.null_count else None

    def text(number: int) -> str | None:
        return None if nulls and nulls[number] else str(view[starts[number] : stops[number]], "utf-8")

    return text
