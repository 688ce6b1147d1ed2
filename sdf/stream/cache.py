"""Shards on this machine: a local corpus is read in place, a remote one through a bounded cache that its node shares.

Files are named by their sha256, so corpora that share a shard share the file. Locks are `flock`s, which the kernel
drops with the process that held them: a killed fetch leaves nothing that blocks, only a `.part` file that the next
opener deletes. Every handed-out shard carries a shared lock on its file, and eviction (least recently used first)
takes only files it can lock alone, so a file in use is never deleted; the price is that a limit smaller than what is
in use at once is an error rather than a wait. The directory must lie on a disk with `flock` (local ones have it).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import time
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdf.errors import DamagedError, Missing, StorageError
from sdf.manifest import Shard
from sdf.stream.places import Place, full_disk

DEFAULT_LIMIT_BYTES = 16 * 1024**3
SHARD, PART = ".parquet", ".part"
# Locks of fetches: shards whose sha256 begins alike wait for each other, which costs less than tidying lock files.
N_SLOTS = 256
BLOCK_BYTES = 8 * 1024**2
POLL = 0.05
FULL = {errno.ENOSPC, errno.EDQUOT}


class LocalShard(os.PathLike[str]):
    """The path of a shard's file, which stays there as long as this object lives (or until `close`).

    Readers that keep the file open or mapped may let go of it.
    """

    def __init__(self, path: Path, pin: int | None = None) -> None:
        self.path = str(path)
        self._release = weakref.finalize(self, os.close, pin) if pin is not None else None

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path

    def close(self) -> None:
        if self._release is not None:
            self._release()

    def __enter__(self) -> LocalShard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class ShardCache:
    """At most `limit_bytes` of remote shards in a directory of this user's own below `directory`.

    Pickles as its settings, and works in threads, forks and spawned workers alike. `directory` is the system's
    temporary one by default. `patience` is how many seconds another process's fetch of a shard is waited for.
    """

    directory: str | os.PathLike[str] | None = None
    limit_bytes: int = DEFAULT_LIMIT_BYTES
    patience: float = 1800.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)
    _checked: bool = field(default=False, init=False, repr=False, compare=False)

    @property
    def root(self) -> Path:
        """Where the files lie: it holds the user's id, so that two users of a host do not meet."""
        return Path(self.directory or tempfile.gettempdir()).expanduser().absolute() / f"sdf-shards-{os.geteuid()}"

    def path(self, corpus_url: str, shard: Shard, *, verify: bool = False) -> LocalShard:
        """The shard's file: in place for a local corpus, else fetched once per node and checked against its sha256.

        `verify` checks the sha256 again, of a local shard too. Missing, DamagedError and StorageError name the shard
        by its address; StorageFull when the disk is.
        """
        place = Place(corpus_url, self.sleep)
        if place.is_local:
            return _in_place(place, shard, verify)
        with _naming(self.root):
            self._open()
            return self._pinned(shard, verify) or self._fetched_once(place, shard, verify)

    def _open(self) -> None:
        if not self._checked:
            _make_private(self.root)
            self._reap()
            self._checked = True

    def _pinned(self, shard: Shard, verify: bool) -> LocalShard | None:
        """The cached file, held; None when it is not there or not what it was, which a fetch replaces."""
        path = self._file(shard)
        try:
            pin = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        held = LocalShard(path, pin)
        fcntl.flock(pin, fcntl.LOCK_SH)
        found = os.fstat(pin)
        # Without a link it was evicted between the two calls. A power cut may leave a file short.
        if found.st_nlink and found.st_size == shard.size_bytes and not (verify and _sha256(path) != shard.sha256):
            os.utime(pin)
            return held
        held.close()
        return None

    def _fetched_once(self, place: Place, shard: Shard, verify: bool) -> LocalShard:
        where = f"{place}/{shard.path}"
        with self._locked(self._slot(shard.sha256), f"{where}: another process has been fetching it"):
            # Another process may have fetched it while this one waited.
            return self._pinned(shard, verify) or self._fetched(place, shard)

    def _fetched(self, place: Place, shard: Shard) -> LocalShard:
        part = self.root / f"{shard.sha256}{PART}"
        pin = self._reserved(part, shard, f"{place}/{shard.path}")
        held = LocalShard(self._file(shard), pin)
        try:
            _download(place, shard, pin)
            os.fsync(pin)
            part.replace(held.path)
        except BaseException:
            held.close()
            part.unlink(missing_ok=True)
            raise
        return held

    def _reserved(self, part: Path, shard: Shard, where: str) -> int:
        """A locked file of the shard's size, so that fetches under way count towards the limit."""
        with self._locked(self.root / "lock-room", f"{self.root}: another process has been making room"):
            self._reap()
            self._make_room(shard.size_bytes, where)
            pin = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(pin, fcntl.LOCK_SH)
            os.truncate(pin, shard.size_bytes)
            return pin

    def _make_room(self, size_bytes: int, where: str) -> None:
        files = [(info.st_mtime_ns, entry.name, info.st_size) for entry, info in _entries(self.root)]
        held_bytes = sum(size for _, _, size in files)
        for _, name, size in sorted(files):
            if held_bytes + size_bytes <= self.limit_bytes:
                return
            if name.endswith(SHARD) and _evicted(self.root / name):
                held_bytes -= size
        if held_bytes + size_bytes > self.limit_bytes:
            raise StorageError(
                f"{where}: no room in the cache {self.root}: {held_bytes:,} bytes are in use, the shard has "
                f"{size_bytes:,}, limit_bytes is {self.limit_bytes:,}; give at least {held_bytes + size_bytes:,}"
            )

    def _reap(self) -> None:
        """Deletes what killed fetches left: a part whose slot nobody holds."""
        for part in self.root.glob(f"{'[0-9a-f]' * 64}{PART}"):
            with contextlib.suppress(BlockingIOError), _flocked(self._slot(part.name)):
                part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, path: Path, waiting: str) -> Generator[None]:
        waited = 0.0
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(_flocked(path))
                    break
                except BlockingIOError:
                    if waited >= self.patience:
                        raise StorageError(
                            f"{waiting} for {waited:.0f} s; end it if it hangs (`fuser {path}` names it), "
                            "or give the cache another directory"
                        ) from None
                self.sleep(POLL)
                waited += POLL
            yield

    def _file(self, shard: Shard) -> Path:
        return self.root / f"{shard.sha256}{SHARD}"

    def _slot(self, sha256: str) -> Path:
        return self.root / f"lock-{int(sha256[:8], 16) % N_SLOTS:03d}"


def _in_place(place: Place, shard: Shard, verify: bool) -> LocalShard:
    path = place.local / shard.path
    try:
        size_bytes = path.stat().st_size
        sha256 = _sha256(path) if verify else shard.sha256
    except FileNotFoundError:
        raise Missing(f"{path}: this shard is missing; {_RESTORE}") from None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; give this user read access to the corpus") from error
    _check(str(path), shard, size_bytes, sha256)
    return LocalShard(path)


def _download(place: Place, shard: Shard, pin: int) -> None:
    """Into the open file `pin`; once more from the start when its bytes are not those of the manifest."""

    def copy(filesystem: Any, at: str) -> tuple[int, str]:
        with filesystem.open_input_stream(at) as stream:
            return _copied(stream, pin, shard.size_bytes)

    try:
        found = place.steadily(shard.path, copy)
        if found != (shard.size_bytes, shard.sha256):
            found = place.steadily(shard.path, copy)
    except Missing:
        raise Missing(f"{place}/{shard.path}: this shard is missing; {_RESTORE}") from None
    _check(f"{place}/{shard.path}", shard, *found)


def _copied(stream: Any, pin: int, most: int) -> tuple[int, str]:
    """Size and sha256 of what was copied; a stream longer than `most` is left there."""
    state, size_bytes = hashlib.sha256(), 0
    while size_bytes <= most and (block := stream.read(BLOCK_BYTES)):
        state.update(block)
        _write(pin, memoryview(block)[: most - size_bytes], size_bytes)
        size_bytes += len(block)
    return size_bytes, state.hexdigest()


def _write(pin: int, block: memoryview, offset: int) -> None:
    """Trouble of this disk is not the store's: no further try at the store mends it."""
    try:
        while block:
            written = os.pwrite(pin, block, offset)
            block, offset = block[written:], offset + written
    except OSError as error:
        if error.errno in FULL:
            raise full_disk("the shard cache", error) from error
        raise StorageError(f"the shard cache: {error.strerror}; give it another directory") from error


def _check(where: str, shard: Shard, size_bytes: int, sha256: str) -> None:
    if size_bytes != shard.size_bytes:
        raise DamagedError(f"{where}: {size_bytes:,} bytes, the manifest says {shard.size_bytes:,}; {_RESTORE}")
    if sha256 != shard.sha256:
        raise DamagedError(f"{where}: altered: its sha256 is {sha256}, the manifest says {shard.sha256}; {_RESTORE}")


_RESTORE = "copy the corpus again, or run `sdf verify` where it was made"


def _sha256(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        state = hashlib.sha256()
        while block := file.read(BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()


def _evicted(path: Path) -> bool:
    """Deleted, unless somebody holds it."""
    try:
        with _flocked(path, create=False):
            path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


@contextlib.contextmanager
def _flocked(path: Path, *, create: bool = True) -> Generator[None]:
    """An exclusive lock on the file, or BlockingIOError at once."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _entries(root: Path) -> Generator[tuple[os.DirEntry[str], os.stat_result]]:
    with os.scandir(root) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                yield entry, entry.stat(follow_symlinks=False)


def _make_private(root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise StorageError(
            f"{root}: not a directory that this user alone can enter, so what lies there cannot be trusted; "
            "delete it, or give the cache another directory"
        )


@contextlib.contextmanager
def _naming(root: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full_disk(str(root), error) from error
        raise StorageError(
            f"{root}: {error.strerror or error}; give the cache another directory, on a local disk"
        ) from error
