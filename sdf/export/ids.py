"""Rows as token ids: what a training job streams with no tokenizer at train time.

Documents are encoded as they are, chats are rendered by the tokenizer's own chat template with a mask over the
assistant's turns: the very code that tokenises while training. One file's ids are held in memory.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sdf import tokens
from sdf.errors import TokenizerError, UsageError
from sdf.frontmatter import near
from sdf.manifest import Manifest
from sdf.shards.file import Rows
from sdf.stream.chats import encode_chat, template_of
from sdf.stream.encoders import Encoder, encoder_of
from sdf.stream.tokens_format import TOKEN, Ids, Mask, TokenIndex, TokenShard, write_index, write_shard

CONFIGS = ("documents", "chats")
# Texts handed to a thread at once.
BATCH = 64


class TokensWriter:
    """`00000.tokens.u32`, … and `tokens.json`, last; a shard closes with the document that fills it."""

    def __init__(
        self, directory: Path, config: str, split: str, encoder: Encoder, manifest: Manifest, file_bytes: int
    ) -> None:
        self._directory, self._config, self._split = directory, config, split
        self._encoder, self._manifest = encoder, manifest
        self._shard_tokens = file_bytes // TOKEN.itemsize
        self._shards: list[TokenShard] = []
        self._ids: list[Ids] = []
        self._masks: list[Mask] = []
        self._n_tokens = 0

    def write(self, rows: Rows) -> None:
        for ids, mask in self._chats(rows) if self._config == "chats" else self._documents(rows):
            self._ids.append(ids)
            if mask is not None:
                self._masks.append(mask)
            self._n_tokens += len(ids)
            if self._n_tokens >= self._shard_tokens:
                self._close()

    def finish(self) -> None:
        if self._ids:
            self._close()
        index = TokenIndex(
            tokenizer=self._encoder.name,
            tokenizer_hash=self._encoder.hash,
            eos=self._encoder.eos,
            source=self._manifest.sha256,
            config=self._config,
            split=self._split,
            n_documents=sum(shard.n_documents for shard in self._shards),
            n_tokens=sum(shard.n_tokens for shard in self._shards),
            shards=tuple(self._shards),
        )
        write_index(self._directory, index)

    def _documents(self, rows: Rows) -> list[tuple[Ids, Mask | None]]:
        batches = [[row["text"] for row in rows[start : start + BATCH]] for start in range(0, len(rows), BATCH)]
        # Tokenizers let go of the interpreter's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [(ids, None) for batch in pool.map(self._encoder.encode, batches) for ids in batch]

    def _chats(self, rows: Rows) -> list[tuple[Ids, Mask | None]]:
        return [encode_chat(self._encoder, row["messages"], row["tools"], f"row {row['id']}") for row in rows]

    def _close(self) -> None:
        masks = self._masks if self._config == "chats" else None
        self._shards.append(write_shard(self._directory, len(self._shards), self._ids, masks))
        self._ids, self._masks, self._n_tokens = [], [], 0


def encoder_for(tokenizer: str, configs: Sequence[str]) -> Encoder:
    """Of a tiktoken encoding by name, a `tokenizer.json`, or a directory with a Hugging Face tokenizer.

    TokenizerError when there is none, or when chats are wanted and it has no chat template.
    """
    if not tokenizer:
        raise UsageError(
            "--to tokens needs the --tokenizer of the model to be trained: a tokenizer.json, a directory with a "
            f"Hugging Face tokenizer, or {', '.join(tokens.ENCODINGS)}"
        )
    encoder = _encoder(tokenizer)
    if "chats" in configs:
        template_of(encoder)
    return encoder


def _encoder(tokenizer: str) -> Encoder:
    path = Path(tokenizer).expanduser()
    if tokenizer in tokens.ENCODINGS or tokenizer.endswith(".tiktoken"):
        return encoder_of(tokens.load(tokenizer).encoding)
    if not path.exists():
        raise TokenizerError(f"--tokenizer {tokenizer!r}: no such file or encoding{near(tokenizer, tokens.ENCODINGS)}")
    try:
        if (path / "tokenizer_config.json").is_file():
            auto = importlib.import_module("transformers").AutoTokenizer
            return encoder_of(auto.from_pretrained(str(path), local_files_only=True, trust_remote_code=False))
        return encoder_of(path)
    except ImportError as error:
        raise UsageError(
            f"--tokenizer {tokenizer}: reading it needs a package more ({error}); pip install {error.name}"
        ) from error
    except (OSError, ValueError) as error:
        raise TokenizerError(f"--tokenizer {tokenizer}: cannot be loaded ({error})") from error
