"""Whether a corpus is what was written: every byte and count, its ledger, and what that folds to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from sdf import shards, tokens
from sdf.directory import job_of
from sdf.errors import DamagedError, Missing
from sdf.ledger import check_ledger, read_ledger
from sdf.manifest import Manifest
from sdf.plan import Plan
from sdf.reuse.replay import replay as replay_ledger
from sdf.storage import RunDir
from sdf.story import terms_of


@dataclass(frozen=True, slots=True)
class Verification:
    """`problems` names every file that is not what was written; empty when all is well.

    `made_good` names ledger files that are damaged or gone too, but whose loss a later run has answered anew: every
    committed document has its answers elsewhere.
    """

    problems: tuple[str, ...]
    made_good: tuple[str, ...]
    n_shards: int
    n_documents: int
    n_tokens: int
    replayed: bool


def together(found: Sequence[Verification]) -> Verification:
    """Of the stages of one directory, in order."""
    return Verification(
        tuple(problem for each in found for problem in each.problems),
        tuple(problem for each in found for problem in each.made_good),
        sum(each.n_shards for each in found),
        sum(each.n_documents for each in found),
        sum(each.n_tokens for each in found),
        all(each.replayed for each in found),
    )


def verification(run_dir: RunDir, replay: bool) -> Verification:
    """Of one corpus; with `replay`, that its ledger folds to exactly these shards."""
    job = job_of(run_dir)
    problems = shards.verify_manifests(run_dir)
    manifest = shards.committed(run_dir)
    count = tokens.load(job.recipe.tokenizer).count
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        n_shards = len(manifest.shards)
        found = pool.map(shards.verify_shard, [run_dir] * n_shards, manifest.shards, [count] * n_shards)
        problems += [problem for each in found for problem in each]
    ledger, made_good = _ledger_problems(run_dir, manifest)
    problems += ledger
    if replay:
        terms = replace(terms_of(job, Plan(job)), target_tokens=manifest.target_tokens)
        try:
            problems += replay_ledger(job, terms, run_dir, manifest)
        except DamagedError as error:
            problems.append(f"not replayed: {error}")
    return Verification(
        tuple(problems), tuple(made_good), len(manifest.shards), manifest.n_documents, manifest.n_tokens, replay
    )


def _ledger_problems(run_dir: RunDir, manifest: Manifest) -> tuple[list[str], list[str]]:
    """What is wrong with the ledger's files, and apart from it what of that a run has made good."""
    problems = check_ledger(run_dir)
    if not problems:
        return [], []
    view = read_ledger(run_dir)
    settled = {receipt.brief for receipt in view.receipts}
    try:
        if not all(settled.issuperset(shards.read_ids(run_dir, shard)) for shard in manifest.shards):
            return problems, []
    except (Missing, DamagedError):
        return problems, []
    # A file that a resume does not see to be damaged was not made good by one.
    made_good = [each for each in problems if each.startswith(tuple(f"{path}:" for path in view.damaged))]
    return [each for each in problems if each not in made_good], made_good
