"""A run directory: every path in it by name, and the few ways its bytes may change.

A file appears whole or not at all, and what `write` or `put_if_absent` returned from survives a power cut.
`put_if_absent` is the one primitive that settles who was first. Locally it rests on hard links, elsewhere on the
store's own exclusive create (S3 `If-None-Match`, GCS `ifGenerationMatch`); `check_usable` proves that it works.

Not promised: on a network store a reply may be lost after the write was done, and the repeat then reports False
for a file that is our own. Network file systems behind fsspec (sftp, smb, …) may show half a file after a kill.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import BinaryIO

from sdf.errors import Missing, SdfError, StorageError, StorageFull, Superseded
from sdf.storage.disks import ASIDE_SUFFIX, LocalDisk, ObjectStore, aside_name, is_aside

FULL = {errno.ENOSPC, errno.EDQUOT}
# Some network mounts refuse to sync a directory; their server orders renames itself.
WAYS_OUT = {
    errno.EACCES: "give this user write access, or choose another directory",
    errno.EPERM: "give this user write access, or choose another directory",
    errno.EROFS: "the disk is mounted read-only; choose another directory",
    errno.ENOTDIR: "a file lies where a directory should be; move it away, or choose another directory",
    errno.EEXIST: "a file lies where a directory should be; move it away, or choose another directory",
    errno.ENAMETOOLONG: "choose a shorter directory name",
}


@dataclass(frozen=True, slots=True)
class RunDir:
    """Where one run lives: a local path or any URL fsspec knows. Pickles as its root alone.

    Paths are relative to the root, with `/`; a path that is absolute, has `..` or an empty part raises StorageError.
    Every method raises Missing for a file that is not there, StorageFull when space or quota ran out, and
    StorageError otherwise, each naming the file.
    """

    url: InitVar[str | os.PathLike[str]]
    root: str = field(init=False)

    recipe = "recipe.json"
    batches = "batches"
    card = "README.md"

    def __post_init__(self, url: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "root", _root(os.fspath(url)))

    @staticmethod
    def ledger_dir(epoch: int) -> str:
        return f"ledger/{epoch:06d}"

    @staticmethod
    def lease(epoch: int) -> str:
        """Its presence opens the epoch; its holder alone rewrites it (see `sdf.storage.lease`)."""
        return f"ledger/{epoch:06d}/EPOCH"

    @staticmethod
    def part(epoch: int, name: str) -> str:
        return f"ledger/{epoch:06d}/{name}.answers.parquet"

    @staticmethod
    def sidecar(epoch: int, name: str) -> str:
        return f"ledger/{epoch:06d}/{name}.sidecar.parquet"

    @staticmethod
    def prefix(hash: str) -> str:
        return f"ledger/prefixes/{hash}.txt"

    @staticmethod
    def manifest(number: int) -> str:
        return f"manifests/{number:06d}.json"

    @staticmethod
    def rejections(number: int) -> str:
        """What the fold of manifest `number` rejected."""
        return f"rejected/{number:06d}.parquet"

    @staticmethod
    def shard(config: str, split: str, number: int, sha8: str) -> str:
        return f"data/{config}/{split}-{number:05d}-{sha8}.parquet"

    @property
    def is_local(self) -> bool:
        return "://" not in self.root

    @property
    def _disk(self) -> LocalDisk | ObjectStore:
        return LocalDisk(self.root) if self.is_local else ObjectStore(self.root)

    def read(self, path: str) -> bytes:
        with self._naming(path):
            return self._disk.read(_checked(path))

    def open(self, path: str) -> BinaryIO:
        """Seekable: the file itself when local, else its bytes in memory (parts and shards are a few MB)."""
        with self._naming(path):
            return self._disk.open(_checked(path))

    def write(self, path: str, data: bytes) -> None:
        """Replaces whatever was there, at once and durably; readers see the old bytes or the new."""
        with self._naming(path):
            self._disk.write(_checked(path), data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """True: the file is ours, whole and durable. False: there is one already, and it is untouched."""
        with self._naming(path):
            return self._disk.put_if_absent(_checked(path), data)

    def files(self, prefix: str = "") -> list[tuple[str, int]]:
        """(path, size_bytes) of every file below the directory `prefix`, sorted by path; [] when there is none.

        What killed writes left is not among them. Links to directories below `prefix` are not followed.
        """
        return [found for found in self._listing(prefix) if not is_aside(found[0])]

    def leftovers(self, prefix: str = "") -> list[tuple[str, int]]:
        """What killed writes left; `delete` takes these paths. One may belong to a writer that is alive."""
        return [found for found in self._listing(prefix) if is_aside(found[0])]

    def children(self, prefix: str = "") -> list[str]:
        """Sorted names of files and directories directly in the directory `prefix`; [] when there is none."""
        with self._naming(prefix):
            names = self._disk.children(_checked(prefix) if prefix else "")
            return sorted(name for name in names if not is_aside(name))

    def exists(self, path: str) -> bool:
        with self._naming(path):
            return self._disk.exists(_checked(path))

    def size(self, path: str) -> int:
        with self._naming(path):
            return self._disk.size(_checked(path))

    def delete(self, path: str) -> None:
        """A file that is not there is fine. Refuses a path that a link leads out of the root."""
        with self._naming(path), contextlib.suppress(FileNotFoundError):
            self._disk.delete(_checked(path, leftover=True))

    def check_usable(self) -> None:
        """Creates the directory and proves that files can be written and exclusively created in it."""
        probe = aside_name()
        try:
            with self._naming(""):
                kept = self._is_kept(probe)
        except Missing:
            raise StorageError(f"{self.root}: cannot be created there; choose another directory") from None
        if not kept:
            raise StorageError(
                f"{self.root}: this storage overwrites where it was told to create, so two runs could destroy each "
                "other's work; use a local disk, or a store with conditional writes (S3, GCS)"
            )

    def _is_kept(self, probe: str) -> bool:
        """Whether the first to write a file is the only one."""
        try:
            kept = self._disk.put_if_absent(probe, b"first") and not self._disk.put_if_absent(probe, b"second")
            return kept and self._disk.read(probe) == b"first"
        finally:
            with contextlib.suppress(OSError):
                self._disk.delete(probe)

    def _listing(self, prefix: str) -> list[tuple[str, int]]:
        with self._naming(prefix):
            return sorted(self._disk.files(_checked(prefix) if prefix else ""))

    @contextlib.contextmanager
    def _naming(self, path: str) -> Generator[None]:
        """Foreign errors become ours, with the file's name and a way out."""
        place = f"{self.root}/{path}" if path else self.root
        try:
            yield
        except SdfError:
            raise
        except FileNotFoundError as error:
            raise Missing(f"{place}: {error.strerror or f'not found ({error})'}") from error
        except OSError as error:
            raise _translated(place, error) from error
        except Exception as error:
            # A store's plug-in raises its SDK's own types (credentials, HTTP), unknowable here; local disks never do.
            if self.is_local:
                raise
            raise StorageError(f"{place}: {type(error).__name__}: {error}") from error


def open_epoch(run_dir: RunDir, about: bytes = b"{}\n") -> int:
    """Opens the epoch after the highest one; two callers never get the same. `about` is the lease file's content.

    A driver calls `Lease.take` instead, which does this; without a lease nothing keeps a second run away.
    """
    epoch = current_epoch(run_dir) + 1
    while not run_dir.put_if_absent(run_dir.lease(epoch), about):
        epoch += 1
    return epoch


def current_epoch(run_dir: RunDir) -> int:
    """The highest epoch ever opened; 0 when there is none."""
    opened = sorted((int(name) for name in run_dir.children("ledger") if name.isdecimal()), reverse=True)
    # A kill while opening leaves the directory without its file: not opened, and the next run gets that number.
    return next((epoch for epoch in opened if run_dir.exists(run_dir.lease(epoch))), 0)


def check_epoch(run_dir: RunDir, epoch: int) -> None:
    """Raises Superseded when a later epoch is open. One look-up, since epochs have no gaps."""
    if run_dir.exists(run_dir.lease(epoch + 1)):
        raise Superseded(
            f"{run_dir.root}: a newer run took this directory over (epoch {epoch + 1} follows {epoch}); "
            "this one stops, and what it committed is kept"
        )


def _root(url: str) -> str:
    if not url.strip():
        raise StorageError("the run directory has no name; name a directory or a URL such as s3://bucket/run")
    for scheme in ("file://", "local://"):
        url = url.removeprefix(scheme)
    # Absolute, since a worker elsewhere has another working directory.
    return url.rstrip("/") if "://" in url else str(Path(url).expanduser().absolute())


def _checked(path: str, *, leftover: bool = False) -> str:
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts) or "\\" in path or "\0" in path:
        raise StorageError(f"{path!r} is no path inside a run directory: it must be relative, without '..'")
    if is_aside(path) and not leftover:
        raise StorageError(f"{path!r}: names of the form .*{ASIDE_SUFFIX} are kept for unfinished writes")
    return path


def _translated(place: str, error: OSError) -> StorageError:
    said = error.strerror or str(error) or type(error).__name__
    if error.errno in FULL:
        return StorageFull(
            f"{place}: no space left ({said}); what is committed is kept: free space and run the same command"
        )
    way_out = WAYS_OUT.get(error.errno or 0)
    return StorageError(f"{place}: {said}" + (f"; {way_out}" if way_out else ""))
