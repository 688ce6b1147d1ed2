"""Whatever is asked, the offline provider's answer is usable, of the asked size, and the same again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf.answers import value
from sdf.providers import make
from sdf.records import Answer, Message, Prefix, Request, Sampling, Wants

PROVIDER = make("offline", {})
TAGS = st.sampled_from([None, "document", "prompt", "reply", "score"])
RETURNS = st.sampled_from(["text", "list", "score", "messages", "json"])


def answer(request: Request) -> Answer:
    return asyncio.run(PROVIDER.answer(request))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    lowest = draw(st.integers(0, 5))
    wants = Wants(
        draw(RETURNS),
        draw(st.integers(0, 1500)),
        draw(st.integers(0, 64)),
        draw(TAGS),
        lowest,
        lowest + draw(st.integers(0, 10)),
    )
    messages = tuple(Message("user", draw(st.text(max_size=200))) for _ in range(draw(st.integers(0, 2))))
    prefix = Prefix.of(draw(st.text(max_size=200)))
    return Request("m", prefix, messages, Sampling(100_000), wants, draw(st.integers(0, 2**64 - 1)))


@settings(max_examples=150, deadline=None)
@given(requests())
def test_any_request_is_answered_usably_and_the_same_again(request: Request) -> None:
    found = answer(request)
    assert found.finish_reason == "stop"
    assert found == answer(request)
    usable: Any = value(request.wants, found)
    assert usable is not None
    wants = request.wants
    if wants.returns == "text" and wants.n_words >= 60:
        assert abs(len(usable.split()) - wants.n_words) <= wants.n_words / 10
        assert usable.endswith(".")
    if wants.returns == "list":
        assert len(set(usable)) == len(usable) == (wants.n_items or 10)
    if wants.returns == "score":
        assert wants.lowest <= usable <= wants.highest


NAMES = st.sampled_from(["name", "mood", "count"])
LEAVES = st.one_of(
    st.just({"type": "string"}),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"enum": ["a", 1, None]}),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, st.integers(), st.integers(0, 9)
    ),
    st.builds(lambda high: {"type": "number", "maximum": high}, st.integers(-9, 9)),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            lambda items, n: {"type": "array", "items": items, "minItems": n, "maxItems": n}, inner, st.integers(0, 5)
        ),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
        st.dictionaries(NAMES, inner).map(
            lambda found: {"type": "object", "properties": found, "required": list(found)}
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, SCHEMAS, min_size=1), st.integers(0, 1000))
def test_json_answers_fit_any_schema(properties: dict[str, Any], draw: int) -> None:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    wants = Wants("json", 0, tag="part")
    request = Request("m", Prefix.of("p"), (), Sampling(100_000), wants, draw, schema=json.dumps(schema))
    jsonschema.validate(value(wants, answer(request)), schema)
