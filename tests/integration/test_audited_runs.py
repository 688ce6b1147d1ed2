"""A habit of a model is found in the corpus, banned, and gone in the next run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import HELP, LETTER, NOTE, TALK, documents, make, write_recipe

from sdf import api
from sdf.audit import Audit
from sdf.errors import DamagedError, StorageError, UsageError

TIC = "on that quiet note of gratitude"


def finding(report: Audit, name: str, config: str = "documents") -> Any:
    return next(each for each in report.findings if (each.name, each.config) == (name, config))


def test_a_planted_tic_is_found_banned_and_gone(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"note": NOTE}, tokens=8_000, provider_settings={"tic": TIC})
    make(recipe, tmp_path / "first")
    first = api.audit(tmp_path / "first", out=tmp_path / "audit.json")
    phrases = finding(first, "phrases")
    assert phrases.verdict == "bad" and TIC in phrases.example and phrases.value > 0.9
    assert any(TIC in ban for ban in first.bans) and len(first.bans) <= 20

    make(recipe, tmp_path / "second", bans=str(tmp_path / "audit.json"))
    second = api.audit(tmp_path / "second", before=tmp_path / "audit.json")
    assert not any(TIC in row["text"] for row in documents(tmp_path / "second")["documents/train"])
    assert not any(TIC in ban for ban in second.bans)
    change = next(each for each in second.changes if (each.name, each.config) == ("phrases", "documents"))
    assert change.before == phrases.value and change.now is not None and change.now < change.before


def test_a_banned_phrase_that_comes_back_is_rejected(tmp_path: Path) -> None:
    """A genre whose prompts show no bans: the phrase is written again, and the check holds it back."""
    recipe = write_recipe(tmp_path, {"letter": LETTER}, tokens=1_000, provider_settings={"tic": TIC})
    (tmp_path / "bans.json").write_text(json.dumps({"bans": [TIC]}))
    outcome = make(recipe, tmp_path / "out", bans=str(tmp_path / "bans.json"))
    assert not outcome.finished or outcome.unmet
    assert api.status(tmp_path / "out").n_documents == 0


def test_an_audit_is_the_same_every_time_and_reads_every_kind(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"note": NOTE, "help": HELP, "talk": TALK}, tokens=12_000)
    make(recipe, tmp_path / "out")
    first, again = api.audit(tmp_path / "out"), api.audit(tmp_path / "out")
    assert first == again
    assert {each.config for each in first.findings} == {"documents", "chats", "all"}
    assert first.n_sampled == first.n_documents
    assert all(each.reason for each in first.findings)


def test_what_is_no_corpus_or_no_audit(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no corpus here"):
        api.audit(tmp_path)
    recipe = write_recipe(tmp_path, {"note": NOTE}, tokens=500)
    make(recipe, tmp_path / "out")
    for text in ("[]", "{", '{"findings": [{"name": "phrases"}]}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(UsageError, match="not an audit"):
            api.audit(tmp_path / "out", before=tmp_path / "other.json")
    (shard,) = (tmp_path / "out/data/documents").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-300])
    with pytest.raises(DamagedError, match="train-00000"):
        api.audit(tmp_path / "out")
