"""brief + step + what earlier steps said -> the Request. Pure, and the only place that renders prompts.

A request is a prefix and a body. The prefix (preamble, constitution or principle, genre instructions) is
rendered and hashed once per process and shared by every request that starts with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sdf.genres import Genre, Step
from sdf.job import Job
from sdf.plan import names_of
from sdf.quotes import quotable
from sdf.records import Brief, Message, Prefix, Principle, Request, RoundKey, Sampling, Wants, stream

# Angles of earlier rounds that a prompt shows; the gate compares with all of them.
SHOWN_ANGLES = 100

# Room beyond the text asked for. A rewriter thinks before it writes, and a shared budget cut a fifth of the
# long documents elsewhere; tokens that are not used cost nothing.
THINKING_TOKENS = 4_096
TOKENS_PER_WORD = 3
TOKENS_PER_ITEM = 96


def wants(step: Step, n_words: int, n_items: int | None = None, values: Mapping[str, Any] | None = None) -> Wants:
    """What a usable answer to a step looks like. Without the earlier answers nothing is asked of its quotations."""
    items = n_items or step.n_items
    judged = (values or {}).get(step.quotes) if step.quotes is not None else None
    quotes = quotable(judged) if judged is not None else None
    return Wants(step.returns, n_words, items, step.tag, step.lowest, step.highest, quotes)


def max_tokens(step: Step, wanted: Wants) -> int:
    if step.max_tokens is not None:
        return step.max_tokens
    if step.returns == "list":
        return THINKING_TOKENS + TOKENS_PER_ITEM * wanted.n_items
    if step.returns == "score":
        return THINKING_TOKENS
    return THINKING_TOKENS + TOKENS_PER_WORD * wanted.n_words


# Lanes do not see each other: where a model takes no seed, their first prompts would be one prompt, and its ideas too.
BESIDE = (
    "Several people are drawing up such lists side by side, each without sight of the others; this is list {number}. "
    "Pass over what would come to anybody first, and begin further out."
)


class Composer:
    """Requests of one job. Prefixes are kept: one per genre, and one per cell where the context is a principle."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._names = named(job)
        self._prefix = lru_cache(maxsize=1_024)(self._render_prefix)

    def brief_request(
        self, genre: Genre, step: Step, brief: Brief, angle: str | None, values: Mapping[str, Any], redraw: int
    ) -> Request:
        """The request of a brief's step; `values` are the earlier answers, parsed. GenreError if it cannot render."""
        context = {**brief_context(self.job, genre, brief, angle, values), "n_items": step.n_items}
        draw = stream(brief.slot.stream("draw"), step.name, redraw)
        wanted = wants(step, brief.n_words, values=_said(genre, context) if step.quotes is not None else None)
        return self._request(genre, step, brief.principle, context, wanted, draw)

    def round_request(
        self,
        genre: Genre,
        step: Step,
        key: RoundKey,
        principle: Principle,
        taken: Sequence[str],
        n_items: int,
        attempt: int,
    ) -> Request:
        """The request of an angle round for `n_items` more angles; shows the last of those taken in its lane."""
        context = {
            "principle": _principle(principle),
            "taken": list(taken[-SHOWN_ANGLES:]),
            "n_items": n_items,
            **self._names,
        }
        draw = stream(self.job.recipe.seed, *key, "round", step.name, attempt)
        request = self._request(genre, step, principle, context, wants(step, 0, n_items), draw)
        return request if key.lane == 0 else _beside(request, key.lane)

    def _request(
        self, genre: Genre, step: Step, principle: Principle, context: Mapping[str, Any], wanted: Wants, draw: int
    ) -> Request:
        messages = _conversation(genre, step, context)
        recipe = self.job.recipe
        return Request(
            model=recipe.model_of(step.role),
            prefix=self._prefix(genre, step.context, principle if step.context == "principle" else None),
            messages=tuple(messages) if step.form == "chat" else (),
            prompt=messages[-1].content if step.form == "completion" else None,
            sampling=Sampling(max_tokens(step, wanted), recipe.temperature, recipe.top_p, step.stop),
            wants=wanted,
            draw=draw,
            tools=step.tools,
            schema=step.schema,
            seat=step.role,
        )

    def fallback(self, request: Request) -> Request | None:
        """The same question to the model that answers what others refuse; None when the recipe names none."""
        recipe = self.job.recipe
        if not recipe.has_fallback or request.seat == "fallback":
            return None
        return replace(request, model=recipe.model_of("fallback"), seat="fallback")

    def _render_prefix(self, genre: Genre, context: str, principle: Principle | None) -> Prefix:
        known: dict[str, Any] = dict(self._names)
        if principle is not None:
            known["principle"] = _principle(principle)
        parts = [genre.preamble.render(self._names)] if genre.preamble is not None else []
        if context == "full":
            parts.append(f"<constitution>\n{self.job.constitution.text.strip()}\n</constitution>")
        elif principle is not None:
            parts.append(f"<principle>\n{principle.text.strip()}\n</principle>")
        if genre.instructions is not None:
            parts.append(genre.instructions.render(known))
        return Prefix.of("\n\n".join(part.strip() for part in parts))


def _conversation(genre: Genre, step: Step, context: Mapping[str, Any]) -> list[Message]:
    """The injected system text, the turns that the step goes on from, and its own question."""
    first, *_ = steps = genre.conversation(step)
    injected = first.inject.render(context) if first.inject is not None else ""
    messages = [Message("system", injected)] if injected.strip() else []
    for before in steps[:-1]:
        messages += [Message("user", before.body.render(context)), Message("assistant", context[before.name])]
    return [*messages, Message("user", step.body.render(context))]


def _beside(request: Request, lane: int) -> Request:
    aside = "\n\n" + BESIDE.format(number=lane + 1)
    if request.prompt is not None:
        return replace(request, prompt=request.prompt + aside)
    *before, asked = request.messages
    return replace(request, messages=(*before, replace(asked, content=asked.content + aside)))


def _said(genre: Genre, context: Mapping[str, Any]) -> dict[str, Any]:
    """Earlier answers by step, each with those of the conversation it belongs to."""
    steps = {step.name: genre.conversation(step) for step in genre.declared if step.name in context}
    return {name: [context[each.name] for each in turns] for name, turns in steps.items()}


def named(job: Job) -> dict[str, Any]:
    """What every template of a job knows."""
    recipe = job.recipe
    return {"assistant": recipe.assistant, "maker": recipe.maker, "worry": recipe.worry, "bans": list(job.bans)}


def brief_context(job: Job, genre: Genre, brief: Brief, angle: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a template knows of a brief; `values` are the parsed answers it has so far."""
    standing = {name: values[other] for name, other in genre.ablated.items() if other in values}
    return {
        **values,
        **standing,
        "brief": _view(brief),
        "principle": _principle(brief.principle),
        "angle": angle or "",
        "names": names_of(brief),
        **named(job),
    }


def _principle(principle: Principle) -> dict[str, str]:
    return {"id": principle.id, "title": principle.title, "text": principle.text}


def _view(brief: Brief) -> dict[str, Any]:
    return {
        "axes": dict(brief.axes),
        "n_words": brief.n_words,
        "principle": _principle(brief.principle),
        "row": dict(brief.row or {}),
        "twin": brief.twin or "",
    }
