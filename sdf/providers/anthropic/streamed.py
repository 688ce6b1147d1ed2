"""A streamed message, put together from its events as they come.

The SDK's own way fails on what servers between here and the API leave out (usage) or add (kinds of blocks). The
trade-off: thoughts, signatures and citations, which no answer of ours holds, are left where their blocks began.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdf.providers.replies import arguments_of, as_object


class Streamed:
    """Takes the events of one message in their order."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[str, dict[str, Any]] = {}
        # By block: the text of a tool call's arguments.
        self._arguments: dict[str, str] = {}
        self._is_whole = False
        self._is_in_order = True

    def take(self, event: Mapping[str, Any]) -> None:
        """An event of a kind that is not known changes nothing."""
        kind, index = event.get("type"), str(event.get("index"))
        if kind == "message_start":
            self._message = dict(as_object(event.get("message")))
        elif kind == "content_block_start":
            self._blocks[index] = dict(as_object(event.get("content_block")))
        elif kind == "content_block_delta" and index in self._blocks:
            self._extend(index, as_object(event.get("delta")))
        elif kind == "content_block_delta":
            self._is_in_order = False
        elif kind == "message_delta":
            self._message |= as_object(event.get("delta"))
            self._count(as_object(event.get("usage")))
        elif kind == "message_stop":
            self._is_whole = True

    @property
    def message(self) -> dict[str, Any]:
        """As it would have come in one piece. Empty for one that broke off, or whose events were out of order."""
        if not (self._is_whole and self._is_in_order):
            return {}
        for index, text in self._arguments.items():
            self._blocks[index]["input"] = arguments_of(text)
        return {**self._message, "content": list(self._blocks.values())}

    def _extend(self, index: str, delta: Mapping[str, Any]) -> None:
        if delta.get("type") == "text_delta":
            self._blocks[index]["text"] = f"{self._blocks[index].get('text', '')}{delta.get('text', '')}"
        elif delta.get("type") == "input_json_delta":
            self._arguments[index] = f"{self._arguments.get(index, '')}{delta.get('partial_json', '')}"

    def _count(self, usage: Mapping[str, Any]) -> None:
        """Counts are of all so far; one that is left out stands as the message began."""
        told = {name: count for name, count in usage.items() if count is not None}
        self._message["usage"] = as_object(self._message.get("usage")) | told
