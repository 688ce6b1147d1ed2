"""What an audit reads: a count over every row, and the texts of a sample that fits in memory.

Which documents are in the sample is decided by a hash of their ids, so that the same corpus is always judged by the
same texts. The shards are read once, a row group at a time.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sdf.errors import DamagedError
from sdf.manifest import Manifest, text_of
from sdf.records import stream
from sdf.shards import read_shard
from sdf.storage import RunDir

# Some 8,000 long documents; their words, hashes and signatures take three times as much again.
SAMPLE_BYTES = 48_000_000
# English in common vocabularies.
BYTES_PER_TOKEN = 4.5


@dataclass(slots=True)
class Sampled:
    """The texts of a config that were drawn, beside their ids and genres, in the order of the corpus."""

    texts: list[str] = field(default_factory=list[str])
    ids: list[str] = field(default_factory=list[str])
    genres: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Census:
    """Counts over every row. `axes` is by genre and axis, `pairs` by genre and two judges: (score, score) -> rows."""

    n_documents: int = 0
    axes: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter[str]))
    principles: Counter[str] = field(default_factory=Counter[str])
    pairs: dict[tuple[str, str, str], Counter[tuple[int, int]]] = field(
        default_factory=lambda: defaultdict(Counter[tuple[int, int]])
    )
    samples: dict[str, Sampled] = field(default_factory=lambda: defaultdict(Sampled))

    def add(self, config: str, row: Mapping[str, Any], is_sampled: bool) -> None:
        self.n_documents += 1
        genre = str(row["genre"])
        self.principles[str(row["principle"])] += 1
        for axis, value in _json_object(row["axes"]).items():
            self.axes[genre, axis][str(value)] += 1
        scores = sorted(_json_object(row.get("scores")).items())
        for place, (step, score) in enumerate(scores):
            for other, second in scores[place + 1 :]:
                self.pairs[genre, step, other][int(score), int(second)] += 1
        if is_sampled and (text := written(config, row)).strip():
            sampled = self.samples[config]
            sampled.texts.append(text)
            sampled.ids.append(str(row["id"]))
            sampled.genres.append(genre)


def census(run_dir: RunDir, manifest: Manifest) -> Census:
    """Reads every shard of the manifest. DamagedError names a file that cannot be read as one."""
    found = Census()
    share = min(1.0, SAMPLE_BYTES / max(1.0, manifest.n_tokens * BYTES_PER_TOKEN))
    for config, row in _rows(run_dir, manifest):
        found.add(config, row, stream("audit", str(row["id"])) < share * 2**64)
    return found


def _rows(run_dir: RunDir, manifest: Manifest) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for shard in manifest.shards:
        for group in read_shard(run_dir, shard):
            for row in group:
                yield shard.config, row


def written(config: str, row: Mapping[str, Any]) -> str:
    """What a model is taught to write: the document, the replies of a chat, the question of a prompt, an item."""
    if config not in ("chats", "prompts"):
        return text_of(config, row)
    role = "assistant" if config == "chats" else "user"
    return "\n\n".join(str(turn["content"]) for turn in row["messages"] if turn["role"] == role)


def _json_object(text: Any) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DamagedError(f"a row's axes or scores are no JSON ({error}); `sdf verify` names the file") from None
    return found if isinstance(found, dict) else {}
