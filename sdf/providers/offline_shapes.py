"""The shapes an answer may take: text, a list, a score, messages, JSON. Each is written by one `Writer`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sdf.providers.offline_grammar import Writer
from sdf.records import Request, Returns, Wants, canonical_json

# Where a request names no length.
N_WORDS, N_ITEMS = 150, 10
# A title line heads one text in four, of those long enough to carry one.
TITLE_WORDS = 250
# Schemas deeper than this are answered with an empty value.
MAX_DEPTH = 12


def text(writer: Writer, request: Request) -> str:
    n_words = request.wants.n_words or N_WORDS
    title = request.prompt is None and n_words >= TITLE_WORDS and writer.byte() < 64
    return _tagged(request.wants, writer.prose(n_words, title=title))


def items(writer: Writer, request: Request) -> str:
    n_items = request.wants.n_items or N_ITEMS
    return _tagged(request.wants, "\n".join(f"{n}. {writer.sentence('item')}" for n in range(1, n_items + 1)))


def score(writer: Writer, request: Request) -> str:
    """Mostly in the upper third of the range; a tagged score follows a sentence of reasons."""
    wants = request.wants
    n_scores = wants.highest - wants.lowest + 1
    high = max(1, n_scores // 3)
    down = writer.byte() % (high if writer.byte() < 216 else n_scores)
    verdict = str(wants.highest - down)
    return f"{writer.sentence('verdict')}\n<{wants.tag}>{verdict}</{wants.tag}>" if wants.tag else verdict


def messages(writer: Writer, request: Request) -> str:
    """A question and its answer, at times with a second exchange; `n_words` over all of them."""
    n_words = request.wants.n_words or N_WORDS
    n_turns = 4 if n_words >= 200 and writer.byte() < 96 else 2
    shares = (0.25, 0.75) if n_turns == 2 else (0.2, 0.4, 0.1, 0.3)
    turns = [
        {"role": role, "content": writer.prose(max(1, round(n_words * share)))}
        for role, share in zip(("user", "assistant") * 2, shares)
    ]
    return _tagged(request.wants, json.dumps(turns, ensure_ascii=False))


def json_object(writer: Writer, request: Request) -> str:
    schema = json.loads(request.schema) if request.schema else FREE_SCHEMA
    return _tagged(request.wants, canonical_json(instance(writer, schema, schema, request.wants.n_words)))


FREE_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"summary": {"type": "string"}, "points": {"type": "array", "items": {"type": "string"}}},
}


def instance(writer: Writer, schema: Any, root: Any, n_words: int, depth: int = 0) -> Any:
    """A value of the JSON schema: its types, enums, bounds, items, properties, first alternatives and local refs."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return writer.sentence("item") if depth <= MAX_DEPTH else None
    if "$ref" in schema:
        return instance(writer, _referred(schema["$ref"], root), root, n_words, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][writer.byte() % len(schema["enum"])]
    for alternatives in ("anyOf", "oneOf", "allOf"):
        if alternatives in schema:
            return instance(writer, schema[alternatives][0], root, n_words, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _of_type(writer, kind[0] if isinstance(kind, list) else kind, schema, root, n_words, depth)


def _of_type(writer: Writer, kind: str, schema: Mapping[str, Any], root: Any, n_words: int, depth: int) -> Any:
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: instance(writer, properties[name], root, n_words, depth + 1) for name in properties}
    if kind == "array":
        n_items = max(schema.get("minItems", 0), min(3, schema.get("maxItems", 3)))
        return [instance(writer, schema.get("items", {}), root, n_words, depth + 1) for _ in range(n_items)]
    if kind in {"integer", "number"}:
        lowest = schema.get("minimum", min(1, schema.get("maximum", 1)))
        return lowest + writer.byte() % (int(schema.get("maximum", lowest + 9) - lowest) + 1)
    if kind == "boolean":
        return writer.byte() < 128
    if kind == "null":
        return None
    return writer.sentence("item")[: schema.get("maxLength")]


def _referred(pointer: str, root: Any) -> Any:
    """What a local `#/a/b` pointer names; anything else is any value."""
    found = root
    for part in pointer.removeprefix("#/").split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, Mapping) else {}
    return found


def _tagged(wants: Wants, inside: str) -> str:
    return f"<{wants.tag}>\n{inside}\n</{wants.tag}>" if wants.tag else inside


def unusable(wants: Wants) -> str:
    """An answer that ends well and yet holds nothing of what was wanted."""
    return _tagged(wants, UNUSABLE[wants.returns])


UNUSABLE: Mapping[Returns, str] = {
    "text": "",
    "list": "",
    "score": "somewhere between good and very good",
    "messages": '[{"role": "user", "content": "It stops he',
    "json": '{"summary": "It stops he',
}
SHAPES: Mapping[Returns, Callable[[Writer, Request], str]] = {
    "text": text,
    "list": items,
    "score": score,
    "messages": messages,
    "json": json_object,
}
