"""The same story on Ray: workers are actors, shards and comparisons are tasks, the driver carries receipts.

Ray places and supervises; it holds no truth. Actors ask for no CPUs and are counted by us, so eight workers run on
one core. Nothing is retried by Ray, because a retried call repeats its side effects: a lost actor is replaced by the
story under a new name, and a call that may or may not have arrived is repeated by us, which `exchange` allows.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sdf.assemble import Cut, Pair
from sdf.crew import WorkerLost
from sdf.errors import EngineDead, RecipeError, SdfError, UsageError
from sdf.eventloop import COLLECT_EVERY
from sdf.job import Job
from sdf.manifest import Shard
from sdf.money.allowance import Account, Allowance
from sdf.orders import Answered, Batch, Order
from sdf.preflight import Finding, preflight
from sdf.providers.vllm.arguments import NAME as VLLM
from sdf.providers.vllm.arguments import gpus_per_engine
from sdf.reading import Reader
from sdf.storage import RunDir
from sdf.warned import Kept, Said
from sdf.worker import Worker

log = logging.getLogger(__name__)

# Shards written at once: each holds about 60 MB while it is made.
TASKS_AT_ONCE = 4

# A link that is cut shows up as "unavailable". Ray needs up to 18 s to see that a node died; whoever gives its
# workers up sooner finds the node alive still, and puts their successors there.
MAX_UNAVAILABLE = 12
UNAVAILABLE_PAUSE = 2.0

PROBE_SECONDS = 10.0

# An actor that gives no sign for so long hangs outside its loop; `exchange` itself answers within a second.
SILENCE = 120.0


def connect(address: str, n_workers: int) -> None:
    """auto: the cluster this environment points to, else a local one; local: a local one; else that address."""
    if ray.is_initialized():
        return
    logging.getLogger("ray").setLevel(logging.WARNING)
    # ray.init takes SIGTERM over and dies of it; the caller's handler drains.
    caught = signal.getsignal(signal.SIGTERM)
    try:
        _connect(address, n_workers)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, caught)


def _connect(address: str, n_workers: int) -> None:
    options: dict[str, Any] = {
        "log_to_driver": False,
        "configure_logging": False,
        "include_dashboard": False,
        "namespace": "sdf",
    }
    wanted = os.environ.get("RAY_ADDRESS") if address == "auto" else None if address == "local" else address
    if wanted is None:
        # That a local Ray lets nobody else in is a warning to Ray, and to nobody who waits for a corpus.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        # Workers import this package by its name; a source tree that is not installed must be told.
        ray.init(address="local", num_cpus=max(2, min(n_workers, os.cpu_count() or 2)), **options)
        return
    options.pop("include_dashboard")
    _probe(wanted)
    try:
        ray.init(address=wanted, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"--ray {wanted}: no cluster answers there ({error}); start one, or use --ray local") from None


def _probe(address: str) -> None:
    """ray.init waits for minutes on an address where nothing listens; one connection tells at once."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        if address == "auto" or "://" in address:
            return
        raise UsageError(f"--ray {address}: not an address; write HOST:PORT, auto, local or none")
    try:
        socket.create_connection((host, int(port)), PROBE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--ray {address}: nothing answers there ({error}); start a cluster, or use --ray local"
        ) from None


@ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)
class _Actor:
    """A worker in a process of its own. Build work happens on the first call, inside the actor's event loop."""

    def __init__(self, job: Job, run_dir: RunDir, epoch: int, name: str) -> None:
        self._built = (job, run_dir, epoch, name)
        self._worker: Worker | None = None
        self._warned = Kept.of_this_process()

    async def start(self, answered: Sequence[Answered]) -> int:
        if self._worker is None:
            self._worker = Worker(*self._built, answered)
            # Modules, vocabulary and plan live as long as the process: collecting among them took 4 % of its time.
            gc.freeze()
            gc.set_threshold(COLLECT_EVERY)
        return os.getpid()

    async def exchange(self, orders: Sequence[Order], acked: int, allowance: Allowance) -> Batch:
        assert self._worker is not None
        return replace(await self._worker.exchange(orders, acked, allowance), warned=self._warned.texts)

    async def adopt(self, answered: Sequence[Answered]) -> None:
        assert self._worker is not None
        await self._worker.adopt(answered)

    async def drain(self) -> None:
        assert self._worker is not None
        await self._worker.drain()

    async def close(self) -> Account:
        assert self._worker is not None
        return await self._worker.close()


class _Hand:
    """The driver's side of an actor: every call repeated while Ray cannot tell whether it arrived."""

    def __init__(self, actor: Any, said: Said) -> None:
        self._actor, self._said = actor, said
        # It closed or was lost: its place is free.
        self.is_gone = False

    async def start(self, answered: Any) -> None:
        await self._call("start", answered)

    async def exchange(self, orders: Sequence[Order], acked: int, allowance: Allowance) -> Batch:
        batch: Batch = await self._call("exchange", orders, acked, allowance)
        self._said.hear(batch.warned)
        if isinstance(batch.error, EngineDead):
            # Only a new process can have a new engine; what is settled is flushed, and read back from the ledger.
            await self.close()
            raise WorkerLost(str(batch.error))
        return batch

    async def adopt(self, answered: Sequence[Answered]) -> None:
        await self._call("adopt", answered)

    async def drain(self) -> None:
        await self._call("drain")

    async def close(self) -> Account:
        account = await self._call("close")
        self.is_gone = True
        ray.kill(self._actor)
        return account

    async def _call(self, method: str, *arguments: Any) -> Any:
        for _ in range(MAX_UNAVAILABLE):
            try:
                return await asyncio.wait_for(getattr(self._actor, method).remote(*arguments), SILENCE)
            except ActorUnavailableError:
                log.warning("a worker is unavailable; asking again")
                await asyncio.sleep(UNAVAILABLE_PAUSE)
            except RayTaskError as error:
                raise _own(error) from None
            except (asyncio.TimeoutError, GetTimeoutError):
                break
            # Whatever else: an actor that the memory monitor killed is no RayActorError.
            except RayError as error:
                self.is_gone = True
                raise WorkerLost(_first_line(error)) from None
        self.is_gone = True
        ray.kill(self._actor)
        raise WorkerLost("it does not answer")


@ray.remote(num_cpus=0, max_retries=3, scheduling_strategy="SPREAD")
def _preflight(job: Job) -> list[Finding]:
    return asyncio.run(preflight(job))


@ray.remote(num_cpus=0, max_retries=3, scheduling_strategy="SPREAD")
def _write(reader: Reader, run_dir: RunDir, cut: Cut) -> Shard:
    return reader.write(run_dir, cut)


@ray.remote(num_cpus=0, max_retries=3, scheduling_strategy="SPREAD")
def _compare(reader: Reader, pairs: Sequence[Pair]) -> dict[Pair, float]:
    return reader.compare(pairs)


class RayCrew:
    """Actors and tasks for one run. The job and the index of answers are put into the object store once."""

    def __init__(self, job: Job, run_dir: RunDir, epoch: int) -> None:
        self._run_dir, self._epoch = run_dir, epoch
        self._n_gpus = gpus_per_worker(job, ray.nodes())
        self._job = ray.put(job)
        self._given = job
        self._answered: dict[int, Any] = {}
        self._tasks = asyncio.Semaphore(TASKS_AT_ONCE)
        self._places: dict[_Hand, str] = {}
        self._said = Said(log)

    @cached_property
    def _reader(self) -> Any:
        """Made when a text is first read, in a thread: a preflight is of jobs too whose rows are not made yet."""
        return ray.put(Reader(self._given, self._run_dir))

    async def preflight(self) -> list[Finding]:
        # vLLM finds out what it runs on by looking: without a GPU of its own the task would see none.
        return await self._task(_preflight.options(num_gpus=self._n_gpus), self._job)

    async def hire(self, name: str, answered: Sequence[Answered]) -> _Hand:
        n_workers = Counter(node for hand, node in self._places.items() if not hand.is_gone)
        node = place(ray.nodes(), n_workers, self._n_gpus)
        # Soft: a node that dies meanwhile is no reason to fail. One byte: Ray ignores a node asked for by an actor that
        # needs nothing, and puts it anywhere.
        strategy = NodeAffinitySchedulingStrategy(node, soft=True)
        options: dict[str, Any] = {"memory": 1, "num_gpus": self._n_gpus, "max_concurrency": 64}
        actor = _Actor.options(scheduling_strategy=strategy, **options).remote(  # pyright: ignore[reportAttributeAccessIssue]
            self._job, self._run_dir, self._epoch, name
        )
        hand = _Hand(actor, self._said)
        self._places[hand] = node
        await hand.start(self._stored(answered))
        return hand

    async def write(self, cut: Cut) -> Shard:
        return await self._task(_write, await asyncio.to_thread(lambda: self._reader), self._run_dir, cut)

    async def compare(self, pairs: Sequence[Pair]) -> dict[Pair, float]:
        return await self._task(_compare, await asyncio.to_thread(lambda: self._reader), list(pairs))

    def _stored(self, answered: Sequence[Answered]) -> Any:
        """One object for the same indexes, however many workers start with them."""
        if len(answered) not in self._answered:
            self._answered = {len(answered): ray.put(tuple(answered))}
        return self._answered[len(answered)]

    async def _task(self, function: Any, *arguments: Any) -> Any:
        async with self._tasks:
            try:
                return await function.remote(*arguments)
            except RayTaskError as error:
                raise _own(error) from None
            except RayError as error:
                raise SdfError(f"a Ray task was lost: {_first_line(error)}; run the same command to go on") from None


def gpus_per_worker(job: Job, nodes: Sequence[Mapping[str, Any]]) -> int:
    """GPUs of each worker: those of its engine, when it has one. RecipeError when the living nodes hold too few."""
    recipe = job.recipe
    engines = [backend for seat in job.seats if (backend := recipe.backend_of(seat)).provider == VLLM]
    if not engines:
        return 0
    held = [int(node["Resources"].get("GPU", 0)) for node in nodes if node["Alive"]]
    n_gpus = gpus_per_engine(dict(engines[0].settings), has_gpus=any(held))
    n_places = sum(each // n_gpus for each in held) if n_gpus else recipe.workers
    if n_places < recipe.workers:
        raise RecipeError(
            f"--workers {recipe.workers}: each runs an engine on {n_gpus} GPU(s) of one node, and the cluster has room "
            f"for {n_places} ({sum(held)} GPUs in all); lower --workers or --tensor-parallel-size, or start more nodes"
        )
    return n_gpus


def place(nodes: Sequence[Mapping[str, Any]], n_workers: Mapping[str, int], n_gpus: int = 0) -> str:
    """The id of the living node with the fewest workers per CPU; one without CPUs (a head set apart) only if no other.

    `nodes` are those of `ray.nodes()`. Ray does not spread what asks for no CPU: four actors may meet on one node.
    Where each worker takes `n_gpus`, of the nodes that have as many left; where none has, Ray waits for one.
    """

    def load(node: Mapping[str, Any]) -> tuple[bool, bool, float, str]:
        resources, n_here = node["Resources"], n_workers.get(node["NodeID"], 0) + 1
        cpus: float = resources.get("CPU", 0)
        return n_here * n_gpus > resources.get("GPU", 0), cpus == 0, n_here / (cpus or 1), node["NodeID"]

    return min((node for node in nodes if node["Alive"]), key=load)["NodeID"]


def _own(error: RayTaskError) -> SdfError:
    """Our error as it was raised there; anything else by name alone, since foreign errors may carry secrets."""
    cause = error.cause
    if isinstance(cause, SdfError):
        return cause
    return SdfError(f"a Ray task failed with {type(cause).__name__}; its log has the traceback")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
