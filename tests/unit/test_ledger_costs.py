"""What answers cost, as a ledger keeps it: by worker, by model where no price was known, and in ledgers without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_ledger import USAGE, a_settlement, an_answer

from sdf.errors import StorageError
from sdf.ledger import LedgerWriter, SettlementLog, check_ledger, read_answers, read_ledger
from sdf.ledger.file import Seal, encode
from sdf.ledger.rows import ANSWERS, SIDECAR
from sdf.records import Answer, Usage
from sdf.storage import RunDir

LATER = "cost_usd"


def bought(run_dir: RunDir, writer: str, **costs: float | None) -> None:
    """Each in a part of its own."""
    opened = LedgerWriter(run_dir, 1, writer)
    for name, cost in costs.items():
        entry = replace(an_answer(name), cost_usd=cost)
        opened.settle(a_settlement(f"brief {name} {writer}", (entry, opened.append(entry))))
        opened.flush()


def as_it_was_written_before(run_dir: RunDir) -> None:
    """The ledger as versions wrote it that knew no costs."""
    seals = {}
    for path, _ in [*run_dir.files("ledger")]:
        if path.endswith(".answers.parquet"):
            rows = pq.read_table(pa.BufferReader(run_dir.read(path))).drop_columns(LATER).to_pylist()
            data = encode(rows, ANSWERS.remove(ANSWERS.get_field_index(LATER)))
            seals[path.removesuffix(".answers.parquet")] = Seal.of(data)
            run_dir.write(path, data)
    for part, seal in seals.items():
        rows = pq.read_table(pa.BufferReader(run_dir.read(f"{part}.sidecar.parquet"))).drop_columns(LATER).to_pylist()
        schema = SIDECAR.remove(SIDECAR.get_field_index(LATER))
        metadata = {"part_size_bytes": str(seal.size_bytes), "part_sha256": seal.sha256}
        run_dir.write(f"{part}.sidecar.parquet", encode(rows, schema.with_metadata(metadata)))


def test_costs_are_summed_by_epoch_and_worker(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    bought(run_dir, "w0000-000", a=0.25, b=0.5)
    bought(run_dir, "w0001-000", c=0.125, d=None)
    view = read_ledger(run_dir)
    assert view.cost_by_writer == {"000001/w0000-000": 0.75, "000001/w0001-000": 0.125}
    assert view.cost_usd == 0.875
    assert view.unpriced_by_model == {"offline-grammar": USAGE}
    assert sorted(entry.cost_usd or 0 for entry in read_answers(run_dir, [place for _, place in view.keys])) == [
        *(0, 0.125, 0.25, 0.5)
    ]


def test_what_was_bought_twice_counts_and_is_named(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    bought(run_dir, "w0000-000", a=0.25)
    bought(run_dir, "w0001-000", a=0.5)
    view = read_ledger(run_dir)
    assert (view.cost_usd, view.rebilled_usd) == (0.75, 0.5)


def test_an_answer_that_took_no_tokens_is_not_unpriced(tmp_path: Path) -> None:
    run_dir, writer = RunDir(tmp_path), LedgerWriter(RunDir(tmp_path), 1, "w")
    writer.append(replace(an_answer("a"), answer=Answer("copied", "stop", "m", Usage())))
    writer.flush()
    assert read_ledger(run_dir).unpriced_by_model == {}


def test_a_ledger_from_before_there_were_costs_is_read_and_gone_on_with(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    bought(run_dir, "w0000-000", a=0.25, b=0.5)
    SettlementLog(run_dir, 1).flush()
    as_it_was_written_before(run_dir)
    bought(run_dir, "w0001-000", c=0.125)
    view = read_ledger(run_dir)
    assert len(view.receipts) == 3 and view.damaged == () and check_ledger(run_dir) == []
    assert view.cost_usd == 0.125 and view.unpriced_by_model == {"offline-grammar": USAGE + USAGE}
    costs = [entry.cost_usd for entry in read_answers(run_dir, [place for _, place in view.keys])]
    assert costs.count(None) == 2


def test_another_missing_column_is_still_another_version(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    bought(run_dir, "w0000-000", a=0.25)
    path = "ledger/000001/w0000-000-000000.sidecar.parquet"
    rows = pq.read_table(pa.BufferReader(run_dir.read(path))).drop_columns("lane").to_pylist()
    run_dir.write(path, encode(rows, SIDECAR.remove(SIDECAR.get_field_index("lane"))))
    with pytest.raises(StorageError, match="another version of sdf"):
        read_ledger(run_dir)
