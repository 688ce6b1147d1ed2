"""Message batches as a run and its directory see them: what is waited for, what is left, and how it is canceled."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from sdf import providers
from sdf.errors import RecipeError, UsageError
from sdf.job import Job
from sdf.ledger import KeyIndex, read_ledger
from sdf.providers import Batched
from sdf.providers.batch_log import BATCHES, BatchLog, Cancellation, Sent, UnderWay
from sdf.storage import RunDir

log = logging.getLogger(__name__)


class UnderWays:
    """What each worker of a run waits for; says once of each batch that it is under way, and that it came."""

    def __init__(self) -> None:
        self._by_worker: dict[str, tuple[UnderWay, ...]] = {}
        self._said: set[str] = set()
        self._came: set[str] = set()

    def hear(self, worker: str, under_way: Iterable[UnderWay], *, is_ending: bool = False) -> None:
        """A worker's newest word; nothing, when it is gone. One that is ending waits no longer for what goes on."""
        before = {each.batch for each in self.all if each.batch is not None}
        self._by_worker[worker] = tuple(under_way)
        now = {each.batch: each.n_requests for each in self.all if each.batch is not None}
        for batch, n_requests in now.items():
            if batch not in self._said:
                self._said.add(batch)
                log.info("%s is under way: %s requests", batch, f"{n_requests:,}")
        if is_ending:
            return
        for batch in sorted(before - now.keys() - self._came):
            self._came.add(batch)
            log.info("%s has ended, and is collected", batch)

    @property
    def all(self) -> tuple[UnderWay, ...]:
        """Each batch once, the oldest first, with all who wait for it."""
        found: dict[str, UnderWay] = {}
        for each in (each for under_way in self._by_worker.values() for each in under_way):
            n_before = found[each.name].n_requests if each.name in found else 0
            found[each.name] = each._replace(n_requests=n_before + each.n_requests)
        return tuple(sorted(found.values(), key=lambda each: (each.at, each.name)))


@dataclass(frozen=True, slots=True)
class Canceled:
    """What became of the batches of a directory, by id. `unclear`: the reply to one was lost, and these may be it;
    `unknown`: the API does not know them with this key."""

    canceled: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def together(parts: Sequence[Canceled]) -> Canceled:
    """Of several directories."""
    return Canceled(
        tuple(batch for part in parts for batch in part.canceled),
        tuple(batch for part in parts for batch in part.unclear),
        tuple(batch for part in parts for batch in part.unknown),
    )


def submitting(out: RunDir, within: Sequence[RunDir]) -> list[RunDir]:
    """Those of the directories in `out` from which batches were submitted. UsageError when there is none."""
    found = [each for each in within if each.children(BATCHES)]
    if not found:
        raise _none_submitted(out)
    return found


def _none_submitted(run_dir: RunDir) -> UsageError:
    return UsageError(f"{run_dir.root}: no batch was ever submitted from here, so there is none to cancel")


def uncollected(run_dir: RunDir, keys: KeyIndex) -> tuple[UnderWay, ...]:
    """Batches on record that may yet answer requests to which no answer of the ledger (`keys`) belongs, the oldest
    first."""
    known = BatchLog(run_dir, "look").known()
    left = [(sent, sum(not sent.is_free(key) and keys.find(key) is None for key in sent.ids)) for sent in known]
    return tuple(UnderWay(sent.name, sent.batch, n, sent.at) for sent, n in left if n)


def check_collected(job: Job, run_dir: RunDir) -> None:
    """A batch is never abandoned to online calls. RecipeError when answers wait at the API that the job, which asks
    for no batches, would pay for again."""
    if is_batched(job) or not run_dir.children(BATCHES):
        return
    left = uncollected(run_dir, read_ledger(run_dir).keys)
    if left:
        n_requests = sum(each.n_requests for each in left)
        raise RecipeError(
            f"{run_dir.root}: {n_requests:,} requests in {len(left)} batches were submitted and not collected; "
            "provider anthropic-batch collects them. To have them asked, and paid for, anew: `sdf cancel "
            f"{run_dir.root}`, then delete {run_dir.root}/{BATCHES}"
        )


async def cancel(job: Job, run_dir: RunDir) -> Canceled:
    """Cancels what is on record and goes on. UsageError when no batch was ever submitted from the directory."""
    log_ = BatchLog(run_dir, "cancel")
    known = log_.known()
    if not known:
        raise _none_submitted(run_dir)
    backends = {job.recipe.backend_of(seat) for seat in job.seats}
    async with AsyncExitStack() as stack:
        accounts: list[Batched] = []
        for backend in sorted(each for each in backends if each.provider in providers.BATCHED):
            accounts.append(providers.make_batched(backend.provider, dict(backend.settings), log_))
            stack.push_async_callback(accounts[-1].close)
        found = [await _cancel(accounts, sent) for sent in known]

    def of(kind: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(batch for each in found if each.kind == kind for batch in each.batches))

    return Canceled(of("canceled"), of("unclear"), of("unknown"))


async def _cancel(accounts: Sequence[Batched], sent: Sent) -> Cancellation:
    """Of several accounts one knows the batch."""
    found = Cancellation("ended")
    for account in accounts:
        found = await account.cancel(sent)
        if found.kind != "unknown":
            break
    return found


def is_batched(job: Job) -> bool:
    """Whether any of its models is asked in batches."""
    return any(job.recipe.backend_of(seat).provider in providers.BATCHED for seat in job.seats)
