"""What needs the texts of settled briefs again: writing a shard, comparing pairs, measuring anew.

These run where the ledger is near (a task of the cluster, or the one process there is), read every file
they touch once, and hold one batch in memory. The driver calls them by receipt and never sees a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sdf.assemble import Cut, Pair
from sdf.columns import Draft, emit
from sdf.dedup import jaccard
from sdf.documents import Meter, compared_text, row, values_of
from sdf.errors import DamagedError, Missing
from sdf.job import Job
from sdf.ledger import read_answers, read_settlements
from sdf.manifest import Shard
from sdf.plan import Plan
from sdf.records import AnswerEntry, Location, Receipt, Settlement
from sdf.shards import read_ids, write_shard
from sdf.shards.file import encode
from sdf.storage import RunDir

# Texts held at once while a whole ledger is measured anew: about 5 MB of prose.
BATCH = 512


@dataclass(frozen=True, slots=True)
class Settled:
    """A settled brief with the answers its settlement names, in step order."""

    settlement: Settlement
    entries: tuple[AnswerEntry, ...]


def read_settled(run_dir: RunDir, locations: Sequence[Location]) -> list[Settled]:
    """In the order given."""
    settlements = [each for each in read_settlements(run_dir, locations) if isinstance(each, Settlement)]
    entries = iter(read_answers(run_dir, [used.location for each in settlements for used in each.answers]))
    return [Settled(each, tuple(next(entries) for _ in each.answers)) for each in settlements]


class Reader:
    """The texts of one job's ledger."""

    def __init__(self, job: Job, ledger: RunDir) -> None:
        self.job, self.ledger = job, ledger
        self.plan = Plan(job)

    def write(self, out: RunDir, cut: Cut) -> Shard:
        """The shard of a cut, durable on return. A shard with these documents that is already there is kept."""
        return write_shard(out, cut.config, cut.split, cut.number, self._rows(cut))

    def sha256(self, cut: Cut) -> str:
        """Of the bytes that `write` would store."""
        return hashlib.sha256(encode(cut.config, self._rows(cut))[0]).hexdigest()

    def _rows(self, cut: Cut) -> list[dict[str, Any]]:
        settled = read_settled(self.ledger, [receipt.location for receipt in cut.receipts])
        found: list[dict[str, Any]] = []
        for receipt, each in zip(cut.receipts, settled, strict=True):
            genre = self.plan.genres[receipt.genre]
            found.append(row(self.job, genre, self._draft(each), receipt.n_tokens, each.entries))
        return found

    def compare(self, pairs: Sequence[Pair]) -> dict[Pair, float]:
        """Exact Jaccard of the compared texts of each pair."""
        locations = list(dict.fromkeys(location for pair in pairs for location in pair))
        texts = dict(zip(locations, self._compared(locations), strict=True))
        return {pair: jaccard(texts[pair[0]], texts[pair[1]]) for pair in pairs}

    def measure(self, receipts: Iterable[Receipt]) -> Iterator[Receipt]:
        """The receipts in order, those of another basis measured anew (other checks, tokenizer or dedup view)."""
        meter = Meter(self.job)
        bases = {genre: meter.basis(genre) for genre in self.plan.genres}
        for batch in batches(receipts, BATCH):
            stale = [each for each in batch if each.basis is not None and each.basis != bases[each.genre]]
            fresh = dict(zip([each.brief for each in stale], self._measured(meter, stale), strict=True))
            yield from (fresh.get(each.brief, each) for each in batch)

    def _measured(self, meter: Meter, receipts: Sequence[Receipt]) -> list[Receipt]:
        settled = read_settled(self.ledger, [receipt.location for receipt in receipts])
        drafts = [self._draft(each) for each in settled]
        return [
            replace(
                receipt,
                reason=measures.reject,
                n_tokens=measures.n_tokens,
                signature=measures.signature,
                basis=measures.basis,
            )
            for receipt, measures in zip(receipts, meter.measure(drafts), strict=True)
        ]

    def _draft(self, settled: Settled) -> Draft:
        settlement = settled.settlement
        brief = self.plan.brief(settlement.genre, settlement.index)
        return Draft(brief, settlement.angle, values_of(self.plan.genres[brief.genre], brief, settled.entries))

    def _compared(self, locations: Sequence[Location]) -> list[str]:
        found: list[str] = []
        for settled in read_settled(self.ledger, locations):
            draft = self._draft(settled)
            genre = self.plan.genres[draft.brief.genre]
            found.append(compared_text(genre, emit(self.job, genre, draft), draft.angle) or "")
        return found


def is_written(out: RunDir, shard: Shard, cut: Cut) -> bool:
    """Whether a committed shard holds exactly the documents of a cut, and each byte is as it was written."""
    try:
        if hashlib.sha256(out.read(shard.path)).hexdigest() != shard.sha256:
            return False
        return read_ids(out, shard) == [each.brief for each in cut.receipts]
    except (Missing, DamagedError):
        return False


def batches(receipts: Iterable[Receipt], size: int) -> Iterator[list[Receipt]]:
    batch: list[Receipt] = []
    for receipt in receipts:
        batch.append(receipt)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
