"""Where an export goes: a directory that appears whole, made aside on the same disk and renamed.

The directory aside carries a lock that the kernel drops with its process, so what a killed export left is told from one
that is under way, and the next export to the same place removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

from sdf.errors import StorageError, StorageFull

BLOCK_BYTES = 1024**2
FULL = {errno.ENOSPC, errno.EDQUOT}


def is_taken(out: Path) -> bool:
    """Whether a directory lies there that is not empty."""
    with _naming(out):
        return out.is_dir() and any(out.iterdir())


@contextlib.contextmanager
def aside(out: Path) -> Generator[Path]:
    """A directory to fill, which becomes `out` when the block ends well and is removed when it does not."""
    with _naming(out), contextlib.ExitStack() as stack:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(f".{out.name}.*.aside"):
            _remove_unless_held(left)
        made = stack.enter_context(_held(out))
        yield made
        _sync(made)
        made.rename(out)
        _sync_directory(out.parent)


def files_of(directory: Path) -> list[dict[str, Any]]:
    """Path, size_bytes and sha256 of every file below it, sorted by path."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return [
        {"path": path.relative_to(directory).as_posix(), "size_bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in paths
    ]


@contextlib.contextmanager
def _held(out: Path) -> Generator[Path]:
    made = out.parent / f".{out.name}.{secrets.token_hex(8)}.aside"
    made.mkdir()
    descriptor = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(descriptor)


def _remove_unless_held(left: Path) -> None:
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        descriptor = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
        finally:
            os.close(descriptor)


def _sync(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for name in names:
            with Path(folder, name).open("rb") as file:
                os.fsync(file.fileno())
        _sync_directory(Path(folder))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        # Some network mounts refuse to sync a directory; their server orders renames itself.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()


@contextlib.contextmanager
def _naming(out: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        said = f"{out}: {error.strerror or error}"
        if error.errno in FULL:
            raise StorageFull(f"{said}; free some space, or give another --out") from error
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
            raise StorageError(f"{said}; something else lies there: give another --out") from error
        raise StorageError(f"{said}; give an --out that this user can write to") from error
