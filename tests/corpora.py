"""Small committed corpora, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from sdf.manifest import GenreCount, Manifest, Shard, TokenizerRef
from sdf.shards import publish, write_shard
from sdf.shards.card import Facts, write_card
from sdf.shards.file import COLUMNS
from sdf.storage import RunDir

FACTS = Facts("demo: 'a' | \"b\"\n---", "a text", ("offline-grammar",), {"letter": "A letter."})


def row(number: int, **content: Any) -> dict[str, Any]:
    known = {
        "id": f"{number:032x}",
        "genre": "letter",
        "principle": "honesty",
        "axes": '{"stance":"warm"}',
        "scores": "{}",
        "source": None,
        "model": "offline-grammar",
        "fallback": False,
        "prompt_hash": "ab" * 16,
        "n_tokens": 2,
        "finish_reason": "stop",
        "constitution_hash": "cd" * 16,
    }
    return content | {name: value for name, value in known.items() if name in COLUMNS["documents"].names}


def documents(n: int) -> list[dict[str, Any]]:
    return [row(number, text=f"Letter {number}.\n\nSüße Grüße 🌱") for number in range(n)]


def chats(n: int) -> list[dict[str, Any]]:
    """The first shard's `tools` are all null: its type must come from the file, not from its values."""
    return [row(number, messages=_turns(number), tools=None if number < 10 else "[]") for number in range(n)]


def _turns(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Why {number}?"}, {"role": "assistant", "content": "Because.\nTruly."}]


def commit(run_dir: RunDir, number: int, before: Manifest | None, *shards: Shard) -> Manifest:
    manifest = Manifest(
        number=number,
        state="growing",
        predecessor=before.sha256 if before else None,
        recipe_hash="aa",
        constitution_hash="bb",
        tokenizer=TokenizerRef("o200k_base", "cc"),
        target_tokens=10_000,
        n_tokens=sum(shard.n_tokens for shard in shards),
        n_documents=sum(shard.n_rows for shard in shards),
        shards=shards,
        genres={"letter": GenreCount(0, 0, 1.0)},
        rejected={},
        pyarrow=pa.__version__,
        made_by="sdf 0",
    )
    publish(run_dir, manifest)
    write_card(run_dir, manifest, FACTS)
    return manifest


def make_corpus(root: Path, n_documents: int = 25, n_chats: int = 6, rows_per_shard: int = 10) -> RunDir:
    """`n_documents` and `n_chats` for training in shards of `rows_per_shard`, two documents to validate, one item."""
    run_dir = RunDir(root)
    shards = [
        write_shard(run_dir, config, "train", number, rows[number * rows_per_shard : (number + 1) * rows_per_shard])
        for config, rows in (("documents", documents(n_documents)), ("chats", chats(n_chats)))
        for number in range(-(-len(rows) // rows_per_shard))
    ]
    shards.append(write_shard(run_dir, "documents", "validation", 0, documents(2)))
    shards.append(write_shard(run_dir, "items", "train", 0, [row(0, item="{}")]))
    commit(run_dir, 1, None, *shards)
    return run_dir
