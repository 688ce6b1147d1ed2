"""Another corpus as a source of rows: pinned by a manifest, and the same rows ever after, also when it has grown.

A smaller corpus is a prefix of a larger one, config by config. So rows are counted within one config, the first that
has the columns, and what is pinned is read from whatever shards hold it now. Held-out rows stay held out: a text made
of one would carry it into training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sdf.errors import DamagedError, Missing, SourceError
from sdf.manifest import CONFIGS, Manifest, Shard, newest, number_of
from sdf.parquet import open_parquet
from sdf.storage import RunDir

MANIFESTS = "manifests"
SPLIT = "train"


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus by its newest manifest. `lineage` is the sha256 of its first one, which growing does not change."""

    run_dir: RunDir
    manifest: Manifest
    sha256: str
    lineage: str


def is_corpus(path: str) -> bool:
    """Whether a path is to be read as a corpus: a directory here, or any URL."""
    return "://" in path or Path(path).is_dir()


def open_corpus(path: str) -> Corpus:
    """SourceError for a directory without a manifest, and for a corpus that is not complete."""
    run_dir = RunDir(path)
    names = [name for name in run_dir.children(MANIFESTS) if number_of(f"{MANIFESTS}/{name}")]
    name, first = newest(names), min(names, default=None)
    if name is None or first is None:
        raise SourceError(f"{run_dir.root}: no manifest here; give the directory of a corpus that sdf wrote")
    data = run_dir.read(f"{MANIFESTS}/{name}")
    manifest = Manifest.from_json(data, source=f"{run_dir.root}/{MANIFESTS}/{name}")
    if manifest.state != "complete":
        raise SourceError(f"{run_dir.root}: the corpus is still growing; finish it with `sdf run` first")
    return Corpus(run_dir, manifest, _sha256(data), _sha256(run_dir.read(f"{MANIFESTS}/{first}")))


def pinned(corpus: Corpus, sha256: str | None) -> Manifest:
    """The manifest of that sha256 in the history of the corpus. SourceError when it never was one of it."""
    if sha256 in (None, corpus.sha256):
        return corpus.manifest
    root = corpus.run_dir.root
    for name in sorted(corpus.run_dir.children(MANIFESTS), reverse=True):
        try:
            data = corpus.run_dir.read(f"{MANIFESTS}/{name}")
        except Missing:
            continue
        if _sha256(data) == sha256:
            return Manifest.from_json(data, source=f"{root}/{MANIFESTS}/{name}")
    raise SourceError(
        f"{root}: sha256 is {corpus.sha256}, {sha256} is pinned and was never a manifest of it; use the pinned corpus"
    )


def rows_with(corpus: Corpus, manifest: Manifest, columns: tuple[str, ...]) -> tuple[list[Shard], int]:
    """The shards that hold the rows of `manifest` now, in order, and how many rows are its."""
    seen: dict[str, list[str]] = {}
    for config in CONFIGS:
        now = [shard for shard in corpus.manifest.shards if (shard.config, shard.split) == (config, SPLIT)]
        if not now:
            continue
        seen[config] = _columns(corpus.run_dir, now[0])
        if set(columns) <= set(seen[config]):
            held = [shard for shard in manifest.shards if (shard.config, shard.split) == (config, SPLIT)]
            return now, sum(shard.n_rows for shard in held)
    known = "; ".join(f"{config}: {', '.join(names)}" for config, names in seen.items()) or "no rows"
    raise SourceError(f"{corpus.run_dir.root}: no rows with {', '.join(columns)}; it has {known}")


def principles_of(path: str) -> tuple[str, ...]:
    """Ids of the principles that a corpus has a row of, in its order: what a bank of principles amounts to."""
    corpus = open_corpus(path)
    found: dict[str, None] = {}
    for shard in corpus.manifest.shards:
        place = f"{corpus.run_dir.root}/{shard.path}"
        with corpus.run_dir.open(shard.path) as file:
            try:
                column = open_parquet(file, place).read(columns=["principle"], use_threads=False)["principle"]
            except (pa.ArrowException, KeyError) as error:
                raise DamagedError(f"{place}: its principles cannot be read ({error})") from error
            found.update(dict.fromkeys(column.to_pylist()))
    return tuple(found)


def _columns(run_dir: RunDir, shard: Shard) -> list[str]:
    with run_dir.open(shard.path) as file:
        return list(open_parquet(file, f"{run_dir.root}/{shard.path}").schema_arrow.names)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
