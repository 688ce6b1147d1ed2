"""How many tokens each document has, remembered on disk: a plan needs lengths only, and counting costs tokenising.

One small file for each chunk and tokenizer, named by what it was counted from. Processes that need the same chunks at
the same time begin at different ones and take over what others finished: nothing is locked, so nothing blocks after a
crash, and a chunk is at worst counted twice. A file that is torn or foreign is counted again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from sdf.stream.order import Rows

LENGTH = np.dtype("<u4")
DIGEST_BYTES = 16


def default_directory() -> Path:
    """Of this user alone: SDF_STREAM_DIR, else below XDG_CACHE_HOME, else below ~/.cache."""
    named = os.environ.get("SDF_STREAM_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "sdf-stream"


class LengthStore:
    """Lengths by (content of the file, chunk in it) for one `basis`, which names tokenizer and columns.

    A directory that cannot be written remembers nothing: `keep` is a convenience, and training goes on.
    """

    def __init__(self, directory: Path | None, basis: str) -> None:
        self._directory = directory / "lengths" / basis[:24] if directory else None

    def find(self, key: str, first: int, n: int) -> Rows | None:
        """The lengths of `n` rows of the file `key` from its row `first`; None when they are not known."""
        if self._directory is None:
            return None
        try:
            data = self._path(key, first).read_bytes()
        except OSError:
            return None
        digest, counts = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
        if len(counts) != n * LENGTH.itemsize or _digest(key, counts) != digest:
            return None
        return np.frombuffer(counts, LENGTH).astype(np.int64)

    def keep(self, key: str, first: int, lengths: Rows) -> None:
        if self._directory is None:
            return
        counts = lengths.astype(LENGTH).tobytes()
        path = self._path(key, first)
        aside = path.with_name(f"{path.name}.{os.getpid()}.part")
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(_digest(key, counts) + counts)
            aside.replace(path)

    def _path(self, key: str, first: int) -> Path:
        assert self._directory is not None
        return self._directory / key[:2] / f"{key[2:24]}-{first}"


def _digest(key: str, counts: bytes) -> bytes:
    return hashlib.blake2b(key.encode() + counts, digest_size=DIGEST_BYTES).digest()


def basis_of(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
