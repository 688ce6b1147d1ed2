"""Evaluation sets as files: Parquet, JSON Lines, JSON, CSV, plain text, Markdown, or a directory of them.

Every text in a row counts, whatever its column is called. A file that is not text is an error with its line or row, and
it is found when a job is made, before anything is generated: a set that was read by half proves nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from sdf.errors import SdfError, SourceError
from sdf.frontmatter import near
from sdf.parquet import open_parquet

# Rows decoded at once.
BATCH_ROWS = 1_000


def files_of(path: str) -> list[Path]:
    """The files of a set, in the order of their paths; SourceError for one of no known kind, and when there is none."""
    root = Path(path)
    if not root.exists():
        raise SourceError(f"--decontaminate {path}: not there; give a file or a directory of an evaluation set")
    found = sorted(each for each in root.rglob("*") if each.is_file()) if root.is_dir() else [root]
    files = [each for each in found if not any(part.startswith(".") for part in each.relative_to(root).parts)]
    for each in files:
        if each.suffix.lower() not in READERS:
            raise SourceError(
                f"{each}: not a kind of file that is read as an evaluation set{near(each.suffix, READERS)}; "
                "convert it, or give the files without it"
            )
    if not files:
        raise SourceError(f"--decontaminate {path}: holds no file; give a file or a directory of an evaluation set")
    return files


def fingerprint(path: str) -> str:
    """sha256 over the files of a set and their names."""
    state = hashlib.sha256()
    for each in files_of(path):
        state.update(each.name.encode("utf-8", "surrogateescape") + b"\0")
        try:
            with each.open("rb") as file:
                while block := file.read(1 << 20):
                    state.update(block)
        except OSError as error:
            raise SourceError(f"{each}: cannot be read ({error.strerror})") from None
    return state.hexdigest()


def items(path: str) -> Iterator[list[str]]:
    """Every item of a set with all its texts. SourceError names file and line, or row."""
    n_items = 0
    for each in files_of(path):
        for texts in READERS[each.suffix.lower()](each):
            n_items += 1
            yield texts
    if not n_items:
        raise SourceError(f"--decontaminate {path}: holds no text, so nothing could be found in it")


def _text_rows(path: Path) -> Iterator[list[str]]:
    """A paragraph is an item: a page of questions is one file."""
    for paragraph in "".join(_lines(path)).split("\n\n"):
        if paragraph.strip():
            yield [paragraph]


def _lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if b"\0" in line:
                    raise SourceError(f"{path}:{number}: holds a NUL byte, so it is no text; convert it to UTF-8")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}:{number}: not UTF-8 text ({error.reason}); convert the file") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None


def _json_lines(path: Path) -> Iterator[list[str]]:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{path}:{number}: not JSON ({error}); one row is one JSON value") from None
            yield _texts(found, f"{path}:{number}")


def _json(path: Path) -> Iterator[list[str]]:
    try:
        found = json.loads("".join(_lines(path)))
    except json.JSONDecodeError as error:
        raise SourceError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: not JSON ({error}); a file of rows is one JSON value") from None
    for number, row in enumerate(found if isinstance(found, list) else [found], 1):
        yield _texts(row, f"{path}: row {number}")


def _csv(path: Path) -> Iterator[list[str]]:
    """The first line too: it may be a header or not, and a header does no harm."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO("".join(_lines(path)), newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield row
    except csv.Error as error:
        raise SourceError(f"{path}:{reader.line_num}: not CSV ({error}); convert the file to JSON Lines") from None


def _parquet(path: Path) -> Iterator[list[str]]:
    number = 0
    try:
        with open_parquet(path, str(path)) as file:
            names = [field.name for field in file.schema_arrow if _holds_text(field.type)]
            if not names:
                found = ", ".join(file.schema_arrow.names) or "none"
                raise SourceError(f"{path}: no column holds text (columns: {found}); give the file of the questions")
            for batch in file.iter_batches(BATCH_ROWS, columns=names):
                for row in batch.to_pylist():
                    number += 1
                    yield _texts(row, f"{path}: row {number}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: row {number + 1}: cannot be read ({error})") from None
    except SourceError:
        raise
    except SdfError as error:
        raise SourceError(str(error)) from None


def _holds_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return True
    return any(_holds_text(kind.field(place).type) for place in range(kind.num_fields))


def _texts(value: Any, where: str) -> list[str]:
    """Every string in it, at any depth; numbers are no text. SourceError when there is none."""
    found: list[str] = []
    level = [value]
    while level:
        found += [each for each in level if isinstance(each, str) and each.strip()]
        children = [
            each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)
        ]
        level = [child for each in children for child in each]
    if not found:
        raise SourceError(f"{where}: holds no text; an evaluation set is made of questions and answers")
    return found


READERS: Mapping[str, Callable[[Path], Iterator[list[str]]]] = {
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _text_rows,
    ".md": _text_rows,
}
