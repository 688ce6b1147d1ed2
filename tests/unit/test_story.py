"""The books of a run: the first word of every brief counts and is logged; what is committed is what was cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import make_job, receipt

from sdf.assemble import Cut
from sdf.job import Job
from sdf.ledger import KeyIndex, LedgerView, SettlementLog
from sdf.manifest import Shard
from sdf.plan import Plan
from sdf.records import Location, Receipt, RoundKey, RoundReceipt, Usage
from sdf.storage import RunDir
from sdf.storage.lease import Lease
from sdf.story import Story, split_of, terms_of


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"), mix={"note": 2, "letter": 1, "question": 1}, tokens=1_000)


class Logged(SettlementLog):
    """What a log was given, and whether it was flushed since."""

    def __init__(self) -> None:
        self.taken: list[Location] = []
        self.n_flushes = 0

    def append(self, locations) -> None:  # type: ignore[no-untyped-def]
        self.taken += locations

    def flush(self) -> None:
        self.n_flushes += 1


def view(receipts: list[Receipt] | None = None, rounds: list[RoundReceipt] | None = None) -> LedgerView:
    unlogged = [each.location for each in receipts or []]
    return LedgerView(receipts or [], rounds or [], unlogged, KeyIndex.of([]), (), 0, {}, Usage())


def story(job: Job, log: SettlementLog | None = None, before: LedgerView | None = None) -> Story:
    return Story(job, terms_of(job, Plan(job)), log, before or view())


def test_terms_are_the_recipe_s(job: Job) -> None:
    other = replace(job, recipe=job.recipe.changed({"dedup_threshold": 0.7, "shard_tokens": 5_000, "tokens": 77}))
    terms = terms_of(other, Plan(other))
    assert (terms.threshold, terms.shard_tokens, terms.target_tokens) == (0.7, 5_000, 77)
    found = {
        each.genre: (each.share, each.config, each.compared, each.n_twins, each.n_briefs) for each in terms.sequences
    }
    assert found == {
        "note": (2.0, "documents", True, 1, None),
        "letter": (1.0, "documents", False, 2, None),
        "question": (1.0, "prompts", False, 1, 12),
    }
    assert [each.genre for each in terms.sequences] == list(other.recipe.mix)


def test_whole_cells_are_held_out(job: Job) -> None:
    plan = Plan(job)
    assert {split_of(plan, "note", index, 0.0) for index in range(50)} == {"train"}
    splits: dict[tuple[str, str], set[str]] = {}
    for genre in ("note", "letter"):
        for index in range(100):
            cell = (genre, plan.brief(genre, index).principle.id)
            splits.setdefault(cell, set()).add(split_of(plan, genre, index, 0.5))
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "validation"}


def test_a_larger_holdout_holds_out_more_of_the_same(job: Job) -> None:
    plan = Plan(job)
    held = [
        {index for index in range(80) if split_of(plan, "note", index, share) != "train"} for share in (0.2, 0.6, 0.99)
    ]
    assert held[0] <= held[1] <= held[2]


def test_the_first_receipt_counts_and_is_logged_and_no_later_one_is(job: Job) -> None:
    log = Logged()
    told = story(job, log)
    first = receipt("letter", 0)
    second = replace(first, location=Location("000002/w", 9), n_tokens=999)
    told.receive([first, second], [])
    told.receive([second, receipt("letter", 1)], [])
    assert log.taken == [first.location, receipt("letter", 1).location] and told.n_settled == 2
    told.fold.offer(receipt("note", 0))
    told.fold.advance()
    assert told.fold.tallies["letter"].n_tokens == 200


def test_the_first_word_on_a_round_counts_and_is_logged(job: Job) -> None:
    log = Logged()
    told = story(job, log)
    key = RoundKey("note", Plan(job).brief("note", 0).principle.id, 0, 0)
    told.dispatch.orders(1_000)
    told.receive([], [RoundReceipt(key, Location("000001/w", 1), ("a", "b", "c", "d"))])
    told.receive([], [RoundReceipt(key, Location("000001/w", 2), ("x", "x", "x", "x"))])
    assert log.taken == [Location("000001/w", 1)]
    angles = {getattr(order, "angle", None) for order in told.dispatch.orders(1_000)}
    assert {"a", "b", "c", "d"} <= angles and "x" not in angles


def test_a_resume_starts_from_the_view_and_logs_what_no_log_names(job: Job) -> None:
    log = Logged()
    settled = [receipt("letter", index) for index in range(4)]
    told = story(job, log, view(settled))
    assert told.n_settled == 4 and log.taken == [each.location for each in settled]
    assert all(told.dispatch.is_settled("letter", index) for index in range(4))


def test_a_manifest_is_the_sum_of_what_is_committed(job: Job) -> None:
    told = story(job)
    told.receive([receipt("letter", 0, 60), receipt("letter", 1, 40), receipt("note", 0, 9, "link")], [])
    cut = Cut("documents", "train", 0, (receipt("letter", 0, 60), receipt("letter", 1, 40)))
    shard = Shard("documents", "train", 0, "data/documents/train-00000-00000000.parquet", 2, 100, 1, "0" * 64, "0" * 64)
    told.commit(cut, shard)
    manifest = told.manifest("growing", None)
    assert (manifest.number, manifest.predecessor, manifest.state, manifest.shards) == (1, None, "growing", (shard,))
    assert (manifest.n_tokens, manifest.n_documents, manifest.target_tokens) == (100, 2, 1_000)
    counts = {key: (each.n_tokens, each.n_documents, each.share) for key, each in manifest.genres.items()}
    assert counts == {"note": (0, 0, 0.5), "letter": (100, 2, 0.25), "question": (0, 0, 0.25)}
    assert manifest.recipe_hash == job.hash and manifest.constitution_hash == job.constitution.hash
    later = told.manifest("complete", manifest)
    assert (later.number, later.predecessor) == (2, manifest.sha256)


def test_shards_stand_in_order_whatever_order_they_were_written_in(job: Job) -> None:
    told = story(job)
    for config, number in (("prompts", 0), ("documents", 1), ("documents", 0)):
        path = f"data/{config}/train-{number:05d}-00000000.parquet"
        told.commit(Cut(config, "train", number, ()), Shard(config, "train", number, path, 0, 0, 1, "0" * 64, "0" * 64))
    found = [(each.config, each.number) for each in told.manifest("growing", None).shards]
    assert found == [("documents", 0), ("documents", 1), ("prompts", 0)]


def test_progress_counts_what_is_folded_and_what_is_settled(job: Job) -> None:
    told = story(job)
    told.receive([receipt("note", 0, 300), receipt("letter", 0, 60), receipt("letter", 1, 40, "link")], [])
    told.fold.advance()
    progress = told.progress()
    assert (progress.n_tokens, progress.target_tokens, progress.n_settled, progress.n_shards) == (300, 1_000, 3, 0)
    assert progress.genres["note"] == (300, 1, 500.0) and progress.rejected == {"link": 1, "twin": 1}


def test_the_log_is_durable_when_it_is_flushed(job: Job, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    lease = Lease.take(run_dir, owner={}, say=lambda _: None)
    log = SettlementLog(run_dir, lease.epoch)
    told = story(job, log)
    told.receive([receipt("letter", 0)], [])
    before = len(run_dir.files("ledger"))
    log.flush()
    assert len(run_dir.files("ledger")) == before + 1
