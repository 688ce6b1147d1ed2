"""Rows as JSONL or MDS files, cut by size.

Both hold at most one file's rows in memory: JSONL a row group, MDS what its writer gathers for a shard.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

from sdf.errors import UsageError
from sdf.shards.file import COLUMNS, NULLABLE, Rows


class JsonlWriter:
    """`00000.jsonl`, …: one JSON object a line, in UTF-8; a file ends with the row that fills it."""

    def __init__(self, directory: Path, columns: tuple[str, ...], file_bytes: int) -> None:
        self._directory, self._columns, self._file_bytes = directory, columns, file_bytes
        self._n_files = self._size = 0

    def write(self, rows: Rows) -> None:
        lines: list[bytes] = []
        for row in rows:
            kept = {name: row[name] for name in self._columns}
            lines.append(json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            self._size += len(lines[-1])
            if self._size >= self._file_bytes:
                self._append(lines)
                self._n_files, self._size, lines = self._n_files + 1, 0, []
        self._append(lines)

    def finish(self) -> None:
        """Nothing is held back."""

    def _append(self, lines: list[bytes]) -> None:
        if lines:
            with (self._directory / f"{self._n_files:05d}.jsonl").open("ab") as file:
                file.writelines(lines)


class MdsWriter:
    """A directory that `streaming.StreamingDataset(local=…)` reads: `index.json` and `shard.00000.mds`, …

    Texts are `str`, counts `int`; conversations, flags and what may be null are `json`, which gives back what it got.
    """

    def __init__(self, directory: Path, config: str, columns: tuple[str, ...], file_bytes: int) -> None:
        fields = COLUMNS[config]
        encodings = {name: _encoding(fields.field(name)) for name in columns}
        self._columns = columns
        self._writer = _streaming().MDSWriter(
            out=str(directory), columns=encodings, size_limit=file_bytes, hashes=["sha1"]
        )

    def write(self, rows: Rows) -> None:
        for row in rows:
            self._writer.write({name: row[name] for name in self._columns})

    def finish(self) -> None:
        self._writer.finish()


def check_mds() -> None:
    """UsageError when MosaicML's package is not installed, before anything is read."""
    _streaming()


def _streaming() -> ModuleType:
    try:
        found = importlib.import_module("streaming")
    except ImportError as error:
        raise UsageError(
            f"--to mds: MosaicML streaming cannot be imported ({error}); pip install 'sdf[mds]'. It wants "
            "huggingface-hub below 1: where `datasets` 5 or transformers 5 is needed, give it an environment of its own"
        ) from error
    if not hasattr(found, "MDSWriter"):
        raise UsageError(f"--to mds: {found.__file__} is another module named `streaming`; run this elsewhere")
    return found


def _encoding(field: Any) -> str:
    if field.name in NULLABLE or pa.types.is_list(field.type) or pa.types.is_boolean(field.type):
        return "json"
    return "int" if pa.types.is_integer(field.type) else "str"
