"""The shapes an answer may take: text, a list, a score, messages, JSON, a tool call. One `Writer` writes each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sdf.providers.offline.writer import Writer
from sdf.quotes import CLOSING, FEWEST_WORDS, OPENING
from sdf.records import Request, Returns, Wants, canonical_json

# Where a request names no length.
N_WORDS, N_ITEMS = 150, 10
# A title line heads one text in four, of those long enough to carry one.
TITLE_WORDS = 250
# Of a quotation: enough to be found by.
QUOTED_WORDS = 12
# Tags that show what a text is for, by the plan and the last beat that suit it.
_PLANS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("prompt", "user", "question", "request"), ("question", "askend")),
    **dict.fromkeys(("reply", "response", "answer", "assistant"), ("answer", "adviseend")),
}


def text(writer: Writer, request: Request) -> str:
    wants = request.wants
    plan, end = _PLANS.get(wants.tag or "", (None, "close"))
    # Of a document asked for with a short answer beside it, such as its question, the length is the document's.
    n_words = min(wants.n_words or N_WORDS, max(1, request.sampling.max_tokens // 2))
    title = plan is None and request.prompt is None and n_words >= TITLE_WORDS and writer.byte() < 64
    return _tagged(wants, writer.prose(n_words, plan=plan, end=end, title=title))


def items(writer: Writer, request: Request) -> str:
    n_items = request.wants.n_items or N_ITEMS
    return _tagged(request.wants, "\n".join(f"{n}. {writer.item()}" for n in range(1, n_items + 1)))


def score(writer: Writer, request: Request) -> str:
    """All but one in 32 in the upper third of the range, which the built-in genres keep; before a tagged score stands
    a sentence of reasons, and where one is asked for a quotation of what is judged."""
    wants = request.wants
    n_scores = wants.highest - wants.lowest + 1
    n_high = max(1, n_scores // 3) if writer.byte() < 248 else n_scores
    verdict = str(wants.highest - writer.byte() % n_high)
    if wants.tag is None:
        return verdict
    reasons = writer.sentence("verdict") + ("" if wants.quotes is None else f"\n{_quotation(writer, wants.quotes)}")
    return f"{reasons}\n<{wants.tag}>{verdict}</{wants.tag}>"


def _quotation(writer: Writer, judged: str) -> str:
    """Words of one line of the judged text, as they stand there."""
    lines = [line.split() for line in judged.splitlines() if len(line.split()) >= FEWEST_WORDS] or [judged.split()]
    words = lines[writer.byte() % len(lines)]
    start = writer.byte() % max(1, len(words) - QUOTED_WORDS + 1)
    return f"{OPENING}{' '.join(words[start : start + QUOTED_WORDS])}{CLOSING}"


def messages(writer: Writer, request: Request) -> str:
    """A question and its answer, and at times a second exchange; `n_words` over all of them."""
    n_words = request.wants.n_words or N_WORDS
    shares = (0.2, 0.4, 0.1, 0.3) if n_words >= 200 and writer.byte() < 96 else (0.25, 0.75)
    turns = [_turn(writer, n, round(n_words * share)) for n, share in enumerate(shares)]
    return _tagged(request.wants, json.dumps(turns, ensure_ascii=False))


def _turn(writer: Writer, n: int, n_words: int) -> dict[str, str]:
    if n % 2:
        return {"role": "assistant", "content": writer.prose(n_words, plan="answer", end="adviseend")}
    return {"role": "user", "content": writer.prose(n_words, plan="question", end="askend")}


def json_object(writer: Writer, request: Request) -> str:
    """An object of the request's schema; its own strings share `n_words`, deeper ones hold a sentence."""
    schema = json.loads(request.schema) if request.schema else _FREE_SCHEMA
    n_strings = max(1, str(schema).count("'string'"))
    return _tagged(request.wants, canonical_json(Instances(writer, schema, request.wants.n_words // n_strings).root()))


def tool_call(writer: Writer, tools: str) -> str:
    """A call of one of `tools` (a JSON list of definitions) as a JSON list, with arguments of its schema."""
    offered = json.loads(tools)
    tool = offered[writer.byte() % len(offered)]
    tool = tool.get("function", tool)
    schema = tool.get("input_schema") or tool.get("parameters") or {"type": "object"}
    call = {"id": f"call_{writer.byte()}", "name": tool["name"], "arguments": Instances(writer, schema, 0).root()}
    return canonical_json([call])


_FREE_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"summary": {"type": "string"}, "points": {"type": "array", "items": {"type": "string"}}},
}
# Schemas nested deeper than this (one that refers to itself is) end in nulls and empty lists.
MAX_DEPTH = 12
# A share of words this large is written as prose.
PROSE_WORDS = 30


class Instances:
    """Values of a JSON schema: types, enum, const, bounds, items, properties, first alternatives, local refs."""

    def __init__(self, writer: Writer, schema: Any, n_words: int) -> None:
        self._writer, self._schema, self._n_words = writer, schema, n_words

    def root(self) -> Any:
        return self._of(self._schema, 0)

    def _of(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
            return None if depth > MAX_DEPTH else self._string({}, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][self._writer.byte() % len(schema["enum"])]
        inner = _referred(schema, self._schema)
        return self._typed(schema, depth) if inner is None else self._of(inner, depth + 1)

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            return {name: self._of(inner, depth + 1) for name, inner in schema.get("properties", {}).items()}
        if kind == "array":
            n_items = max(schema.get("minItems", 0), min(3, schema.get("maxItems", 3))) if depth < MAX_DEPTH else 0
            return [self._of(schema.get("items", {}), depth + 1) for _ in range(n_items)]
        if kind in {"integer", "number"}:
            return self._number(schema)
        if kind == "boolean":
            return self._writer.byte() < 128
        return None if kind == "null" else self._string(schema, depth)

    def _number(self, schema: Mapping[str, Any]) -> int | float:
        lowest = schema.get("minimum", min(1, schema.get("maximum", 1)))
        return lowest + self._writer.byte() % (max(0, int(schema.get("maximum", lowest + 9) - lowest)) + 1)

    def _string(self, schema: Mapping[str, Any], depth: int) -> str:
        is_prose = self._n_words >= PROSE_WORDS and depth <= 1
        words = self._writer.prose(self._n_words) if is_prose else self._writer.item()
        return words[: schema.get("maxLength")]


def _referred(schema: Mapping[str, Any], root: Any) -> Any:
    """The schema that `schema` stands for: its first alternative, or what its local `#/a/b` names; else None."""
    for alternatives in ("anyOf", "oneOf", "allOf"):
        if schema.get(alternatives):
            return schema[alternatives][0]
    if "$ref" not in schema:
        return None
    found = root
    for part in str(schema["$ref"]).removeprefix("#/").split("/"):
        found = found.get(part, {}) if isinstance(found, Mapping) else {}
    return found


def _tagged(wants: Wants, inside: str) -> str:
    return f"<{wants.tag}>\n{inside}\n</{wants.tag}>" if wants.tag else inside


def unusable(wants: Wants) -> str:
    """An answer that ends well, and yet nothing of what was wanted can be read from it."""
    return _tagged(wants, _UNUSABLE[wants.returns])


_UNUSABLE: Mapping[Returns, str] = {
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
