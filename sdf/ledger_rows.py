"""How ledger entries lie in Parquet: a part of answers, and beside it a sidecar of what resume needs.

A part holds the answers' text. Its sidecar holds one row per entry (answers without text, settlements,
rounds) and, in its schema metadata, the part's size and sha256; so a resume reads sidecars alone and one
listing finds a torn part. The price is a second file per flush and ids written twice. Pages carry CRCs:
flipped bits are found on reading, without a hash of the whole file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sdf.errors import DamagedError
from sdf.records import (
    Answer,
    AnswerEntry,
    Location,
    Measures,
    RoundKey,
    RoundSettlement,
    Settlement,
    StepAnswer,
    Usage,
)
from sdf.storage import RunDir

Entry = AnswerEntry | Settlement | RoundSettlement

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
# Decoding keeps about 4 cores busy, and an object store answers in tens of milliseconds.
N_READERS = 8

USAGE_COLUMNS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_USAGE = [(name, pa.int64()) for name in USAGE_COLUMNS]
_STEP_ANSWER = pa.struct([("step", pa.string()), ("key", pa.string()), ("part", pa.string()), ("row", pa.int32())])

ANSWERS = pa.schema(
    [
        ("key", pa.string()),
        ("unit", pa.string()),
        ("step", pa.string()),
        ("prefix", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("model", pa.string()),
        *_USAGE,
        ("tool_calls", pa.string()),
        ("detail", pa.string()),
    ]
)

# One row per entry, columns of other kinds null. `id` is the request key, the brief id or the round id.
# Answers come in the order of their rows in the part.
SIDECAR = pa.schema(
    [
        ("kind", pa.string()),
        ("id", pa.string()),
        ("unit", pa.string()),
        ("step", pa.string()),
        ("model", pa.string()),
        *_USAGE,
        ("genre", pa.string()),
        ("index", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("angle", pa.string()),
        ("basis", pa.string()),
        ("n_tokens", pa.int64()),
        ("reject", pa.string()),
        ("signature", pa.binary()),
        ("principle", pa.string()),
        ("lane", pa.int32()),
        ("number", pa.int32()),
        ("angles", pa.list_(pa.string())),
        ("answers", pa.list_(_STEP_ANSWER)),
    ]
)

LOG = pa.schema([("part", pa.string()), ("row", pa.int32())])

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


def log_path(epoch: int, number: int) -> str:
    return f"{RunDir.ledger_dir(epoch)}/log-{number:06d}.parquet"


def is_log(path: str) -> bool:
    return LOG_NAME.fullmatch(path) is not None


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


def encode_answers(entries: Sequence[AnswerEntry]) -> bytes:
    return _encode([_answer_row(entry) for entry in entries], ANSWERS)


def encode_sidecar(entries: Sequence[Entry], seal: Seal) -> bytes:
    """Rows in the order of `entries`."""
    metadata = {"part_size_bytes": str(seal.size_bytes), "part_sha256": seal.sha256}
    return _encode([_sidecar_row(entry) for entry in entries], SIDECAR.with_metadata(metadata))


def encode_log(locations: Sequence[Location]) -> bytes:
    return _encode([location._asdict() for location in locations], LOG)


def _encode(rows: list[dict[str, Any]], schema: Schema) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pylist(rows, schema=schema),
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=FEW_VALUES,
        write_statistics=False,
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


def decode(data: bytes, schema: Schema, path: str, columns: Iterable[str] | None = None) -> Table:
    """The table in `data`, of the columns named or of all; DamagedError names `path` when it is not whole."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if not file.schema_arrow.equals(schema):
            raise DamagedError(f"{path}: damaged: its columns are {file.schema_arrow.names}, expected {schema.names}")
        # One thread per file: callers read many files side by side.
        return file.read(columns=None if columns is None else list(columns), use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedError(f"{path}: damaged ({len(data)} bytes): {error}") from error


def seal_of(sidecar: Table, path: str) -> Seal:
    metadata: Mapping[bytes, bytes] = sidecar.schema.metadata or {}
    try:
        return Seal(int(metadata[b"part_size_bytes"]), metadata[b"part_sha256"].decode())
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{path}: damaged: it does not say how large its part is") from error


def text_bytes(entry: Entry) -> int:
    """UTF-8 bytes of the entry's model-written text. ValueError when it cannot be written as UTF-8, or its key
    is not 32 hex digits: better here, where one entry is at fault, than at the flush of all its neighbours."""
    try:
        if isinstance(entry, AnswerEntry):
            if len(bytes.fromhex(entry.key)) != 16:
                raise ValueError("a request key is 32 hex digits")
            return _n_bytes([entry.answer.text, entry.answer.tool_calls, entry.answer.detail])
        if isinstance(entry, Settlement):
            return _n_bytes([entry.angle, entry.detail])
        return _n_bytes(entry.angles)
    except ValueError as error:
        raise ValueError(f"the ledger cannot keep {_name(entry)}: {error}") from error


def _n_bytes(texts: Iterable[str | None]) -> int:
    return sum(len(text.encode()) for text in texts if text)


def _name(entry: Entry) -> str:
    if isinstance(entry, AnswerEntry):
        return f"answer {entry.key!r} of {entry.unit} (step {entry.step})"
    return f"brief {entry.brief}" if isinstance(entry, Settlement) else f"round {entry.round}"


def _usage_row(usage: Usage) -> dict[str, Any]:
    return {name: getattr(usage, name) for name in USAGE_COLUMNS}


def _answer_row(entry: AnswerEntry) -> dict[str, Any]:
    answer = entry.answer
    return {
        "key": entry.key,
        "unit": entry.unit,
        "step": entry.step,
        "prefix": entry.prefix,
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "model": answer.model,
        "tool_calls": answer.tool_calls,
        "detail": answer.detail,
        **_usage_row(answer.usage),
    }


def _sidecar_row(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, AnswerEntry):
        row = {"kind": "answer", "id": entry.key, "unit": entry.unit, "step": entry.step, "model": entry.answer.model}
        return row | _usage_row(entry.answer.usage)
    answers = [{"step": used.step, "key": used.key, **used.location._asdict()} for used in entry.answers]
    if isinstance(entry, RoundSettlement):
        row = {"kind": "round", "id": entry.round, "angles": list(entry.angles), "answers": answers}
        return row | entry.key._asdict()
    return {
        "kind": "settlement",
        "id": entry.brief,
        "genre": entry.genre,
        "index": entry.index,
        "reason": entry.reason,
        "detail": entry.detail,
        "angle": entry.angle,
        "answers": answers,
        **_measures_row(entry.measures),
    }


def _measures_row(measures: Measures | None) -> dict[str, Any]:
    if measures is None:
        return {}
    names = ("basis", "n_tokens", "reject", "signature")
    return {name: getattr(measures, name) for name in names}


def answer_entry(row: Mapping[str, Any]) -> AnswerEntry:
    """The entry a row of ANSWERS holds."""
    usage = Usage(*(row[name] for name in USAGE_COLUMNS))
    answer = Answer(row["text"], row["finish_reason"], row["model"], usage, row["tool_calls"], row["detail"])
    return AnswerEntry(row["key"], row["unit"], row["step"], row["prefix"], answer)


def settlement(row: Mapping[str, Any]) -> Settlement | RoundSettlement:
    """The settlement a row of SIDECAR holds, of either kind."""
    used = tuple(StepAnswer(item["step"], item["key"], Location(item["part"], item["row"])) for item in row["answers"])
    if row["kind"] == "round":
        key = RoundKey(row["genre"], row["principle"], row["lane"], row["number"])
        return RoundSettlement(row["id"], key, tuple(row["angles"]), used)
    measures = None
    if row["basis"] is not None:
        measures = Measures(row["basis"], row["n_tokens"], row["reject"], row["signature"])
    return Settlement(row["id"], row["genre"], row["index"], row["reason"], row["detail"], row["angle"], used, measures)
