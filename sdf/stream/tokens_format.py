"""A tokens export: documents as token ids on disk, for training without a tokenizer. Needs numpy alone.

    tokens.json            the index, written last: tokenizer, source, and the shards with sizes and sha256
    00000.tokens.u32       the ids of all documents of shard 0, end to end, little-endian uint32
    00000.offsets.u64      where each begins, in tokens, and the end of the last: one number more than documents
    00000.labels.u8        of chats alone: 1 for a token to learn, 0 for one to read, one byte a token

Ids are of the text alone: beginning and end tokens are added by who packs them, so that one export serves any policy.
Four bytes a token cost twice what two would, and hold every vocabulary. Index files of others are hostile: nothing
but the canonical bytes of a consistent index is accepted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdf.errors import DamagedError

INDEX = "tokens.json"
FORMAT = 1
TOKENS, OFFSETS, LABELS = "tokens.u32", "offsets.u64", "labels.u8"
TOKEN, OFFSET, LABEL = np.dtype("<u4"), np.dtype("<u8"), np.dtype("u1")

Ids = Any  # a uint32 array
Mask = Any  # a uint8 array, 1 where a token is learnt


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A file of the export: `path` is relative to it."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TokenShard:
    """A shard's counts and files; `labels` is None where every token is learnt."""

    number: int
    n_documents: int
    n_tokens: int
    tokens: TokenFile
    offsets: TokenFile
    labels: TokenFile | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIndex:
    """`tokenizer_hash` is `Encoder.hash` of what made the ids, `eos` the end token it names, if any.

    `source` is the sha256 of the manifest that was exported; `config` and `split` what of it.
    """

    format: int = FORMAT
    tokenizer: str
    tokenizer_hash: str
    eos: int | None
    source: str
    config: str
    split: str
    n_documents: int
    n_tokens: int
    shards: tuple[TokenShard, ...]

    def to_json(self) -> bytes:
        body = _dumps(asdict(self))
        return _dumps(asdict(self) | {"checksum": hashlib.sha256(body).hexdigest()})

    @classmethod
    def from_json(cls, data: bytes, *, source: str) -> TokenIndex:
        """The index whose `to_json` is `data`; DamagedError names `source` for anything else."""
        try:
            values = json.loads(data)
            if isinstance(values, dict) and isinstance(values.get("format"), int) and values["format"] > FORMAT:
                raise DamagedError(
                    f"{source}: format {values['format']} was written by a newer sdf; this one reads format {FORMAT}. "
                    "Upgrade sdf to read it"
                )
            values.pop("checksum", None)
            shards = tuple(_shard(each, number) for number, each in enumerate(values.pop("shards")))
            index = cls(**values, shards=shards)
            if index.to_json() != data:
                raise ValueError("its bytes are not the ones that were written")
            _check(index)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DamagedError(f"{source}: torn or edited index ({error}); export the corpus again") from error
        return index


def write_shard(directory: Path, number: int, ids: Sequence[Ids], masks: Sequence[Mask] | None = None) -> TokenShard:
    """Writes the files of a shard (each aside, then renamed): the ids of each document, and for chats its mask."""
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in ids])]).astype(OFFSET)
    tokens = np.concatenate([*ids, np.array([], TOKEN)]).astype(TOKEN, casting="same_kind")
    files = [
        _written(directory, f"{number:05d}.{TOKENS}", tokens),
        _written(directory, f"{number:05d}.{OFFSETS}", offsets),
    ]
    labels = None
    if masks is not None:
        flat = np.concatenate([*masks, np.array([], LABEL)]).astype(LABEL)
        assert len(flat) == len(tokens), f"shard {number}: {len(flat)} labels for {len(tokens)} tokens"
        labels = _written(directory, f"{number:05d}.{LABELS}", flat)
    return TokenShard(number, len(ids), len(tokens), files[0], files[1], labels)


def write_index(directory: Path, index: TokenIndex) -> None:
    """Last of all, so that an export without it is unfinished and is not read."""
    _check(index)
    _replaced(directory / INDEX, index.to_json())


def map_array(path: Path | str, kind: np.dtype[Any], n: int, where: str) -> Any:
    """The file as an array of `n` values, mapped rather than read; DamagedError when it has another size."""
    size_bytes = Path(path).stat().st_size
    if size_bytes != n * kind.itemsize:
        raise DamagedError(f"{where}: {size_bytes:,} bytes, not {n * kind.itemsize:,}; export the corpus again")
    # As a plain array: slices of np.memmap cost three times as much to make.
    return np.asarray(np.memmap(path, kind, "r", shape=(n,))) if n else np.zeros(0, kind)


def _written(directory: Path, name: str, values: Any) -> TokenFile:
    data = memoryview(values).cast("B") if len(values) else memoryview(b"")
    _replaced(directory / name, data)
    return TokenFile(name, len(data), hashlib.sha256(data).hexdigest())


def _replaced(path: Path, data: bytes | memoryview) -> None:
    aside = path.with_name(f"{path.name}.part")
    aside.write_bytes(data)
    aside.replace(path)


def _dumps(values: Any) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _shard(values: dict[str, Any], number: int) -> TokenShard:
    names = (TOKENS, OFFSETS, LABELS)
    for key, name in zip(("tokens", "offsets", "labels"), names, strict=True):
        if values[key] is not None:
            values[key] = TokenFile(**values[key])
            if values[key].path != f"{number:05d}.{name}" or not isinstance(values[key].size_bytes, int):
                raise ValueError(f"{values[key].path!r} is not a file of shard {number}")
    return TokenShard(**values)


def _check(index: TokenIndex) -> None:
    for shard in index.shards:
        sizes = (shard.tokens.size_bytes, shard.offsets.size_bytes)
        if sizes != (shard.n_tokens * TOKEN.itemsize, (shard.n_documents + 1) * OFFSET.itemsize):
            raise ValueError(f"shard {shard.number}: its files do not have the sizes of its counts")
        if shard.labels is not None and shard.labels.size_bytes != shard.n_tokens:
            raise ValueError(f"shard {shard.number}: its labels are not one a token")
    for name in ("n_documents", "n_tokens"):
        total = sum(getattr(shard, name) for shard in index.shards)
        if getattr(index, name) != total:
            raise ValueError(f"it counts {getattr(index, name)} {name}, its shards hold {total}")
