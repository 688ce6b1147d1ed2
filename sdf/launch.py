"""From a job and a directory to a run: the cluster, the lease, the look ahead, and who the directory belongs to.

The order matters: nothing is written before the lease is taken, and nobody's recipe before its models were looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sdf import batches, tokens
from sdf.assemble import Terms
from sdf.crew import Crew, InProcess
from sdf.directory import occupy
from sdf.errors import StorageError
from sdf.eventloop import run_to_end
from sdf.failpoints import reach
from sdf.job import Job
from sdf.ledger import read_ledger
from sdf.pipeline import Run, Stop
from sdf.plan import Plan
from sdf.preflight import Finding
from sdf.reuse.bill import bill
from sdf.storage import RunDir
from sdf.storage.lease import Lease
from sdf.story import Outcome, Progress, terms_of

log = logging.getLogger(__name__)


def carry_out(
    job: Job,
    run_dir: RunDir,
    reuse: Sequence[RunDir],
    stop: Stop,
    on_progress: Callable[[Progress], None],
    say: Callable[[str], None],
    terms: Terms | None = None,
    commits: bool = True,
) -> Outcome:
    """Makes the corpus of a job, or goes on with it. `terms` are other than the job's where only some briefs are
    wanted; without `commits` the ledger alone is filled."""
    tokens.load(job.recipe.tokenizer)
    whole = terms_of(job, Plan(job))
    run_dir.check_usable()
    _connect(job)
    lease = Lease.take(run_dir, owner={"recipe": job.recipe.name}, say=say)
    try:
        reach("lease taken")
        crew = _crew(job, run_dir, lease.epoch)
        # First: a model that is not there must not become what the directory was made by.
        look_ahead(run_to_end(crew.preflight()), say)
        batches.check_collected(job, run_dir)
        # Nobody renewed it meanwhile, and a server may have taken longer to answer than a silent lease lasts.
        lease.renew()
        occupy(run_dir, job, lambda: str(bill(job, [(run_dir, read_ledger(run_dir))])))
        reach("recipe written")

        async def tell() -> Outcome:
            told = Run(job, run_dir, lease, terms or whole, crew, reuse, stop, on_progress, commits)
            return await told.tell()

        return run_to_end(tell())
    finally:
        release(lease)


def look_ahead(findings: Sequence[Finding], say: Callable[[str], None]) -> None:
    """Says what a preflight found, and raises the first of its errors."""
    for finding in findings:
        if finding.error is None:
            say(finding.text)
    for finding in findings:
        if finding.error is not None:
            raise finding.error


def release(lease: Lease) -> None:
    """A disk that is full must not hide the error that says so; the next run waits for the lease to go stale."""
    try:
        lease.release()
    except StorageError as error:
        log.warning("the lease could not be released: %s", error)


def _connect(job: Job) -> None:
    """Before the lease is taken: a cluster may be slow to answer, and nobody renews the lease yet."""
    if job.recipe.ray != "none":
        from sdf import driver  # ray takes two seconds to import, which `--ray none` need not wait for

        driver.connect(job.recipe.ray, job.recipe.workers)


def _crew(job: Job, run_dir: RunDir, epoch: int) -> Crew:
    if job.recipe.ray == "none":
        return InProcess(job, run_dir, epoch)
    from sdf import driver

    return driver.RayCrew(job, run_dir, epoch)


def findings(jobs: Sequence[Job], run_dir: RunDir) -> list[Finding]:
    """Of all jobs, each thing once: stages share their models."""
    findings: list[Finding] = []
    for job in jobs:
        _connect(job)
        findings += run_to_end(_crew(job, run_dir, 0).preflight())
    return list({finding.text: finding for finding in findings}.values())
