"""How ledger entries lie in Parquet: a part of answers, and beside it a sidecar of what resume needs.

A part holds the answers' text. Its sidecar holds one row per entry (answers without text, settlements,
rounds) and, in its schema metadata, the part's size and sha256; so a resume reads sidecars alone and one
listing finds a torn part. The price is a second file per flush, and ids written twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from sdf.ledger.file import Seal, encode
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

Entry = AnswerEntry | Settlement | RoundSettlement

USAGE_COLUMNS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_USAGE = [(name, pa.int64()) for name in USAGE_COLUMNS]
_COST = ("cost_usd", pa.float64())
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
        _COST,
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
        _COST,
    ]
)

LOG = pa.schema([("part", pa.string()), ("row", pa.int32())])


def encode_answers(entries: Sequence[AnswerEntry]) -> bytes:
    return encode([_answer_row(entry) for entry in entries], ANSWERS)


def encode_sidecar(entries: Sequence[Entry], seal: Seal) -> bytes:
    """Rows in the order of `entries`."""
    metadata = {"part_size_bytes": str(seal.size_bytes), "part_sha256": seal.sha256}
    return encode([_sidecar_row(entry) for entry in entries], SIDECAR.with_metadata(metadata))


def encode_log(locations: Sequence[Location]) -> bytes:
    return encode([location._asdict() for location in locations], LOG)


def text_bytes(entry: Entry) -> int:
    """UTF-8 bytes of the entry's model-written text. ValueError when it cannot be written as UTF-8, or its key
    is not 32 hex digits: better here, where one entry is at fault, than at the flush of all its neighbours."""
    try:
        if isinstance(entry, AnswerEntry):
            if len(entry.key) != 32 or len(bytes.fromhex(entry.key)) != 16:
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
        "cost_usd": entry.cost_usd,
        **_usage_row(answer.usage),
    }


def _sidecar_row(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, AnswerEntry):
        row = {"kind": "answer", "id": entry.key, "unit": entry.unit, "step": entry.step, "model": entry.answer.model}
        return row | _usage_row(entry.answer.usage) | {"cost_usd": entry.cost_usd}
    answers = [{"step": used.step, "key": used.key, **used.location._asdict()} for used in entry.answers]
    if isinstance(entry, RoundSettlement):
        row = {"kind": "round", "id": entry.round, "angles": list(entry.angles), "answers": answers}
        return row | {"reason": entry.reason} | entry.key._asdict()
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
    return AnswerEntry(row["key"], row["unit"], row["step"], row["prefix"], answer, row["cost_usd"])


def settlement(row: Mapping[str, Any]) -> Settlement | RoundSettlement:
    """The settlement a row of SIDECAR holds, of either kind."""
    used = tuple(StepAnswer(item["step"], item["key"], Location(item["part"], item["row"])) for item in row["answers"])
    if row["kind"] == "round":
        key = RoundKey(row["genre"], row["principle"], row["lane"], row["number"])
        return RoundSettlement(row["id"], key, tuple(row["angles"]), used, row["reason"])
    measures = None
    if row["basis"] is not None:
        measures = Measures(row["basis"], row["n_tokens"], row["reject"], row["signature"])
    return Settlement(row["id"], row["genre"], row["index"], row["reason"], row["detail"], row["angle"], used, measures)
