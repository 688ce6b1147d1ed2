"""Files that are torn, truncated, altered or gone: `verify` names each, and the next run makes the oracle's bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import Oracle, answers, corpus, make

from sdf import api
from sdf.errors import DamagedError, SdfError, StorageError

PART, SIDECAR, LOG = "ledger/*/*.answers.parquet", "ledger/*/*.sidecar.parquet", "ledger/*/log-*.parquet"
SHARD, MANIFEST = "data/*/*.parquet", "manifests/*.json"


def truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))


def gone(path: Path) -> None:
    path.unlink()


@pytest.fixture
def copy(oracle: Oracle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(oracle.out, tmp_path / "out"))


def problems(out: Path) -> str:
    return "\n".join(api.verify(out, replay=True).problems)


def check_made_good(out: Path, victim: Path | None) -> None:
    """The file is still named, but no longer as a problem."""
    found = api.verify(out, replay=True)
    assert found.problems == ()
    assert [each.partition(":")[0] for each in found.made_good] == ([str(victim.relative_to(out))] if victim else [])


@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 1])
@pytest.mark.parametrize("harm", [truncated, emptied, gone])
@pytest.mark.parametrize("files", [PART, SIDECAR])
def test_ledger_files(oracle: Oracle, copy: Path, files: str, harm: Callable[[Path], None], which: int) -> None:
    victim = sorted(copy.glob(files))[which]
    harm(victim)
    assert str(victim.relative_to(copy)) in problems(copy)
    repaired = make(oracle.source, copy)
    assert repaired.finished and corpus(copy) == oracle.corpus
    # It asks anew for answers of that part alone; for a sidecar nothing, since its part holds the answers.
    assert (repaired.n_requests > 0) == (files == PART)
    lost = set(answers(oracle.out, str(victim.relative_to(copy)))) if files == PART else set()
    assert not set(answers(copy, "ledger/000002/*.answers.parquet")) & (set(answers(oracle.out)) - lost)
    check_made_good(copy, victim)
    assert make(oracle.source, copy).n_requests == 0


@pytest.mark.parametrize("harm", [truncated, altered, gone])
def test_logs(oracle: Oracle, copy: Path, harm: Callable[[Path], None]) -> None:
    victim = sorted(copy.glob(LOG))[0]
    harm(victim)
    # Where every brief was settled once, the order of settling decides nothing: nothing is lost with it.
    check_made_good(copy, victim if harm is not gone else None)
    assert make(oracle.source, copy).n_requests == 0
    assert corpus(copy) == oracle.corpus
    check_made_good(copy, victim if harm is not gone else None)


@pytest.mark.parametrize("files", [PART, SIDECAR])
def test_ledger_files_altered_in_place(oracle: Oracle, copy: Path, files: str) -> None:
    victim = sorted(copy.glob(files))[1]
    altered(victim)
    assert str(victim.relative_to(copy)) in problems(copy)
    # A resume reads sidecars alone, so an altered part shows when its texts are needed: it is named, with a way out.
    for shard in copy.glob(SHARD):
        shard.unlink()
    if files == PART:
        with pytest.raises(DamagedError, match=rf"{victim.name}.*delete it"):
            make(oracle.source, copy)
        victim.unlink()
    assert make(oracle.source, copy).finished
    assert corpus(copy) == oracle.corpus
    assert problems(copy) == ""


@pytest.mark.parametrize("harm", [truncated, emptied, altered, gone])
def test_shards(oracle: Oracle, copy: Path, harm: Callable[[Path], None]) -> None:
    victims = [sorted(copy.glob(SHARD))[which] for which in (0, -1)]
    for victim in victims:
        harm(victim)
    assert all(str(victim.relative_to(copy)) in problems(copy) for victim in victims)
    assert make(oracle.source, copy).n_requests == 0
    assert corpus(copy) == oracle.corpus
    assert problems(copy) == ""


@pytest.mark.parametrize("harm", [truncated, emptied, altered])
def test_the_newest_manifest(oracle: Oracle, copy: Path, harm: Callable[[Path], None]) -> None:
    victim = sorted(copy.glob(MANIFEST))[-1]
    harm(victim)
    for act in (lambda: api.verify(copy), lambda: make(oracle.source, copy)):
        with pytest.raises(DamagedError, match=rf"{victim.name}.*delete it to go back"):
            act()
    victim.unlink()
    assert make(oracle.source, copy).n_requests == 0
    assert corpus(copy) == oracle.corpus
    assert problems(copy) == ""


def test_a_manifest_that_is_gone(oracle: Oracle, copy: Path) -> None:
    sorted(copy.glob(MANIFEST))[-1].unlink()
    assert make(oracle.source, copy).n_requests == 0
    assert corpus(copy) == oracle.corpus


def test_a_directory_without_its_recipe(oracle: Oracle, copy: Path) -> None:
    (copy / "recipe.json").unlink()
    with pytest.raises(StorageError, match=r"recipe\.json"):
        make(oracle.source, copy)
    assert corpus(copy) == oracle.corpus


def test_everything_but_the_ledger_is_gone(oracle: Oracle, copy: Path) -> None:
    for folder in ("data", "manifests"):
        shutil.rmtree(copy / folder)
    assert make(oracle.source, copy).n_requests == 0
    assert corpus(copy) == oracle.corpus


def test_no_damage_of_one_file_is_a_traceback(oracle: Oracle, tmp_path: Path) -> None:
    """Every kind of file, cut short: commands end well or with an error of ours."""
    for kind in (
        PART,
        SIDECAR,
        LOG,
        SHARD,
        MANIFEST,
        "recipe.json",
        "README.md",
        "ledger/prefixes/*",
        "ledger/*/EPOCH",
    ):
        out = Path(shutil.copytree(oracle.out, tmp_path / "out"))
        truncated(sorted(out.glob(kind))[0])
        for act in (api.status, api.inspect, api.verify):
            try:
                act(out)
            except SdfError as error:
                assert str(error)
        shutil.rmtree(out)
