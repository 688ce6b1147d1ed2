"""What an engine is held to: of the right form, and nothing where text of any form will do."""

from __future__ import annotations

import json
import re
from typing import Any

from sdf.providers.vllm.constraints import MANY_SCORES, constraint
from sdf.records import Message, Prefix, Request, Sampling, Wants


def form(wants: Wants, schema: str | None = None) -> Any:
    request = Request("m", Prefix.of(""), (Message("user", "?"),), Sampling(10), wants, 1, schema=schema)
    found = constraint(request)
    return None if found is None else json.loads(found)["format"]


def test_text_is_free() -> None:
    assert form(Wants("text", tag="document")) is None
    assert form(Wants("text")) is None


def test_a_tag_is_waited_for_and_opened_once() -> None:
    before, inside = form(Wants("score", tag="score", lowest=1, highest=3))["elements"]
    assert before == {"type": "any_text", "excludes": ["<score>"]}
    assert (inside["begin"], inside["end"]) == ("<score>", "</score>")
    assert inside["content"] == {"type": "regex", "pattern": "1|2|3"}


def test_scores_are_those_of_the_step() -> None:
    pattern = form(Wants("score", lowest=0, highest=10))["pattern"]
    assert [text for text in map(str, range(-1, 12)) if re.fullmatch(pattern, text)] == [str(n) for n in range(11)]
    assert len(form(Wants("score", lowest=0, highest=MANY_SCORES * 100))["pattern"]) < 20


def test_a_list_has_its_number_of_items() -> None:
    grammar = form(Wants("list", n_items=3, tag="angles"))["elements"][1]["content"]["grammar"]
    assert re.findall(r'"(\d+)\. " item', grammar) == ["1", "2", "3"]


def test_json_follows_its_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert form(Wants("json"), json.dumps(schema))["json_schema"] == schema
    assert form(Wants("messages"), '{"type": "array"}')["json_schema"] == {"type": "array"}
    assert form(Wants("json"))["type"] == form(Wants("messages"))["type"] == "grammar"
