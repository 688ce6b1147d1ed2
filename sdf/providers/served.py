"""What a server says of a model before the first request: that it is there, how long its context is, when it ends.

Anthropic describes one model, OpenAI's protocol lists all, and servers of one's own say more or less than either.
What a server does not tell is None, and nothing is concluded from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdf.errors import NotServed
from sdf.frontmatter import near
from sdf.providers.endpoints import said
from sdf.providers.replies import answered_by, as_object, counts


@dataclass(frozen=True, slots=True)
class Served:
    """A model at an address. `n_context` bounds prompt and answer together unless `n_output` bounds the answer.

    `is_known`: the server named the model; one that lists no models cannot. `ends` is what it says of its retirement.
    """

    model: str
    where: str
    n_context: int | None = None
    n_output: int | None = None
    is_known: bool = False
    ends: str | None = None


def served(provider: str, where: str, reply: Mapping[str, Any], model: str) -> Served:
    """Reads a description of one model, or a list of them. NotServed when it is not there or is retired."""
    listed = reply.get("data")
    described = [as_object(each) for each in listed] if isinstance(listed, list) else [reply]
    names = [str(each["id"]) for each in described if each.get("id")]
    if not names:
        return Served(model, where)
    found = next((each for each in described if answered_by(model, each.get("id")) == model), None)
    if found is None:
        known = [said(name, None) for name in names]
        asked = said(model, None)
        raise NotServed(f"{provider}: no model {asked!r} at {where}; name another with --model{near(asked, known)}")
    if found.get("lifecycle") == "retired":
        raise NotServed(f"{provider}: model {model} is retired and no longer answers; name another with --model")
    count = counts(found)
    ends = found.get("retires_at")
    return Served(
        model,
        where,
        count("max_input_tokens") or count("max_model_len") or count("context_length") or None,
        count("max_tokens") or None,
        is_known=True,
        ends=said(ends, None) if ends else None,
    )
