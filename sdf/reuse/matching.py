"""What an assembly leaves out: by genre, principle, model or axis, or all that another corpus did not accept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from sdf.directory import job_of
from sdf.errors import StorageError, UsageError
from sdf.frontmatter import near
from sdf.ledger import read_ledger
from sdf.plan import Plan
from sdf.reading import BATCH, Reader, batches, read_settled
from sdf.records import Brief, Receipt
from sdf.shards import read_ids, read_manifest
from sdf.storage import RunDir

FIELDS = ("genre", "principle", "model")

# What stands before the name of an axis. Its values are prose, so that such a text is read to its end, commas and all.
AXIS = "axis."

# Briefs looked at for each document when a corpus without a ledger is matched: one accepted in fifty is a bad yield.
PLANNED = 50

# A brief and its twins: the genre, and the number of the slot in its sequence.
Unit = tuple[str, int]

# A slot without its seed: what the arms of an ablation share when their prompts differ.
Place = tuple[str, str, int, str | None]


@dataclass(frozen=True, slots=True)
class Exclusions:
    genres: frozenset[str]
    principles: frozenset[str]
    models: frozenset[str]
    axes: frozenset[tuple[str, str]] = frozenset()


def exclusions(values: Iterable[str]) -> Exclusions:
    """From "genre=a,principle=b" and "axis.tone=dry" texts; UsageError names the part that is none."""
    found: dict[str, set[str]] = {field: set() for field in FIELDS}
    axes: set[tuple[str, str]] = set()
    for entry in (part for value in values for part in _entries(value)):
        field, equals, name = entry.partition("=")
        if not equals or not name or (field not in found and not field.startswith(AXIS)):
            raise UsageError(
                f"--exclude {entry!r}: write genre=NAME, principle=ID or model=NAME, or "
                f"axis.NAME=VALUE{near(field, FIELDS)}"
            )
        if field in found:
            found[field].add(name)
        else:
            axes.add((field.removeprefix(AXIS), name))
    return Exclusions(*(frozenset(found[field]) for field in FIELDS), axes=frozenset(axes))


def _entries(value: str) -> list[str]:
    if value.strip().startswith(AXIS):
        return [value.strip()]
    return [part.strip() for part in value.split(",") if part.strip()]


def check_known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    known = sorted(known)
    for name in sorted(names):
        if name not in known:
            raise UsageError(f"--exclude {what}={name}: no such {what} in this corpus{near(name, known)}")


def keeps(reader: Reader, receipts: Sequence[Receipt], excluded: Exclusions) -> Callable[[Receipt], bool] | None:
    """A predicate for the fold; None when nothing but genres is excluded (those leave the mix).

    What a model spoke in leaves with its twins; of twins on an axis that is excluded the others stay.
    """
    check_known(excluded.principles, {each.id for each in reader.job.constitution.principles}, "principle")
    _check_axes(reader.plan, excluded.axes)
    unwanted = _spoken_by(reader, receipts, excluded.models) if excluded.models else frozenset[Unit]()
    if not (excluded.principles or excluded.axes or unwanted):
        return None
    plan = reader.plan

    def kept(receipt: Receipt) -> bool:
        if _unit(plan, receipt) in unwanted or plan.principle_of(receipt.genre, receipt.index) in excluded.principles:
            return False
        return not excluded.axes or excluded.axes.isdisjoint(plan.brief(receipt.genre, receipt.index).axes.items())

    return kept


def _check_axes(plan: Plan, axes: Iterable[tuple[str, str]]) -> None:
    known: dict[str, set[str]] = {}
    for genre in plan.genres.values():
        for axis in genre.axes:
            known.setdefault(axis.name, set()).update(axis.values)
    for name, value in sorted(axes):
        check_known([name], known, "axis")
        check_known([value], known[name], f"{AXIS}{name}")


def _unit(plan: Plan, receipt: Receipt) -> Unit:
    return receipt.genre, receipt.index // max(1, len(plan.twins(receipt.genre)))


def _spoken_by(reader: Reader, receipts: Sequence[Receipt], models: frozenset[str]) -> frozenset[Unit]:
    """Briefs, with their twins, that have an answer of one of the models."""
    found: set[Unit] = set()
    known: set[str] = set()
    for batch in batches(receipts, BATCH):
        settled = read_settled(reader.ledger, [receipt.location for receipt in batch])
        for receipt, each in zip(batch, settled, strict=True):
            spoken = {entry.answer.model for entry in each.entries}
            known |= spoken
            if spoken & models:
                found.add(_unit(reader.plan, receipt))
    check_known(models, known, "model")
    return frozenset(found)


def accepted_places(other: RunDir) -> frozenset[Place]:
    """The places of every document that another corpus holds. StorageError when it has none committed."""
    manifest = read_manifest(other)
    if manifest is None:
        raise StorageError(f"{other.root}: no committed corpus to match; finish it with `sdf run` first")
    ids = {each for shard in manifest.shards for each in read_ids(other, shard)}
    plan = Plan(job_of(other))
    receipts = [receipt for receipt in read_ledger(other).receipts if receipt.brief in ids]
    places = {place_of(plan, receipt) for receipt in receipts}
    if len(receipts) < len(ids):
        # An assembled corpus has no ledger of its own; its ids are those of the plan.
        for genre, count in manifest.genres.items():
            places |= _planned_places(plan, genre, count.n_documents, ids)
    if len(places) < len(ids):
        raise StorageError(
            f"{other.root}: not all of its {len(ids):,} documents are in its plan; match the run it is of"
        )
    return frozenset(places)


def _planned_places(plan: Plan, genre: str, n_documents: int, ids: Collection[str]) -> set[Place]:
    """Walks along the sequence until every document of the genre is met, or it is clear that some never will be."""
    places: set[Place] = set()
    n_briefs = plan.n_briefs(genre)
    last = PLANNED * n_documents + PLANNED if n_briefs is None else n_briefs
    for index in range(last):
        if len(places) == n_documents:
            break
        brief = plan.brief(genre, index)
        if brief.id in ids:
            places.add(_place(brief))
    return places


def place_of(plan: Plan, receipt: Receipt) -> Place:
    return _place(plan.brief(receipt.genre, receipt.index))


def _place(brief: Brief) -> Place:
    return (brief.genre, brief.slot.principle, brief.slot.ordinal, brief.twin)
