"""The files of a ledger: where they lie, and Parquet that proves its own bytes.

Between its last page and its footer each file holds a hash of everything else. Parquet readers follow
offsets and never look there; ours checks it before a parser sees a byte, since a footer with one flipped bit
can make Arrow abort the process. The price is one pass over each file read, about a second per GB.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sdf.errors import DamagedError, StorageError
from sdf.storage import RunDir

# pyarrow ships no types: these say which of its classes is meant.
Table: TypeAlias = Any
Schema: TypeAlias = Any
Column: TypeAlias = Any

Item = TypeVar("Item")
Result = TypeVar("Result")

LEDGER = "ledger"
PREFIXES = f"{LEDGER}/prefixes/"
ANSWERS_SUFFIX = ".answers.parquet"
SIDECAR_SUFFIX = ".sidecar.parquet"
LOG_NAME = re.compile(rf"{LEDGER}/\d+/log-\d+\.parquet")
PART_NAME = re.compile(rf"{LEDGER}/(\d+/[^/]+)(?:{re.escape(ANSWERS_SUFFIX)}|{re.escape(SIDECAR_SUFFIX)})")
# Columns that ledgers did not always have: in a file without one, every value of it is null.
LATER_COLUMNS = frozenset({"cost_usd"})
# Decoding keeps about 4 cores busy, and an object store answers in tens of milliseconds.
N_READERS = 8
HASH_BYTES = 16

# Dictionaries pay for columns of few values; for ids and texts they only cost time.
FEW_VALUES: Any = [
    *("kind", "step", "prefix", "finish_reason", "model", "genre", "reason", "basis", "reject", "principle"),
    *("answers.list.element.step", "answers.list.element.part"),
]


def part_name(epoch: int, name: str) -> str:
    """A `Location.part`; zero-padded, so that parts sort by epoch, then name."""
    return f"{epoch:06d}/{name}"


def part_path(part: str) -> str:
    """The file of a `Location.part`."""
    epoch, _, name = part.partition("/")
    return RunDir.part(int(epoch), name)


def sidecar_path(part: str) -> str:
    epoch, _, name = part.partition("/")
    return RunDir.sidecar(int(epoch), name)


def part_of_file(path: str) -> str | None:
    """The part whose answers or sidecar this is."""
    found = PART_NAME.fullmatch(path)
    return found and found[1]


def log_path(epoch: int, number: int) -> str:
    return f"{RunDir.ledger_dir(epoch)}/log-{number:06d}.parquet"


def is_log(path: str) -> bool:
    return LOG_NAME.fullmatch(path) is not None


def epoch_of_log(path: str) -> int:
    return int(path.split("/")[1])


def read_side_by_side(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`read` of each item, in their order, by N_READERS threads."""
    with ThreadPoolExecutor(N_READERS) as readers:
        yield from readers.map(read, items)


class Seal(NamedTuple):
    """What a sidecar says of its part; `size_bytes` 0: no answer was pending, so there is no part."""

    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, part: bytes) -> Seal:
        return cls(len(part), hashlib.sha256(part).hexdigest())


def encode(rows: list[dict[str, Any]], schema: Schema) -> bytes:
    """The same bytes for the same rows; columns that a row does not name are null."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pylist(rows, schema=schema),
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=FEW_VALUES,
        write_statistics=False,
    )
    parquet = sink.getvalue().to_pybytes()
    footer = _footer_at(parquet)
    return parquet[:footer] + _hash(parquet[:footer], parquet[footer:]) + parquet[footer:]


def decode(data: bytes, schema: Schema, path: str, columns: Iterable[str] | None = None) -> Table:
    """The table in `data`, of the columns named or of all. DamagedError names `path` when its bytes are not those
    that were written; StorageError when they are, by a version whose columns differ: no reason to pay again."""
    footer = _footer_at(data)
    bytes_ = memoryview(data)
    if data[footer - HASH_BYTES : footer] != _hash(bytes_[: max(footer - HASH_BYTES, 0)], bytes_[footer:]):
        raise DamagedError(
            f"{path}: damaged: its {len(data)} bytes are not what was written; "
            "delete it and run the same command again: what it held is asked anew"
        )
    file = pq.ParquetFile(pa.BufferReader(data))
    missing = LATER_COLUMNS.intersection(schema.names).difference(file.schema_arrow.names)
    if not file.schema_arrow.equals(pa.schema([field for field in schema if field.name not in missing])):
        raise StorageError(
            f"{path}: its columns are {', '.join(file.schema_arrow.names)}, expected {', '.join(schema.names)}; "
            "another version of sdf wrote it: go on with that version, or in another directory"
        )
    wanted = None if columns is None else list(columns)
    # One thread per file: callers read many files side by side.
    table = file.read(columns=wanted, use_threads=False)
    for name in sorted(missing if wanted is None else missing.intersection(wanted)):
        table = table.append_column(schema.field(name), pa.nulls(len(table), schema.field(name).type))
    return table


def _footer_at(parquet: bytes) -> int:
    """Where the footer begins; nonsense when the file is torn, which its hash then shows."""
    return max(len(parquet) - 8 - int.from_bytes(parquet[-8:-4], "little"), 0)


def _hash(*parts: bytes | memoryview) -> bytes:
    state = hashlib.blake2b(digest_size=HASH_BYTES)
    for part in parts:
        state.update(part)
    return state.digest()


def seal_of(sidecar: Table, path: str) -> Seal:
    metadata: Mapping[bytes, bytes] = sidecar.schema.metadata or {}
    try:
        return Seal(int(metadata[b"part_size_bytes"]), metadata[b"part_sha256"].decode())
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{path}: damaged: it does not say how large its part is") from error
