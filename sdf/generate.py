"""One document, one coroutine: a brief's steps asked one after another until it is settled.

Only a brief's own fault settles it without a document: every redraw of a step refused, truncated, empty or
unparsable, or a request its provider rejected. Trouble that is shared waits in the governor and never comes here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from sdf.angles import Gate
from sdf.answers import value
from sdf.columns import Draft, check_row
from sdf.errors import GenreError, RequestRejected
from sdf.genres import Genre, Step
from sdf.plan import steps_of
from sdf.prompts import Composer
from sdf.records import (
    Answer,
    Brief,
    Location,
    Principle,
    Request,
    RoundKey,
    RoundSettlement,
    Settlement,
    StepAnswer,
    Wants,
    digest,
)

# Asked once, and again twice for what is missing; then the places stay empty.
ROUND_ATTEMPTS = 3


# How the reason begins of a brief that was not asked at all: its round found no angle for it.
NO_ANGLE = "no_angle"

CATEGORY = re.compile(r"[a-z][a-z_]{0,39}")


class Ask(Protocol):
    """The way to an answer: from the ledger when it was ever bought, else from a provider, then into the ledger."""

    async def __call__(self, request: Request, key: str, unit: str, step: str) -> tuple[Answer, Location]:
        """`key` is the request's; it was computed by the caller, who needs it too."""
        ...


async def settle_brief(
    composer: Composer, ask: Ask, genre: Genre, brief: Brief, angle: str | None, why: str | None = None
) -> tuple[Settlement, Draft | None]:
    """Asks the brief's steps in file order. The draft is present exactly when every step was usable. `why` is what its
    round says where it found no angle."""
    if genre.round_step is not None and angle is None:
        return Settlement(brief.id, genre.key, brief.index, f"{NO_ANGLE}: {why}" if why else NO_ANGLE), None
    values: dict[str, Any] = {}
    used: list[StepAnswer] = []
    try:
        check_row(genre, brief)
    except GenreError as error:
        return Settlement(brief.id, genre.key, brief.index, "failed", str(error), angle), None
    for step in steps_of(genre, brief):
        try:
            reason, detail = await settle_step(composer, ask, genre, step, brief, angle, values, used)
        except (RequestRejected, GenreError) as error:
            reason, detail = "failed", str(error)
        # Nothing depends on a sampled step: without its answer the document is whole.
        if reason is not None and step.sample is None:
            return Settlement(brief.id, genre.key, brief.index, reason, detail, angle, tuple(used)), None
    return Settlement(brief.id, genre.key, brief.index, None, None, angle, tuple(used)), Draft(brief, angle, values)


async def settle_step(
    composer: Composer,
    ask: Ask,
    genre: Genre,
    step: Step,
    brief: Brief,
    angle: str | None,
    values: dict[str, Any],
    used: list[StepAnswer],
) -> tuple[str | None, str | None]:
    """Adds the step's value and answer, or says why none of its draws was usable."""
    fault: tuple[str, str | None] = ("unparsable", None)
    for redraw in range(genre.redraws + 1):
        request = composer.brief_request(genre, step, brief, angle, values, redraw)
        answer, key, location = await _answered(composer, ask, request, brief.id, step.name)
        found = value(request.wants, answer)
        if found is not None:
            values[step.name] = found
            used.append(StepAnswer(step.name, key, location))
            return None, None
        fault = (unusable(request.wants, answer), answer.detail)
    return fault


async def _answered(
    composer: Composer, ask: Ask, request: Request, unit: str, step: str
) -> tuple[Answer, str, Location]:
    """The answer, the key it was bought under, where it is kept; of the fallback model where the first refuses."""
    key = request.key()
    answer, location = await ask(request, key, unit, step)
    other = composer.fallback(request) if answer.finish_reason == "refusal" else None
    return (answer, key, location) if other is None else await _answered(composer, ask, other, unit, step)


def unusable(wants: Wants, answer: Answer) -> str:
    """Why an answer without a value has none."""
    if answer.finish_reason == "refusal":
        # Counted by category; what a server says instead of one is no name for a count.
        return f"refused ({answer.detail})" if CATEGORY.fullmatch(answer.detail or "") else "refused"
    if answer.finish_reason == "length":
        return "truncated"
    if not answer.text.strip():
        return "empty"
    return f"unparsable {wants.returns}"


async def settle_round(
    composer: Composer, ask: Ask, genre: Genre, key: RoundKey, principle: Principle, taken: Sequence[str]
) -> RoundSettlement:
    """Angles for one round of a lane, each unlike all of `taken` and each other; None where none was found."""
    step = genre.round_step
    assert step is not None
    gate, found, used = Gate(taken), list[str](), list[StepAnswer]()
    unit, reason = round_id(composer.job.recipe.seed, key), None
    for attempt in range(ROUND_ATTEMPTS):
        missing = step.n_items - len(found)
        if not missing:
            break
        request = composer.round_request(genre, step, key, principle, [*taken, *found], missing, attempt)
        try:
            answer, bought, location = await _answered(composer, ask, request, unit, step.name)
        except RequestRejected:
            reason = "failed"
            continue
        items = value(request.wants, answer)
        if isinstance(items, list):
            used.append(StepAnswer(step.name, bought, location))
            found += [item for item in items if isinstance(item, str) and gate.admit(item)][:missing]
        else:
            reason = unusable(request.wants, answer)
    empty: list[str | None] = [None] * (step.n_items - len(found))
    return RoundSettlement(unit, key, (*found, *empty), tuple(used), reason if empty else None)


def round_id(seed: int, key: RoundKey) -> str:
    return digest("round", str(seed), *(str(part) for part in key))
