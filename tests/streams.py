"""Corpora that grow, and tokenizers made in a moment, for tests of the training side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import tiktoken
from corpora import row

from sdf.manifest import GenreCount, Manifest, TokenizerRef
from sdf.shards import publish, write_shard
from sdf.storage import RunDir
from sdf.stream.encoders import encoder_of

GENRES = ("letter", "essay", "story")
END = 256


def byte_tokenizer(shift: int = 0) -> tiktoken.Encoding:
    """A token is a byte; another `shift` is another tokenizer."""
    ranks = {bytes([byte]): (byte + shift) % 256 for byte in range(256)}
    return tiktoken.Encoding("bytes", pat_str=r"[\s\S]", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": END})


def and_no_text(*texts: str) -> pa.Array:
    """A column of texts and after them one that is not UTF-8, which Parquet takes as it is."""
    return pa.array([*(each.encode() for each in texts), b"\xff\xfe"], pa.binary()).view(pa.string())


def text(number: int, n_words: int = 5) -> str:
    """A text that only this number has."""
    return " ".join(f"{number}.{word}" for word in range(n_words))


def document(number: int, content: str | None = None) -> dict[str, Any]:
    content = text(number, 1 + number * 7 % 11) if content is None else content
    return row(number, text=content) | {"n_tokens": len(content.encode()), "genre": GENRES[number % 3]}


def documents(n: int, first: int = 0) -> list[dict[str, Any]]:
    return [document(number) for number in range(first, first + n)]


def chat(number: int) -> dict[str, Any]:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"What is {number}?"},
        {"role": "assistant", "content": f"It is {number}."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes."},
    ]
    return row(number, messages=turns, tools=None)


class Growing:
    """A corpus that is committed again and again, its short last shard replaced as `sdf run` does."""

    def __init__(self, root: Path, rows_per_shard: int = 20, config: str = "documents") -> None:
        self.root, self.rows_per_shard, self.config = root, rows_per_shard, config
        self.rows: list[dict[str, Any]] = []
        self.manifests: list[Manifest] = []

    def grow(self, rows: Sequence[dict[str, Any]], state: Any = "growing", counted_by: str = "cc") -> Manifest:
        run_dir = RunDir(self.root)
        self.rows += rows
        step = self.rows_per_shard
        shards = tuple(
            write_shard(run_dir, self.config, "train", number, self.rows[number * step : (number + 1) * step])
            for number in range(-(-len(self.rows) // step))
        )
        before = self.manifests[-1] if self.manifests else None
        manifest = Manifest(
            number=len(self.manifests) + 1,
            state="growing",
            predecessor=before.sha256 if before else None,
            recipe_hash="aa",
            constitution_hash="bb",
            tokenizer=TokenizerRef("bytes", counted_by),
            target_tokens=10_000,
            n_tokens=sum(shard.n_tokens for shard in shards),
            n_documents=sum(shard.n_rows for shard in shards),
            shards=shards,
            genres={"letter": GenreCount(0, 0, 1.0)},
            rejected={},
            pyarrow=pa.__version__,
            made_by="sdf 0",
        )
        manifest = replace(manifest, state=state)
        publish(run_dir, manifest)
        self.manifests.append(manifest)
        return manifest


def complete(root: Path, rows: Sequence[dict[str, Any]], rows_per_shard: int = 20, config: str = "documents") -> Path:
    """A complete corpus that says it counted with the byte tokenizer."""
    vocabulary = encoder_of(byte_tokenizer()).vocabulary
    assert vocabulary is not None
    Growing(root, rows_per_shard, config).grow(rows, "complete", vocabulary)
    return root
