"""What a directory has cost beyond what its answers prove, from records alone: each request counts once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from sdf.errors import DamagedError
from sdf.grants.spent import Spent, spent_in
from sdf.grants.treasury import grants_path
from sdf.ledger import KeyIndex, LedgerView
from sdf.providers.batch_log import BatchLog
from sdf.records import Location, Usage
from sdf.storage import RunDir

A, B = "a" * 32, "b" * 32


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def log(run_dir: RunDir, writer: str) -> BatchLog:
    return BatchLog(run_dir, writer, clock=lambda: 1_000.0)


def granted(run_dir: RunDir, epoch: int, returned: float = 0.0, **workers: float) -> None:
    """By worker ("w0" for "w0-000"); what came back is of each."""
    record = {f"{name}-000": {"granted": usd, "returned": returned} for name, usd in workers.items()}
    run_dir.write(grants_path(epoch), json.dumps({"workers": record}).encode())


def spent(run_dir: RunDir, answers: Mapping[str, tuple[str, float]] | None = None) -> Spent:
    """`answers`: by key whose ledger holds it ("000002/w0-000"), and its dollars."""
    answers = answers or {}
    places = [(key, Location(f"{writer}-000000", 0)) for key, (writer, _) in answers.items()]
    view = LedgerView([], [], [], KeyIndex.of(places), (), len(places), {}, Usage(), dict(answers.values()))
    return spent_in(run_dir, view)


def test_what_a_killed_worker_submitted_counts_once_at_its_worst(run_dir: RunDir) -> None:
    log(run_dir, "000001-w0-000").intend([A, B], [1.0, 2.0])
    granted(run_dir, 1, w0=3.5)
    assert spent(run_dir).presumed == pytest.approx(3.5), "both, and half a dollar of which nobody knows"
    found = spent(run_dir, {A: ("000001/w0-000", 0.25)})
    assert (found.proved, found.presumed) == pytest.approx((0.25, 3.25)), "of its grant the rest may be spent as well"


def test_what_a_killed_worker_without_a_cap_had_presumed_stays_presumed(run_dir: RunDir) -> None:
    record = {"w0-000": {"granted": 0.0, "returned": -3.0, "assumed": 1.0}}
    run_dir.write(grants_path(1), json.dumps({"workers": record}).encode())
    # It went on for a second after that was written.
    found = spent(run_dir, {A: ("000001/w0-000", 5.0)})
    assert (found.proved, found.presumed) == pytest.approx((5.0, 1.0))


def test_what_another_waits_for_counts_once_too(run_dir: RunDir) -> None:
    log(run_dir, "000001-w0-000").intend([A], [1.0])
    granted(run_dir, 1, w0=1.0)
    log(run_dir, "000002-w0-000").take({A: 1.0}, inherited={A})
    # Killed while it waited, with a request of its own in flight.
    granted(run_dir, 2, w0=0.5)
    assert spent(run_dir).presumed == pytest.approx(1.5)
    log(run_dir, "000003-w0-000").take({A: 1.0}, inherited={A})
    granted(run_dir, 3, w0=0.1)
    assert spent(run_dir).presumed == pytest.approx(1.6)
    found = spent(run_dir, {A: ("000003/w0-000", 0.3)})
    assert found.total == pytest.approx(0.5 + 0.1 + 1.0), "what it inherited and A did not cost, others may have"
    granted(run_dir, 3, returned=0.8, w0=0.1)
    found = spent(run_dir, {A: ("000003/w0-000", 0.3)})
    assert found.total == pytest.approx(0.5 + 0.3), "unless it came back"


def test_a_worker_that_takes_over_within_a_run_sets_aside_its_own(run_dir: RunDir) -> None:
    log(run_dir, "000001-w0-000").intend([A], [1.0])
    log(run_dir, "000001-w1-000").take({A: 0.9}, inherited=set())
    granted(run_dir, 1, w0=1.0, w1=0.9)
    assert spent(run_dir).presumed == pytest.approx(1.0)
    assert spent(run_dir, {A: ("000001/w1-000", 0.9)}).total == pytest.approx(0.9)


def test_what_a_batch_did_not_answer_is_not_billed(run_dir: RunDir) -> None:
    first, second = log(run_dir, "000001-w0-000"), log(run_dir, "000002-w0-000")
    sent = first.intend([A, B], [1.0, 2.0])
    granted(run_dir, 1, w0=3.0)
    second.take({A: 1.0, B: 2.0}, inherited={A, B})
    (found,) = second.known()
    second.end(found, unbilled=[A])
    assert spent(run_dir).presumed == pytest.approx(2.0)
    granted(run_dir, 2, w0=0.25)
    assert spent(run_dir).presumed == pytest.approx(3.25), "it had A's dollar for whatever it asked next"
    second.intend([A], [1.0])
    assert spent(run_dir).presumed == pytest.approx(3.25), "as it was A again"
    assert first.holding([A]).keys() == {A} and first.holding([A])[A][0].name != sent.name


def test_money_of_what_came_back_unanswered_may_have_gone_elsewhere(run_dir: RunDir) -> None:
    log(run_dir, "000001-w0-000").intend([A], [1.0])
    second = log(run_dir, "000002-w0-000")
    second.take({A: 1.0}, inherited={A})
    second.end(second.known()[0], unbilled=[A])
    granted(run_dir, 2, w0=0.25)
    log(run_dir, "000003-w0-000").intend([A], [1.0])
    granted(run_dir, 3, w0=1.0)
    assert spent(run_dir).presumed == pytest.approx(1.25 + 1.0)
    assert spent(run_dir, {A: ("000003/w0-000", 1.0)}).total == pytest.approx(1.25 + 1.0)


def test_results_that_are_lost_stay_presumed(run_dir: RunDir) -> None:
    log(run_dir, "000001-w0-000").intend([A], [1.0])
    granted(run_dir, 1, w0=1.0)
    later = log(run_dir, "000002-w0-000")
    later.end(later.known()[0], lost=[A])
    later.intend([A], [0.9])
    granted(run_dir, 2, w0=0.9)
    assert spent(run_dir).presumed == pytest.approx(1.9)
    assert spent(run_dir, {A: ("000002/w0-000", 0.2)}).presumed == pytest.approx(1.0 + 0.7)


def test_who_waited_for_results_that_are_lost_holds_their_money_and_that_of_asking_again(run_dir: RunDir) -> None:
    log(run_dir, "000001-w0-000").intend([A], [1.0])
    later = log(run_dir, "000002-w0-000")
    later.take({A: 1.0}, inherited={A})
    later.end(later.known()[0], lost=[A])
    # What it inherited is spent, and as much set aside for asking again: of this nothing came back.
    later.intend([A], [1.0])
    granted(run_dir, 2, w0=1.0)
    assert spent(run_dir).presumed == pytest.approx(2.0)
    granted(run_dir, 2, returned=0.7, w0=1.0)
    found = spent(run_dir, {A: ("000002/w0-000", 0.3)})
    assert (found.proved, found.presumed) == pytest.approx((0.3, 1.0))
    # Whoever waits for the second one is no part of that.
    granted(run_dir, 2, w0=1.0)
    log(run_dir, "000003-w0-000").take({A: 1.0}, inherited={A})
    granted(run_dir, 3, w0=0.5)
    assert spent(run_dir).presumed == pytest.approx(2.5)
    granted(run_dir, 3, returned=0.7, w0=0.5)
    assert spent(run_dir, {A: ("000003/w0-000", 0.3)}).total == pytest.approx(1.0 + 0.8)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("000001-w0-000-0000.ended.json", {"by": "nobody", "unbilled": [A], "lost": []}),
        ("000001-w0-000-0000.ended.json", {"by": 7, "unbilled": [A], "lost": []}),
        ("000002-w0-000-0000.taken.json", {"ids": [A], "usd": [1.0]}),
        ("000002-w0-000-0000.taken.json", {"ids": ["?"], "usd": [1.0], "is_inherited": [True]}),
    ],
)
def test_a_record_that_is_none_is_named(name: str, content: dict[str, object], run_dir: RunDir) -> None:
    log(run_dir, "000001-w0-000").intend([A], [1.0])
    run_dir.write(f"batches/{name}", json.dumps(content).encode())
    with pytest.raises(DamagedError, match=f"batches/{name}: not a record"):
        spent(run_dir)


def test_a_batch_that_was_never_created_costs_nothing_else(run_dir: RunDir) -> None:
    first = log(run_dir, "000001-w0-000")
    first.void(first.intend([A], [1.0]))
    assert spent(run_dir).presumed == 0.0
    granted(run_dir, 1, w0=1.0)
    assert spent(run_dir).presumed == 1.0, "its money was free for what it asked next"
