"""Any one file of the ledger may be lost: the same command makes the same corpus again, and pays for the loss alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from support import NOTE, TALK, make, shard_hashes, write_recipe

from sdf.ledger import read_ledger
from sdf.storage import RunDir


def test_a_run_repairs_its_corpus_from_what_is_intact(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {"note": NOTE, "talk": TALK}, in_flight=4)
    for target in (700, 1_400):
        make(recipe, tmp_path / "out", tokens=target)
    files = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out" / "ledger").rglob("*.parquet"))
    assert len(files) >= 8
    for file in files:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "out", copy)
        (copy / file).unlink()
        assert make(recipe, copy, tokens=1_400).finished
        assert shard_hashes(copy) == shard_hashes(tmp_path / "out"), file
        view = read_ledger(RunDir(copy))
        assert view.n_answers == len(view.keys), f"{file}: an answer that was still there was bought again"
