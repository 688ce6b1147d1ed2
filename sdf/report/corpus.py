"""Where a corpus stands and what is in it, read from its manifest, ledger and the provenance columns of its shards.

Nothing here reads a document's text, and a shard is read a row group at a time, so memory depends on the number of
genres, principles and axis values and on the ledger's receipts, never on the size of the texts.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from sdf.batches import uncollected
from sdf.errors import DamagedError
from sdf.grants.spent import Cost, cost_of
from sdf.job import Job
from sdf.ledger import LedgerView, read_ledger
from sdf.manifest import ALL, Manifest, Shard
from sdf.parquet import open_parquet
from sdf.providers.batch_log import UnderWay
from sdf.records import Usage
from sdf.report.trace import StepTrace, Trace, trace_of
from sdf.shards import read_manifest, read_rejections
from sdf.storage import RunDir, current_epoch
from sdf.storage.lease import holder

__all__ = [
    "Count",
    "GenreStatus",
    "Inspection",
    "Rejected",
    "Status",
    "StepTrace",
    "Trace",
    "inspection_of",
    "status_of",
    "trace_of",
]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
N_EXAMPLES = 3
COLUMNS = ["id", "genre", "principle", "axes", "n_tokens"]


@dataclass(frozen=True, slots=True)
class GenreStatus:
    """One genre's part: committed tokens and documents against the tokens it is to hold (ALL, where all is made that
    there is); briefs that are settled."""

    key: str
    share: float
    target_tokens: int
    n_tokens: int
    n_documents: int
    n_settled: int


@dataclass(frozen=True, slots=True)
class Status:
    """Where a corpus stands. `state` is "empty" until something is committed.

    `uncommitted` briefs are settled but neither in a shard nor rejected yet; `holder` is who writes the directory;
    `damaged` are ledger files whose content is lost; `rebilled` was paid more than once for one request, and came to
    `rebilled_usd` dollars; `uncollected` are batches left at the API.
    """

    directory: str
    recipe: str
    state: str
    n_tokens: int
    n_documents: int
    target_tokens: int
    genres: tuple[GenreStatus, ...]
    rejected: Mapping[str, int]
    n_settled: int
    uncommitted: int
    epoch: int
    holder: str | None
    damaged: tuple[str, ...]
    usage: Mapping[str, Usage]
    rebilled: Usage
    stages: tuple[Status, ...] = ()
    cost: Cost | None = None
    rebilled_usd: float = 0.0
    uncollected: tuple[UnderWay, ...] = ()


@dataclass(frozen=True, slots=True)
class Count:
    n_documents: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """How many briefs were rejected for a reason, and the ids of up to three; `sdf show` tells each one's story."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is committed, counted. Keys of `principles` are ids in the order of the constitution, those without a
    document included; `axes` is genre -> axis -> value; `quantiles` is genre -> quantile -> tokens of a document."""

    directory: str
    total: Count
    genres: Mapping[str, Count]
    principles: Mapping[str, Count]
    axes: Mapping[str, Mapping[str, Mapping[str, Count]]]
    quantiles: Mapping[str, Mapping[float, int]]
    rejected: Mapping[str, Rejected]
    stages: tuple[Inspection, ...] = ()


def status_of(run_dir: RunDir, job: Job) -> Status:
    """Where the corpus of `job` in `run_dir` stands. DamagedError when its manifest or lease cannot be read."""
    manifest, view = read_manifest(run_dir), read_ledger(run_dir)
    settled = Counter(receipt.genre for receipt in view.receipts)
    rejected = _rejected(manifest, view)
    n_documents = manifest.n_documents if manifest else 0
    n_folded = n_documents + sum(manifest.rejected.values()) if manifest else 0
    held = holder(run_dir)
    return Status(
        directory=run_dir.root,
        recipe=job.recipe.name,
        state=manifest.state if manifest else "empty",
        n_tokens=manifest.n_tokens if manifest else 0,
        n_documents=n_documents,
        target_tokens=job.recipe.tokens,
        genres=tuple(_genre_status(job, manifest, settled, genre.key) for genre in job.genres),
        rejected=rejected,
        n_settled=len(view.receipts),
        # A corpus that was assembled has documents and no ledger.
        uncommitted=max(0, len(view.receipts) - n_folded),
        epoch=current_epoch(run_dir),
        holder=None if held is None else f"{held}{' (dead)' if held.is_dead() else ''}",
        damaged=view.damaged,
        usage=view.usage_by_model,
        rebilled=view.rebilled,
        cost=cost_of(job, run_dir, view),
        rebilled_usd=view.rebilled_usd,
        uncollected=uncollected(run_dir, view.keys) if run_dir.children(RunDir.batches) else (),
    )


def _genre_status(job: Job, manifest: Manifest | None, settled: Mapping[str, int], key: str) -> GenreStatus:
    share = job.recipe.mix[key] / sum(job.recipe.mix.values())
    counted = manifest.genres.get(key) if manifest else None
    return GenreStatus(
        key,
        share,
        ALL if job.recipe.tokens == ALL else round(job.recipe.tokens * share),
        counted.n_tokens if counted else 0,
        counted.n_documents if counted else 0,
        settled.get(key, 0),
    )


def _rejected(manifest: Manifest | None, view: LedgerView) -> dict[str, int]:
    """By the fold, where one was committed: it alone knows of duplicates."""
    if manifest is not None:
        return dict(manifest.rejected)
    return dict(Counter(receipt.reason for receipt in view.receipts if receipt.reason is not None))


def inspection_of(run_dir: RunDir, job: Job) -> Inspection:
    """Counts over every committed document. DamagedError names a shard that cannot be read."""
    manifest, view = read_manifest(run_dir), read_ledger(run_dir)
    shards = manifest.shards if manifest else ()
    held = _Held()
    for shard in shards:
        for row in _provenance(run_dir, shard):
            held.add(row)
    principles = {each.id: held.principles[each.id].count for each in job.constitution.principles}
    return Inspection(
        directory=run_dir.root,
        total=Count(manifest.n_documents, manifest.n_tokens) if manifest else Count(0, 0),
        genres={genre.key: held.genres[genre.key].count for genre in job.genres},
        principles=principles,
        axes={genre.key: _axis_counts(held, genre.key) for genre in job.genres},
        quantiles={key: _quantiles(lengths) for key, lengths in held.lengths.items()},
        rejected=_examples(run_dir, manifest, _rejected(manifest, view)),
    )


class _Row(NamedTuple):
    id: str
    genre: str
    principle: str
    axes: str
    n_tokens: int


@dataclass(slots=True)
class _Sum:
    n_documents: int = 0
    n_tokens: int = 0

    def add(self, n_tokens: int) -> None:
        self.n_documents += 1
        self.n_tokens += n_tokens

    @property
    def count(self) -> Count:
        return Count(self.n_documents, self.n_tokens)


def _sums() -> defaultdict[Any, _Sum]:
    return defaultdict(_Sum)


@dataclass(slots=True)
class _Held:
    """Sums over the rows seen. Lengths are kept as a histogram."""

    genres: defaultdict[str, _Sum] = field(default_factory=_sums)
    principles: defaultdict[str, _Sum] = field(default_factory=_sums)
    axes: defaultdict[tuple[str, str], _Sum] = field(default_factory=_sums)
    lengths: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter[int]))

    def add(self, row: _Row) -> None:
        self.genres[row.genre].add(row.n_tokens)
        self.principles[row.principle].add(row.n_tokens)
        self.axes[row.genre, row.axes].add(row.n_tokens)
        self.lengths[row.genre][row.n_tokens] += 1


def _provenance(run_dir: RunDir, shard: Shard) -> Iterator[_Row]:
    """The provenance of a shard's documents, a row group at a time."""
    place = f"{run_dir.root}/{shard.path}"
    with run_dir.open(shard.path) as file:
        opened = open_parquet(file, place)
        for group in range(opened.num_row_groups):
            try:
                columns = opened.read_row_group(group, columns=COLUMNS)
                rows = zip(*(columns[name].to_pylist() for name in COLUMNS), strict=True)
            except (pa.ArrowException, OSError, KeyError) as error:
                raise DamagedError(f"{place}: cannot be read ({error}); `sdf verify` names what else is") from error
            yield from (_Row(*values) for values in rows)


def _axis_counts(held: _Held, genre: str) -> dict[str, dict[str, Count]]:
    """Axis -> value -> count, from counts of whole combinations."""
    sums: defaultdict[str, defaultdict[str, _Sum]] = defaultdict(_sums)
    for (key, combination), counted in held.axes.items():
        for axis, value in json.loads(combination).items() if key == genre else ():
            sums[axis][value].n_documents += counted.n_documents
            sums[axis][value].n_tokens += counted.n_tokens
    return {axis: {value: sums[axis][value].count for value in sorted(sums[axis])} for axis in sorted(sums)}


def _quantiles(lengths: Counter[int]) -> dict[float, int]:
    """The smallest length that at least this share of the documents do not exceed."""
    found: dict[float, int] = {}
    for quantile in QUANTILES:
        seen = 0
        for length in sorted(lengths):
            seen += lengths[length]
            if seen >= quantile * lengths.total():
                found[quantile] = length
                break
    return found


def _examples(run_dir: RunDir, manifest: Manifest | None, counts: Mapping[str, int]) -> dict[str, Rejected]:
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for rejection in read_rejections(run_dir, manifest.number) if manifest else ():
        if len(ids[rejection.reason]) < N_EXAMPLES:
            ids[rejection.reason].append(rejection.brief)
    return {
        reason: Rejected(count, tuple(ids[reason]))
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }
