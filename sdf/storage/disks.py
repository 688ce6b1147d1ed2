"""The two places a run directory may lie on: a local disk, and whatever fsspec knows by URL.

Both offer the same few acts over paths relative to a root and raise what the platform raises; `RunDir` checks
the paths and names the errors. Locally a file is written aside, synced, renamed and its directory synced; on an
object store one PUT is as whole. Two syncs per write make small writes slow (milliseconds on a disk), so callers
batch; in exchange what has returned survives a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from sdf.errors import StorageError

# A write that was killed leaves a file of this form; it is never a committed file.
ASIDE_PREFIX, ASIDE_SUFFIX = ".", ".aside"
# Some network mounts refuse to sync a directory; their server orders renames itself.
NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class LocalDisk:
    """A directory; raises plain OSErrors, except where it knows more than the errno says."""

    root: str

    def read(self, path: str) -> bytes:
        return Path(self.root, path).read_bytes()

    def open(self, path: str) -> BinaryIO:
        return Path(self.root, path).open("rb")

    def write(self, path: str, data: bytes) -> None:
        target = Path(self.root, path)
        with _written_aside(target, data) as aside:
            aside.replace(target)
        _sync_directory(target.parent)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        target = Path(self.root, path)
        if target.exists():
            # Its writer may be about to sync; who is told "it is there" may rely on it at once.
            _sync_directory(target.parent)
            return False
        with _written_aside(target, data) as aside:
            try:
                os.link(aside, target)
                won = True
            except FileExistsError:
                # Over NFS the reply to a link that succeeded may be lost, and its repeat finds the file: ours.
                won = aside.samefile(target)
            except OSError as error:
                if error.errno not in NO_HARD_LINKS:
                    raise
                raise StorageError(
                    f"{target}: this file system has no hard links, so who was first cannot be settled; "
                    "use another disk, or an object store's URL"
                ) from error
        _sync_directory(target.parent)
        return won

    def files(self, prefix: str) -> Iterator[tuple[str, int]]:
        for directory, _, names in os.walk(Path(self.root, prefix), onerror=_raise_unless_absent):
            base = Path(directory).relative_to(self.root).as_posix()
            for name in names:
                # A file may go between listing and asking: a temporary one, or one that gc deletes.
                with contextlib.suppress(FileNotFoundError):
                    size = Path(directory, name).stat().st_size
                    yield name if base == "." else f"{base}/{name}", size

    def children(self, prefix: str) -> list[str]:
        try:
            return [child.name for child in Path(self.root, prefix).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, path: str) -> bool:
        try:
            return stat.S_ISREG(Path(self.root, path).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def size(self, path: str) -> int:
        return Path(self.root, path).stat().st_size

    def delete(self, path: str) -> None:
        target = Path(self.root, path)
        if not target.parent.resolve().is_relative_to(Path(self.root).resolve()):
            raise StorageError(f"{target}: a link leads out of {self.root}; nothing there is deleted")
        target.unlink()


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """Anything fsspec knows, by URL; raises FileNotFoundError and FileExistsError, and else what its plug-in raises."""

    root: str

    def _at(self, path: str) -> tuple[Any, str]:
        # Looked up per call: fsspec keeps one file system per process and thread, and this pickles as its URL.
        try:
            fs, base = fsspec.url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            raise StorageError(f"{self.root}: {error}{_nearest_protocol(self.root)}") from error
        # Other processes write here too; a remembered listing would hide their files.
        fs.invalidate_cache()
        return fs, f"{base}/{path}" if path else base

    def read(self, path: str) -> bytes:
        fs, at = self._at(path)
        return fs.cat_file(at)

    def open(self, path: str) -> BinaryIO:
        return io.BytesIO(self.read(path))

    def write(self, path: str, data: bytes) -> None:
        fs, at = self._at(path)
        fs.pipe_file(at, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        fs, at = self._at(path)
        try:
            fs.pipe_file(at, data, mode="create")
        except FileExistsError:
            return False
        except OSError:
            # Stores that copy S3 word a lost race in ways s3fs does not know (a bare 412, or 409 while both write).
            if not self.exists(path):
                raise
            return False
        return True

    def files(self, prefix: str) -> list[tuple[str, int]]:
        fs, at = self._at(prefix)
        base = self._at("")[1]
        try:
            found = fs.find(at, detail=True)
        except FileNotFoundError:
            return []
        # Consoles create empty objects named "directory/"; they are no files.
        below = {name: info for name, info in found.items() if name.startswith(f"{at}/") and not name.endswith("/")}
        return [(name[len(base) + 1 :], int(info["size"])) for name, info in below.items() if info["type"] == "file"]

    def children(self, prefix: str) -> list[str]:
        fs, at = self._at(prefix)
        try:
            names = fs.ls(at, detail=False)
        except FileNotFoundError:
            return []
        return [name.rstrip("/")[len(at) + 1 :] for name in names if name.rstrip("/").startswith(f"{at}/")]

    def exists(self, path: str) -> bool:
        fs, at = self._at(path)
        try:
            return fs.info(at)["type"] == "file"
        except FileNotFoundError:
            return False

    def size(self, path: str) -> int:
        fs, at = self._at(path)
        return int(fs.info(at)["size"])

    def delete(self, path: str) -> None:
        fs, at = self._at(path)
        fs.rm_file(at)


def aside_name() -> str:
    return f"{ASIDE_PREFIX}{secrets.token_hex(8)}{ASIDE_SUFFIX}"


def is_aside(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith(ASIDE_PREFIX) and name.endswith(ASIDE_SUFFIX)


@contextlib.contextmanager
def _written_aside(target: Path, data: bytes) -> Generator[Path]:
    """A synced file beside the target, gone at the end unless it was renamed."""
    _make_directory(target.parent)
    aside = target.parent / aside_name()
    # 0o666 less the umask, as any other file: colleagues on a shared disk read the corpus too.
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        # Closing may report a full disk too (NFS), so it lies inside the try.
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) or 0 :]
            os.fsync(file.fileno())
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _make_directory(directory: Path) -> None:
    """Durably: an entry survives a power cut once the directory that holds it is synced."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _nearest_protocol(url: str) -> str:
    scheme = url.partition("://")[0]
    known = fsspec.available_protocols()
    near = [] if scheme in known else get_close_matches(scheme, known, n=1)
    return f"; did you mean {near[0]}://?" if near else ""
