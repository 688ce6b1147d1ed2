"""The dataset card: committed files by name, and no name of others that can break out of its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sdf.manifest import GenreCount, Manifest, Shard, TokenizerRef
from sdf.shards.card import Facts, card, write_card
from sdf.storage import RunDir

HOSTILE = [
    "x: y\n---\nlicense: mit",
    "</td><script>alert(1)</script>",
    "a | b | c",
    "`code` [link](http://x) ![image](http://x)",
    "!!python/object/apply:os.system ['true']",
    "\u202egnp.exe\x1b[31m \ud800",
    "{{ '%s' }} 'quoted' \"twice\" \\",
    "- [ ] # & * ? @",
    "",
]


def shard(config: str, split: str, number: int) -> Shard:
    sha256 = f"{number:08x}" + "ab" * 28
    path = f"data/{config}/{split}-{number:05d}-{sha256[:8]}.parquet"
    return Shard(config, split, number, path, 10, 100, 5000, sha256, "cd" * 32)


def manifest(*shards: Shard, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "number": 4,
        "state": "growing",
        "predecessor": "0" * 64,
        "recipe_hash": "aa",
        "constitution_hash": "bb",
        "tokenizer": TokenizerRef("o200k_base", "cc"),
        "target_tokens": 5000,
        "n_tokens": sum(each.n_tokens for each in shards),
        "n_documents": sum(each.n_rows for each in shards),
        "shards": shards,
        "genres": {"blog_post": GenreCount(300, 30, 3.0), "letter": GenreCount(100, 10, 1.0)},
        "rejected": {"too_short": 7},
        "pyarrow": "26.0.1",
        "made_by": "sdf 0.1.0",
    }
    return Manifest(**values | changes)


WHOLE = manifest(
    shard("documents", "train", 0),
    shard("documents", "train", 1),
    shard("documents", "validation", 0),
    shard("chats", "train", 0),
)
FACTS = Facts("demo", "the default constitution", ("some-model",), {"blog_post": "A post."})


def head(text: str) -> dict[str, Any]:
    """The front matter as `datasets` finds it: between the first line and the next that is exactly ---."""
    lines = text.splitlines()
    assert lines[0] == "---"
    return yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))


def test_lists_every_committed_file_by_name_and_no_glob() -> None:
    configs = head(card(WHOLE, FACTS))["configs"]
    files = {
        config["config_name"]: {each["split"]: each["path"] for each in config["data_files"]} for config in configs
    }
    assert files == {
        "documents": {
            "train": ["data/documents/train-00000-00000000.parquet", "data/documents/train-00001-00000001.parquet"],
            "validation": ["data/documents/validation-00000-00000000.parquet"],
        },
        "chats": {"train": ["data/chats/train-00000-00000000.parquet"]},
    }
    assert [config.get("default") for config in configs] == [True, None]


def test_declares_features() -> None:
    info = {each["config_name"]: each for each in head(card(WHOLE, FACTS))["dataset_info"]}
    assert {"name": "text", "dtype": "string"} in info["documents"]["features"]
    messages = [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}]
    assert info["chats"]["features"][0] == {"name": "messages", "list": messages}


def test_tells_what_it_is() -> None:
    text = card(WHOLE, FACTS)
    for said in (
        "400 tokens in 40 documents, still growing, to 5,000 tokens",
        "| documents | train | 20 | 200 |",
        "| blog_post | 30 | 300 | 75.0% | A post. |",
        "| too_short | 7 |",
        "o200k_base",
        "written by a machine (some-model)",
        "manifest 4 by sdf 0.1.0",
    ):
        assert said in text
    assert "filler" not in text
    assert head(text)["tags"] == ["synthetic"]
    assert head(text)["license"] == "other"


def test_says_plainly_that_an_offline_corpus_is_filler() -> None:
    facts = Facts("demo", "the default constitution", ("offline-grammar",), {})
    assert "**Rows whose model is `offline-grammar` are filler**" in card(WHOLE, facts)


def test_an_empty_corpus_has_a_card_without_configs() -> None:
    assert "configs" not in head(card(manifest(), FACTS))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_in_their_place(name: str) -> None:
    facts = Facts(name, name, (name,), {name: name, "blog_post": name})
    whole = manifest(
        *WHOLE.shards, genres={name: GenreCount(1, 1, 1.0)}, rejected={name: 1}, tokenizer=TokenizerRef(name, name)
    )
    text, plain = card(whole, facts), card(WHOLE, FACTS)
    found = head(text)
    assert found.keys() == head(plain).keys()
    assert (found["license"], found["configs"]) == ("other", head(plain)["configs"])
    body = text.split("\n---\n", 1)[1]
    bare = body.replace("\\\\", "").replace("\\<", "").replace("\\|", "").replace("\\[", "").replace("\\!", "")
    assert "<" not in bare
    assert "](" not in bare.replace("\\]", "")
    assert "\u202e" not in text
    assert "\x1b" not in text
    rows = [line for line in bare.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {3, 6}
    text.encode()


def test_is_a_pure_function_of_its_arguments(tmp_path: Path) -> None:
    turned = manifest(*WHOLE.shards, genres=dict(reversed(list(WHOLE.genres.items()))))
    assert card(turned, FACTS) == card(WHOLE, FACTS)
    run_dir = RunDir(tmp_path)
    write_card(run_dir, WHOLE, FACTS)
    write_card(run_dir, WHOLE, FACTS)
    assert run_dir.read("README.md").decode() == card(WHOLE, FACTS)
