"""Shards and their publication: a shard file is stored under a name of its content, a manifest commits it.

Order makes the commit: shards first, the manifest last and only if nobody was faster. Until then a file under `data/`
is an orphan that no reader sees, so a crash at any point needs no repair; `gc` deletes what stays behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from sdf.errors import DamagedError, Missing, StorageError, Superseded
from sdf.manifest import SHARD_PATH, Manifest, Shard, newest, number_of, text_of
from sdf.records import Rejection
from sdf.shards.file import (
    ROWS_PER_GROUP,
    Row,
    Rows,
    canonical_lines,
    decode_rejections,
    encode,
    encode_rejections,
    ids,
    row_groups,
)
from sdf.storage import RunDir

CountTokens = Callable[[Sequence[str]], list[int]]

MANIFESTS = "manifests"


def write_shard(run_dir: RunDir, config: str, split: str, number: int, rows: Sequence[Row]) -> Shard:
    """Stores the rows under a name of their content; an identical file is kept, a damaged one replaced.

    Rows hold exactly the columns of `COLUMNS[config]`; nullable ones may be left out. ValueError names a row that
    does not fit. Nothing is stored unless the whole shard is.
    """
    data, rows_sha256 = encode(config, rows)
    sha256 = hashlib.sha256(data).hexdigest()
    path = run_dir.shard(config, split, number, sha256[:8])
    assert SHARD_PATH.fullmatch(path), f"{path}: no path that a manifest may name"
    if not _holds(run_dir, path, data):
        run_dir.write(path, data)
    n_tokens = sum(int(row["n_tokens"]) for row in rows)
    return Shard(config, split, number, path, len(rows), n_tokens, len(data), sha256, rows_sha256)


def read_shard(run_dir: RunDir, shard: Shard) -> Iterator[Rows]:
    """Its rows, a row group at a time; DamagedError names the file when it cannot be decoded as a shard."""
    with run_dir.open(shard.path) as file:
        yield from row_groups(file, _place(run_dir, shard.path), shard.config)


def read_checked(run_dir: RunDir, shard: Shard) -> Iterator[Rows]:
    """As `read_shard`, once the file's sha256 is found to be the manifest's; DamagedError says what is wrong."""
    with run_dir.open(shard.path) as file:
        if altered := _altered(file, shard):
            raise DamagedError(f"{_place(run_dir, shard.path)}: {altered}")
        yield from row_groups(file, _place(run_dir, shard.path), shard.config)


def read_ids(run_dir: RunDir, shard: Shard) -> list[str]:
    """The ids of its documents, in order, without reading their texts; errors as for `read_shard`."""
    with run_dir.open(shard.path) as file:
        return ids(file, _place(run_dir, shard.path))


def publish(run_dir: RunDir, manifest: Manifest) -> None:
    """Commits the manifest, last of all writes; repeating it is fine.

    Superseded when another run published this number, or when the manifest does not follow the newest one.
    StorageError when a shard it adds is not there in full.
    """
    data = manifest.to_json()
    path = run_dir.manifest(manifest.number)
    assert Manifest.from_json(data, source=path) == manifest
    before = read_manifest(run_dir, manifest.number - 1)
    if manifest.predecessor != (before.sha256 if before else None):
        raise Superseded(f"{_place(run_dir, path)}: it does not follow the manifest before it; {_SUPERSEDED}")
    _check_stored(run_dir, set(manifest.shards) - set(before.shards if before else ()))
    if not run_dir.put_if_absent(path, data) and run_dir.read(path) != data:
        raise Superseded(f"{_place(run_dir, path)}: another run published it first; {_SUPERSEDED}")


def write_rejections(run_dir: RunDir, number: int, rejections: Sequence[Rejection]) -> None:
    """Which briefs the fold of manifest `number` passed over, in its order, and what a duplicate duplicates."""
    run_dir.write(RunDir.rejections(number), encode_rejections(rejections))


def read_rejections(run_dir: RunDir, number: int) -> list[Rejection]:
    """In fold order; empty for a manifest that was committed in the middle of a run. DamagedError names the file."""
    path = RunDir.rejections(number)
    try:
        with run_dir.open(path) as file:
            return decode_rejections(file, _place(run_dir, path))
    except Missing:
        return []


def read_manifest(run_dir: RunDir, number: int | None = None) -> Manifest | None:
    """The manifest of that number, else the newest; None when there is none.

    DamagedError names a torn or edited one.
    """
    name = newest(run_dir.children(MANIFESTS)) if number is None else run_dir.manifest(number)
    if name is None or (number is not None and not run_dir.exists(name)):
        return None
    path = name if number is not None else f"{MANIFESTS}/{name}"
    manifest = Manifest.from_json(run_dir.read(path), source=_place(run_dir, path))
    if manifest.number != number_of(path):
        raise DamagedError(
            f"{_place(run_dir, path)}: holds manifest {manifest.number}, copied or renamed; delete it, and run the "
            "same command again"
        )
    return manifest


def committed(run_dir: RunDir) -> Manifest:
    """The newest manifest; StorageError when nothing is committed yet."""
    manifest = read_manifest(run_dir)
    if manifest is None:
        raise StorageError(
            f"{run_dir.root}: nothing is committed yet; `sdf status {run_dir.root}` says where it stands"
        )
    return manifest


def verify_manifests(run_dir: RunDir) -> list[str]:
    """What is wrong with the log of manifests: files that are torn, edited, missing or not each other's successor."""
    problems: list[str] = []
    before: Manifest | None = None
    for path, _ in run_dir.files(MANIFESTS):
        if (number := number_of(path)) is None:
            continue
        try:
            manifest = read_manifest(run_dir, number)
        except DamagedError as error:
            problems.append(str(error))
            manifest = None
        if manifest and before and (manifest.predecessor, number) != (before.sha256, before.number + 1):
            problems.append(f"{_place(run_dir, path)}: does not follow manifest {before.number}, the one before it")
        before = manifest
    return problems


def verify_shards(run_dir: RunDir, manifest: Manifest, count_tokens: CountTokens | None) -> list[str]:
    """What is wrong with the shards of a manifest, one sentence each; see `verify_shard`."""
    return [problem for shard in manifest.shards for problem in verify_shard(run_dir, shard, count_tokens)]


def verify_shard(run_dir: RunDir, shard: Shard, count_tokens: CountTokens | None) -> list[str]:
    """Names the file when it is missing, truncated or altered, or when its rows or tokens are not what it declares.

    Tokens are counted again when `count_tokens` is given. Holds one row group in memory.
    """
    place = _place(run_dir, shard.path)
    try:
        with run_dir.open(shard.path) as file:
            altered = _altered(file, shard)
            return [f"{place}: {altered}"] if altered else _disagreements(file, place, shard, count_tokens)
    except Missing:
        return [f"{place}: missing{_RESTORE}"]
    except (DamagedError, StorageError) as error:
        return [str(error)]
    except OSError as error:
        return [f"{place}: cannot be read ({error}){_RESTORE}"]


def gc(run_dir: RunDir, manifest: Manifest) -> list[str]:
    """Deletes what the newest manifest does not name under `data/`: replaced shards, and what killed writes left.

    Only files that carry the name of a shard. The caller holds the lease, and has written the card of `manifest`.
    """
    latest = newest(run_dir.children(MANIFESTS))
    if latest is None or number_of(latest) != manifest.number:
        raise Superseded(f"{run_dir.root}: manifest {manifest.number} is not the newest; {_SUPERSEDED}")
    named = {shard.path for shard in manifest.shards}
    stored = [path for path, _ in run_dir.files("data") if SHARD_PATH.fullmatch(path) and path not in named]
    older = [path for path, _ in run_dir.files("rejected") if path != RunDir.rejections(manifest.number)]
    unwanted = stored + older + [path for path, _ in run_dir.leftovers("data")]
    for path in unwanted:
        run_dir.delete(path)
    return unwanted


_RESTORE = "; delete it if it is there and assemble again: the ledger holds all of it"
_SUPERSEDED = "this run stops, and what is committed is kept: run the same command again"


def _holds(run_dir: RunDir, path: str, data: bytes) -> bool:
    try:
        return run_dir.read(path) == data
    except Missing:
        return False


def _check_stored(run_dir: RunDir, shards: set[Shard]) -> None:
    for shard in sorted(shards, key=lambda shard: shard.path):
        if not run_dir.exists(shard.path) or run_dir.size(shard.path) != shard.size_bytes:
            raise StorageError(
                f"{_place(run_dir, shard.path)}: missing or short, so it is not committed; run the same command again"
            )


def _altered(file: BinaryIO, shard: Shard) -> str | None:
    state, size_bytes = hashlib.sha256(), 0
    while block := file.read(1024**2):
        state.update(block)
        size_bytes += len(block)
    file.seek(0)
    if size_bytes < shard.size_bytes:
        return f"truncated: {size_bytes:,} of {shard.size_bytes:,} bytes{_RESTORE}"
    if state.hexdigest() != shard.sha256:
        return f"altered: its sha256 is {state.hexdigest()}, the manifest says {shard.sha256}{_RESTORE}"
    return None


def _disagreements(file: BinaryIO, place: str, shard: Shard, count_tokens: CountTokens | None) -> list[str]:
    state, n_tokens = hashlib.sha256(), 0
    sizes: list[int] = []
    miscounted: list[str] = []
    for rows in row_groups(file, place, shard.config):
        state.update(canonical_lines(rows))
        sizes.append(len(rows))
        n_tokens += sum(row["n_tokens"] for row in rows)
        if count_tokens is not None:
            counts = count_tokens([text_of(shard.config, row) for row in rows])
            miscounted += [row["id"] for row, count in zip(rows, counts, strict=True) if row["n_tokens"] != count]
    found = [
        (sum(sizes) != shard.n_rows, f"holds {sum(sizes)} rows, the manifest says {shard.n_rows}"),
        (n_tokens != shard.n_tokens, f"holds {n_tokens} tokens, the manifest says {shard.n_tokens}"),
        (state.hexdigest() != shard.rows_sha256, "its rows are not those whose rows_sha256 the manifest holds"),
        (any(size != ROWS_PER_GROUP for size in sizes[:-1]), f"its row groups do not have {ROWS_PER_GROUP} rows each"),
        (bool(miscounted), f"{len(miscounted)} rows have another n_tokens than counted, first {miscounted[:1]}"),
    ]
    return [f"{place}: {problem}" for wrong, problem in found if wrong]


def _place(run_dir: RunDir, path: str) -> str:
    return f"{run_dir.root}/{path}"
