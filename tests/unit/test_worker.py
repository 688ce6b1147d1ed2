"""A worker: orders in, receipts out; every message may be lost or repeated, and nothing leaves before it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support import LETTER, NOTE, QUESTION, make_job

from sdf.documents import Meter
from sdf.errors import SdfError, Unauthorized
from sdf.job import Job
from sdf.ledger import read_answers, read_ledger, read_settlements
from sdf.orders import Answered, Batch, BriefOrder, Order, RoundOrder, name_of
from sdf.plan import Plan
from sdf.providers import offline
from sdf.records import Answer, Receipt, Request, RoundKey, RoundReceipt, Settlement
from sdf.storage import RunDir
from sdf.worker import Worker

T = TypeVar("T")
GENRES = {"note": NOTE, "letter": LETTER, "question": QUESTION}
LETTERS = [BriefOrder("letter", index) for index in range(6)]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"), GENRES)


def working(
    job: Job, folder: Path, body: Callable[[Worker], Awaitable[T]], answered: Sequence[Answered] = (), name: str = "w"
) -> T:
    async def whole() -> T:
        worker = Worker(job, RunDir(folder), 1, name, answered)
        try:
            return await body(worker)
        finally:
            await worker.close()

    return asyncio.run(asyncio.wait_for(whole(), 60))


async def all_of(worker: Worker, orders: Sequence[Order]) -> list[Receipt | RoundReceipt]:
    """Hands the orders over, and collects until nothing is open."""
    found: list[Receipt | RoundReceipt] = []
    batch = await worker.exchange(orders, 0)
    while True:
        found += [*batch.receipts, *batch.rounds]
        if batch.error is not None:
            raise batch.error
        if not batch.n_open:
            return found
        batch = await worker.exchange((), batch.number)


def test_every_order_comes_back_as_the_receipt_of_its_brief(job: Job, tmp_path: Path) -> None:
    receipts = working(job, tmp_path, lambda worker: all_of(worker, LETTERS))
    plan = Plan(job)
    found = {each.index: each.brief for each in receipts if isinstance(each, Receipt)}
    assert found == {index: plan.brief("letter", index).id for index in range(6)} and len(receipts) == 6
    assert {each.basis for each in receipts if isinstance(each, Receipt)} == {Meter(job).basis("letter")}


def test_a_receipt_leaves_only_after_its_answers_are_durable(job: Job, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)

    async def watched(worker: Worker) -> None:
        batch = await worker.exchange(LETTERS, 0)
        while not batch.receipts:
            batch = await worker.exchange((), batch.number)
        settlements = read_settlements(run_dir, [each.location for each in batch.receipts])
        for settlement, each in zip(settlements, batch.receipts, strict=True):
            assert isinstance(settlement, Settlement) and settlement.brief == each.brief
            assert read_answers(run_dir, [used.location for used in settlement.answers])

    working(job, tmp_path, watched)


def test_a_repeated_order_is_carried_out_once(job: Job, tmp_path: Path) -> None:
    async def nagged(worker: Worker) -> tuple[list[Any], Batch]:
        for _ in range(3):
            await worker.exchange(LETTERS, 0, patience=0)
        receipts = await all_of(worker, LETTERS)
        return receipts, await worker.exchange(LETTERS, 0, patience=0)

    receipts, batch = working(job, tmp_path, nagged)
    assert sorted(each.index for each in receipts) == [0, 1, 2, 3, 4, 5]
    assert batch.n_requests == 6 and read_ledger(RunDir(tmp_path)).n_answers == 6


def test_receipts_are_handed_over_until_they_are_acknowledged(job: Job, tmp_path: Path) -> None:
    async def forgetful(worker: Worker) -> tuple[Batch, Batch, Batch]:
        batch = await worker.exchange(LETTERS, 0)
        while batch.n_open:
            batch = await worker.exchange((), 0)
        again = await worker.exchange((), 0)
        return batch, again, await worker.exchange((), again.number, patience=0)

    first, again, after = working(job, tmp_path, forgetful)
    assert again.receipts == first.receipts and len(first.receipts) == 6
    assert after.receipts == () and after.n_requests == 6


def test_a_round_comes_back_with_an_angle_for_every_place(job: Job, tmp_path: Path) -> None:
    key = RoundKey("note", job.constitution.principles[0].id, 0, 0)
    (found,) = working(job, tmp_path, lambda worker: all_of(worker, [RoundOrder(key, ())]))
    assert isinstance(found, RoundReceipt) and found.key == key and len(found.angles) == 4
    assert None not in found.angles
    assert read_ledger(RunDir(tmp_path)).rounds[0].angles == found.angles


def test_a_round_does_not_queue_behind_documents(job: Job, tmp_path: Path) -> None:
    """What it finds is what the documents after those wait for."""
    narrow = replace(job, recipe=job.recipe.changed({"in_flight": 1}))
    key = RoundKey("note", job.constitution.principles[0].id, 0, 0)
    found = working(narrow, tmp_path, lambda worker: all_of(worker, [*LETTERS, RoundOrder(key, ())]))
    rows = {type(each): each.location.row for each in sorted(found, key=lambda each: each.location)}
    assert rows[RoundReceipt] < rows[Receipt]


def test_orders_have_names(job: Job) -> None:
    key = RoundKey("note", "p", 0, 0)
    orders = [*LETTERS, BriefOrder("note", 0), RoundOrder(key, ()), RoundOrder(key._replace(lane=1), ())]
    assert len({name_of(order) for order in orders}) == len(orders)
    assert name_of(BriefOrder("note", 0, "x")) == name_of(BriefOrder("note", 0))


@pytest.mark.parametrize("own", [True, False])
def test_what_was_answered_is_not_paid_again(job: Job, tmp_path: Path, own: bool) -> None:
    first = working(job, tmp_path / "a", lambda worker: all_of(worker, LETTERS))
    run_dir = RunDir(tmp_path / "a")
    answered = Answered(run_dir, read_ledger(run_dir).keys, own)

    async def counted(worker: Worker) -> tuple[list[Any], Batch]:
        return await all_of(worker, LETTERS), await worker.exchange((), 10**6, patience=0)

    folder = tmp_path / "a" if own else tmp_path / "b"
    receipts, batch = working(job, folder, counted, [answered], name="v")
    assert batch.n_requests == 0 and batch.usage.output_tokens == 0
    assert {(e.brief, e.n_tokens) for e in receipts} == {(e.brief, e.n_tokens) for e in first if isinstance(e, Receipt)}
    # Another run's answers are copied; one's own are referred to where they lie.
    assert read_ledger(RunDir(folder)).n_answers == 6
    assert len(read_ledger(RunDir(folder)).keys) == 6


def test_briefs_that_send_the_same_request_buy_one_answer(tmp_path: Path) -> None:
    """Twins share their slot, and so the draw: where a step does not read the twin axis, it is one purchase."""
    text = LETTER.replace("calls the reader {{ brief.twin }}, on", "is on")
    job = make_job(tmp_path / "job", {"letter": text})

    async def counted(worker: Worker) -> tuple[list[Any], Batch]:
        return await all_of(worker, LETTERS), await worker.exchange((), 10**6, patience=0)

    receipts, batch = working(job, tmp_path / "out", counted)
    assert len({each.brief for each in receipts}) == 6 and batch.n_requests == 3


class Provider(offline.Offline):
    """The offline provider with something in its way."""

    way: Callable[[Request], None] = staticmethod(lambda request: None)
    gate: asyncio.Event | None = None

    async def answer(self, request: Request) -> Answer:
        type(self).way(request)
        if type(self).gate is not None:
            await type(self).gate.wait()
        return await super().answer(request)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> type[Provider]:
    kind = type("Hindered", (Provider,), {})
    monkeypatch.setattr(offline, "Offline", kind)
    return kind


def test_an_error_of_the_provider_stops_the_worker_and_is_told(
    job: Job, tmp_path: Path, provider: type[Provider]
) -> None:
    def refuse(request: Request) -> None:
        raise Unauthorized("the key is wrong")

    provider.way = staticmethod(refuse)
    with pytest.raises(Unauthorized, match="the key is wrong"):
        working(job, tmp_path, lambda worker: all_of(worker, LETTERS))
    assert read_ledger(RunDir(tmp_path)).receipts == []


def test_a_fault_of_our_own_is_told_too_instead_of_waiting_for_ever(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Meter, drafts: object) -> list[Any]:
        raise ZeroDivisionError("in a check")

    monkeypatch.setattr(Meter, "measure", fails)
    with pytest.raises(SdfError, match="unexpected ZeroDivisionError"):
        working(job, tmp_path, lambda worker: all_of(worker, LETTERS))
    assert "ZeroDivisionError" in caplog.text


def test_draining_ends_what_is_in_flight_and_drops_what_has_not_begun(
    job: Job, tmp_path: Path, provider: type[Provider]
) -> None:
    narrow = replace(job, recipe=job.recipe.changed({"in_flight": 2}))

    async def drained(worker: Worker) -> Batch:
        provider.gate = asyncio.Event()
        await worker.exchange(LETTERS, 0, patience=0)
        await asyncio.sleep(0)
        await worker.drain()
        provider.gate.set()
        batch = await worker.exchange((), 0)
        while batch.n_open:
            batch = await worker.exchange((), 0)
        return batch

    batch = working(narrow, tmp_path, drained)
    assert [each.index for each in batch.receipts] == [0, 1] and batch.n_requests == 2 and batch.error is None


def test_closing_keeps_what_was_settled(job: Job, tmp_path: Path) -> None:
    async def hurried(worker: Worker) -> None:
        await worker.exchange(LETTERS, 0, patience=0)
        for _ in range(200):
            await asyncio.sleep(0)

    working(job, tmp_path, hurried)
    assert len(read_ledger(RunDir(tmp_path)).receipts) == 6


@pytest.mark.parametrize(
    ("setting", "reason"),
    [({"refuse": "1"}, "refused (offline)"), ({"truncate": "1"}, "truncated"), ({"unparsable": "1"}, None)],
)
def test_a_brief_that_fails_by_its_own_fault_is_settled_with_its_reason(
    job: Job, tmp_path: Path, setting: dict[str, str], reason: str | None
) -> None:
    faulty = replace(job, recipe=job.recipe.changed({"provider_settings": setting}))
    order = BriefOrder("note", 0, "an idea")
    (found,) = working(faulty, tmp_path, lambda worker: all_of(worker, [order]))
    assert isinstance(found, Receipt) and found.n_tokens == 0 and found.basis is None
    assert (
        found.reason == reason if reason else found.reason is not None and found.reason.startswith(("unpars", "empty"))
    )
