"""A run's books: what is settled, what is ordered, what is folded, what is committed. No I/O but log and manifest.

The story is the same wherever it is told: `pipeline` drives it with one worker in this process, `driver` with many on
Ray. It decides everything that a corpus depends on, and it never sees a document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from sdf import __version__, tokens
from sdf.assemble import Cut, Fold, GenreTerms, Terms
from sdf.dispatch import Dispatch
from sdf.grants.spent import Cost
from sdf.job import Job
from sdf.ledger import LedgerView, SettlementLog
from sdf.manifest import ALL, GenreCount, Manifest, Shard, State, TokenizerRef
from sdf.plan import Plan
from sdf.providers.batch_log import UnderWay
from sdf.records import Location, Receipt, RoundReceipt, Usage, stream
from sdf.shards.card import Facts

Key = tuple[str, str, int]


def terms_of(job: Job, plan: Plan) -> Terms:
    """How a job's own recipe folds its corpus."""
    recipe = job.recipe
    return Terms(
        sequences=tuple(
            GenreTerms(
                genre.key,
                recipe.mix[genre.key],
                genre.config,
                genre.dedup != "none",
                max(1, len(plan.twins(genre.key))),
                plan.n_briefs(genre.key),
                "every cell is full" if genre.source is None else "source exhausted",
            )
            for genre in job.genres
        ),
        target_tokens=recipe.tokens,
        shard_tokens=recipe.shard_tokens,
        threshold=recipe.dedup_threshold,
        split_of=lambda genre, index: split_of(plan, genre, index, recipe.holdout),
    )


def split_of(plan: Plan, genre: str, index: int, holdout: float) -> str:
    """Whole cells are held out, by a hash of the cell: siblings never straddle the splits."""
    if not holdout:
        return "train"
    return "validation" if stream("holdout", genre, plan.principle_of(genre, index)) / 2**64 < holdout else "train"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. `genres` maps a key to accepted tokens, documents and its share of the target; `under_way`
    are the message batches that answers are waited for. Where all is made that there is, the target says nothing, and
    `briefs` maps a key to those folded and those there are."""

    n_tokens: int
    target_tokens: int
    genres: dict[str, tuple[int, int, float]]
    rejected: dict[str, int]
    n_settled: int
    n_shards: int
    cost: Cost | None = None
    under_way: tuple[UnderWay, ...] = ()
    briefs: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `unmet` names genres that left the merge, with the reason.

    `n_overshoot` briefs are settled beyond the fold: kept in the ledger for a larger target. `stages` holds the outcome
    of each stage that was made or found made, and is empty without stages; then a manifest is theirs, not here.
    """

    manifest: Manifest | None
    finished: bool
    unmet: dict[str, str]
    n_requests: int
    usage: Usage
    n_overshoot: int
    rebilled: Usage
    cost: Cost | None = None
    stages: Mapping[str, Outcome] = field(default_factory=dict[str, "Outcome"])


@dataclass(frozen=True, slots=True)
class Committed:
    """A written shard, with its tokens and documents by genre."""

    shard: Shard
    tokens: Counter[str]
    documents: Counter[str]


class Story:
    """Feed it batches with `receive`, fold with `fold`, hand back written shards with `commit`."""

    def __init__(self, job: Job, terms: Terms, log: SettlementLog | None, view: LedgerView) -> None:
        self.job = job
        self.plan = Plan(job)
        self.fold = Fold(terms)
        self.dispatch = Dispatch(self.plan, self.fold)
        self.n_settled = 0
        self._log = log
        self._committed: dict[Key, Committed] = {}
        if log is not None:
            log.append(view.unlogged)
        for round_receipt in view.rounds:
            self.dispatch.learn(round_receipt)
        for receipt in view.receipts:
            self._take(receipt)

    def receive(self, receipts: Sequence[Receipt], rounds: Sequence[RoundReceipt]) -> None:
        """The first receipt of a brief counts and is logged; later ones are another run's or a retry's."""
        taken: list[Location] = []
        for round_receipt in rounds:
            if not self.dispatch.knows(round_receipt.key):
                self.dispatch.learn(round_receipt)
                taken.append(round_receipt.location)
        for receipt in receipts:
            if not self.dispatch.is_settled(receipt.genre, receipt.index):
                self._take(receipt)
                taken.append(receipt.location)
        if self._log is not None:
            self._log.append(taken)

    def _take(self, receipt: Receipt) -> None:
        self.n_settled += 1
        self.dispatch.settle(receipt)
        self.fold.offer(receipt)

    def commit(self, cut: Cut, shard: Shard) -> None:
        n_tokens, documents = Counter[str](), Counter[str](receipt.genre for receipt in cut.receipts)
        for receipt in cut.receipts:
            n_tokens[receipt.genre] += receipt.n_tokens
        self._committed[cut.config, cut.split, cut.number] = Committed(shard, n_tokens, documents)

    @property
    def unmet(self) -> dict[str, str]:
        """Genres that fell short, and why."""
        return self.fold.unmet

    def manifest(self, state: State, before: Manifest | None) -> Manifest:
        """The manifest of what is committed so far, as successor of `before`."""
        tokenizer = tokens.load(self.job.recipe.tokenizer)
        committed = [self._committed[key] for key in sorted(self._committed)]
        n_tokens = sum((each.tokens for each in committed), Counter[str]())
        documents = sum((each.documents for each in committed), Counter[str]())
        rejected = sum((tally.rejected for tally in self.fold.tallies.values()), Counter[str]())
        total = sum(tally.share for tally in self.fold.tallies.values())
        return Manifest(
            number=before.number + 1 if before else 1,
            state=state,
            predecessor=before.sha256 if before else None,
            recipe_hash=self.job.hash,
            constitution_hash=self.job.constitution.hash,
            tokenizer=TokenizerRef(tokenizer.name, tokenizer.hash),
            target_tokens=self.fold.terms.target_tokens,
            n_tokens=sum(n_tokens.values()),
            n_documents=sum(documents.values()),
            genres={
                key: GenreCount(n_tokens[key], documents[key], tally.share / total)
                for key, tally in self.fold.tallies.items()
            },
            rejected=dict(rejected),
            pyarrow=pa.__version__,
            made_by=f"sdf {__version__}",
            shards=tuple(each.shard for each in committed),
        )

    def progress(self) -> Progress:
        tallies = self.fold.tallies
        total = sum(tally.share for tally in tallies.values())
        target = self.fold.terms.target_tokens
        return Progress(
            self.fold.n_tokens,
            target,
            {key: (each.n_tokens, each.n_documents, target * each.share / total) for key, each in tallies.items()},
            dict(sum((tally.rejected for tally in tallies.values()), Counter[str]())),
            self.n_settled,
            len(self._committed),
            briefs=self._briefs() if target == ALL else {},
        )

    def _briefs(self) -> dict[str, tuple[int, int]]:
        ends = {each.genre: each.n_briefs for each in self.fold.terms.sequences}
        return {key: (each.next, ends[key] or 0) for key, each in self.fold.tallies.items()}


def facts_of(job: Job) -> Facts:
    """What the dataset card tells of a job."""
    models = {job.recipe.model_of(step.role) for genre in job.genres for step in genre.steps}
    about = {genre.key: genre.about for genre in job.genres}
    return Facts(job.recipe.name, job.constitution.source, tuple(sorted(models)), about, job.evaluations)
