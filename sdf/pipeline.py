"""THE STORY: plan -> generate -> ledger -> assemble -> shards. What every other way of running must equal.

    orders ──▶ worker ──▶ receipts ──▶ fold ──▶ cuts ──▶ shards ──▶ manifest
      ▲                                  │
      └──── missing tokens / yield ──────┘

`run` tells it with any crew: here one worker in this process, in `driver` many on Ray. A worker that is lost
leaves what it flushed; its receipts are read back and the rest of its orders are given again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sdf.assemble import Cut, Terms
from sdf.batches import UnderWays
from sdf.crew import Crew, Hand, WorkerLost
from sdf.errors import CircuitOpen, SdfError, StorageError, StorageFull, Superseded
from sdf.failpoints import reach
from sdf.grants.spending import Spending
from sdf.job import Job
from sdf.ledger import SettlementLog, read_ledger
from sdf.manifest import Manifest, Shard, State
from sdf.money.allowance import FREELY
from sdf.orders import Answered, Batch, Order, name_of
from sdf.reading import Reader, is_written
from sdf.records import Usage
from sdf.shards import publish, read_manifest, write_rejections
from sdf.shards.card import write_card
from sdf.storage import RunDir, check_epoch
from sdf.storage.lease import RENEW_EVERY, STALE_AFTER, Lease
from sdf.story import Outcome, Progress, Story, facts_of

log = logging.getLogger(__name__)

# Orders at a worker beyond those in flight: what it can settle while a message travels.
QUEUE_AHEAD = 4

# A run whose workers die this often without one receipt between is not going to get better.
MAX_DEATHS = 8


@dataclass(slots=True)
class Stop:
    """A request to end early: drain, commit what is ready, exit. `error` is raised once that is done."""

    requested: bool = False
    error: SdfError | None = None

    def request(self, error: SdfError | None = None) -> None:
        self.requested = True
        self.error = self.error or error


@dataclass
class Run:
    """One run on one directory: a story, a crew, and the commits between them."""

    job: Job
    run_dir: RunDir
    lease: Lease
    terms: Terms
    crew: Crew
    reuse: Sequence[RunDir] = ()
    stop: Stop = field(default_factory=Stop)
    report: Callable[[Progress], None] = lambda _: None
    # A preview fills the ledger and commits nothing.
    commits: bool = True

    def __post_init__(self) -> None:
        self._log = SettlementLog(self.run_dir, self.lease.epoch)
        self._hands: dict[str, Hand] = {}
        self._paid: dict[str, tuple[int, Usage]] = {}
        self._batches = UnderWays()
        self._deaths = 0
        self._fold_failed = False
        self._turn = asyncio.Lock()
        self._writing: deque[tuple[Cut, asyncio.Task[Shard]]] = deque()

    def _open(self) -> None:
        """Reads what is there. Minutes for a large ledger of another version, so the lease is renewed meanwhile."""
        self._view = read_ledger(self.run_dir)
        for path in self._view.damaged:
            log.warning("%s/%s is damaged: what it held is generated again", self.run_dir.root, path)
        measured = Reader(self.job, self.run_dir).measure(self._view.receipts)
        self._view = replace(self._view, receipts=list(measured))
        self._story = Story(self.job, self.terms, self._log, self._view)
        self._spending = Spending(self.job, self.run_dir, self.lease.epoch, self._view)
        self._before = read_manifest(self.run_dir)
        self._answered = [Answered(self.run_dir, self._view.keys, own=True)]
        self._answered += [_answered_elsewhere(other) for other in self.reuse]

    async def tell(self) -> Outcome:
        """Runs until the target is reached or `stop` is requested; commits, then raises what stopped it."""
        beats = asyncio.get_running_loop().create_task(self._renew())
        try:
            await asyncio.to_thread(self._open)
            # All that is settled at once: seconds for a large ledger, and the lease must be renewed meanwhile.
            await asyncio.to_thread(self._story.fold.advance)
            await self._fold()
            n_workers = self.job.recipe.workers
            await asyncio.gather(*(self._tend(number) for number in range(n_workers)))
            if self.commits and not self._fold_failed:
                await self._publish_last()
            self._log.flush()
            await self._spending.keep()
            self._report()
        finally:
            beats.cancel()
            # One error ends the run; those of other shards must not be reported as if nobody had asked.
            await asyncio.gather(*(task for _, task in self._writing), return_exceptions=True)
        if self.stop.error is not None:
            raise self.stop.error
        return self._outcome()

    @property
    def _over(self) -> bool:
        return self._story.fold.finished or self.stop.requested

    async def _tend(self, number: int) -> None:
        """Keeps one place filled: a worker, and its successor when it is lost. An error ends the run."""
        incarnation = 0
        while not self._over:
            name = f"w{number:04d}-{incarnation:03d}"
            incarnation += 1
            try:
                await self._employ(name)
            except SdfError as error:
                self.stop.request(error)

    async def _employ(self, name: str) -> None:
        """A worker from its hiring to its end, well or not."""
        given: dict[object, Order] = {}
        try:
            n_known = len(self._answered)
            hand = await self.crew.hire(name, self._answered)
            self._hands[name] = hand
            self._spending.hire(name)
            if missed := self._answered[n_known:]:
                # What others lost while this one was starting.
                await hand.adopt(missed)
            await self._work(name, hand, given)
            await self._drain(name, hand)
        except WorkerLost as error:
            self._hands.pop(name, None)
            self._batches.hear(name, (), is_ending=True)
            self._spending.lose(name)
            await self._recover(name, given, error)

    async def _work(self, name: str, hand: Hand, given: dict[object, Order]) -> None:
        """Until the run is over. An error of the driver's own ends it, and the worker is drained all the same."""
        acked = 0
        room = self.job.recipe.n_in_flight * QUEUE_AHEAD
        try:
            while not self._over:
                orders = self._story.dispatch.orders(room - len(given))
                given.update({name_of(order): order for order in orders})
                acked = await self._exchange(name, hand, given, orders, acked)
        except SdfError as error:
            self.stop.request(error)

    async def _exchange(
        self, name: str, hand: Hand, given: dict[object, Order], orders: Sequence[Order], acked: int
    ) -> int:
        batch = await hand.exchange(orders, acked, await self._spending.allowance(name))
        self._hear(name, batch)
        for receipt in batch.receipts:
            given.pop((receipt.genre, receipt.index), None)
        for receipt in batch.rounds:
            given.pop(tuple(str(part) for part in receipt.key), None)
        if batch.receipts or batch.rounds:
            self._deaths = 0
        self._story.receive(batch.receipts, batch.rounds)
        await self._fold()
        if batch.error is not None:
            self.stop.request(batch.error)
        return batch.number

    async def _drain(self, name: str, hand: Hand) -> None:
        """No new request; those in flight are waited for and kept, up to the drain timeout."""
        await hand.drain()
        deadline = asyncio.get_running_loop().time() + self.job.recipe.drain_timeout
        acked = 0
        while asyncio.get_running_loop().time() < deadline:
            # It sends nothing more, so that it needs no money, nor a disk on which more would be put on record.
            batch = await hand.exchange((), acked, FREELY)
            self._hear(name, batch)
            self._story.receive(batch.receipts, batch.rounds)
            acked = batch.number
            if not batch.n_open or isinstance(batch.error, StorageError):
                break
        self._spending.close(name, await hand.close())
        self._hands.pop(name, None)
        await self._fold()

    def _hear(self, name: str, batch: Batch) -> None:
        self._paid[name] = (batch.n_requests, batch.usage)
        self._batches.hear(name, batch.under_way, is_ending=self.stop.requested or batch.error is not None)
        error = self._spending.hear(name, batch.account, batch.lanes)
        # What stops the run already is the reason for what waits.
        if error is not None and not self.stop.requested:
            self.stop.request(error)

    def _report(self) -> None:
        self.report(replace(self._story.progress(), cost=self._spending.cost, under_way=self._batches.all))

    async def _recover(self, name: str, given: dict[object, Order], error: WorkerLost) -> None:
        """What the lost worker flushed counts; the rest of its orders are given to others."""
        log.warning("worker %s is lost (%s); its flushed work is kept", name, error)
        self._deaths += 1
        prefix = f"{self.lease.epoch:06d}/{name}-"
        view = await asyncio.to_thread(read_ledger, self.run_dir, parts=lambda part: part.startswith(prefix))
        if view.receipts:
            self._deaths = 0
        self._story.receive(view.receipts, view.rounds)
        recovered = Answered(self.run_dir, view.keys, own=True)
        self._answered.append(recovered)
        await asyncio.gather(*(_adopt(hand, recovered) for hand in self._hands.values()))
        self._story.dispatch.again(list(given.values()))
        await self._fold()
        if self._deaths > MAX_DEATHS:
            self.stop.request(
                CircuitOpen(f"{self._deaths} workers died one after another ({error}); all answers are kept")
            )

    async def _fold(self) -> None:
        """Folds as far as receipts reach, and sends off the shards that filled up.

        An error here (a full disk, a lost task) stops the run and the folding; the workers are still drained, so that
        what they paid for is kept.
        """
        try:
            async with self._turn:
                if not self._fold_failed:
                    await self._fold_on()
        except SdfError as error:
            self._fold_failed = True
            self.stop.request(error)
        self._report()

    async def _fold_on(self) -> None:
        while pairs := self._story.fold.advance():
            self._story.fold.learn(await self.crew.compare(pairs))
        if self.commits:
            for cut in self._story.fold.take_full():
                self._send_off(cut)
            await self._publish_ready()

    def _send_off(self, cut: Cut) -> None:
        self._writing.append((cut, asyncio.get_running_loop().create_task(self._shard(cut))))

    async def _shard(self, cut: Cut) -> Shard:
        shard = await asyncio.to_thread(self._known, cut)
        if shard is None:
            shard = await self.crew.write(cut)
            reach("shard written")
        return shard

    def _known(self, cut: Cut) -> Shard | None:
        """The shard of an earlier manifest that holds exactly this cut."""
        if self._view.damaged:
            # What was lost is answered anew, and a model that samples gives the same documents other texts.
            return None
        for shard in self._before.shards if self._before else ():
            if (shard.config, shard.split, shard.number) == (cut.config, cut.split, cut.number):
                return shard if is_written(self.run_dir, shard, cut) else None
        return None

    async def _publish_ready(self) -> None:
        """Commits, in fold order, the shards that are written."""
        n_ready = 0
        while self._writing and self._writing[0][1].done():
            cut, task = self._writing[0]
            self._story.commit(cut, task.result())
            self._writing.popleft()
            n_ready += 1
        if n_ready:
            self._publish("growing")

    async def _publish_last(self) -> None:
        """Everything folded so far, the short last shards included."""
        async with self._turn:
            for cut in self._story.fold.short():
                self._send_off(cut)
            for cut, task in self._writing:
                self._story.commit(cut, await task)
            self._writing.clear()
            self._publish("complete" if self._story.fold.finished else "growing", is_last=True)

    def _publish(self, state: State, *, is_last: bool = False) -> None:
        check_epoch(self.run_dir, self.lease.epoch)
        # What was taken first must be durable before anything made of it is published.
        self._log.flush()
        manifest = self._story.manifest(state, self._before)
        if self._before is None or _adds(manifest, self._before):
            if is_last:
                write_rejections(self.run_dir, manifest.number, self._story.fold.rejections)
            reach("manifest due")
            publish(self.run_dir, manifest)
            reach("manifest written")
            self._before = manifest
            write_card(self.run_dir, manifest, facts_of(self.job))
            reach("card written")

    async def _renew(self) -> None:
        """A store may fail now and then: only as many failures running as make the lease stale stop the run."""
        n_missed = 0
        while True:
            await asyncio.sleep(RENEW_EVERY)
            try:
                await asyncio.to_thread(self.lease.renew)
                self._log.flush()
                n_missed = 0
            except StorageError as error:
                n_missed += 1
                log.warning("the lease could not be renewed: %s", error)
                if isinstance(error, Superseded | StorageFull) or n_missed * RENEW_EVERY >= STALE_AFTER:
                    self.stop.request(error)
                    return

    def _outcome(self) -> Outcome:
        fold = self._story.fold
        folded = sum(tally.next for tally in fold.tallies.values())
        return Outcome(
            self._before,
            fold.finished,
            self._story.unmet,
            sum(n_requests for n_requests, _ in self._paid.values()),
            sum((usage for _, usage in self._paid.values()), Usage()),
            self._story.n_settled - folded,
            self._view.rebilled,
            self._spending.cost,
        )


def _answered_elsewhere(other: RunDir) -> Answered:
    view = read_ledger(other)
    if not view.n_answers:
        raise StorageError(f"{other.root}: holds no answers to reuse; give the directory that `sdf run` wrote")
    return Answered(other, view.keys, own=False)


async def _adopt(hand: Hand, answered: Answered) -> None:
    # Lost too: its own tender recovers it.
    with contextlib.suppress(WorkerLost):
        await hand.adopt([answered])


def _adds(manifest: Manifest, before: Manifest) -> bool:
    """A resumed run folds anew from the start: until it is past what is committed, it has nothing to say.

    Unless it is at its end: documents that were lost and answered anew may be longer, and so fewer.
    """
    at_its_end = manifest.state == "complete" and manifest.target_tokens >= before.target_tokens
    if manifest.n_documents < before.n_documents and not at_its_end:
        return False
    return (manifest.shards, manifest.state, manifest.target_tokens) != (
        before.shards,
        before.state,
        before.target_tokens,
    )
