"""Where a corpus lies: a local directory, or the URL of an object store that pyarrow knows.

The training side reads and never writes, so this is smaller than `sdf.storage` and needs pyarrow alone. File systems
are opened per process (their threads do not survive a fork). Every error names the place without its credentials,
which a URL may carry as `key:secret@` or in its query.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from sdf.errors import Missing, StorageError, StorageFull

Result = TypeVar("Result")

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs")
# Seconds before the second, third and fourth try. pyarrow's S3 client has tried for some seconds itself by then.
BACKOFF = (0.5, 2.0, 8.0)
# What no second try mends, as pyarrow words it.
PERMANENT = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "INVALID_CLIENT_TOKEN_ID",
    "UNRECOGNIZED_CLIENT",
    "NO_SUCH_BUCKET",
    "EXPIRED_TOKEN",
    "status code 301",
    "status code 401",
    "status code 403",
)
_OPEN: dict[tuple[int, str], tuple[Any, str]] = {}
_SECRET_WORDS = ("key", "secret", "token", "sig", "sas", "password", "credential")


@dataclass(frozen=True, slots=True)
class Place:
    """A directory by path or URL; `str` of it is what may be shown.

    Methods take paths relative to it and raise Missing for what is not there, StorageError otherwise, after
    `len(BACKOFF)` further tries where the trouble may pass.
    """

    url: str = field(repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def is_local(self) -> bool:
        return local_path(self.url) is not None

    @property
    def local(self) -> Path:
        """Its directory on this machine; only where `is_local`."""
        found = local_path(self.url)
        assert found is not None, f"{self} is remote"
        return found

    @property
    def name(self) -> str:
        """The last part of the address; a URL's query is none of it."""
        return _without_query(self.url)[0].rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Place:
        """What holds it, reached with the same credentials."""
        path, query = _without_query(self.url)
        head = path.rstrip("/").rpartition("/")[0]
        return replace(self, url=(head or ("/" if path.startswith("/") else ".")) + query)

    def read(self, path: str) -> bytes:
        """The whole file."""

        def read(filesystem: Any, at: str) -> bytes:
            with filesystem.open_input_stream(at) as stream:
                return stream.read()

        return self.steadily(path, read)

    def names(self, path: str) -> list[str]:
        """Sorted names of the files directly in the directory `path`; [] when there is none."""

        def names(filesystem: Any, at: str) -> list[str]:
            found = filesystem.get_file_info(fs.FileSelector(at, allow_not_found=True))
            return sorted(info.base_name for info in found if info.type == fs.FileType.File)

        return self.steadily(path, names)

    def steadily(self, path: str, act: Callable[[Any, str], Result]) -> Result:
        """`act(file system, path in it)`, tried again with backoff; its OSErrors become ours."""
        place = f"{self}/{path}"
        for wait in (*BACKOFF, None):
            try:
                filesystem, base = self._filesystem()
                return act(filesystem, f"{base}/{path}")
            except FileNotFoundError as error:
                raise Missing(f"{place}: no such file") from error
            except (OSError, pa.ArrowException) as error:
                if wait is None or self.is_local or not _may_pass(error):
                    raise self._translated(place, error) from None
                self.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _filesystem(self) -> tuple[Any, str]:
        if self.is_local:
            return fs.LocalFileSystem(), str(self.local)
        scheme = self.url.partition("://")[0]
        if scheme not in SCHEMES:
            near = get_close_matches(scheme, SCHEMES, 1)
            way_out = f"did you mean {near[0]}://?" if near else f"known: {', '.join(SCHEMES)}, or a local path"
            raise StorageError(f"{self}: unknown kind of storage {scheme!r}; {way_out}")
        return _opened(self.url)

    def _translated(self, place: str, error: BaseException) -> StorageError:
        return StorageError(
            f"{place}: cannot be read ({without_secrets(str(error), self.url)}); check the address, the credentials "
            "of this process and the network, then start again from the last saved state"
        )


def _without_query(url: str) -> tuple[str, str]:
    path, mark, query = url.partition("?") if "://" in url and local_path(url) is None else (url, "", "")
    return path, mark + query


def local_path(url: str) -> Path | None:
    """The absolute directory of a path or a file:// URL; None for a URL of something else."""
    for scheme in ("file://", "local://"):
        url = url.removeprefix(scheme)
    return None if "://" in url else Path(url).expanduser().absolute()


def shown(url: str) -> str:
    """The address without what may be a credential: user, password and query."""
    if "://" not in url:
        return url.rstrip("/")
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def without_secrets(text: str, url: str) -> str:
    """`text`, which may quote `url` or parts of it, with its credentials blotted out."""
    parts = urlsplit(url)
    userinfo = parts.netloc.rpartition("@")[0].split(":")
    query = [value for name, value in parse_qsl(parts.query) if any(word in name.lower() for word in _SECRET_WORDS)]
    secrets = {secret for given in (*userinfo, *query) for secret in (given, unquote(given)) if secret}
    text = text.replace(url, shown(url))
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return " ".join(text.split())


def full_disk(place: str, error: OSError) -> StorageFull:
    return StorageFull(
        f"{place}: no space left ({error.strerror}); free some, or give the cache another directory or a lower limit"
    )


def _opened(url: str) -> tuple[Any, str]:
    # By process, since threads and connections of a file system stay behind in a fork.
    key = (os.getpid(), url)
    if key not in _OPEN:
        filesystem, base = fs.FileSystem.from_uri(url)
        _OPEN[key] = filesystem, base.rstrip("/")
    return _OPEN[key]


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, PermissionError | pa.ArrowInvalid):
        return False
    return not any(word in str(error) for word in PERMANENT)
