"""What a job would make, before anything is paid for: an estimate from what the recipe and the genre files declare.

Lengths are asked for log-uniformly, so the mean length is known; rejections are not, and the estimate leaves them
out. It is the same guess a run starts from before it has seen a document.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from sdf import tokens
from sdf.genres import Axis, Genre
from sdf.genres.templates import Template
from sdf.job import Job
from sdf.manifest import ALL
from sdf.plan import Plan, expected_tokens, n_rounds
from sdf.prompts import Composer
from sdf.records import Prefix, Seat

NOTHING: Mapping[str, int] = {}

Effect = Literal["left out", "asked anew", "as before"]


@dataclass(frozen=True, slots=True)
class AxisPlan:
    """An axis and the exact share of each of its values in the deck, in the order of the genre file."""

    name: str
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GenrePlan:
    """A genre's part of the corpus. `share` is a fraction of tokens; `n_rows` None for an endless sequence.

    `n_documents` and `n_requests` are expected, without rejections and redraws; `prefix_tokens` is the size of the
    largest prompt head that its requests share.
    """

    key: str
    kind: str
    about: str
    share: float
    n_tokens: int
    n_documents: int
    n_requests: int
    n_words: tuple[int, int]
    prefix_tokens: int
    n_rows: int | None
    axes: tuple[AxisPlan, ...]
    config: str


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What becomes of a step in an arm of an ablation, or under `--reuse`.

    `effect` is "left out" (`stands` names the step in its place), "asked anew", since its prompt comes out otherwise,
    or "as before". `n_free` and `n_paid` count the requests of as many briefs as the reused ledgers settled.
    """

    genre: str
    step: str
    effect: Effect
    stands: str | None
    n_free: int
    n_paid: int


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a job would make. `models` and `providers` name who answers for each seat that its genres use.

    `stages` holds the plan of each stage, and is empty without stages. With `is_all` the target is all there is, and
    `n_tokens` an estimate.

    `steps` is empty unless something is left out or reused; their counts are exact when `is_exact`.
    """

    recipe: str
    constitution: str
    constitution_hash: str
    n_principles: int
    providers: Mapping[Seat, str]
    models: Mapping[Seat, str]
    tokenizer: str
    n_tokens: int
    n_documents: int
    n_requests: int
    genres: tuple[GenrePlan, ...]
    steps: tuple[StepPlan, ...] = ()
    is_reusing: bool = False
    is_exact: bool = True
    is_all: bool = False
    stages: tuple[PlanReport, ...] = ()


def plan_report(job: Job, expected: Mapping[str, int] = NOTHING) -> PlanReport:
    """The plan of a job; free, nothing is written. TokenizerError for an unknown tokenizer.

    `expected` are rows of sources that are not made yet, by genre.
    """
    recipe, plan = job.recipe, Plan(job, expected)
    tokenizer = tokens.load(recipe.tokenizer)
    heads = _Heads(job, plan, tokenizer)
    total = sum(recipe.mix.values())
    genres = tuple(_genre_plan(job, plan, heads, genre, recipe.mix[genre.key] / total) for genre in job.genres)
    return PlanReport(
        recipe=recipe.name,
        constitution=job.constitution.source,
        constitution_hash=job.constitution.hash,
        n_principles=len(job.constitution.principles),
        providers={seat: recipe.backend_of(seat).provider for seat in job.seats},
        models={seat: recipe.model_of(seat) for seat in job.seats},
        tokenizer=tokenizer.name,
        n_tokens=recipe.tokens if recipe.tokens != ALL else sum(each.n_tokens for each in genres),
        is_all=recipe.tokens == ALL,
        n_documents=sum(each.n_documents for each in genres),
        n_requests=sum(each.n_requests for each in genres),
        genres=genres,
    )


def _genre_plan(job: Job, plan: Plan, heads: _Heads, genre: Genre, share: float) -> GenrePlan:
    n_rows = plan.n_briefs(genre.key)
    if job.recipe.tokens == ALL:
        assert n_rows is not None
        wanted = n_rows * expected_tokens(genre)
    else:
        wanted = job.recipe.tokens * share
    n_documents = math.ceil(wanted / expected_tokens(genre))
    if n_rows is not None:
        n_documents = min(n_documents, n_rows)
    n_of_rounds = n_rounds(genre, plan, n_documents, len(job.constitution.principles))
    return GenrePlan(
        key=genre.key,
        kind=genre.kind,
        about=genre.about,
        share=share,
        n_tokens=round(wanted),
        n_documents=n_documents,
        n_requests=n_documents * len(genre.brief_steps) + n_of_rounds,
        n_words=genre.n_words,
        prefix_tokens=heads.n_tokens(genre),
        n_rows=n_rows,
        axes=axes_of(genre),
        config=genre.config,
    )


def axes_of(genre: Genre) -> tuple[AxisPlan, ...]:
    return tuple(AxisPlan(axis.name, _deck_shares(axis)) for axis in genre.axes)


def _deck_shares(axis: Axis) -> dict[str, float]:
    dealt = Counter(axis.deck)
    return {value: dealt[value] / len(axis.deck) for value in axis.values}


class _Heads:
    """Sizes of prompt heads; the one with the whole constitution is counted once per genre."""

    def __init__(self, job: Job, plan: Plan, tokenizer: tokens.Tokenizer) -> None:
        self._composer, self._plan, self._tokenizer = Composer(job), plan, tokenizer

    def n_tokens(self, genre: Genre) -> int:
        """Of the largest prefix among the genre's steps, for its first brief."""
        if self._plan.n_briefs(genre.key) == 0:
            return 0
        heads = {head.hash: head.text for head in self._of(genre)}
        return max(self._tokenizer.count(list(heads.values())))

    def _of(self, genre: Genre) -> list[Prefix]:
        brief = self._plan.brief(genre.key, 0)
        # A body needs earlier answers, which do not exist yet; the prefix depends on the step's context alone.
        empty = Template("", genre.path)
        bare = [replace(step, body=empty, inject=None, quotes=None, follows=None) for step in genre.steps]
        return [self._composer.brief_request(genre, step, brief, None, {}, 0).prefix for step in bare]
