"""What a corpus on disk is: the manifest, the one file that says which shards are committed.

    data/documents/train-00007-1f0c9a3e.parquet      a shard, immutable, named by its content
    manifests/000042.json                            the commit: every shard, with sizes, counts and hashes

A manifest lists the whole corpus instead of a difference: a reader needs one file, at the price of about 500 bytes
a shard in each. Manifests of others are hostile input: `Manifest.from_json` accepts the canonical bytes of a consistent
manifest and nothing else, so a torn or edited file is named before a path in it is opened. Standard library only:
the training side imports this module alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args

from sdf.errors import DamagedError

FORMAT = 1
State = Literal["growing", "complete"]
Sha256 = str  # 64 hex digits
Fields = dict[str, Any]

# The target of a corpus that ends where its genres do, not at a count of tokens.
ALL = 2**62

CONFIGS = ("documents", "chats", "prompts", "items")

# Every path a manifest may name; nothing here can leave the corpus directory.
SHARD_PATH = re.compile(
    r"data/(?P<config>[a-z]{1,32})/(?P<split>[a-z][a-z0-9_]{0,31})-(?P<number>[0-9]{5,9})-(?P<sha8>[0-9a-f]{8})\.parquet"
)
MANIFEST_PATH = re.compile(r"(?:.*/)?([0-9]{6,12})\.json")

# What a field may hold, by its annotation.
_HOLDS: Mapping[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int and value >= 0,
    "float": lambda value: type(value) in (int, float) and 0 <= value < math.inf,
    "Sha256": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "Sha256 | None": lambda value: value is None or _HOLDS["Sha256"](value),
    "State": lambda value: value in get_args(State),
    "object": lambda value: isinstance(value, dict),
    "TokenizerRef": lambda value: isinstance(value, dict),
    "Mapping[str, GenreCount]": lambda value: isinstance(value, dict),
    "tuple[Shard, ...]": lambda value: isinstance(value, list),
    "Mapping[str, int]": lambda value: isinstance(value, dict) and all(map(_HOLDS["int"], value.values())),
}

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Shard:
    """One committed file. `sha256` is of its bytes, `rows_sha256` of its rows whatever wrote the Parquet."""

    config: str
    split: str
    number: int
    path: str
    n_rows: int
    n_tokens: int
    size_bytes: int
    sha256: Sha256
    rows_sha256: Sha256


@dataclass(frozen=True, slots=True)
class TokenizerRef:
    """Which tokenizer counted: its name, and the hash of its vocabulary."""

    name: str
    hash: str


@dataclass(frozen=True, slots=True)
class GenreCount:
    """What a genre holds of the corpus, and the share of tokens it was asked for."""

    n_tokens: int
    n_documents: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A commit: the corpus is exactly `shards`, in this order.

    `n_tokens` and `n_documents` are the sums over the shards. `predecessor` is the `sha256` of manifest `number - 1`,
    None for the first. `rejected` counts briefs by reason.
    """

    format: int = FORMAT
    number: int
    state: State
    predecessor: Sha256 | None
    recipe_hash: str
    constitution_hash: str
    tokenizer: TokenizerRef
    target_tokens: int
    n_tokens: int
    n_documents: int
    genres: Mapping[str, GenreCount]
    rejected: Mapping[str, int]
    pyarrow: str
    made_by: str
    shards: tuple[Shard, ...]

    @property
    def wanted(self) -> str:
        """The target, for people."""
        return "all there is" if self.target_tokens == ALL else f"{self.target_tokens:,} tokens"

    def to_json(self) -> bytes:
        """The bytes of the file: a pure function of the fields."""
        sorted_by_key = {"genres": dict(sorted(self.genres.items())), "rejected": dict(sorted(self.rejected.items()))}
        body = asdict(replace(self, **sorted_by_key))
        # The checksum notices an edit of the newest manifest, which no successor vouches for yet.
        return _dumps(body | {"checksum": _sha256(_dumps(body))})

    @classmethod
    def from_json(cls, data: bytes, *, source: str) -> Manifest:
        """The manifest whose `to_json` is `data`; DamagedError names `source` (its path) for anything else."""
        try:
            values = json.loads(data)
            if not _HOLDS["object"](values):
                raise ValueError("not a JSON object")
            _check_format(values.get("format"), source)
            values.pop("checksum", None)
            manifest = _manifest(values)
            if manifest.to_json() != data:
                raise ValueError("its bytes are not the ones that were written")
        except (ValueError, RecursionError) as error:
            raise DamagedError(
                f"{source}: torn or edited manifest ({error}). Restore the file; or delete it to go back to the one "
                "before it, and run the same command again: everything that was paid for is kept"
            ) from error
        return manifest

    @property
    def sha256(self) -> Sha256:
        """What the next manifest names as its predecessor."""
        return _sha256(self.to_json())


def newest(names: Iterable[str]) -> str | None:
    """The name with the highest manifest number, paths or bare names alike; other files are passed over."""
    numbered = [(number, name) for name in names if (number := number_of(name)) is not None]
    return max(numbered)[1] if numbered else None


def number_of(name: str) -> int | None:
    """42 for "manifests/000042.json"; None when it is not the name of a manifest."""
    match = MANIFEST_PATH.fullmatch(name)
    return int(match[1]) if match else None


def text_of(config: str, row: Mapping[str, Any]) -> str:
    """The text of a row that tokens are counted on: of messages, the contents joined by newlines."""
    if config == "documents":
        return row["text"]
    if config == "items":
        return row["item"]
    return "\n".join(message["content"] for message in row["messages"])


def _dumps(values: Fields) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_format(found: Any, source: str) -> None:
    if not _HOLDS["int"](found) or found < FORMAT:
        raise ValueError(f"format is {found!r}, not {FORMAT}")
    if found > FORMAT:
        raise DamagedError(
            f"{source}: format {found} was written by a newer sdf; this one reads format {FORMAT}. "
            "Upgrade sdf to read this corpus"
        )


def _manifest(values: Fields) -> Manifest:
    checked = _checked(Manifest, values, "the manifest")
    shards = tuple(_record(Shard, shard, "a shard") for shard in checked["shards"])
    tokenizer = _record(TokenizerRef, checked["tokenizer"], "tokenizer")
    genres = {key: _record(GenreCount, count, f"genre {key!r}") for key, count in checked["genres"].items()}
    built: Fields = {"shards": shards, "tokenizer": tokenizer, "genres": genres}
    manifest = Manifest(**checked | built)
    _check_shards(manifest)
    return manifest


def _check_shards(manifest: Manifest) -> None:
    n_of: Counter[tuple[str, str]] = Counter()
    for shard in manifest.shards:
        match = SHARD_PATH.fullmatch(shard.path)
        if match is None or shard.config not in CONFIGS:
            raise ValueError(f"{shard.path!r} is not the path of a shard")
        if match.groups() != (shard.config, shard.split, f"{shard.number:05d}", shard.sha256[:8]):
            raise ValueError(f"{shard.path}: its name disagrees with its config, split, number or sha256")
        if shard.number != n_of[shard.config, shard.split]:
            raise ValueError(f"{shard.path}: the next number is {n_of[shard.config, shard.split]}")
        n_of[shard.config, shard.split] += 1
    n_tokens = sum(shard.n_tokens for shard in manifest.shards)
    n_documents = sum(shard.n_rows for shard in manifest.shards)
    if (manifest.n_tokens, manifest.n_documents) != (n_tokens, n_documents):
        raise ValueError(
            f"it counts {manifest.n_tokens} tokens in {manifest.n_documents} documents, "
            f"but its shards hold {n_tokens} in {n_documents}"
        )


def _record(kind: type[Record], values: Any, where: str) -> Record:
    return kind(**_checked(kind, values, where))


def _checked(kind: type[Any], values: Any, where: str) -> Fields:
    """`values` when it has exactly the fields of `kind`, each holding what its annotation says."""
    if not _HOLDS["object"](values):
        raise ValueError(f"{where} is not an object")
    annotations = {field.name: str(field.type) for field in fields(kind)}
    for name in sorted(values.keys() ^ annotations.keys()):
        near = get_close_matches(name, annotations, 1)
        unknown = f"has an unknown key {name!r}" + (f"; meant {near[0]!r}?" if near else "")
        raise ValueError(f"{where} " + (unknown if name in values else f"lacks {name!r}"))
    for name, annotation in annotations.items():
        if not _HOLDS[annotation](values[name]):
            raise ValueError(f"{where}: {name} cannot be {values[name]!r}")
    return values
