"""What can be found out before anything is paid: key, model, endpoint, and whether the longest prompt fits.

It is asked where the workers run, since keys and networks are theirs, and it costs no token. The longest prompt is an
estimate: earlier answers are stood in for by text of the length they are asked to have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sdf import tokens
from sdf.errors import GenreError, RateLimited, RecipeError, RequestRejected, SdfError, Unavailable
from sdf.genres import Genre, Step
from sdf.genres.model import STAGE
from sdf.job import Job
from sdf.plan import Plan
from sdf.prompts import Composer
from sdf.providers.endpoints import said
from sdf.providers.panel import Panel
from sdf.providers.seats import of_seat
from sdf.providers.served import Served
from sdf.records import Brief, Request, Seat

# Of what a model counts to what our tokenizer counts: Claude's newer ones find 30 % more in the same text.
MARGIN = 1.3

# A server that has just been started takes some seconds to listen.
ATTEMPTS, PAUSE = 3, 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, in a line. `error` is what a run would stop with; None when all is well."""

    text: str
    error: SdfError | None = None


@dataclass(frozen=True, slots=True)
class Longest:
    """The request of a seat that takes most room, in tokens of `o200k_base`: prompt, and answer at most."""

    genre: str
    step: str
    n_prompt: int
    n_answer: int


async def preflight(job: Job) -> list[Finding]:
    """A finding for each model that the job asks, in the order in which documents need them; offline has none."""
    tables = seats_of_each_model(job)
    if not tables:
        return []
    panel = Panel(job)
    try:
        needs = longest_requests(job)
        return await asyncio.gather(*(_looked_at(panel, seats[0], _largest(needs, seats)) for seats in tables))
    finally:
        await panel.close()


def seats_of_each_model(job: Job) -> list[list[Seat]]:
    """For every model of a backend the seats that it takes, in the order in which documents need them."""
    tables: dict[Any, list[Seat]] = {}
    for seat in job.seats:
        backend = job.recipe.backend_of(seat)
        if backend.provider != "offline":
            tables.setdefault((backend, job.recipe.model_of(seat)), []).append(seat)
    return list(tables.values())


def _largest(needs: Mapping[Seat, Longest], seats: Sequence[Seat]) -> Longest | None:
    return max((needs[seat] for seat in seats if seat in needs), key=_room, default=None)


async def _looked_at(panel: Panel, seat: Seat, need: Longest | None) -> Finding:
    found = await _found(panel, seat, need)
    if found.error is None:
        return found
    error = of_seat(panel.recipe, seat, found.error)
    return Finding(found.text.replace(str(found.error), str(error)), error)


async def _found(panel: Panel, seat: Seat, need: Longest | None) -> Finding:
    asked = f"{panel.recipe.backend_of(seat).provider} {said(panel.recipe.model_of(seat), None)}"
    for attempt in range(ATTEMPTS):
        try:
            return _fit(asked, await panel.served(seat), need)
        except RateLimited as error:
            return Finding(f"{asked}: {error}; not looked at further")
        except Unavailable as error:
            if attempt + 1 == ATTEMPTS:
                return _failed(asked, Unavailable(f"{error}; check --base-url, or start the server"))
            await asyncio.sleep(PAUSE * 2**attempt)
        except RequestRejected as error:
            return _failed(asked, RequestRejected(f"{error}; check --base-url and --model"))
        except SdfError as error:
            return _failed(asked, error)
    raise AssertionError("the last attempt returns")


def _failed(asked: str, error: SdfError) -> Finding:
    return Finding(f"{asked}: {error}", error)


def _unfit(text: str) -> Finding:
    return Finding(text, RecipeError(text))


def _fit(asked: str, served: Served, need: Longest | None) -> Finding:
    """Whether the longest request fits what the server serves; None: all prompts wait for rows or earlier answers."""
    head = f"{asked} at {served.where}"
    if not served.is_known:
        return Finding(f"{head}: answers, and tells nothing of its models")
    if need is None:
        return Finding(f"{head}: there; how long its prompts get is not known yet{_ends(served)}")
    wants = (
        f"{need.genre}/{need.step} takes about {need.n_prompt:,} tokens of prompt and up to {need.n_answer:,} of answer"
    )
    if served.n_output is not None and need.n_answer > served.n_output:
        return _unfit(
            f"{head}: {wants}, and the model writes {served.n_output:,} at most; "
            "lower max_tokens of the step or n_words of the genre, or name another --model"
        )
    room = served.n_context
    if room is None:
        return Finding(f"{head}: there; {wants}; its context is not told{_ends(served)}")
    if need.n_prompt + need.n_answer > room:
        return _unfit(
            f"{head}: {wants}, and its context holds {room:,}; give a model or server with a longer context "
            "(--max-model-len), a shorter --constitution, or genres whose steps take `context: principle`"
        )
    tight = need.n_prompt * MARGIN + need.n_answer > room
    close = ": a tokenizer that finds a third more would not fit" if tight else ""
    return Finding(f"{head}: there; {wants}, of {room:,}{close}{_ends(served)}")


def _ends(served: Served) -> str:
    return f"; it is retired on {served.ends}" if served.ends else ""


def longest_requests(job: Job) -> Mapping[Seat, Longest]:
    """For every seat of the job, the largest of its requests; a fallback may meet any of them."""
    plan, composer = Plan(job, _unmade(job)), Composer(job)
    count = tokens.load("o200k_base").count
    prefixes: dict[str, int] = {}
    found: dict[Seat, Longest] = {}
    for genre in job.genres:
        if plan.n_briefs(genre.key) == 0:
            continue
        for step, request in _requests(composer, plan, genre):
            if request.prefix.hash not in prefixes:
                prefixes[request.prefix.hash] = count([request.prefix.text])[0]
            body = "\n".join([*(each.content for each in request.messages), request.prompt or "", request.tools or ""])
            size = prefixes[request.prefix.hash] + count([body])[0]
            need = Longest(genre.key, step.name, size, request.sampling.max_tokens)
            for seat in (request.seat, "fallback"):
                if seat not in found or _room(need) > _room(found[seat]):
                    found[seat] = need
    return found


def _unmade(job: Job) -> Mapping[str, int]:
    """A row for each genre that reads a stage which is not made: it has no text, so its prompts are bounded from below
    alone."""
    sources = {genre.key: genre.source.path or "" for genre in job.genres if genre.source is not None}
    return {genre: 1 for genre, path in sources.items() if path.startswith(STAGE)}


def _room(need: Longest) -> int:
    return need.n_prompt + need.n_answer


def _requests(composer: Composer, plan: Plan, genre: Genre) -> list[tuple[Step, Request]]:
    brief = _longest_brief(plan, genre)
    values = {step.name: _stand_in(step, brief.n_words) for step in genre.brief_steps}
    found: list[tuple[Step, Request]] = []
    for step in genre.steps:
        try:
            if step.per == "round":
                key = plan.round_of(genre.key, 0)
                assert key is not None
                taken = [_words(25)] * 100
                request = composer.round_request(genre, step, key[0], brief.principle, taken, step.n_items, 0)
            else:
                request = composer.brief_request(genre, step, brief, _words(40), values, 0)
        except GenreError:
            # A prompt that looks into an answer's fields: no text can stand in for it.
            continue
        found.append((step, request))
    return found


def _longest_brief(plan: Plan, genre: Genre) -> Brief:
    """The first brief with the longest principle and the most words that any may have."""
    principle = max(plan.job.constitution.principles, key=lambda each: len(each.text))
    return replace(plan.brief(genre.key, 0), principle=principle, n_words=genre.n_words[1])


def _words(n: int) -> str:
    return "words " * n


def _stand_in(step: Step, n_words: int) -> Any:
    """An answer of the form and about the length that the step asks for."""
    forms: Mapping[str, Any] = {
        "text": _words(n_words),
        "list": [_words(25)] * step.n_items,
        "score": step.highest,
        "messages": [{"role": "user", "content": _words(n_words)}, {"role": "assistant", "content": _words(n_words)}],
        "json": {},
    }
    return forms[step.returns]
