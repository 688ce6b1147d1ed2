"""A committed corpus in the formats of other loaders: MosaicML's MDS, JSONL, and token ids.

    OUT/export.json                    what this is an export of, and every file with size and sha256
    OUT/documents/train/00000.jsonl    a directory per config and split

The manifest says what is read, and each shard's sha256 is checked before its rows are. Files are written to a directory
aside, which is renamed when all of them are on disk: an interrupted export leaves no target, and the next one removes
what it left and starts over, since an export costs minutes and no money. Bytes depend on corpus and settings alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sdf import __version__
from sdf.directory import check_one
from sdf.errors import DamagedError, StorageError, UsageError
from sdf.export.rows import JsonlWriter, MdsWriter, check_mds
from sdf.export.target import aside, files_of, is_taken
from sdf.frontmatter import near
from sdf.manifest import Manifest, Shard
from sdf.shards import read_checked, read_manifest
from sdf.shards.file import COLUMNS, Rows
from sdf.storage import RunDir

INDEX = "export.json"
FORMAT = 1
# What a training job reads of a row; the rest says where it comes from.
TRAINING = {
    "documents": ("text",),
    "chats": ("messages", "tools"),
    "prompts": ("messages", "tools"),
    "items": ("item",),
}
# Evaluation questions must not reach a training job by default.
UNASKED = frozenset({"items"})
MB = 1024**2
# MDS counts bytes within a file in 32 bits.
MOST_MB = 4_000

Record = dict[str, Any]


class Writer(Protocol):
    """Takes the rows of one config and split, in order, and writes files into its directory."""

    def write(self, rows: Rows) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of an export.

    `configs` empty: all that a training job reads. `columns`: `all`, or `training` for the text alone. A file is closed
    once it holds `file_mb`. `tokenizer` is for tokens alone (see `sdf.export.ids`), which have no columns.
    """

    to: str
    configs: tuple[str, ...] = ()
    columns: str = "all"
    tokenizer: str = ""
    file_mb: int = 64


@dataclass(frozen=True, slots=True)
class Format:
    """How rows are written: `writer(directory, config, split)`. `settings` are what decides bytes beyond `Wanted`."""

    writer: Callable[[Path, str, str], Writer]
    settings: Record = field(default_factory=Record)


@dataclass(frozen=True, slots=True)
class Exported:
    """What lies in `out`; `was_there` when an earlier export had made exactly this."""

    out: str
    to: str
    manifest: int
    state: str
    n_documents: int
    n_tokens: int
    n_files: int
    size_bytes: int
    was_there: bool


def export(run_dir: RunDir, wanted: Wanted, out: Path) -> Exported:
    """Writes the newest manifest's shards to `out`, or finds there what it would write.

    UsageError for an unknown format, config or column set; StorageError when nothing is committed, or when `out` holds
    something else; DamagedError names a shard that is not what was written. `out` appears whole or not at all.
    """
    _check(wanted)
    manifest = _committed(run_dir)
    chosen = _chosen(manifest, wanted, run_dir.root)
    form = FORMATS[wanted.to](wanted, manifest, tuple({config: None for config, _ in chosen}))
    head = _head(manifest, wanted, chosen) | form.settings
    if is_taken(out):
        return _exported(out, _found(out, head), was_there=True)
    with aside(out) as directory:
        for (config, split), shards in chosen.items():
            into = directory / config / split
            into.mkdir(parents=True)
            writer = form.writer(into, config, split)
            for shard in shards:
                for rows in read_checked(run_dir, shard):
                    writer.write(rows)
            writer.finish()
        index = head | {"files": files_of(directory)}
        (directory / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return _exported(out, index, was_there=False)


def _columns(config: str, wanted: Wanted) -> tuple[str, ...]:
    return TRAINING[config] if wanted.columns == "training" else tuple(COLUMNS[config].names)


def _jsonl(wanted: Wanted, _: Manifest, __: Sequence[str]) -> Format:
    return Format(lambda into, config, _: JsonlWriter(into, _columns(config, wanted), wanted.file_mb * MB))


def _mds(wanted: Wanted, _: Manifest, __: Sequence[str]) -> Format:
    check_mds()
    return Format(lambda into, config, _: MdsWriter(into, config, _columns(config, wanted), wanted.file_mb * MB))


def _tokens(wanted: Wanted, manifest: Manifest, configs: Sequence[str]) -> Format:
    from sdf.export import ids  # numpy and a tokenizer's library, which the other formats do not wait for

    if untrained := [config for config in configs if config not in ids.CONFIGS]:
        raise UsageError(f"--config {untrained[0]}: nothing of it is learnt; tokens are of {', '.join(ids.CONFIGS)}")
    encoder = ids.encoder_for(wanted.tokenizer, configs)
    return Format(
        lambda into, config, split: ids.TokensWriter(into, config, split, encoder, manifest, wanted.file_mb * MB),
        {"ids_by": encoder.name, "ids_by_hash": encoder.hash},
    )


FORMATS: Mapping[str, Callable[[Wanted, Manifest, Sequence[str]], Format]] = {
    "jsonl": _jsonl,
    "mds": _mds,
    "tokens": _tokens,
}


def _check(wanted: Wanted) -> None:
    if wanted.to not in FORMATS:
        raise UsageError(f"--to {wanted.to!r} is no format that this exports to{near(wanted.to, FORMATS)}")
    if wanted.columns not in ("all", "training"):
        raise UsageError(f"--columns {wanted.columns!r}: unknown{near(wanted.columns, ('all', 'training'))}")
    if not 1 <= wanted.file_mb <= MOST_MB:
        raise UsageError(f"--file-mb {wanted.file_mb}: give a number from 1 to {MOST_MB:,}")
    if wanted.tokenizer and wanted.to != "tokens":
        raise UsageError(f"--tokenizer is for --to tokens; {wanted.to} holds texts")
    if wanted.columns != "all" and wanted.to == "tokens":
        raise UsageError("--columns is for rows; tokens hold the text alone")


def _committed(run_dir: RunDir) -> Manifest:
    manifest = read_manifest(run_dir)
    if manifest is None or not manifest.shards:
        check_one(run_dir)
        raise StorageError(
            f"{run_dir.root}: no corpus here, or nothing of it is committed yet; `sdf status` says where one stands"
        )
    return manifest


def _chosen(manifest: Manifest, wanted: Wanted, root: str) -> dict[tuple[str, str], list[Shard]]:
    """The shards by config and split, in the manifest's order."""
    there = list(dict.fromkeys(shard.config for shard in manifest.shards))
    for config in wanted.configs:
        if config not in there:
            raise UsageError(f"--config {config!r}: {root} has none of that name{near(config, there)}")
    unasked = UNASKED | ({"prompts"} if wanted.to == "tokens" else set())
    configs = wanted.configs or tuple(config for config in there if config not in unasked)
    chosen: dict[tuple[str, str], list[Shard]] = {}
    for shard in manifest.shards:
        if shard.config in configs:
            chosen.setdefault((shard.config, shard.split), []).append(shard)
    if not chosen:
        raise UsageError(f"{root}: holds only {', '.join(there)}, which no training job reads; name it with --config")
    return chosen


def _head(manifest: Manifest, wanted: Wanted, chosen: Mapping[tuple[str, str], list[Shard]]) -> Record:
    """What decides every byte of an export: two with the same head are the same."""
    shards = [shard for group in chosen.values() for shard in group]
    return {
        "format": FORMAT,
        "to": wanted.to,
        "configs": sorted({config for config, _ in chosen}),
        "columns": wanted.columns,
        "file_mb": wanted.file_mb,
        "manifest": manifest.number,
        "manifest_sha256": manifest.sha256,
        "state": manifest.state,
        "n_documents": sum(shard.n_rows for shard in shards),
        "n_tokens": sum(shard.n_tokens for shard in shards),
        "tokenizer": manifest.tokenizer.name,
        "made_by": f"sdf {__version__}",
    }


def _found(out: Path, head: Record) -> Record:
    """The index of the export that lies in `out`, once it is found to be this one and whole."""
    index = _index(out)
    for name, value in head.items():
        if index.get(name) != value:
            raise StorageError(
                f"{out}: holds another export: its {name} is {index.get(name)!r}, this one's {value!r}; "
                "give another --out, or delete it"
            )
    known = index.get("files")
    there = [each for each in files_of(out) if each["path"] != INDEX]
    if there != known:
        changed = [each["path"] for each in there if each not in (known or [])] or ["a file"]
        raise DamagedError(f"{out}: {changed[0]} is missing or not what was written; delete {out} and export again")
    return index


def _index(out: Path) -> Record:
    try:
        index = json.loads((out / INDEX).read_bytes())
    except FileNotFoundError:
        raise StorageError(f"{out}: not empty, and no export lies there; give another --out") from None
    except (OSError, ValueError) as error:
        raise DamagedError(f"{out / INDEX}: cannot be read ({error}); delete {out} and export again") from error
    return index if isinstance(index, dict) else {}


def _exported(out: Path, index: Record, *, was_there: bool) -> Exported:
    return Exported(
        str(out),
        index["to"],
        index["manifest"],
        index["state"],
        index["n_documents"],
        index["n_tokens"],
        len(index["files"]),
        sum(each["size_bytes"] for each in index["files"]),
        was_there,
    )
