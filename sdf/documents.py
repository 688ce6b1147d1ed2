"""What is measured of a document, and the row it becomes.

`Meter` measures a batch: tokens, signatures, verdicts of the checks. `row` puts beside the text columns where they came
from. Both are the same wherever a ledger is folded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from sdf import __version__, tokens
from sdf.answers import value
from sdf.checks import Checks, Subject, asked_language, forbidden_by, language_of, reject_reason
from sdf.columns import Columns, Draft, emit
from sdf.decontaminate import Decontaminator
from sdf.dedup import SCHEME, Words32, signed
from sdf.errors import GenreError
from sdf.genres import Genre, Step
from sdf.genres.model import TEMPLATE
from sdf.job import Job
from sdf.manifest import text_of
from sdf.names import COMMON_NAMES, TELLING
from sdf.prompts import brief_context, wants
from sdf.records import Answer, AnswerEntry, Brief, Measures, canonical_json, digest


def values_of(genre: Genre, brief: Brief, entries: Sequence[AnswerEntry]) -> dict[str, Any]:
    """The parsed answers of a settlement's steps, by step name."""
    steps = {step.name: step for step in genre.steps}
    return {
        entry.step: value(wants(steps[entry.step], brief.n_words), entry.answer)
        for entry in entries
        # A ledger of the whole genre holds answers of steps that an ablated arm leaves out.
        if entry.step in steps
    }


def turns_of(columns: Columns, role: str) -> str:
    return "\n".join(message["content"] for message in columns["messages"] if message["role"] == role)


def checked_text(genre: Genre, columns: Columns) -> str:
    """The part whose words the genre bounds: the document, the reply of a chat, the question of a prompt."""
    if genre.kind == "chat":
        return turns_of(columns, "assistant")
    return turns_of(columns, "user") if genre.kind == "prompt" else text_of(genre.config, columns)


def all_texts(genre: Genre, columns: Columns) -> list[str]:
    """Everything a reader of the row sees, a turn each."""
    turns = columns.get("messages")
    return [text_of(genre.config, columns)] if turns is None else [str(turn["content"]) for turn in turns]


def compared_text(genre: Genre, columns: Columns, angle: str | None) -> str | None:
    """The part that near-duplicates are found by; None when the genre is not deduplicated."""
    if genre.dedup == "none":
        return None
    if genre.dedup == "scenario":
        return angle or ""
    if genre.dedup in ("assistant", "user") and "messages" in columns:
        return turns_of(columns, genre.dedup)
    return text_of(genre.config, columns)


def scores_of(genre: Genre, values: Mapping[str, Any]) -> dict[str, int]:
    """The verdicts there are, by step; a sampled step has one for its sample alone."""
    return {
        step.name: values[step.name] for step in genre.brief_steps if step.returns == "score" and step.name in values
    }


# Why a draft is rejected whose columns cannot be put together.
UNPACKED = "not_emitted"


class _Packed(NamedTuple):
    genre: Genre
    columns: Columns
    counted: str
    compared: str | None


class Meter:
    """Measures drafts in batches. Equal `basis` means equal measures of equal text; the rules are this version's."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._tokenizer = tokens.load(job.recipe.tokenizer)
        self._genres = {genre.key: genre for genre in job.genres}
        self._checks = {genre.key: checks_of(job, genre) for genre in job.genres}
        self._languages = {genre.key: language_of_prompts(genre) for genre in job.genres}
        self._bases = {genre.key: self._basis(genre.key) for genre in job.genres}

    def basis(self, genre: str) -> str:
        return self._bases[genre]

    def _basis(self, genre: str) -> str:
        checks, declared = self._checks[genre], self._genres[genre]
        rules = [checks.n_words, sorted(checks.off), checks.min_score, checks.overused, sorted(checks.forbids)]
        rules += [[each.name, each.sha256] for each in self._job.evaluations]
        return digest(
            "basis",
            __version__,
            SCHEME,
            self._tokenizer.hash,
            canonical_json(rules),
            declared.dedup,
            canonical_json(dict(declared.emit)),
            *(f"{column} {each.source}" for column, each in sorted(declared.emit_templates.items())),
        )

    def measure(self, drafts: Sequence[Draft]) -> list[Measures]:
        """In the order given: one tokenizer call, one pass of hashing per text, which the checks share."""
        packed = [self._packed(draft) for draft in drafts]
        counts = iter(self._tokenizer.count([each.counted for each in packed if each is not None]))
        rows = signed(each.compared for each in packed if each is not None and each.compared is not None)
        return [
            Measures(self.basis(draft.brief.genre), 0, UNPACKED, b"")
            if each is None
            else self._measures(draft, each, next(counts), None if each.compared is None else next(rows))
            for draft, each in zip(drafts, packed, strict=True)
        ]

    def _measures(self, draft: Draft, packed: _Packed, n_tokens: int, signature: Words32 | None) -> Measures:
        reason = self._verdict(packed, draft)
        if reason is None and self._job.evaluations:
            texts = all_texts(packed.genre, packed.columns)
            reason = self._decontaminator.reason(texts, signature if texts == [packed.compared] else None)
        kept = b"" if signature is None else signature.astype("<u4").tobytes()
        return Measures(self.basis(draft.brief.genre), n_tokens, reason, kept)

    def _packed(self, draft: Draft) -> _Packed | None:
        """None where a template cannot be filled in with what the models answered."""
        genre = self._genres[draft.brief.genre]
        try:
            columns = emit(self._job, genre, draft)
        except GenreError:
            return None
        return _Packed(genre, columns, text_of(genre.config, columns), compared_text(genre, columns, draft.angle))

    def _verdict(self, packed: _Packed, draft: Draft) -> str | None:
        genre = packed.genre
        subject = Subject(
            checked_text(genre, packed.columns),
            packed.columns.get("messages"),
            packed.columns.get("tools"),
            injected_texts(self._job, genre, draft),
            language_asked(draft.brief, self._languages[genre.key]),
            scores_of(genre, draft.values),
        )
        return reject_reason(subject, self._checks[genre.key])

    @cached_property
    def _decontaminator(self) -> Decontaminator:
        """Built with the first text to judge: a fold that measures nothing anew needs no evaluation file."""
        return Decontaminator(self._job.evaluations, self._job.constitution.text)


def checks_of(job: Job, genre: Genre) -> Checks:
    return Checks(
        n_words=genre.n_words,
        off=frozenset(genre.checks.off) | frozenset(job.recipe.checks_off),
        min_score=tuple(sorted(genre.checks.min_score.items())),
        banned_names=TELLING,
        common_names=COMMON_NAMES,
        overused=job.bans,
        forbids=forbidden_by(genre.preamble.source) if genre.preamble is not None else frozenset(),
        prompts=prompts_of(genre),
    )


# What Jinja fills in or leaves out; a run of words never goes across it.
_JINJA = re.compile(r"\{[{%#].*?[}%#]\}", re.DOTALL)


def prompts_of(genre: Genre) -> tuple[str, ...]:
    """The words of its prompts that every document's models are told."""
    parts = [part for part in (genre.preamble, genre.instructions) if part is not None]
    parts += [step.body for step in genre.steps]
    return tuple(piece for part in parts for piece in _JINJA.split(part.source) if piece.strip())


def injected_texts(job: Job, genre: Genre, draft: Draft) -> tuple[str, ...]:
    """What was sent as an injected system text, as it was sent."""
    steps = [step for step in genre.brief_steps if step.inject is not None]
    if not steps:
        return ()
    context = brief_context(job, genre, draft.brief, draft.angle, draft.values)
    found = [step.inject.render({**context, "n_items": step.n_items}) for step in steps if step.inject is not None]
    return tuple(text for text in found if text.strip())


def language_of_prompts(genre: Genre) -> str | None:
    """The language that a genre is written in, and so its texts; None where these follow the rows of a source."""
    return None if genre.source is not None else language_of("\n".join(prompts_of(genre)))


def language_asked(brief: Brief, own: str | None) -> str | None:
    """An axis `language` says, "the language of the place" by the axis `locale`; without one, that of the prompts."""
    return asked_language(brief.axes["language"], brief.axes.get("locale")) if "language" in brief.axes else own


def row(job: Job, genre: Genre, draft: Draft, n_tokens: int, entries: Sequence[AnswerEntry]) -> dict[str, Any]:
    """A shard row: the text columns and where they came from. Nothing of cost, time, host or attempt."""
    brief = draft.brief
    spoken = {entry.step: entry.answer for entry in entries}
    voice = voice_of(genre)
    return {
        **emit(job, genre, draft),
        "id": brief.id,
        "genre": genre.key,
        "principle": brief.principle.id,
        "axes": canonical_json(dict(brief.axes)),
        "scores": canonical_json(scores_of(genre, draft.values)),
        "source": _source_of(brief),
        "model": spoken[voice.name].model,
        "fallback": _by_fallback(job, genre, spoken),
        "prompt_hash": genre.hash,
        "n_tokens": n_tokens,
        "finish_reason": spoken[voice.name].finish_reason,
        "constitution_hash": job.constitution.hash,
    }


def _by_fallback(job: Job, genre: Genre, spoken: Mapping[str, Answer]) -> bool:
    """Whether any of the row's steps was answered by the fallback model in another's place."""
    if not job.recipe.has_fallback:
        return False
    fallback = job.recipe.model_of("fallback")
    steps = [step for step in genre.brief_steps if step.name in spoken]
    return any(spoken[step.name].model == fallback != job.recipe.model_of(step.role) for step in steps)


def _source_of(brief: Brief) -> str | None:
    """The `id` of the row that the brief was made from, when its genre's source declares one."""
    found = (brief.row or {}).get("id")
    return None if found is None else str(found)


def voice_of(genre: Genre) -> Step:
    """The step whose model a row names: the one that wrote the document, or the reply; where a template puts it
    together, the last that the template reads."""
    asked = [step for step in genre.brief_steps if step.sample is None]
    for column in ("text", "messages", "assistant", "user", *genre.emit):
        origin = genre.emit.get(column, "")
        read = genre.emit_templates[column].names if origin == TEMPLATE else {origin}
        if voices := [step for step in asked if step.name in read]:
            return voices[-1]
    return asked[-1]
