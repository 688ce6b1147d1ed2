"""Where no connection is made nothing is billed; where one is cut, nobody knows."""

from __future__ import annotations

import asyncio
import socket

import pytest
from fake_api import serving

from sdf.errors import Unavailable
from sdf.providers import make
from sdf.records import Message, Prefix, Request, Sampling, Wants

REQUEST = Request("m", Prefix.of("p"), (Message("user", "say it"),), Sampling(100), Wants("text"), 1)


async def error_of(provider: str, url: str) -> Unavailable:
    made = make(provider, {"base_url": url, "timeout": "1"})
    try:
        await made.answer(REQUEST)
    except Unavailable as error:
        return error
    finally:
        await made.close()
    raise AssertionError("answered")


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_refused_connection_is_not_billed_and_a_broken_one_may_be(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert not asyncio.run(error_of(provider, refused)).maybe_billed
    for fault, maybe in {"lost": True, "truncated": True, "hang": True, "page": True, "broken": False}.items():
        with serving(lambda asked, fault=fault: fault) as server:
            assert asyncio.run(error_of(provider, server.url)).maybe_billed is maybe, fault
