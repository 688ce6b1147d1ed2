"""Token ids on disk, which a training job streams with no tokenizer: `sdf export --to tokens` writes them.

    tokens.json              the index, written last
    00000.tokens.u32         the ids of the documents one after another, little-endian
    00000.offsets.u64        where each document starts, and at the end where the last one does
    00000.labels.u8          1 for a token that is learned from, 0 for one that is only read; where the index says so

One directory holds one config and split in the corpus's order. Arrays are mapped, not read, so a seek costs a page and
memory is the system's page cache; the price is four bytes a token, three to four times the Parquet. `tokens.json` of
others is hostile input: anything but the canonical bytes of a consistent index is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdf.errors import DamagedError, Missing
from sdf.manifest import TokenizerRef

FORMAT = 1
INDEX = "tokens.json"
IDS, OFFSETS, LABELS = ("tokens.u32", "<u4"), ("offsets.u64", "<u8"), ("labels.u8", "u1")

Ids = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TokenShard:
    """Files named `name` + their kind; each sha256 is of one file's bytes, `labels_sha256` None where there is none."""

    name: str
    n_tokens: int
    n_documents: int
    sha256: str
    offsets_sha256: str
    labels_sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIndex:
    """What lies in a directory of ids. `eos_id` closes each document, None when nothing does."""

    format: int = FORMAT
    config: str
    split: str
    tokenizer: TokenizerRef
    eos_id: int | None
    has_labels: bool
    manifest: int
    manifest_sha256: str
    n_tokens: int = 0
    n_documents: int = 0
    shards: tuple[TokenShard, ...] = ()

    def to_json(self) -> bytes:
        """The bytes of `tokens.json`: a pure function of the fields."""
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, source: str) -> TokenIndex:
        """The index whose `to_json` is `data`; DamagedError names `source` for anything else."""
        try:
            values = json.loads(data)
            found = _format_of(values)
            if found > FORMAT:
                raise DamagedError(
                    f"{source}: format {found} was written by a newer sdf; this one reads format {FORMAT}. Upgrade sdf"
                )
            index = cls(
                **values
                | {
                    "tokenizer": TokenizerRef(**values["tokenizer"]),
                    "shards": tuple(TokenShard(**shard) for shard in values["shards"]),
                }
            )
            if index.to_json() != data or not _adds_up(index):
                raise ValueError("it is not what was written")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DamagedError(f"{source}: torn or edited index ({error}); export the corpus again") from error
        return index


@dataclass(frozen=True, slots=True)
class TokenArrays:
    """A shard's arrays, mapped: `ids[offsets[i]:offsets[i + 1]]` is document i, `labels` lies beside `ids`."""

    ids: Ids
    offsets: npt.NDArray[np.uint64]
    labels: Mask | None


def read_index(directory: Path) -> TokenIndex:
    """Missing when there is none; DamagedError when it is not what was written."""
    path = directory / INDEX
    try:
        return TokenIndex.from_json(path.read_bytes(), source=str(path))
    except FileNotFoundError:
        raise Missing(f"{path}: no such file; `sdf export --to tokens` writes one per config and split") from None


def map_arrays(directory: Path, shard: TokenShard, *, verify: bool = False) -> TokenArrays:
    """Maps a shard. Missing and DamagedError name the file; `verify` reads and hashes all of it first."""
    has_labels = shard.labels_sha256 is not None
    ids = _mapped(directory / f"{shard.name}.{IDS[0]}", IDS[1], shard.n_tokens, shard.sha256 if verify else None)
    offsets = _mapped(
        directory / f"{shard.name}.{OFFSETS[0]}",
        OFFSETS[1],
        shard.n_documents + 1,
        shard.offsets_sha256 if verify else None,
    )
    labels = None
    if has_labels:
        path = directory / f"{shard.name}.{LABELS[0]}"
        labels = _mapped(path, LABELS[1], shard.n_tokens, shard.labels_sha256 if verify else None)
    if offsets[0] != 0 or offsets[-1] != shard.n_tokens or bool((offsets[1:] < offsets[:-1]).any()):
        raise DamagedError(f"{directory / shard.name}.{OFFSETS[0]}: altered: not offsets; export the corpus again")
    return TokenArrays(ids, offsets, labels)


class TokenWriter:
    """Writes the files of one directory; a shard closes with the document that brings it to `shard_tokens`.

    Holds one shard in memory. The index comes last, with `finish`.
    """

    def __init__(self, directory: Path, head: TokenIndex, shard_tokens: int) -> None:
        self._directory, self._head, self._shard_tokens = directory, head, shard_tokens
        self._shards: list[TokenShard] = []
        self._ids: list[Ids] = []
        self._labels: list[Mask] = []
        self._n_tokens = 0

    def add(self, ids: Ids, labels: Mask | None) -> None:
        """One document; `labels` as long as `ids`, given exactly when the index has them."""
        assert (labels is not None) == self._head.has_labels
        self._ids.append(ids)
        if labels is not None:
            assert len(labels) == len(ids)
            self._labels.append(labels)
        self._n_tokens += len(ids)
        if self._n_tokens >= self._shard_tokens:
            self._close()

    def finish(self) -> TokenIndex:
        if self._ids:
            self._close()
        index = replace(
            self._head,
            n_tokens=sum(shard.n_tokens for shard in self._shards),
            n_documents=sum(shard.n_documents for shard in self._shards),
            shards=tuple(self._shards),
        )
        (self._directory / INDEX).write_bytes(index.to_json())
        return index

    def _close(self) -> None:
        name = f"{len(self._shards):05d}"
        offsets = np.cumsum([0, *map(len, self._ids)])
        self._shards.append(
            TokenShard(
                name,
                self._n_tokens,
                len(self._ids),
                self._put(f"{name}.{IDS[0]}", IDS[1], self._ids),
                self._put(f"{name}.{OFFSETS[0]}", OFFSETS[1], [offsets]),
                self._put(f"{name}.{LABELS[0]}", LABELS[1], self._labels) if self._head.has_labels else None,
            )
        )
        self._ids, self._labels, self._n_tokens = [], [], 0

    def _put(self, name: str, kind: str, arrays: Sequence[npt.NDArray[Any]]) -> str:
        state = hashlib.sha256()
        with (self._directory / name).open("wb") as file:
            for array in arrays:
                data = np.ascontiguousarray(array, dtype=kind).tobytes()
                state.update(data)
                file.write(data)
        return state.hexdigest()


def _mapped(path: Path, kind: str, length: int, sha256: str | None) -> npt.NDArray[Any]:
    try:
        size_bytes = path.stat().st_size
        if size_bytes != length * np.dtype(kind).itemsize:
            raise DamagedError(f"{path}: {size_bytes:,} bytes do not hold {length:,} entries; export the corpus again")
        # An empty file cannot be mapped.
        array = np.memmap(path, dtype=kind, mode="r") if length else np.empty(0, kind)
    except FileNotFoundError:
        raise Missing(f"{path}: this shard is missing; copy it again, or export the corpus again") from None
    if sha256 is not None and hashlib.sha256(array.data).hexdigest() != sha256:
        raise DamagedError(f"{path}: altered: its sha256 is not the index's; export the corpus again")
    return array


def _format_of(values: Any) -> int:
    found = values["format"] if isinstance(values, dict) else None
    if type(found) is not int or found < FORMAT:
        raise ValueError(f"format is {found!r}, not {FORMAT}")
    return found


def _adds_up(index: TokenIndex) -> bool:
    names = [shard.name for shard in index.shards] == [f"{number:05d}" for number in range(len(index.shards))]
    labelled = all((shard.labels_sha256 is not None) == index.has_labels for shard in index.shards)
    counts = (sum(shard.n_tokens for shard in index.shards), sum(shard.n_documents for shard in index.shards))
    return names and labelled and counts == (index.n_tokens, index.n_documents)
