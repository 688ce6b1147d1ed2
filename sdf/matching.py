"""Which briefs an assembly leaves out: by genre, principle or model, or all that another corpus did not accept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sdf.directory import job_of
from sdf.errors import StorageError, UsageError
from sdf.frontmatter import near
from sdf.ledger import read_ledger
from sdf.plan import Plan
from sdf.reading import BATCH, Reader, batches, read_settled
from sdf.records import Receipt
from sdf.shards import read_ids, read_manifest
from sdf.storage import RunDir

FIELDS = ("genre", "principle", "model")

# A slot without its seed: what the arms of an ablation share when their prompts differ.
Place = tuple[str, str, int, str | None]


@dataclass(frozen=True, slots=True)
class Exclusions:
    genres: frozenset[str]
    principles: frozenset[str]
    models: frozenset[str]


def exclusions(values: Iterable[str]) -> Exclusions:
    """From "genre=a,principle=b" texts; UsageError names the part that is none."""
    found: dict[str, set[str]] = {field: set() for field in FIELDS}
    for entry in (part.strip() for value in values for part in value.split(",") if part.strip()):
        field, equals, name = entry.partition("=")
        if field not in found or not equals or not name:
            raise UsageError(f"--exclude {entry!r}: write genre=NAME, principle=ID or model=NAME{near(field, FIELDS)}")
        found[field].add(name)
    return Exclusions(*(frozenset(found[field]) for field in FIELDS))


def check_known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    known = sorted(known)
    for name in sorted(names):
        if name not in known:
            raise UsageError(f"--exclude {what}={name}: no such {what} in this corpus{near(name, known)}")


def keeps(reader: Reader, receipts: Sequence[Receipt], excluded: Exclusions) -> Callable[[Receipt], bool] | None:
    """A predicate for the fold; None when nothing but genres is excluded (those leave the mix)."""
    check_known(excluded.principles, {each.id for each in reader.job.constitution.principles}, "principle")
    unwanted = _spoken_by(reader, receipts, excluded.models) if excluded.models else frozenset[str]()
    if not excluded.principles and not unwanted:
        return None
    plan = reader.plan

    def kept(receipt: Receipt) -> bool:
        if receipt.brief in unwanted:
            return False
        return plan.principle_of(receipt.genre, receipt.index) not in excluded.principles

    return kept


def _spoken_by(reader: Reader, receipts: Sequence[Receipt], models: frozenset[str]) -> frozenset[str]:
    """Briefs with an answer of one of the models."""
    found: set[str] = set()
    known: set[str] = set()
    for batch in batches(receipts, BATCH):
        for settled in read_settled(reader.ledger, [receipt.location for receipt in batch]):
            spoken = {entry.answer.model for entry in settled.entries}
            known |= spoken
            if spoken & models:
                found.add(settled.settlement.brief)
    check_known(models, known, "model")
    return frozenset(found)


def accepted_places(other: RunDir) -> frozenset[Place]:
    """The places of every document that another corpus holds. StorageError when it has none committed."""
    manifest = read_manifest(other)
    if manifest is None:
        raise StorageError(f"{other.root}: no committed corpus to match; finish it with `sdf run` first")
    ids = {each for shard in manifest.shards for each in read_ids(other, shard)}
    plan = Plan(job_of(other))
    view = read_ledger(other)
    places = frozenset(place_of(plan, receipt) for receipt in view.receipts if receipt.brief in ids)
    if len(places) < len(ids):
        raise StorageError(
            f"{other.root}: its ledger does not hold all {len(ids):,} of its documents; match the directory that "
            "`sdf run` wrote, not one assembled from it"
        )
    return places


def place_of(plan: Plan, receipt: Receipt) -> Place:
    brief = plan.brief(receipt.genre, receipt.index)
    return (brief.genre, brief.slot.principle, brief.slot.ordinal, brief.twin)
