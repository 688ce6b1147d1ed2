"""Documents as token ids: lengths first, ids of those that are wanted.

Stored ids are read where they lie. Texts are tokenised on the fly: lengths come from the corpus itself when it counted
with the same tokenizer, else from what was counted before, else from counting now. What a window needs is held, its
texts and its ids, and let go with the next one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sdf.errors import DamagedError, StreamError
from sdf.stream.chats import encode_chat, template_of
from sdf.stream.corpus import Corpus
from sdf.stream.encoders import Encoder
from sdf.stream.lengths import LengthStore, basis_of
from sdf.stream.order import Rows
from sdf.stream.rows import Getter, decoding, getter_of
from sdf.stream.tables import Recent
from sdf.stream.tokens_format import Ids, Mask

Encoded = tuple[Ids, Mask | None]

# Texts handed to a tokenizer at once: enough for its threads, little to hold.
BATCH = 64


class Documents(Protocol):
    """Documents by row, of a version of a corpus."""

    def lengths(self, version: int, rows: Rows) -> Rows:
        """Tokens of each document's text; 0 for an empty one."""
        ...

    def encoded(self, version: int, rows: Sequence[int]) -> dict[int, Encoded]:
        """The ids of each document, and which are learnt (None: all)."""
        ...


class StoredIds:
    """Of a tokens export."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def lengths(self, version: int, rows: Rows) -> Rows:
        return self._corpus.snapshot(version).table.lengths(rows)

    def encoded(self, version: int, rows: Sequence[int]) -> dict[int, Encoded]:
        return self._corpus.snapshot(version).table.ids(rows)


class _Held:
    """A chunk in use: how to get its documents, and what was encoded of them."""

    def __init__(self, lengths: Rows | None, n: int) -> None:
        self.lengths = lengths
        self.columns: list[Getter] = []
        self.ids: list[Encoded | None] = [None] * n


class TextIds:
    """Of texts or chats, tokenised when they are wanted. `window_rows` bounds what is held."""

    def __init__(self, corpus: Corpus, encoder: Encoder, window_rows: int, directory: Path | None) -> None:
        self._corpus, self._encoder = corpus, encoder
        self._is_chat = corpus.config == "chats"
        self._columns = ["messages"] if self._is_chat else [corpus.text]
        basis = [encoder.hash, *self._columns, template_of(encoder) if self._is_chat else ""]
        self._store = LengthStore(directory, basis_of(*basis))
        self._held = Recent(window_rows + 4 * 1000)

    def lengths(self, version: int, rows: Rows) -> Rows:
        table = self._corpus.snapshot(version).table
        holders = table.chunks.holding(rows)
        chunks = np.unique(holders).tolist()
        # Processes that start together count different chunks first.
        turn = os.getpid() % max(1, len(chunks))
        found = np.empty(len(rows), np.int64)
        for chunk in chunks[turn:] + chunks[:turn]:
            here = holders == chunk
            found[here] = self._lengths(version, table, chunk)[rows[here] - table.chunks.starts[chunk]]
        return found

    def encoded(self, version: int, rows: Sequence[int]) -> dict[int, Encoded]:
        table = self._corpus.snapshot(version).table
        numbers = np.array(rows, np.int64)
        holders = table.chunks.holding(numbers)
        locals_ = numbers - table.chunks.starts[holders]
        found: dict[int, Encoded] = {}
        for chunk in np.unique(holders).tolist():
            here = holders == chunk
            held = self._chunk(table, chunk)
            wanted = locals_[here].tolist()
            self._encode(held, table, chunk, [number for number in wanted if held.ids[number] is None])
            for row, number in zip(numbers[here].tolist(), wanted, strict=True):
                encoded = held.ids[number]
                assert encoded is not None
                found[row] = encoded
        return found

    def _lengths(self, version: int, table: Any, chunk: int) -> Rows:
        held = self._chunk(table, chunk)
        if held.lengths is None:
            file, n = int(table.chunks.files[chunk]), len(held.ids)
            first = int(table.chunks.starts[chunk] - table.chunks.starts[np.searchsorted(table.chunks.files, file)])
            key = table.keys[file]
            held.lengths = self._counted_by_corpus(version, table, chunk)
            if held.lengths is None:
                held.lengths = self._store.find(key, first, n)
            if held.lengths is None:
                self._encode(held, table, chunk, [number for number in range(n) if held.ids[number] is None])
                counted = np.array([len(encoded[0]) for encoded in held.ids if encoded is not None], np.int64)
                held.lengths = counted
                self._store.keep(key, first, counted)
        return held.lengths

    def _counted_by_corpus(self, version: int, table: Any, chunk: int) -> Rows | None:
        if self._columns != ["text"] or self._encoder.vocabulary is None or not version:
            return None
        counted_with = self._corpus.manifest(version).tokenizer
        if (counted_with.name, counted_with.hash) != (self._encoder.name, self._encoder.vocabulary):
            return None
        return table.read(chunk, ["n_tokens"])["n_tokens"].to_numpy().astype(np.int64)

    def _chunk(self, table: Any, chunk: int) -> _Held:
        n = int(table.chunks.starts[chunk + 1] - table.chunks.starts[chunk])
        return self._held.get((table.keys[int(table.chunks.files[chunk])], chunk), lambda: _Held(None, n), n)

    def _encode(self, held: _Held, table: Any, chunk: int, numbers: Sequence[int]) -> None:
        if numbers and not held.columns:
            with decoding(table.where(chunk)):
                held.columns = self._getters(table, chunk)
        encode = self._chats if self._is_chat else self._texts
        for start in range(0, len(numbers), BATCH):
            part = numbers[start : start + BATCH]
            with decoding(table.where(chunk)):
                encoded = encode(held, table, chunk, part)
            for number, each in zip(part, encoded, strict=True):
                if held.lengths is not None and len(each[0]) != held.lengths[number]:
                    raise DamagedError(
                        f"{table.where(chunk)}, row {number}: {self._encoder.name} makes {len(each[0])} tokens of "
                        f"it, and {held.lengths[number]} were counted; the library splits text differently now, or the "
                        "counts are damaged: give index_dir= another directory, or None"
                    )
                held.ids[number] = each

    def _getters(self, table: Any, chunk: int) -> list[Getter]:
        found = table.read(chunk, None if self._is_chat else self._columns)
        if self._is_chat and "messages" not in found.column_names:
            table.read(chunk, self._columns)
        tools = [getter_of(found["tools"])] if self._is_chat and "tools" in found.column_names else []
        return [getter_of(found[name]) for name in self._columns] + tools

    def _texts(self, held: _Held, table: Any, chunk: int, numbers: Sequence[int]) -> list[Encoded]:
        texts = [held.columns[0](number) for number in numbers]
        for number, text in zip(numbers, texts, strict=True):
            if text is not None and not isinstance(text, str):
                kind = type(text).__name__
                raise StreamError(
                    f"{table.where(chunk)}, row {number}: column {self._columns[0]!r} holds {kind}, no text"
                )
        return [(ids, None) for ids in self._encoder.encode([text or "" for text in texts])]

    def _chats(self, held: _Held, table: Any, chunk: int, numbers: Sequence[int]) -> list[Encoded]:
        found: list[Encoded] = []
        for number in numbers:
            tools = held.columns[1](number) if len(held.columns) > 1 else None
            tools = tools if tools is None or isinstance(tools, str) else json.dumps(tools)
            found.append(
                encode_chat(self._encoder, held.columns[0](number) or [], tools, f"{table.where(chunk)}, row {number}")
            )
        return found
