"""Rows by number, from the shards of a corpus, from Parquet files of others, or from JSON lines.

A table knows how its rows lie in its files, and reads one chunk (a row group, or 1,000 lines) at a time; errors name
the file and the chunk. Handles are opened by the process that reads, a few at a time. Files of others are hostile:
extension types and row groups that declare too much are refused before a page is decompressed.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sdf.errors import DamagedError, StreamError
from sdf.manifest import Manifest, Shard
from sdf.stream.cache import ShardCache
from sdf.stream.order import Chunks
from sdf.stream.places import Place

# What `sdf` writes, so that a manifest alone says where its row groups are.
ROWS_PER_GROUP = 1000
OPEN_FILES = 16
MAX_GROUP_BYTES = 4 * 1024**3
# Text compresses 3 to 10 times, one text repeated some 1,000 times; a bomb 30,000 times.
MAX_RATIO, SMALL_GROUP_BYTES = 2_000, 256 * 1024**2
# Lines that cannot be told apart from a wrong file.
MAX_LINE_BYTES = 256 * 1024**2

Columns = Sequence[str] | None
Value = TypeVar("Value")


class Table(Protocol):
    """`identity` hashes what decides its rows; `keys[i]` names the content of file `i` (for what is kept of it)."""

    chunks: Chunks
    identity: str

    @property
    def keys(self) -> Sequence[str]: ...

    def read(self, chunk: int, columns: Columns = None) -> Any:
        """The rows of a chunk, all columns when none are named."""
        ...

    def where(self, chunk: int) -> str:
        """The chunk as an error names it."""
        ...


class Recent:
    """Values by key, of weight `size` at most (the last one always), the least recently used let go."""

    def __init__(self, size: int) -> None:
        self._size, self._weight = size, 0
        self._kept: OrderedDict[Any, tuple[Any, int]] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Value], weight: int = 1) -> Value:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        # Before the new one is made, so that both are never held.
        while self._kept and self._weight + weight > self._size:
            self._weight -= self._kept.popitem(last=False)[1][1]
        value = make()
        self._kept[key] = value, weight
        self._weight += weight
        return value


class _GroupTable(ABC):
    """Parquet files whose chunks are their row groups."""

    def __init__(self, chunks: Chunks, groups: Any, names: Sequence[str], keys: Sequence[str], identity: str) -> None:
        self.chunks, self.identity, self.keys = chunks, identity, list(keys)
        self._groups, self._names = groups, names
        self._open_files = Recent(OPEN_FILES)

    def where(self, chunk: int) -> str:
        return f"{self._names[int(self.chunks.files[chunk])]}: row group {int(self._groups[chunk])}"

    def read(self, chunk: int, columns: Columns = None) -> Any:
        number = int(self.chunks.files[chunk])
        opened = self._open_files.get(number, lambda: self._opened(number))
        try:
            table = opened.read_row_group(int(self._groups[chunk]), columns, use_threads=False)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DamagedError(f"{self.where(chunk)} cannot be decoded ({error}); {_RESTORE}") from error
        expected = int(self.chunks.starts[chunk + 1] - self.chunks.starts[chunk])
        if table.num_rows != expected:
            raise DamagedError(f"{self.where(chunk)} holds {table.num_rows} rows, not {expected}; {_RESTORE}")
        if columns and (absent := set(columns) - set(table.column_names)):
            raise no_column(self._names[number], min(absent), opened.schema_arrow.names)
        return table

    @abstractmethod
    def _opened(self, number: int) -> pq.ParquetFile: ...


class ShardTable(_GroupTable):
    """The shards of a manifest, in its order; their row groups follow from it, so no footer is read to begin with."""

    def __init__(self, url: str, shards: Sequence[Shard], cache: ShardCache) -> None:
        sizes = [_group_sizes(shard.n_rows) for shard in shards]
        super().__init__(
            chunks_of(sizes),
            np.concatenate([np.arange(len(each)) for each in sizes]) if sizes else np.array([], np.int64),
            [f"{Place(url)}/{shard.path}" for shard in shards],
            [shard.sha256 for shard in shards],
            identity_of([shard.sha256 for shard in shards]),
        )
        self._url, self._shards, self._cache = url, shards, cache

    def _opened(self, number: int) -> pq.ParquetFile:
        shard = self._shards[number]
        held = self._cache.path(self._url, shard)
        opened = open_parquet(str(held), self._names[number])
        sizes = [opened.metadata.row_group(each).num_rows for each in range(opened.metadata.num_row_groups)]
        if sizes != _group_sizes(shard.n_rows):
            raise DamagedError(f"{self._names[number]}: its row groups are not those of its manifest; {_RESTORE}")
        return opened


class ParquetTable(_GroupTable):
    """Any Parquet files; their footers are read once, when the table is made."""

    def __init__(self, place: Place, names: Sequence[str]) -> None:
        self._place, self._files = place, names
        shown = [f"{place}/{name}" for name in names]
        self._names = shown
        footers = [self._opened(number).metadata for number in range(len(names))]
        sizes = [[each.row_group(group).num_rows for group in range(each.num_row_groups)] for each in footers]
        keys = [
            _key(name, each.num_rows, each.serialized_size, *rows)
            for name, each, rows in zip(names, footers, sizes, strict=True)
        ]
        groups = np.concatenate([np.arange(len(each)) for each in sizes])
        super().__init__(chunks_of(sizes), groups, shown, keys, identity_of(keys))

    def _opened(self, number: int) -> pq.ParquetFile:
        def open_file(filesystem: Any, at: str) -> pq.ParquetFile:
            return open_parquet(filesystem.open_input_file(at), self._names[number])

        return self._place.steadily(self._files[number], open_file)


class JsonTable:
    """Files with a JSON object a line, in chunks of 1,000 lines; blank lines are refused with their number."""

    def __init__(self, place: Place, names: Sequence[str]) -> None:
        self._place, self._files = place, names
        self._offsets = [self._scanned(name) for name in names]
        sizes = [_group_sizes(len(offsets) - 1) for offsets in self._offsets]
        self.chunks = chunks_of(sizes)
        self.keys = [
            _key(name, *map(int, offsets[-1:]), len(offsets))
            for name, offsets in zip(names, self._offsets, strict=True)
        ]
        self.identity = identity_of(self.keys)
        self._firsts = np.concatenate([np.arange(len(each)) * ROWS_PER_GROUP for each in sizes])

    def where(self, chunk: int) -> str:
        first = int(self._firsts[chunk])
        return f"{self._place}/{self._files[int(self.chunks.files[chunk])]}:{first + 1}"

    def read(self, chunk: int, columns: Columns = None) -> Any:
        rows = [self._parsed(line, chunk, number) for number, line in enumerate(self._lines(chunk))]
        if columns is None:
            columns = list(dict.fromkeys(name for row in rows for name in row))
        for name in columns:
            if not any(name in row for row in rows):
                raise no_column(self.where(chunk), name, list(rows[0]))
        try:
            return pa.table({name: [row.get(name) for row in rows] for name in columns})
        except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
            raise DamagedError(f"{self.where(chunk)}: values of unlike kinds in a column ({error})") from error

    def _lines(self, chunk: int) -> list[bytes]:
        number, first = int(self.chunks.files[chunk]), int(self._firsts[chunk])
        offsets = self._offsets[number]
        last = min(first + ROWS_PER_GROUP, len(offsets) - 1)
        start, stop = int(offsets[first]), int(offsets[last])

        def read(filesystem: Any, at: str) -> bytes:
            with filesystem.open_input_file(at) as file:
                return file.read_at(stop - start, start)

        data = self._place.steadily(self._files[number], read)
        if len(data) != stop - start:
            raise DamagedError(f"{self.where(chunk)}: the file became shorter while it was read; start again")
        cuts = (offsets[first : last + 1] - start).tolist()
        return [data[low:high] for low, high in itertools.pairwise(cuts)]

    def _parsed(self, line: bytes, chunk: int, number: int) -> dict[str, Any]:
        where = f"{self._place}/{self._files[int(self.chunks.files[chunk])]}:{int(self._firsts[chunk]) + number + 1}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{where}: not a line of JSON ({error})") from error
        if not isinstance(row, dict):
            raise DamagedError(f'{where}: expected a JSON object, as in {{"text": "..."}}')
        return row

    def _scanned(self, name: str) -> Any:
        """Where each line begins, and the end of the last one."""

        def scan(filesystem: Any, at: str) -> Any:
            with filesystem.open_input_stream(at) as stream:
                return _line_starts(iter(lambda: stream.read(8 * 1024**2), b""))

        return self._place.steadily(name, scan)


def open_parquet(file: Any, name: str) -> pq.ParquetFile:
    """DamagedError names the file as `name` when it is no Parquet file, has extension types or declares a bomb."""
    try:
        opened = pq.ParquetFile(file, page_checksum_verification=True)
        schema, size_bytes = opened.schema_arrow, _size(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"{name}: not a readable Parquet file ({error}); {_RESTORE}") from error
    for field in schema:
        if isinstance(field.type, pa.BaseExtensionType) or b"ARROW:extension:name" in (field.metadata or {}):
            raise DamagedError(f"{name}: column {field.name!r} has an extension type; write it with plain types")
    for position in range(opened.metadata.num_row_groups):
        declared = opened.metadata.row_group(position).total_byte_size
        if declared > MAX_GROUP_BYTES or (declared > SMALL_GROUP_BYTES and declared > MAX_RATIO * size_bytes):
            raise DamagedError(
                f"{name}: row group {position} declares {declared:,} bytes in a file of {size_bytes:,}; "
                "if the file is to be trusted, write it again with smaller row groups"
            )
    return opened


def chunks_of(sizes: Iterable[Sequence[int]]) -> Chunks:
    """Chunks from the rows of each chunk of each file."""
    sizes = list(sizes)
    starts = np.concatenate([[0], np.cumsum([size for each in sizes for size in each])]).astype(np.int64)
    return Chunks(starts, np.repeat(np.arange(len(sizes)), [len(each) for each in sizes]))


def identity_of(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def table_of(place: Place, names: Sequence[str]) -> Table:
    """The table of files that all end in .parquet, or all in .jsonl or .json."""
    kinds = {name.rpartition(".")[2].lower() for name in names}
    if kinds == {"parquet"}:
        return ParquetTable(place, names)
    if kinds <= {"jsonl", "json", "ndjson"}:
        return JsonTable(place, names)
    raise StreamError(
        f"{place}: {', '.join(sorted(kinds))} files; give .parquet files or uncompressed .jsonl files, of one kind"
    )


def manifest_shards(manifest: Manifest, config: str, split: str) -> list[Shard]:
    return [shard for shard in manifest.shards if (shard.config, shard.split) == (config, split)]


def no_column(where: str, name: str, known: Sequence[str]) -> StreamError:
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return StreamError(f"{where}: no column {name!r}; {hint}it has {', '.join(map(repr, known))}")


_RESTORE = "copy it again, or run `sdf verify` where it was made"


def _group_sizes(n_rows: int) -> list[int]:
    full, rest = divmod(n_rows, ROWS_PER_GROUP)
    return [ROWS_PER_GROUP] * full + ([rest] if rest else [])


def _key(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _size(file: Any) -> int:
    if isinstance(file, str):
        with io.FileIO(file) as opened:
            return opened.seek(0, io.SEEK_END)
    return int(file.size())


def _line_starts(blocks: Iterable[bytes]) -> Any:
    found: list[Any] = [np.zeros(1, np.int64)]
    length, ends_line = 0, True
    for block in blocks:
        found.append(np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + (length + 1))
        length += len(block)
        ends_line = block[-1:] == b"\n"
    if not ends_line:
        found.append(np.array([length]))
    return np.concatenate(found).astype(np.int64)
