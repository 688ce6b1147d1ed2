"""Chats to ids and labels: rendered by the tokenizer's own chat template, learnt on the assistant's turns alone.

A template with {% generation %} marks them itself. For others the text before and after each assistant turn is rendered
as well, and what lies between is learnt, its end-of-turn token included; that needs a template under which a longer
conversation begins with a shorter one, which is checked for every chat.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sdf.errors import StreamError, TokenizerError
from sdf.stream.encoders import Encoder
from sdf.stream.tokens_format import LABEL, TOKEN, Ids, Mask

Messages = Sequence[Mapping[str, Any]]


def template_of(encoder: Encoder) -> str:
    """The text of the chat template, which a state's hash covers; TokenizerError when there is none."""
    template = getattr(encoder.chat, "chat_template", None)
    if isinstance(template, Mapping):
        template = template.get("default")
    if not template or encoder.fast is None:
        raise TokenizerError(
            f"{encoder.name}: chats need a Hugging Face tokenizer of the fast kind with a chat_template; "
            "set tokenizer.chat_template, or give the tokenizer of an instruction-tuned model"
        )
    return str(template)


def encode_chat(encoder: Encoder, messages: Messages, tools: str | None, where: str) -> tuple[Ids, Mask]:
    """Ids of the rendered chat, and 1 for each token of an assistant turn. `tools` is a JSON text. StreamError for what
    is no chat, or one that the template refuses."""
    options: dict[str, Any] = {"tools": _parsed(tools, where)} if tools else {}
    conversation = _conversation(messages, where)
    if "{% generation" in template_of(encoder) or "{%- generation" in template_of(encoder):
        return _marked(encoder, conversation, options, where)
    text = _rendered(encoder, conversation, options, where)
    spans = [
        _span(encoder, conversation, position, options, text, where)
        for position, message in enumerate(conversation)
        if message["role"] == "assistant"
    ]
    found = encoder.fast.encode(text, add_special_tokens=False)
    starts = np.array([start for start, _ in found.offsets], np.int64)
    mask = np.zeros(len(starts), LABEL)
    for start, stop in spans:
        mask[(starts >= start) & (starts < stop)] = 1
    return np.array(found.ids, TOKEN), mask


def _parsed(tools: str, where: str) -> Any:
    try:
        return json.loads(tools)
    except (ValueError, RecursionError) as error:
        raise StreamError(f"{where}: its tools are no JSON ({error})") from None


def _conversation(messages: Any, where: str) -> Messages:
    turns = messages if isinstance(messages, list) else [messages]
    if not all(isinstance(turn, dict) and turn.get("role") for turn in turns):
        raise StreamError(f"{where}: holds no chat; `messages` is a list of {{role, content}}")
    return [{name: value for name, value in turn.items() if value is not None} for turn in turns]


def _marked(encoder: Encoder, conversation: Messages, options: dict[str, Any], where: str) -> tuple[Ids, Mask]:
    options = {**options, "return_dict": True, "return_assistant_tokens_mask": True}
    found = _applied(encoder, conversation, where, tokenize=True, **options)
    return np.array(found["input_ids"], TOKEN), np.array(found["assistant_masks"], LABEL)


def _span(
    encoder: Encoder, conversation: Messages, position: int, options: dict[str, Any], text: str, where: str
) -> tuple[int, int]:
    before = _rendered(encoder, conversation[:position], options, where, add_generation_prompt=True)
    through = _rendered(encoder, conversation[: position + 1], options, where)
    if not (text.startswith(through) and through.startswith(before)):
        raise StreamError(
            f"{where}: the chat template of {encoder.name} renders an assistant turn differently once more turns "
            "follow, so its tokens cannot be told apart; use a template that marks them with {% generation %}"
        )
    return len(before), len(through)


def _rendered(encoder: Encoder, conversation: Messages, options: dict[str, Any], where: str, **more: Any) -> str:
    return _applied(encoder, conversation, where, tokenize=False, **options, **more)


def _applied(encoder: Encoder, conversation: Messages, where: str, **options: Any) -> Any:
    try:
        return encoder.chat.apply_chat_template(conversation, **options)
    # What a template raises is its own; jinja's errors and the library's share no narrower base.
    except Exception as error:  # noqa: BLE001
        raise StreamError(f"{where}: the chat template of {encoder.name} refuses this chat ({error})") from None
