"""The values that flow through the product, frozen, and the one hash that names them.

    Principle, Slot -> Brief -> Request -> Answer -> Settlement -> Receipt

Everything here is plain data: it pickles to workers, compares by value and knows nothing of files,
providers or Ray. Randomness is always `Slot.stream(purpose)`; nothing else may draw.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Role = Literal["write", "rewrite", "judge", "angle"]
# Who may be asked: a model for each role, and one that answers what they refuse.
Seat = Literal["write", "rewrite", "judge", "angle", "fallback"]
Returns = Literal["text", "list", "score", "messages", "json"]
FinishReason = Literal["stop", "length", "refusal", "tool_use", "error"]

# 16 bytes: among a billion names a collision has p < 2e-21.
DIGEST_BYTES = 16


def digest(*parts: str | bytes) -> str:
    """32 hex digits over the parts, each length-prefixed so that ("ab", "c") differs from ("a", "bc")."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no ASCII escapes; what hashes and files are made of."""
    return _CANONICAL.encode(value)


# Made once: making one takes a third of what encoding a small value does.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Principle:
    """A section of the constitution; `text` is exactly `source[start:end]` (characters)."""

    id: str
    title: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a genre's sequence, and the only source of randomness.

    `ordinal` counts within the cell (genre x principle); twins share a slot.
    """

    seed: int
    genre: str
    principle: str
    ordinal: int

    def stream(self, purpose: str) -> int:
        """A 64-bit seed for one purpose; streams of different purposes are independent."""
        return stream(self.seed, self.genre, self.principle, self.ordinal, purpose)


def stream(*parts: str | int) -> int:
    """64 random bits that are a pure function of the parts."""
    return int(digest(*(str(part) for part in parts))[:16], 16)


@dataclass(frozen=True, slots=True)
class Brief:
    """All that is decided about a document before a model is asked.

    `index` is its place in the genre's sequence, `id` its name (slot and content), `n_words` the length
    asked for, `row` its source row when the genre has a source, `twin` its value on the twin axis.
    """

    id: str
    slot: Slot
    genre: str
    index: int
    principle: Principle
    axes: Mapping[str, str]
    n_words: int
    row: Mapping[str, Any] | None = None
    twin: str | None = None


class RoundKey(NamedTuple):
    """An angle round: round `number` of one lane of one cell. Depends on lower numbers of its lane alone."""

    genre: str
    principle: str
    lane: int
    number: int


@dataclass(frozen=True, slots=True)
class Prefix:
    """The shared head of many requests: rendered and hashed once, referred to by all."""

    text: str
    hash: str

    @classmethod
    def of(cls, text: str) -> Prefix:
        return cls(text, digest("prefix", text))


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wants:
    """What a usable answer looks like. `tag` wraps the wanted part; `n_words` counts words of it.

    `quotes` is the text that a verdict must quote from; it was sent already, and is no part of the request key.
    """

    returns: Returns
    n_words: int = 0
    n_items: int = 0
    tag: str | None = None
    lowest: int = 1
    highest: int = 10
    quotes: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model: `prefix` then `messages` (chat), or `prefix` then `prompt` (completion).

    `draw` = hash(slot, step, redraw) seeds sampling, so that equal questions of different slots differ.
    `tools` and `schema` are JSON texts or None. `seat` says whose backend is asked; it is no part of the key.
    """

    model: str
    prefix: Prefix
    messages: tuple[Message, ...]
    sampling: Sampling
    wants: Wants
    draw: int
    prompt: str | None = None
    tools: str | None = None
    schema: str | None = None
    seat: Seat = "write"

    def key(self) -> str:
        """The request key: equal keys are the same purchase. The prefix enters by its hash alone."""
        body = [[message.role, message.content] for message in self.messages]
        sampling = [self.sampling.max_tokens, self.sampling.temperature, self.sampling.top_p, self.sampling.stop]
        wants = [self.wants.returns, self.wants.n_words, self.wants.n_items, self.wants.tag, self.wants.lowest]
        wants.append(self.wants.highest)
        sent = [self.model, self.prefix.hash, body, self.prompt, self.tools, self.schema, sampling, wants, self.draw]
        return digest("request", canonical_json(sent))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider bills them; `input_tokens` excludes what the cache read or wrote."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model returned. `model` is who answered (a fallback may differ from who was asked).

    `tool_calls` is a JSON text or None; `detail` is the provider's category of a refusal.
    """

    text: str
    finish_reason: FinishReason
    model: str
    usage: Usage = field(default_factory=Usage)
    tool_calls: str | None = None
    detail: str | None = None


class Location(NamedTuple):
    """Where a ledger entry lies: `part` is "<epoch>/<name>" under the ledger, `row` counts from 0."""

    part: str
    row: int


@dataclass(frozen=True, slots=True)
class AnswerEntry:
    """An answer as the ledger keeps it. `unit` is the brief id or the round id it was bought for.

    `cost_usd` is what it cost when it was bought, whatever prices say later: 0.0 for one that was copied from another
    ledger, None where the price was not known.
    """

    key: str
    unit: str
    step: str
    prefix: str
    answer: Answer
    cost_usd: float | None = None


class StepAnswer(NamedTuple):
    """Which answer a settlement used for a step."""

    step: str
    key: str
    location: Location


@dataclass(frozen=True, slots=True)
class Measures:
    """What is measured of a document's text; `basis` names tokenizer, checks and dedup view.

    `reject` is the first check that failed, else None. `signature` is empty when the genre is not deduplicated.
    """

    basis: str
    n_tokens: int
    reject: str | None
    signature: bytes


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a brief ended. `reason` None: every step was usable, and `measures` is present."""

    brief: str
    genre: str
    index: int
    reason: str | None
    detail: str | None = None
    angle: str | None = None
    answers: tuple[StepAnswer, ...] = ()
    measures: Measures | None = None


@dataclass(frozen=True, slots=True)
class RoundSettlement:
    """How an angle round ended: one angle per place of the round, None where none was found. `reason` is why its last
    answer without a list was one; None where every answer held one, if only of angles too much alike."""

    round: str
    key: RoundKey
    angles: tuple[str | None, ...]
    answers: tuple[StepAnswer, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the driver learns of a settled brief: a few hundred bytes, never its text.

    `reason` is the settlement's, else the check that rejected it, else None. `basis` is that of its measures:
    a receipt of another basis must be measured again before it is folded.
    """

    brief: str
    genre: str
    index: int
    location: Location
    reason: str | None
    n_tokens: int
    signature: bytes
    basis: str | None = None


@dataclass(frozen=True, slots=True)
class RoundReceipt:
    """What the driver learns of a settled angle round: its angles, the one model text that passes the driver.

    `round` is the settlement's: rounds of one key under an edited prompt differ in it.
    """

    key: RoundKey
    location: Location
    angles: tuple[str | None, ...]
    round: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A brief that did not become a document. `of` is the document it duplicates."""

    brief: str
    genre: str
    reason: str
    of: str | None = None


def receipt_of(settlement: Settlement, location: Location) -> Receipt:
    measures = settlement.measures
    return Receipt(
        settlement.brief,
        settlement.genre,
        settlement.index,
        location,
        settlement.reason or (measures.reject if measures else None),
        measures.n_tokens if measures else 0,
        measures.signature if measures else b"",
        measures.basis if measures else None,
    )
