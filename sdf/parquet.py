"""Opening Parquet files that others may have written.

A Parquet file can name an extension type whose loading runs code, and six kilobytes can declare gigabytes. Both are
refused from the footer alone, before a page is decompressed. What cannot be seen there, a page whose own header lies
about its size, is left to Arrow, which fails on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sdf.errors import DamagedError

# The most a row group may decode to; Arrow holds it whole.
MAX_GROUP_BYTES = 4 * 1024**3
# Text compresses 3 to 10 times, one text repeated about 1,000 times; a bomb 30,000 times. Small groups may do as they
# like.
MAX_RATIO, SMALL_GROUP_BYTES = 2_000, 256 * 1024**2


def open_parquet(file: Path | BinaryIO, name: str) -> pq.ParquetFile:
    """DamagedError names the file as `name` when it is no Parquet file, has extension types or declares a bomb."""
    try:
        opened = pq.ParquetFile(file, page_checksum_verification=True)
        schema = opened.schema_arrow
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"{name}: not a readable Parquet file ({error}); write or download it again") from error
    for field in schema:
        for found in _nested(field):
            if isinstance(found.type, pa.BaseExtensionType) or b"ARROW:extension:name" in (found.metadata or {}):
                raise DamagedError(
                    f"{name}: column {field.name!r} has an extension type, which may run code when it is read; "
                    "write it again with plain types"
                )
    _check_sizes(opened.metadata, _size_bytes(file), name)
    return opened


def _nested(field: Any) -> Iterator[Any]:
    yield field
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    for position in range(kind.num_fields):
        yield from _nested(kind.field(position))


def _check_sizes(metadata: Any, size_bytes: int, name: str) -> None:
    # Of row groups alone: `metadata.row_group(i).column(j)` of a damaged footer aborts the process (pyarrow 26).
    for position in range(metadata.num_row_groups):
        declared = metadata.row_group(position).total_byte_size
        if declared > MAX_GROUP_BYTES or (declared > SMALL_GROUP_BYTES and declared > MAX_RATIO * size_bytes):
            raise DamagedError(
                f"{name}: row group {position} declares {declared:,} bytes in a file of {size_bytes:,}; "
                "if the file is to be trusted, write it again with smaller row groups"
            )


def _size_bytes(file: Path | BinaryIO) -> int:
    return file.stat().st_size if isinstance(file, Path) else file.seek(0, os.SEEK_END)
