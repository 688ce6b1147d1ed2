"""A forecast and its ledger: what is read of it, and what is kept beside it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from support import NOTE, make_job

from sdf.errors import DamagedError
from sdf.estimates import Interval
from sdf.forecast import PATH, Forecast, GenreForecast, costs_of, keep, kept, read_asked
from sdf.ledger import LedgerWriter
from sdf.plan import Plan
from sdf.records import Answer, AnswerEntry, Settlement, Usage
from sdf.storage import RunDir

N_CHARS, N_PARTS, N_OF_PART = 20_000, 40, 25


def grown(run_dir: RunDir, ids: list[str]) -> None:
    """A ledger with an answer for each brief, as a run leaves it that has gone on."""
    writer = LedgerWriter(run_dir, 1, "w0000-000")
    for number, id in enumerate(ids):
        answer = Answer(f"{number} " + "x" * N_CHARS, "stop", "m", Usage(7, 3))
        writer.append(AnswerEntry(f"{number:032x}", id, "body", "p", answer, 0.25))
        writer.settle(Settlement(id, "letter", number, None))
        if number % N_OF_PART == N_OF_PART - 1:
            writer.flush()


def test_of_a_ledger_that_has_grown_the_first_answers_alone_are_held(tmp_path: Path) -> None:
    job, run_dir, reused = make_job(tmp_path), RunDir(tmp_path / "out"), RunDir(tmp_path / "reused")
    plan = Plan(job)
    ids = [plan.brief("letter", index).id for index in range(N_PARTS * N_OF_PART)]
    grown(run_dir, ids)
    grown(reused, ids)
    tracemalloc.start()
    asked = read_asked(job, run_dir, 3, [reused])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(asked.answers) == list(asked.receipts) == ids[:3]
    assert asked.n_answers == len(ids)
    assert peak < 8 * N_OF_PART * N_CHARS, "a few parts of them, never all"


def test_an_answer_that_told_no_usage_is_foretold_at_what_was_paid(tmp_path: Path) -> None:
    note = {"note": NOTE}
    job = make_job(tmp_path, note, provider="anthropic", model="claude-opus-5-5")

    def costs(usage: Usage) -> list[float | None]:
        entry = AnswerEntry("k", "u", "body", "p", Answer("", "stop", "claude-opus-5-5", usage), 1.25)
        return [costs_of(job, in_batches=road)(entry) for road in (None, False, True)]

    assert costs(Usage()) == [1.25] * 3
    as_paid, online, batched = costs(Usage(1_000, 2_000))
    assert as_paid == 1.25 and online is not None and batched == pytest.approx(online / 2)


def test_it_is_kept_beside_the_ledger_and_read_again(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert kept(run_dir) is None
    genre = GenreForecast(
        "note", 4, 3, 900, Interval(300, 250, 350), Interval(0.75, 0.3, 0.9), Interval(4, 3, 5), None, None
    )
    found = Forecast("hash", 900, (genre,), Interval(4, 3, 5), None, Interval(1.5, 1.0, 2.0))
    keep(run_dir, found)
    assert kept(run_dir) == found
    (tmp_path / PATH).write_text('{"recipe_hash": 3}')
    with pytest.raises(DamagedError, match=r"forecast.json: not a forecast.*delete the file"):
        kept(run_dir)
