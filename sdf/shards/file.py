"""The Parquet file of a shard: rows to bytes, and bytes back to rows.

The bytes are a pure function of the rows and the pyarrow version: no clock, no schema blob, no choice left to a
writer's defaults. A file is made in memory and handed over only when it is whole, since a Parquet writer that is left
by an exception closes what it has as a valid file; the price is one shard in memory (10 MB at 2M tokens).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sdf.errors import DamagedError
from sdf.parquet import MAX_GROUP_BYTES, open_parquet
from sdf.records import Rejection, canonical_json

Row = Mapping[str, Any]
Rows = list[dict[str, Any]]

ROWS_PER_GROUP = 1000

_PROVENANCE = [
    pa.field("id", pa.string()),
    pa.field("genre", pa.string()),
    pa.field("principle", pa.string()),
    pa.field("axes", pa.string()),
    pa.field("scores", pa.string()),
    pa.field("source", pa.string()),
    pa.field("model", pa.string()),
    pa.field("fallback", pa.bool_()),
    pa.field("prompt_hash", pa.string()),
    pa.field("n_tokens", pa.int64()),
    pa.field("finish_reason", pa.string()),
    pa.field("constitution_hash", pa.string()),
]
_MESSAGE = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
_MESSAGES = pa.list_(pa.field("element", _MESSAGE))
_CHAT = [pa.field("messages", _MESSAGES), pa.field("tools", pa.string())]

# `axes`, `scores`, `tools` and `item` are JSON texts; `source` is the id of the row that a document was made from.
# `string` holds 2 GB a row group, and is what loaders know best.
COLUMNS: Mapping[str, pa.Schema] = {
    "documents": pa.schema([pa.field("text", pa.string()), *_PROVENANCE]),
    "chats": pa.schema([*_CHAT, *_PROVENANCE]),
    "prompts": pa.schema([*_CHAT, *_PROVENANCE]),
    "items": pa.schema([pa.field("item", pa.string()), *_PROVENANCE]),
}
NULLABLE = {"tools", "source"}

# Columns of few values. Elsewhere a dictionary would fill, overflow and be thrown away at a library's threshold.
_REPEATED = ["genre", "principle", "model", "prompt_hash", "finish_reason", "constitution_hash"]
_WRITER: Mapping[str, Any] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": _REPEATED,
    "write_statistics": ["n_tokens"],
    # The text of an ordinary row group (5 MB) is one page, which compresses best; checked every 64 rows, since a page
    # of more than 2 GB cannot be written.
    "data_page_size": 8 * 1024**2,
    "write_batch_size": 64,
    # A reader of one row group notices a flipped bit without hashing the file.
    "write_page_checksum": True,
    # Without it the file's types are Parquet's own, and no Arrow version is written into it.
    "store_schema": False,
}


def encode(config: str, rows: Sequence[Row]) -> tuple[bytes, str]:
    """The Parquet file of these rows, and the sha256 of their `canonical_lines`; ValueError names a row in the way."""
    if not rows:
        raise ValueError(f"a shard of {config} needs at least one row")
    schema = COLUMNS[config]
    state = hashlib.sha256()
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, **_WRITER) as writer:
        for start in range(0, len(rows), ROWS_PER_GROUP):
            group = [_fitted(config, row) for row in rows[start : start + ROWS_PER_GROUP]]
            table = _table(schema, group)
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
            state.update(canonical_lines(table.to_pylist()))
    return sink.getvalue().to_pybytes(), state.hexdigest()


def row_groups(file: BinaryIO, place: str, config: str) -> Iterator[Rows]:
    """The rows of a file, a row group at a time; DamagedError names `place` when it is not a shard of `config`."""
    opened = open_parquet(file, place)
    if not opened.schema_arrow.equals(COLUMNS[config]):
        raise DamagedError(f"{place}: its columns are not those of {config}; assemble the corpus again")
    for position in range(opened.num_row_groups):
        try:
            _check_dictionaries(opened, position, place)
            table = opened.read_row_group(position, use_threads=False)
            rows = table.to_pylist()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DamagedError(f"{place}: row group {position} cannot be decoded ({error})") from error
        required = (table[name] for name in table.column_names if name not in NULLABLE)
        if any(_has_nulls(chunk) for column in required for chunk in column.chunks):
            raise DamagedError(f"{place}: row group {position} lacks values; assemble the corpus again")
        yield rows


def ids(file: BinaryIO, place: str) -> list[str]:
    """The `id` column, in order, without the texts. DamagedError names `place` for a file that is no shard."""
    opened = open_parquet(file, place)
    try:
        found: list[str] = opened.read(columns=["id"], use_threads=False).column("id").to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        raise DamagedError(f"{place}: its ids cannot be read ({error}); assemble the corpus again") from error
    if None in found:
        raise DamagedError(f"{place}: a row has no id; assemble the corpus again")
    return found


_REJECTIONS = pa.schema([(name, pa.string()) for name in ("brief", "genre", "reason", "of")])


def encode_rejections(rejections: Sequence[Rejection]) -> bytes:
    """A Parquet file with a row per rejection: brief, genre, reason, and the document it duplicates or null."""
    columns = {name: [getattr(each, name) for each in rejections] for name in _REJECTIONS.names}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, _REJECTIONS), sink, compression="zstd", store_schema=False)
    return sink.getvalue().to_pybytes()


def decode_rejections(file: BinaryIO, place: str) -> list[Rejection]:
    """DamagedError names `place` for a file that is none."""
    try:
        with open_parquet(file, place) as opened:
            table = opened.read(columns=_REJECTIONS.names)
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"{place}: cannot be read ({error}); `sdf run` writes it again") from error
    return [Rejection(*values) for values in zip(*(table[name].to_pylist() for name in _REJECTIONS.names), strict=True)]


def canonical_lines(rows: Iterable[Row]) -> bytes:
    """What `rows_sha256` is taken over: the canonical JSON of each row, nulls included, each ended by a newline."""
    return b"".join(canonical_json(row).encode() + b"\n" for row in rows)


def _check_dictionaries(opened: Any, position: int, place: str) -> None:
    """One large value in a dictionary, referred to by every row, decodes to far more than the footer declares."""
    # Reading one row raises on a damaged footer; without that, asking for its columns would abort the process.
    next(opened.iter_batches(1, row_groups=[position], use_threads=False), None)
    group = opened.metadata.row_group(position)
    for column in (group.column(number) for number in range(group.num_columns if group.num_rows else 0)):
        if column.has_dictionary_page and column.total_uncompressed_size * column.num_values > MAX_GROUP_BYTES:
            raise DamagedError(f"{place}: {column.path_in_schema} may decode to more than {MAX_GROUP_BYTES:,} bytes")


def _has_nulls(array: Any) -> bool:
    if array.null_count:
        return True
    if pa.types.is_list(array.type):
        return _has_nulls(array.flatten())
    return pa.types.is_struct(array.type) and any(_has_nulls(part) for part in array.flatten())


def _fitted(config: str, row: Row) -> dict[str, Any]:
    names = COLUMNS[config].names
    lacking = [name for name in names if name not in NULLABLE and row.get(name) is None]
    unknown = sorted(row.keys() - set(names))
    if lacking or unknown:
        raise ValueError(f"row {row.get('id')!r} of {config}: lacks {lacking}, has unknown columns {unknown}")
    return {name: row.get(name) for name in names}


def _table(schema: Any, group: Rows) -> Any:
    try:
        table = pa.Table.from_pylist(group, schema=schema)
    except (pa.ArrowException, UnicodeEncodeError, TypeError) as error:
        raise ValueError(
            f"a row of {group[0]['id']!r} to {group[-1]['id']!r} does not fit its columns: {error}"
        ) from error
    for given, kept in zip(group, table.to_pylist(), strict=True):
        if given != kept:
            raise ValueError(f"row {given['id']!r}: its columns would lose something of it")
    return table
