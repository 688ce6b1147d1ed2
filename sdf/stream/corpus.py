"""A corpus as a training job sees it: pinned rows in one global order, read as plain dicts.

`Corpus` opens the directory or URL of a corpus that `sdf run` makes, a tokens export, or Parquet and JSON-lines files
of others. What it reads is pinned when it is made (a manifest by number), so that every rank and worker reads the
same rows; a corpus that is still growing is pinned by `version` or followed by `follow`. Nothing is held open: the
object pickles as its settings, and each process opens files for itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdf.errors import DamagedError, Missing, SdfError, StreamError, StreamStalled
from sdf.manifest import CONFIGS, Manifest, newest
from sdf.stream.cache import ShardCache
from sdf.stream.choice import allowed_of, data_files, holds_nothing, matches, names_files, without
from sdf.stream.documents import Documents
from sdf.stream.order import EpochOrder, Rows, Shuffle, Spot
from sdf.stream.places import Place
from sdf.stream.rows import decoding
from sdf.stream.tables import Recent, ShardTable, Table, manifest_shards, table_of
from sdf.stream.token_table import TokenTable, read_index
from sdf.stream.tokens_format import TokenIndex

Where = Mapping[str, Any]

MANIFESTS = "manifests"
# Of orders (a table's chunks in an epoch's order): one in use, one for what a window carries over.
KEPT_ORDERS = 2


@dataclass(frozen=True, slots=True)
class Follow:
    """Train while the corpus grows: when the pinned rows are used up, the next manifest that adds rows is adopted.

    Manifests are taken in their order, never the newest of the moment, so that all ranks adopt the same ones whenever
    they look. StreamStalled when none appears for `timeout` seconds and the corpus is not complete.
    """

    timeout: float
    poll: float = 5.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of one version: `n_rows` of `table`, from the first. `sha256` pins the manifest (or the files)."""

    version: int
    sha256: str
    table: Any  # a Table, or the TokenTable of an export
    n_rows: int
    is_last: bool


class Corpus:
    """Rows of a corpus, of one config and split.

    url         directory or URL of a corpus; of a tokens export; or of .parquet or .jsonl files (a directory, a file or
                a pattern such as `web/*.parquet`)
    config      documents, chats, prompts or items; of others' files it says how rows are read (`text` or `messages`)
    version     the manifest to read; by default the newest, which must then be complete
    follow      read on as the corpus grows; starts at `version`, or at the first manifest
    where       only rows whose columns hold these values: {"genre": "blog_post", "n_tokens": range(200, 4000)}; a list
                names several
    max_tokens  only the first rows, up to this many tokens as the corpus counts them: a smaller corpus is a prefix
    text        the column of documents' text
    skip        shards or files to leave out by their path, damaged ones for example; part of what is pinned
    cache       where remote shards are kept
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        config: str = "documents",
        *,
        split: str = "train",
        version: int | None = None,
        follow: Follow | None = None,
        where: Where | None = None,
        max_tokens: float | None = None,
        text: str = "text",
        skip: Sequence[str] = (),
        cache: ShardCache | None = None,
    ) -> None:
        self.url, self.config, self.split, self.text = os.fspath(url), config, split, text
        self.follow, self.max_tokens, self.skip = follow, max_tokens, tuple(skip)
        self.where = {name: allowed_of(value) for name, value in (where or {}).items()}
        self._place, self._cache = Place(self.url), cache or ShardCache()
        self._kept: tuple[int, dict[Any, Any]] = (0, {})
        if config not in CONFIGS:
            raise StreamError(f"{self._place}: no config {config!r}; known: {', '.join(CONFIGS)}")
        manifests = [] if names_files(self._place) else self._place.names(MANIFESTS)
        self.index = None if manifests or names_files(self._place) else read_index(self._place)
        # One that is followed may not have begun.
        self._is_corpus = bool(manifests) or (follow is not None and not self.index and holds_nothing(self._place))
        if not self._is_corpus and (version is not None or follow is not None):
            raise StreamError(f"{self._place}: version and follow belong to a corpus with manifests; there are none")
        self.version = self._pinned(manifests, version) if self._is_corpus else 0
        self.snapshot(self.version)

    def __repr__(self) -> str:
        return f"Corpus({str(self._place)!r}, {self.config!r}, version={self.version})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": (0, {})}

    @property
    def identity(self) -> dict[str, Any]:
        """What a saved state must find again: the rows by content, and what is read of them."""
        chosen = {name: repr(value) for name, value in sorted(self.where.items())}
        return {
            "config": self.config,
            "split": self.split,
            "where": chosen,
            "max_tokens": self.max_tokens,
            "skip": sorted(self.skip),
            "text": self.text,
        }

    def documents(
        self,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        epoch: int = 0,
        **options: Any,
    ) -> Documents:
        """The rows of one pass in the global order, as dicts; see `Documents` for the options."""
        return Documents(self, rank, world_size, seed, epoch, **options)

    def verify(self) -> list[str]:
        """What is wrong with the shards, one sentence each, from their sha256; reads every byte."""
        found: list[str] = []
        for shard in self._shards(self.version) if self._is_corpus else ():
            try:
                self._cache.path(self.url, shard, verify=True).close()
            except SdfError as error:
                found.append(str(error))
        return found

    @property
    def is_tokens(self) -> bool:
        """Whether it holds token ids instead of texts."""
        return self.index is not None

    @property
    def n_rows(self) -> int:
        """Rows of the pinned version, before `where`."""
        return self.snapshot(self.version).n_rows

    @property
    def place(self) -> Place:
        return self._place

    @property
    def cache(self) -> ShardCache:
        return self._cache

    @property
    def start(self) -> Spot:
        return Spot(0, self.version)

    def manifest(self, version: int) -> Manifest:
        """DamagedError and Missing name the file."""
        return self._own(("manifest", version), lambda: self._manifest(version))

    def _manifest(self, version: int) -> Manifest:
        path = f"{MANIFESTS}/{version:06d}.json"
        manifest = Manifest.from_json(self._place.read(path), source=f"{self._place}/{path}")
        if manifest.number != version:
            raise DamagedError(f"{self._place}/{path}: holds manifest {manifest.number}, copied or renamed")
        return manifest

    def snapshot(self, version: int) -> Snapshot:
        return self._own(("snapshot", version), lambda: self._snapshot(version))

    def order(self, spot: Spot, shuffle: Shuffle) -> EpochOrder:
        snapshot = self.snapshot(spot.version)

        def make() -> EpochOrder:
            return EpochOrder(snapshot.table.chunks, spot.first, snapshot.n_rows, spot.epoch, shuffle)

        return self._own("orders", lambda: Recent(KEPT_ORDERS)).get(
            (spot.epoch, spot.version, spot.first, shuffle), make
        )

    def settled(self, spot: Spot, shuffle: Shuffle) -> Spot:
        """The spot itself, or where reading goes on when its pass is over: a newer version, or the next epoch.

        Waits for the newer version when the corpus is followed; StreamStalled when none comes.
        """
        if spot.window < self.order(spot, shuffle).n_windows:
            return spot
        newer = self._newer(spot.version) if self.follow and spot.epoch == 0 else None
        if newer is None:
            return Spot(spot.epoch + 1, spot.version)
        return Spot(0, newer.version, self.snapshot(spot.version).n_rows)

    def rows(self, spot: Spot, shuffle: Shuffle) -> Rows:
        """The rows of a window that `where` lets through, in order."""
        rows = self.order(spot, shuffle).window(spot.window)
        return rows[self._passing(self.snapshot(spot.version).table, rows)] if self.where else rows

    def _passing(self, table: Table, rows: Rows) -> Rows:
        holders = table.chunks.holding(rows)
        passing = np.zeros(len(rows), bool)
        for chunk in np.unique(holders).tolist():
            here = holders == chunk
            passing[here] = self._mask(table, chunk)[rows[here] - table.chunks.starts[chunk]]
        return passing

    def _mask(self, table: Table, chunk: int) -> Rows:
        def make() -> Rows:
            found = table.read(chunk, list(self.where))
            mask = np.ones(found.num_rows, bool)
            for name, allowed in self.where.items():
                with decoding(table.where(chunk)):
                    mask &= matches(found[name], allowed, table.where(chunk), name)
            return mask

        return self._own("masks", lambda: Recent(64)).get((table.identity, chunk), make)

    def _own(self, key: Any, make: Callable[[], Any]) -> Any:
        """What this process made of `key`: handles do not cross a fork."""
        if self._kept[0] != os.getpid():
            self._kept = (os.getpid(), {})
        if key not in self._kept[1]:
            self._kept[1][key] = make()
        return self._kept[1][key]

    def _pinned(self, manifests: Sequence[str], version: int | None) -> int:
        if version is not None or self.follow:
            return self._first_with_rows(1 if version is None else version)
        name = newest(manifests)
        if name is None:
            raise StreamError(f"{self._place}: {MANIFESTS}/ holds no manifest; run `sdf run` first")
        found = self.manifest(int(name.removesuffix(".json")))
        if found.state != "complete":
            raise StreamError(
                f"{self._place}: still growing (manifest {found.number} has {found.n_tokens:,} tokens of "
                f"{found.wanted}). Finish the run; or train on what is there with version="
                f"{found.number}; or train while it grows with follow=Follow(timeout=...)"
            )
        return found.number

    def _first_with_rows(self, version: int) -> int:
        if self.follow is None:
            try:
                return self.manifest(version).number
            except Missing:
                raise StreamError(f"{self._place}: has no manifest {version}; see its {MANIFESTS}/") from None
        while not manifest_shards(self._awaited(version), self.config, self.split):
            version += 1
        return version

    def _newer(self, version: int) -> Snapshot | None:
        """The next version with more rows; None when the corpus ended, or has as many as were asked for."""
        current = self.snapshot(version)
        while not self.snapshot(version).is_last:
            version += 1
            self._awaited(version)
            if self.snapshot(version).n_rows > current.n_rows:
                return self.snapshot(version)
        return None

    def _awaited(self, version: int) -> Manifest:
        assert self.follow is not None
        waited = 0.0
        while True:
            try:
                return self.manifest(version)
            except Missing:
                if version > 1 and self.manifest(version - 1).state == "complete":
                    raise self._empty(version - 1) from None
            if waited >= self.follow.timeout:
                raise StreamStalled(
                    f"{self._place}: no manifest {version} after {waited:.0f} s, and the corpus is not complete. Start "
                    "its `sdf run` again and resume from the saved state, or raise the timeout"
                )
            self.follow.sleep(self.follow.poll)
            waited += self.follow.poll

    def _snapshot(self, version: int) -> Snapshot:
        if self.index is not None:
            return self._exported(self.index)
        if not self._is_corpus:
            return self._foreign()
        manifest = self.manifest(version)
        shards = self._shards(version)
        if not shards:
            raise self._empty(version)
        table = ShardTable(self.url, shards, self._cache)
        is_last = manifest.state == "complete"
        n_rows = table.chunks.n_rows
        if self.max_tokens is not None:
            within = self._rows_within(table, [shard.n_tokens for shard in shards])
            is_last, n_rows = is_last or within < n_rows, within
        return Snapshot(version, manifest.sha256, table, n_rows, is_last)

    def _shards(self, version: int) -> list[Any]:
        shards = manifest_shards(self.manifest(version), self.config, self.split)
        return without(shards, [shard.path for shard in shards], self.skip, self._place)

    def _exported(self, index: TokenIndex) -> Snapshot:
        if self.where:
            raise StreamError(f"{self._place}: a tokens export has no columns to choose by; export the rows you want")
        if (self.config, self.split) != (index.config, index.split):
            raise StreamError(f"{self._place}: holds {index.config}/{index.split}, not {self.config}/{self.split}")
        shards = without(index.shards, [shard.tokens.path for shard in index.shards], self.skip, self._place)
        table = TokenTable(self.url, index, shards, self._cache)
        n_rows = table.chunks.n_rows
        if self.max_tokens is not None and n_rows:
            n_tokens = np.cumsum(table.lengths(np.arange(n_rows)))
            n_rows = self._at_least_one(int(np.searchsorted(n_tokens, self.max_tokens, side="right")))
        if not n_rows:
            raise StreamError(f"{self._place}: the export holds no document")
        return Snapshot(0, table.identity, table, n_rows, is_last=True)

    def _foreign(self) -> Snapshot:
        place, names = data_files(self._place)
        if self.max_tokens is not None:
            raise StreamError(
                f"{self._place}: max_tokens of a Corpus needs manifests that count; give it to TokenStream"
            )
        table = table_of(place, without(names, names, self.skip, self._place))
        if not table.chunks.n_rows:
            raise StreamError(f"{self._place}: its files hold no row")
        return Snapshot(0, table.identity, table, table.chunks.n_rows, is_last=True)

    def _rows_within(self, table: Table, tokens_of_shards: Sequence[int]) -> int:
        """How many rows come before more than `max_tokens` tokens do."""
        left = float(self.max_tokens or 0)
        for file, n_tokens in enumerate(tokens_of_shards):
            if n_tokens > left:
                chunks = np.flatnonzero(table.chunks.files == file)
                counts = [table.read(int(chunk), ["n_tokens"])["n_tokens"].to_numpy() for chunk in chunks]
                first = int(table.chunks.starts[chunks[0]])
                within = int(np.searchsorted(np.cumsum(np.concatenate(counts)), left, side="right"))
                return self._at_least_one(first + within)
            left -= n_tokens
        return table.chunks.n_rows

    def _at_least_one(self, n_rows: int) -> int:
        if not n_rows:
            raise StreamError(f"{self._place}: its first document is longer than max_tokens={self.max_tokens:g}")
        return n_rows

    def _empty(self, version: int) -> StreamError:
        manifest = self.manifest(version)
        there = sorted({f"{shard.config}/{shard.split}" for shard in manifest.shards})
        return StreamError(
            f"{self._place}: manifest {version} has no rows of {self.config}/{self.split}; "
            + (f"it has {', '.join(there)}" if there else "it is empty: run `sdf run` to its end")
        )
