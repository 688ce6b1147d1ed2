"""What a brief's answers amount to: the columns a reader sees, and what is measured of them.

`emit` takes columns from the steps the genre names, so nothing that was only sent (an injected system text,
a prompt) can reach a corpus. `Meter` measures a batch: tokens, signatures, verdicts of the checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdf import __version__, tokens
from sdf.answers import value
from sdf.checks import Checks, reject_reason
from sdf.dedup import signatures
from sdf.genres import Genre
from sdf.job import Job
from sdf.manifest import text_of
from sdf.prompts import wants
from sdf.records import AnswerEntry, Brief, Measures, canonical_json, digest

Columns = Mapping[str, Any]

TURNS = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Draft:
    """A brief with every step's parsed answer: all that a document is made from."""

    brief: Brief
    angle: str | None
    values: Mapping[str, Any]


def values_of(genre: Genre, brief: Brief, entries: Sequence[AnswerEntry]) -> dict[str, Any]:
    """The parsed answers of a settlement's steps, by step name."""
    steps = {step.name: step for step in genre.steps}
    return {entry.step: value(wants(steps[entry.step], brief.n_words), entry.answer) for entry in entries}


def emit(genre: Genre, values: Mapping[str, Any]) -> dict[str, Any]:
    """The text columns of a document: `text`; or `messages` (role and content) and `tools`; or `item` (JSON)."""
    if genre.kind == "document":
        return {"text": values[genre.emit["text"]]}
    if genre.kind == "item":
        return {"item": canonical_json({column: values[step] for column, step in genre.emit.items()})}
    if "messages" in genre.emit:
        messages = values[genre.emit["messages"]]
    else:
        turns = [(role, genre.emit[role]) for role in TURNS if role in genre.emit]
        messages = [{"role": role, "content": values[step]} for role, step in turns]
    tools = genre.emit.get("tools")
    return {"messages": messages, "tools": canonical_json(values[tools]) if tools else None}


def turns_of(columns: Columns, role: str) -> str:
    return "\n".join(message["content"] for message in columns["messages"] if message["role"] == role)


def checked_text(genre: Genre, columns: Columns) -> str:
    """The part whose words the genre bounds: the document, the reply of a chat, the question of a prompt."""
    if genre.kind == "chat":
        return turns_of(columns, "assistant")
    return turns_of(columns, "user") if genre.kind == "prompt" else text_of(genre.config, columns)


def compared_text(genre: Genre, columns: Columns, angle: str | None) -> str | None:
    """The part that near-duplicates are found by; None when the genre is not deduplicated."""
    if genre.dedup == "none":
        return None
    if genre.dedup == "scenario":
        return angle or ""
    if genre.dedup in ("assistant", "user") and "messages" in columns:
        return turns_of(columns, genre.dedup)
    return text_of(genre.config, columns)


class Meter:
    """Measures drafts in batches. Equal `basis` means equal measures of equal text; the rules are this version's."""

    def __init__(self, job: Job) -> None:
        self._tokenizer = tokens.load(job.recipe.tokenizer)
        self._genres = {genre.key: genre for genre in job.genres}
        self._checks = {genre.key: checks_of(job, genre) for genre in job.genres}
        self._bases = {genre.key: self._basis(genre.key) for genre in job.genres}

    def basis(self, genre: str) -> str:
        return self._bases[genre]

    def _basis(self, genre: str) -> str:
        checks, declared = self._checks[genre], self._genres[genre]
        rules = [checks.n_words, sorted(checks.off), checks.min_score, checks.banned_names]
        return digest(
            "basis",
            __version__,
            self._tokenizer.hash,
            canonical_json(rules),
            declared.dedup,
            canonical_json(dict(declared.emit)),
        )

    def measure(self, drafts: Sequence[Draft]) -> list[Measures]:
        """In the order given: one tokenizer call, one pass of hashing per text."""
        genres = [self._genres[draft.brief.genre] for draft in drafts]
        columns = [emit(genre, draft.values) for genre, draft in zip(genres, drafts, strict=True)]
        counts = self._tokenizer.count(
            [text_of(genre.config, each) for genre, each in zip(genres, columns, strict=True)]
        )
        compared = [
            compared_text(genre, each, draft.angle) for genre, each, draft in zip(genres, columns, drafts, strict=True)
        ]
        signed = iter(signatures([text for text in compared if text is not None]))
        return [
            Measures(
                self.basis(genre.key),
                count,
                self._verdict(genre, each, draft),
                b"" if text is None else next(signed).astype("<u4").tobytes(),
            )
            for genre, each, draft, count, text in zip(genres, columns, drafts, counts, compared, strict=True)
        ]

    def _verdict(self, genre: Genre, columns: Columns, draft: Draft) -> str | None:
        scores = {step.name: draft.values[step.name] for step in genre.brief_steps if step.returns == "score"}
        return reject_reason(checked_text(genre, columns), self._checks[genre.key], scores)


def checks_of(job: Job, genre: Genre) -> Checks:
    return Checks(
        n_words=genre.n_words,
        off=frozenset(genre.checks.off) | frozenset(job.recipe.checks_off),
        min_score=tuple(sorted(genre.checks.min_score.items())),
        banned_names=(),
    )


def row(job: Job, genre: Genre, brief: Brief, n_tokens: int, entries: Sequence[AnswerEntry]) -> dict[str, Any]:
    """A shard row: the text columns and where they came from. Nothing of cost, time, host or attempt."""
    spoken = {entry.step: entry.answer for entry in entries}
    voice = _voice(genre)
    asked = job.recipe.model_of(next(step.role for step in genre.steps if step.name == voice))
    return {
        **emit(genre, values_of(genre, brief, entries)),
        "id": brief.id,
        "genre": genre.key,
        "principle": brief.principle.id,
        "axes": canonical_json(dict(brief.axes)),
        "model": spoken[voice].model,
        "fallback": spoken[voice].model != asked,
        "prompt_hash": genre.hash,
        "n_tokens": n_tokens,
        "finish_reason": spoken[voice].finish_reason,
        "constitution_hash": job.constitution.hash,
    }


def _voice(genre: Genre) -> str:
    """The step whose model a row names: the one that wrote the document, or the reply."""
    for column in ("text", "messages", "assistant", "user"):
        if column in genre.emit:
            return genre.emit[column]
    return next(iter(genre.emit.values()))
