"""Another corpus from the same answers: other checks, mix, shards, tokenizer; without genres, principles or rewrites.

No model is asked. What another fold cannot give, because an answer would have been asked for otherwise, is refused with
the command that asks for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sdf.assemble import Terms
from sdf.decontaminate import pin
from sdf.directory import job_of, occupy
from sdf.errors import RecipeError, StorageError
from sdf.frontmatter import near
from sdf.genres import Genre
from sdf.job import Job
from sdf.ledger import read_ledger
from sdf.manifest import ALL
from sdf.mix import check_ends, without
from sdf.reading import Reader
from sdf.recipe import shares
from sdf.records import Receipt
from sdf.reuse.matching import accepted_places, check_known, exclusions, keeps, place_of
from sdf.reuse.replay import assemble
from sdf.storage import RunDir
from sdf.story import Outcome, terms_of


def refold(
    source: RunDir, target: RunDir, overrides: Mapping[str, Any], exclude: Sequence[str], match: RunDir | None
) -> Outcome:
    """Folds the ledger of `source` anew into `target`. Ends where the ledger does."""
    if source.root == target.root:
        raise StorageError(f"{target.root}: assembling needs a directory of its own; give another --out")
    excluded = exclusions(exclude)
    job = reassembled(job_of(source), overrides, excluded.genres)
    reader = Reader(job, source)
    view = read_ledger(source)
    view = replace(view, receipts=[each for each in view.receipts if each.genre in reader.plan.genres])
    terms = replace(terms_of(job, reader.plan), keeps=keeps(reader, view.receipts, excluded))
    if match is not None:
        terms = _matched(terms, reader, view.receipts, match)
    target.check_usable()
    occupy(target, job, lambda: "nothing is paid by assembling")
    return assemble(job, terms, source, target, view)


def reassembled(job: Job, overrides: Mapping[str, Any], excluded: Collection[str]) -> Job:
    """The job with other values of fields that do not decide text, and without some genres and rewrites."""
    given = {name: value for name, value in overrides.items() if value is not None}
    mix = given.get("mix", job.recipe.mix)
    mix = shares(mix, job.recipe.mix) if isinstance(mix, str) else dict(mix)
    known = {genre.key: genre for genre in job.genres}
    check_known(excluded, known, "genre")
    unknown = [name for name in mix if name not in known]
    if unknown:
        raise RecipeError(f"--mix: no genre {unknown[0]!r} in this ledger{near(unknown[0], known)}")
    given["mix"] = {name: share for name, share in mix.items() if name not in excluded}
    given["ablate"] = tuple(dict.fromkeys((*job.recipe.ablate, *given.get("ablate", ()))))
    recipe = job.recipe.changed(given)
    genres = tuple(without([known[name] for name in recipe.mix], recipe))
    check_ends(genres, recipe)
    for genre in genres:
        _check_free(known[genre.key], genre)
    evaluations = pin(recipe.decontaminate) if "decontaminate" in given else job.evaluations
    return replace(job, recipe=recipe, genres=genres, evaluations=evaluations)


def _check_free(before: Genre, now: Genre) -> None:
    """The answers of a step are of no use where it was asked about what is now left out."""
    left_out = set(now.ablated) - set(before.ablated)
    for step in now.steps:
        if read := sorted(step.reads & left_out):
            raise RecipeError(
                f"--ablate {read[0]}: step {step.name!r} of {now.key} ({now.path}:{step.line}) reads it, so without it "
                f"other answers are needed: `sdf run RECIPE --ablate {read[0]} --out DIR2 --reuse DIR` asks for those "
                "alone, and `sdf plan` with the same flags counts them"
            )


def _matched(terms: Terms, reader: Reader, receipts: Sequence[Receipt], other: RunDir) -> Terms:
    places = accepted_places(other)
    settled: dict[str, set[int]] = {}
    for receipt in receipts:
        settled.setdefault(receipt.genre, set()).add(receipt.index)
    ends = {each.genre: _first_gap(settled.get(each.genre, set())) for each in terms.sequences}

    def matching(receipt: Receipt) -> bool:
        return (terms.keeps is None or terms.keeps(receipt)) and place_of(reader.plan, receipt) in places

    return replace(
        terms,
        sequences=tuple(
            replace(each, n_briefs=ends[each.genre] // each.n_twins * each.n_twins) for each in terms.sequences
        ),
        target_tokens=ALL,
        keeps=matching,
        exactly=True,
    )


def _first_gap(indices: set[int]) -> int:
    return next(index for index in range(len(indices) + 1) if index not in indices)
