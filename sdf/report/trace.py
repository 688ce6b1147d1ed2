"""One brief from plan to shard: its prompts as they were sent, every answer bought for it, and how it ended.

Prompts are stored nowhere. They are rendered again from the plan, and shown only when the request key says that
they are the ones that were sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sdf.answers import value
from sdf.columns import Draft, emit
from sdf.errors import GenreError, StorageError
from sdf.genres import Genre, Step
from sdf.job import Job
from sdf.ledger import LedgerView, read_answers, read_ledger, read_settlements
from sdf.plan import Plan, steps_of
from sdf.prompts import Composer
from sdf.records import Answer, Brief, Location, Message, Receipt, Request, Settlement
from sdf.shards import read_ids, read_manifest
from sdf.storage import RunDir

MIN_DIGITS = 4
N_SHOWN = 5


@dataclass(frozen=True, slots=True)
class StepTrace:
    """One request of the brief and what came back; `answer` None: nothing ever did. `n_prefix` is in characters.

    `used` marks the answer that the settlement names; others were redrawn. `messages` of a completion is one message,
    its prompt.
    """

    step: str
    redraw: int
    key: str
    model: str
    prefix_hash: str
    n_prefix: int
    messages: tuple[Message, ...]
    answer: Answer | None
    used: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """The story of a brief. `reason` None: it became a document, or would; `shard` is the committed file it is in.

    `columns` are the text columns as emitted; None when a step was unusable.
    """

    id: str
    genre: str
    index: int
    principle: str
    principle_title: str
    axes: Mapping[str, str]
    n_words: int
    row: Mapping[str, Any] | None
    angle: str | None
    steps: tuple[StepTrace, ...]
    reason: str | None
    detail: str | None
    columns: Mapping[str, Any] | None
    n_tokens: int
    shard: str | None


def trace_of(run_dir: RunDir, job: Job, id: str) -> Trace:
    """The trace of the settled brief that `id` names: its id, or the first digits of it (at least four).

    StorageError when no brief or several begin with these digits.
    """
    view = read_ledger(run_dir)
    receipt = _found(run_dir, view, id)
    genre = next((genre for genre in job.genres if genre.key == receipt.genre), None)
    if genre is None:
        raise StorageError(f"{run_dir.root}: {receipt.brief} is of genre {receipt.genre!r}, which the recipe left out")
    brief = Plan(job).brief(genre.key, receipt.index)
    settlement = read_settlements(run_dir, [receipt.location])[0]
    assert isinstance(settlement, Settlement)
    values: dict[str, Any] = {}
    steps = tuple(_steps(run_dir, Composer(job), view, genre, brief, settlement, values))
    return Trace(
        id=receipt.brief,
        genre=genre.key,
        index=receipt.index,
        principle=brief.principle.id,
        principle_title=brief.principle.title,
        axes=brief.axes,
        n_words=brief.n_words,
        row=brief.row,
        angle=settlement.angle,
        steps=steps,
        reason=receipt.reason,
        detail=settlement.detail,
        columns=_columns(job, genre, settlement, Draft(brief, settlement.angle, values)),
        n_tokens=receipt.n_tokens,
        shard=_shard_of(run_dir, genre.config, receipt.brief),
    )


def _found(run_dir: RunDir, view: LedgerView, id: str) -> Receipt:
    wanted = id.strip().lower()
    if not re.fullmatch(f"[0-9a-f]{{{MIN_DIGITS},32}}", wanted):
        raise StorageError(f"{id!r} is not an id: give {MIN_DIGITS} or more of its hex digits, as in the column `id`")
    matches = [receipt for receipt in view.receipts if receipt.brief.startswith(wanted)]
    if len(matches) > 1:
        some = ", ".join(receipt.brief for receipt in matches[:N_SHOWN])
        raise StorageError(f"{run_dir.root}: {len(matches)} ids begin with {wanted}; give more digits: {some}")
    if not matches:
        way_out = (
            "`sdf inspect` lists some, and the column `id` of the shards holds all"
            if view.receipts
            else "its ledger is empty; show the document in the directory that `sdf run` wrote"
        )
        raise StorageError(f"{run_dir.root}: no settled brief has an id that begins with {wanted}; {way_out}")
    return matches[0]


def _steps(
    run_dir: RunDir,
    composer: Composer,
    view: LedgerView,
    genre: Genre,
    brief: Brief,
    settlement: Settlement,
    values: dict[str, Any],
) -> Iterator[StepTrace]:
    """Every request in the order it was made, up to the one that settled the brief; fills `values` on the way."""
    used = {answer.step: (answer.key, answer.location) for answer in settlement.answers}
    if genre.round_step is not None and settlement.angle is None:
        return
    for step in steps_of(genre, brief):
        yield from _draws(run_dir, composer, view, genre, step, brief, settlement.angle, used.get(step.name), values)
        if step.name not in values and step.sample is None:
            return


def _draws(
    run_dir: RunDir,
    composer: Composer,
    view: LedgerView,
    genre: Genre,
    step: Step,
    brief: Brief,
    angle: str | None,
    used: tuple[str, Location] | None,
    values: dict[str, Any],
) -> Iterator[StepTrace]:
    """The requests of one step, up to the one whose answer was used."""
    named, location = used or ("", None)
    for redraw in range(genre.redraws + 1):
        try:
            request = composer.brief_request(genre, step, brief, angle, values, redraw)
        except GenreError:
            return  # the settlement's detail says what could not be rendered
        answer = None
        asked: Request | None = request
        while asked is not None:
            key = asked.key()
            is_used = key == named
            answer = _answer(run_dir, location if is_used else view.keys.find(key))
            yield _step_trace(step, redraw, key, asked, answer, is_used)
            if is_used and answer is not None:
                values[step.name] = value(asked.wants, answer)
                return
            is_refused = answer is not None and answer.finish_reason == "refusal"
            asked = composer.fallback(asked) if is_refused else None
        if answer is None and used is None:
            return


def _columns(job: Job, genre: Genre, settlement: Settlement, draft: Draft) -> dict[str, Any] | None:
    needed = {step.name for step in genre.brief_steps if step.sample is None}
    if settlement.reason is not None or not needed <= draft.values.keys():
        return None
    try:
        return emit(job, genre, draft)
    except GenreError:
        return None


def _answer(run_dir: RunDir, location: Location | None) -> Answer | None:
    return None if location is None else read_answers(run_dir, [location])[0].answer


def _step_trace(step: Step, redraw: int, key: str, request: Request, answer: Answer | None, is_used: bool) -> StepTrace:
    return StepTrace(
        step=step.name,
        redraw=redraw,
        key=key,
        model=request.model,
        prefix_hash=request.prefix.hash,
        n_prefix=len(request.prefix.text),
        messages=request.messages or (Message("user", request.prompt or ""),),
        answer=answer,
        used=is_used,
    )


def _shard_of(run_dir: RunDir, config: str, id: str) -> str | None:
    manifest = read_manifest(run_dir)
    shards = [shard for shard in manifest.shards if shard.config == config] if manifest else []
    return next((shard.path for shard in shards if id in read_ids(run_dir, shard)), None)
