"""Requests as bodies of the Messages API, and its messages as answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import anthropic

from sdf.errors import RecipeError, Unavailable
from sdf.providers.replies import answered_by, as_object, as_tools, counts
from sdf.records import Answer, FinishReason, Prefix, Request, Usage, canonical_json

NAME = "anthropic"

# Encoded prefixes that are kept: a job has one per genre, and one per cell where the context is a principle.
N_PREFIXES = 256

# `error` ends a turn that no step can use; anything new counts as such, with its name.
STOP_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_use",
    "refusal": "refusal",
}


def check(request: Request) -> None:
    if request.prompt is not None:
        raise RecipeError(
            f"provider {NAME} has no completion endpoint; write `form: chat` in the genre, or use provider openai"
        )
    if request.sampling.temperature is not None or request.sampling.top_p is not None:
        raise RecipeError(f"provider {NAME}: its API takes temperature and top_p no longer; take them out")


def body_of(request: Request, marker: Mapping[str, str] | None) -> dict[str, Any]:
    """The arguments of the call. System texts follow the prefix, which is the first block and the marked one."""
    system: list[dict[str, Any]] = []
    if request.prefix.text.strip():
        system.append({"type": "text", "text": request.prefix.text} | ({"cache_control": marker} if marker else {}))
    system += [{"type": "text", "text": each.content} for each in request.messages if each.role == "system"]
    turns = [{"role": each.role, "content": each.content} for each in request.messages if each.role != "system"]
    body: dict[str, Any] = {"model": request.model, "max_tokens": request.sampling.max_tokens, "messages": turns}
    if system:
        body["system"] = system
    if request.sampling.stop:
        body["stop_sequences"] = list(request.sampling.stop)
    if request.tools:
        body["tools"] = as_tools(request.tools, "input_schema")
    schema = _schema(request.schema) if request.schema else None
    if schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return body


def encoded(prefix: Prefix, body: Mapping[str, Any]) -> bytes:
    """The body as JSON, its prefix as the bytes it was encoded to once."""
    system = body.get("system", [])
    if not system or system[0]["text"] is not prefix.text:
        return json.dumps(body).encode()
    rest = {name: value for name, value in body.items() if name != "system"}
    block = {name: value for name, value in system[0].items() if name != "text"}
    return b"".join(
        (
            json.dumps(rest).encode()[:-1],
            b', "system": [{"text": ',
            _json_text(prefix),
            b", ",
            json.dumps(block).encode()[1:],
            b", " if system[1:] else b"",
            json.dumps(system[1:]).encode()[1:],
            b"}",
        )
    )


@lru_cache(maxsize=N_PREFIXES)
def _json_text(prefix: Prefix) -> bytes:
    return json.dumps(prefix.text).encode()


@lru_cache(maxsize=256)
def _schema(text: str) -> dict[str, Any] | None:
    """The schema in the dialect of the API; None for one that it does not speak: then the prompt alone asks."""
    try:
        schema = anthropic.transform_schema(json.loads(text))
    except (ValueError, TypeError, AssertionError):
        return None
    return schema if schema.get("type") == "object" else None


def answer_of(request: Request, reply: dict[str, Any]) -> Answer:
    """Raises Unavailable for what is no message: something between here and the API answered in its place."""
    content, reason = reply.get("content"), reply.get("stop_reason")
    if not isinstance(content, list) or not isinstance(reason, str):
        raise Unavailable(f"{NAME}: a reply that is no finished message")
    blocks = [as_object(block) for block in content]
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    used = counts(reply.get("usage"))
    return Answer(
        "".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text"),
        STOP_REASONS.get(reason, "error"),
        answered_by(request.model, reply.get("model")),
        Usage(
            used("input_tokens"),
            used("output_tokens"),
            used("cache_read_input_tokens"),
            used("cache_creation_input_tokens"),
        ),
        canonical_json(calls) if calls else None,
        _detail(reason, reply.get("stop_details")),
    )


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": block.get("id"), "name": block.get("name"), "arguments": block.get("input")}


def _detail(reason: str, details: Any) -> str | None:
    """The category of a refusal; the reason itself where the finish reason does not tell it."""
    if reason == "refusal":
        category = as_object(details).get("category")
        return str(category) if category else None
    return reason if reason not in STOP_REASONS or reason == "model_context_window_exceeded" else None
