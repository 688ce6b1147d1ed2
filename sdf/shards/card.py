"""The dataset card: README.md at the root of a corpus, what `datasets` reads and what a person reads first.

It lists committed files by name, so that a loader never picks up an orphan, and tells what the corpus is made of. Names
in it come from recipes and genres of others: YAML is dumped, Markdown escaped, and everything kept on one line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from sdf.decontaminate import Evaluation
from sdf.manifest import CONFIGS, Manifest, Shard
from sdf.shards.file import COLUMNS
from sdf.storage import RunDir

OFFLINE = "offline-grammar"

_ABOUT = {
    "documents": "documents, one per row, in `text`",
    "chats": "conversations in `messages` (role, content), their tools in `tools`",
    "prompts": "openings of conversations in `messages`, without a reply",
    "items": "evaluation items as JSON in `item`; never train on them",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))
_MARKUP = str.maketrans({sign: f"\\{sign}" for sign in "\\`*[]<>|#&~!$"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What the card tells beside the manifest. `constitution` names its source, `about` says what each genre is."""

    name: str
    constitution: str
    models: tuple[str, ...]
    about: Mapping[str, str]
    evaluations: tuple[Evaluation, ...] = ()


def write_card(run_dir: RunDir, manifest: Manifest, facts: Facts) -> None:
    """Replaces the card. Until then the old one names the old shards, which stay until gc."""
    run_dir.write(run_dir.card, card(manifest, facts).encode())


def card(manifest: Manifest, facts: Facts) -> str:
    """The text of README.md: a pure function of its arguments."""
    head = yaml.safe_dump(_head(manifest, facts), sort_keys=False, allow_unicode=True, width=10_000)
    sections = [_title(manifest, facts), _contents(manifest), _genres(manifest, facts), _rejected(manifest)]
    sections.append(_decontamination(manifest, facts))
    return f"---\n{head}---\n\n" + "\n\n".join([*filter(None, sections), _origin(manifest, facts)]) + "\n"


def _head(manifest: Manifest, facts: Facts) -> dict[str, Any]:
    configs = [config for config in CONFIGS if _splits(manifest, config)]
    head: dict[str, Any] = {
        "pretty_name": _line(facts.name),
        "license": "other",
        "tags": ["synthetic"],
        "size_categories": [_size(manifest.n_documents)],
    }
    if configs:
        head["configs"] = [_data_files(manifest, config) | {"default": True} for config in configs[:1]]
        head["configs"] += [_data_files(manifest, config) for config in configs[1:]]
        head["dataset_info"] = [_info(manifest, config) for config in configs]
    return head


def _splits(manifest: Manifest, config: str) -> dict[str, list[Shard]]:
    splits: dict[str, list[Shard]] = {}
    for shard in manifest.shards:
        if shard.config == config:
            splits.setdefault(shard.split, []).append(shard)
    return splits


def _data_files(manifest: Manifest, config: str) -> dict[str, Any]:
    splits = _splits(manifest, config)
    files = [{"split": split, "path": [shard.path for shard in shards]} for split, shards in splits.items()]
    return {"config_name": config, "data_files": files}


def _info(manifest: Manifest, config: str) -> dict[str, Any]:
    """Without `splits`: `datasets` wants their sizes in memory beside their rows, which no manifest knows."""
    shards = [shard for shard in manifest.shards if shard.config == config]
    return {
        "config_name": config,
        "features": [_feature(field) for field in COLUMNS[config]],
        "download_size": sum(shard.size_bytes for shard in shards),
    }


def _feature(field: Any) -> dict[str, Any]:
    if pa.types.is_list(field.type):
        return {"name": field.name, "list": [_feature(part) for part in field.type.value_type]}
    return {"name": field.name, "dtype": str(field.type)}


def _title(manifest: Manifest, facts: Facts) -> str:
    state = "complete" if manifest.state == "complete" else f"still growing, to {manifest.wanted}"
    lines = [
        f"# {_text(facts.name)}",
        "",
        f"{manifest.n_tokens:,} tokens in {manifest.n_documents:,} documents, {state}. Synthetic text that expresses",
        f"the principles of {_text(facts.constitution)}, made to teach a model their content and their reasons.",
    ]
    if OFFLINE in facts.models:
        lines += ["", f"**Rows whose model is `{OFFLINE}` are filler**: an embedded grammar wrote them, not a language"]
        lines += ["model. They show that the machinery works, and teach nothing."]
    return "\n".join(lines)


def _contents(manifest: Manifest) -> str:
    lines = ["## Contents", "", "| config | split | documents | tokens | |", "|---|---|--:|--:|---|"]
    for config in CONFIGS:
        for split, shards in _splits(manifest, config).items():
            n_rows, n_tokens = sum(shard.n_rows for shard in shards), sum(shard.n_tokens for shard in shards)
            lines.append(f"| {config} | {split} | {n_rows:,} | {n_tokens:,} | {_ABOUT[config]} |")
    return "\n".join(lines)


def _genres(manifest: Manifest, facts: Facts) -> str:
    lines = ["## Genres", "", "| genre | documents | tokens | share asked | |", "|---|--:|--:|--:|---|"]
    whole = sum(count.share for count in manifest.genres.values()) or 1.0
    for genre, count in sorted(manifest.genres.items()):
        about = _text(facts.about.get(genre, ""))
        lines.append(
            f"| {_text(genre)} | {count.n_documents:,} | {count.n_tokens:,} | {count.share / whole:.1%} | {about} |"
        )
    return "\n".join(lines)


def _rejected(manifest: Manifest) -> str:
    if not manifest.rejected:
        return ""
    lines = ["## Rejected", "", "| reason | drafts |", "|---|--:|"]
    lines += [f"| {_text(reason)} | {n:,} |" for reason, n in sorted(manifest.rejected.items())]
    return "\n".join(lines)


def _decontamination(manifest: Manifest, facts: Facts) -> str:
    if not facts.evaluations:
        return ""
    lines = [
        "## Decontamination",
        "",
        "Every text was compared with these evaluation sets: runs of 13 words, whole texts of 8 to 12 words, and",
        "near-duplicates of whole texts. What matched was dropped. Runs that the constitution holds too do not count;",
        "texts of fewer than 8 words are too short to be looked for.",
        "",
        "| set | items | runs | too short | drafts matched and dropped | overlap left | sha256 |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for each in facts.evaluations:
        n_matched = manifest.rejected.get(each.reason, 0)
        lines.append(
            f"| {_text(each.name)} | {each.n_items:,} | {each.n_runs:,} | {each.n_short:,} | {n_matched:,} | 0 "
            f"| {each.sha256[:12]} |"
        )
    if not any(manifest.rejected.get(each.reason) for each in facts.evaluations):
        lines += ["", "0 overlap: no draft matched any of them."]
    return "\n".join(lines)


def _origin(manifest: Manifest, facts: Facts) -> str:
    models = ", ".join(_text(model) for model in facts.models) or "no model yet"
    return "\n".join(
        [
            "## Origin",
            "",
            f"Every text was written by a machine ({models}), none by a person; people, places and events in it are",
            "invented. Each row names its genre, principle, model and the hash of its prompt; `axes` holds as JSON how",
            "it was to be told, `scores` what each judge gave it. The licence depends on the terms of those models and",
            "of the constitution.",
            "",
            f"- recipe {_text(manifest.recipe_hash)}, constitution {_text(manifest.constitution_hash)}",
            f"- tokens counted by {_text(manifest.tokenizer.name)} ({_text(manifest.tokenizer.hash)})",
            f"- manifest {manifest.number} by {_text(manifest.made_by)}, pyarrow {_text(manifest.pyarrow)}",
        ]
    )


def _size(n_documents: int) -> str:
    return next((name for limit, name in _SIZES if n_documents < limit), "n>10M")


def _text(text: str) -> str:
    return _line(text).translate(_MARKUP)


def _line(text: str) -> str:
    """On one line, without control characters, and without those that turn the direction of writing."""
    kept = (" " if unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else sign for sign in text)
    return " ".join("".join(kept).split())
