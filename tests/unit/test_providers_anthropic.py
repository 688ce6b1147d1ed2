"""The Anthropic provider against a server on loopback: what is sent, what comes back, what each failure becomes."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_api import Asked, FakeAPI, Script, first_of, never, serving

from sdf.errors import NotServed, ProviderError, RateLimited, RecipeError, RequestRejected, Unauthorized, Unavailable
from sdf.providers import make
from sdf.providers.anthropic import caching
from sdf.providers.anthropic.messages import body_of, encoded
from sdf.records import Answer, Message, Prefix, Request, Sampling, Usage, Wants

# Of no known form: it is found because it is the key. The other is known by its form, wherever it stands.
KEY = "CANARY.0123456789"
FORMED = "sk-ant-api03-CANARY-0123456789"
LONG = Prefix.of("What is so, and why it is so, in many words. " * 400)
SHORT = Prefix.of("Be kind.")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


def request(draw: int = 1, prefix: Prefix = LONG, model: str = "claude-opus-5-5", **more: Any) -> Request:
    messages = more.pop(
        "messages", (Message("user", f"Note {draw}, some 40 words, between <document> and </document>."),)
    )
    sampling = more.pop("sampling", Sampling(2_000))
    return Request(model, prefix, messages, sampling, Wants("text", 40, tag="document"), draw, **more)


def ask(api: FakeAPI, *requests: Request, **settings: str) -> list[Answer | BaseException]:
    """What each became, asked all at once."""

    async def asked() -> list[Answer | BaseException]:
        asking = make("anthropic", {"base_url": api.url, "timeout": "5", **settings})
        try:
            return await asyncio.gather(*(asking.answer(each) for each in requests), return_exceptions=True)
        finally:
            await asking.close()

    return asyncio.run(asked())


def answer(fault: Script = never, shape: Script = never, what: Request | None = None, **settings: str) -> Answer:
    with serving(fault, shape) as api:
        (found,) = ask(api, what or request(prefix=SHORT), **settings)
    assert isinstance(found, Answer), found
    return found


def failure(fault: str, prefix: Prefix = SHORT, **settings: str) -> ProviderError:
    with serving(lambda asked: fault) as api:
        (found,) = ask(api, request(prefix=prefix), **settings)
        assert api.n_redirected == 0
        assert len(api.asked) == 1
    assert isinstance(found, ProviderError), found
    return found


def sent(what: Request, **settings: str) -> dict[str, Any]:
    with serving() as api:
        ask(api, what, **settings)
        return api.asked[0].body


# --- what is sent ------------------------------------------------------------------------------------------------


def test_the_prefix_is_a_marked_block_of_its_own_and_comes_first() -> None:
    messages = (Message("system", "Never mention rain."), Message("user", "Write."))
    body = sent(request(messages=messages, sampling=Sampling(77, stop=("END",))), cache_ttl="1h")
    marked = {"type": "text", "text": LONG.text, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert body["system"] == [marked, {"type": "text", "text": "Never mention rain."}]
    assert body["messages"] == [{"role": "user", "content": "Write."}]
    assert (body["model"], body["max_tokens"], body["stop_sequences"]) == ("claude-opus-5-5", 77, ["END"])
    assert not {"temperature", "top_p", "top_k"} & body.keys()


def test_the_key_goes_in_the_header_and_nowhere_else() -> None:
    with serving() as api:
        ask(api, request())
    assert api.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY.encode() not in api.asked[0].raw


def test_a_key_file_wins_over_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-from-a-file\n")
    with serving() as api:
        ask(api, request(), key_file=str(path))
    assert api.asked[0].headers["Authorization"] == "Bearer sk-from-a-file"


def test_no_environment_variable_sends_the_key_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as api, serving() as other:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", other.url)
        ask(api, request())
        assert (len(api.asked), len(other.asked)) == (1, 0)


@pytest.mark.parametrize(
    ("model", "text", "is_marked"),
    [
        ("claude-haiku-4-5", "x" * 12_000, False),
        ("claude-haiku-4-5", "x" * 13_000, True),
        ("claude-opus-5-5", "x" * 1_500, False),
        ("claude-opus-5-5", "x" * 1_600, True),
        ("claude-opus-5-5", "雨" * 600, True),
        ("claude-opus-4-8", "x" * 1_600, False),
        ("a-model-of-next-year", "x" * 1_600, True),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_a_prefix_too_short_to_be_cached_is_not_marked_and_is_warned_of_once(
    model: str, text: str, is_marked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = Prefix.of(text)
    with serving() as api:
        ask(api, *(request(draw, prefix, model) for draw in range(3)))
    assert [("cache_control" in each.body["system"][0]) for each in api.asked] == [is_marked] * 3
    warnings = [each for each in caplog.records if "below what" in each.message]
    assert len(warnings) == (0 if is_marked else 1)


def test_without_a_prefix_there_is_no_system_block() -> None:
    assert "system" not in sent(request(prefix=Prefix.of("")))


def test_tools_are_sent_in_either_shape_a_genre_writes_them() -> None:
    schema = {"type": "object", "properties": {"term": {"type": "string"}}}
    ours = [{"name": "look_up", "description": "Finds.", "input_schema": schema}]
    theirs = [{"type": "function", "function": {"name": "look_up", "description": "Finds.", "parameters": schema}}]
    assert sent(request(tools=json.dumps(ours)))["tools"] == ours
    assert sent(request(tools=json.dumps(theirs)))["tools"] == ours


def test_a_schema_is_sent_in_the_api_s_dialect() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    body = sent(request(schema=json.dumps(schema)))
    found = body["output_config"]["format"]
    assert found["type"] == "json_schema" and found["schema"]["additionalProperties"] is False
    assert "minimum" not in found["schema"]["properties"]["n"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "properties": {"a": True}},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {"type": ["string", "null"]}}},
    ],
)
def test_a_schema_the_api_cannot_hold_a_model_to_is_left_to_the_prompt(schema: dict[str, Any]) -> None:
    assert "output_config" not in sent(request(schema=json.dumps(schema)))


def test_what_this_api_cannot_be_asked_is_an_error_of_the_recipe() -> None:
    with serving() as api:
        hot, completion = request(sampling=Sampling(9, temperature=0.7)), request(messages=(), prompt="Once")
        outcomes = ask(api, hot, request(sampling=Sampling(9, top_p=0.9)), completion)
        assert [type(each) for each in outcomes] == [RecipeError] * 3
        assert "temperature" in str(outcomes[0]) and "form: chat" in str(outcomes[2])
        assert not api.asked


# --- who goes first ----------------------------------------------------------------------------------------------


def test_the_first_of_a_prefix_goes_alone_and_streams_and_the_rest_follow_whole() -> None:
    other = Prefix.of(LONG.text + "And more.")
    with serving() as api:
        outcomes = ask(api, *(request(draw, prefix) for draw, prefix in enumerate([LONG] * 6 + [other] * 3)))
    assert all(isinstance(each, Answer) for each in outcomes)
    streamed = [(each.body["system"][0]["text"] == LONG.text, "stream" in each.body) for each in api.asked]
    assert sorted(streamed[:2]) == [(False, True), (True, True)]
    assert all(not streams for _, streams in streamed[2:]) and len(streamed) == 9


def test_siblings_follow_once_the_first_answer_has_begun_not_when_it_is_whole() -> None:
    """The first never ends: the stream begins, and hangs."""

    def hanging(asked: Asked) -> str | None:
        return "begun_then_hang" if asked.body.get("stream") else None

    with serving(hanging) as api:
        outcomes = ask(api, *(request(draw) for draw in range(4)), timeout="0.4")
        assert [type(each) for each in outcomes] == [Unavailable, Answer, Answer, Answer]


def test_when_the_first_fails_the_next_goes_alone() -> None:
    n_asked = itertools.count()
    with serving(lambda asked: "overloaded" if next(n_asked) == 0 else None) as api:
        outcomes = ask(api, *(request(draw) for draw in range(6)))
        assert [type(each) for each in outcomes] == [Unavailable] + [Answer] * 5
        assert ["stream" in each.body for each in api.asked] == [True, True] + [False] * 4, "one wrote to the cache"


def test_when_those_who_lead_go_on_failing_their_siblings_go() -> None:
    with serving(lambda asked: "overloaded" if asked.body.get("stream") else None) as api:
        outcomes = ask(api, *(request(draw) for draw in range(6)))
        assert [type(each) for each in outcomes] == [Unavailable] * caching.N_LEADERS + [Answer] * 3
        assert len(api.asked) == 6


def test_when_the_first_hangs_its_siblings_wait_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "LEAD_SECONDS", 0.1)
    with serving(lambda asked: "hang" if asked.body.get("stream") else None) as api:
        outcomes = ask(api, *(request(draw) for draw in range(3)), timeout="0.8")
        assert [type(each) for each in outcomes] == [Unavailable, Answer, Answer]


def test_when_the_first_is_cancelled_its_siblings_go() -> None:
    async def play(url: str) -> Answer:
        asking = make("anthropic", {"base_url": url})
        first, second = (asyncio.ensure_future(asking.answer(request(draw))) for draw in (1, 2))
        while not api.asked:
            await asyncio.sleep(0.005)
        first.cancel()
        try:
            return await asyncio.wait_for(second, 5)
        finally:
            await asyncio.gather(first, return_exceptions=True)
            await asking.close()

    n_asked = itertools.count()
    with serving(lambda asked: "hang" if next(n_asked) == 0 else None) as api:
        assert asyncio.run(play(api.url)).finish_reason == "stop"


def test_a_prefix_is_new_again_once_the_cache_has_let_it_go() -> None:
    async def play() -> list[bool]:
        turns, head = caching.Turns(0.05), caching.Head("m", "p", None, None)
        found = [await turns.take(head)]
        turns.begun(head)
        turns.over(head)
        found.append(await turns.take(head))
        await asyncio.sleep(0.06)
        return [*found, await turns.take(head)]

    assert asyncio.run(play()) == [True, False, True]


def test_a_long_answer_streams_whoever_asks_for_it() -> None:
    assert sent(request(prefix=SHORT, sampling=Sampling(30_000)))["stream"] is True
    assert "stream" not in sent(request(prefix=SHORT, sampling=Sampling(20_000)))


# --- what comes back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [SHORT, LONG], ids=["whole", "streamed"])
def test_an_answer_carries_text_usage_and_who_gave_it(prefix: Prefix) -> None:
    found = answer(what=request(prefix=prefix))
    assert found.text.startswith("<document>") and found.text.endswith("</document>")
    n_prefix = len(prefix.text) // 4
    assert found == Answer(found.text, "stop", "claude-opus-5-5", Usage(40, len(found.text) // 4 + 1, n_prefix, 0))


@pytest.mark.parametrize("prefix", [SHORT, LONG], ids=["whole", "streamed"])
def test_a_refusal_keeps_its_category(prefix: Prefix) -> None:
    found = answer(shape=lambda asked: "refusal", what=request(prefix=prefix))
    assert (found.text, found.finish_reason, found.detail) == ("", "refusal", "frontier_llm")


@pytest.mark.parametrize("prefix", [SHORT, LONG], ids=["whole", "streamed"])
def test_an_empty_text_stays_empty(prefix: Prefix) -> None:
    found = answer(shape=lambda asked: "empty", what=request(prefix=prefix))
    assert (found.text, found.finish_reason, found.detail) == ("", "stop", None)


def test_a_tool_call_is_kept_beside_the_text() -> None:
    found = answer(shape=lambda asked: "tool_use")
    assert found.finish_reason == "tool_use"
    assert json.loads(found.tool_calls or "") == [{"arguments": {"term": "rain"}, "id": "toolu_1", "name": "look_up"}]


def body(**fields: Any) -> Script:
    message = {"content": [{"type": "text", "text": "Yes."}], "stop_reason": "end_turn", "model": "claude-opus-5-5"}
    return lambda asked: "body:" + json.dumps({**message, **fields})


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason", "detail"),
    [
        ("end_turn", "stop", None),
        ("stop_sequence", "stop", None),
        ("max_tokens", "length", None),
        ("model_context_window_exceeded", "length", "model_context_window_exceeded"),
        ("tool_use", "tool_use", None),
        ("refusal", "refusal", None),
        ("pause_turn", "error", "pause_turn"),
        ("a_reason_of_next_year", "error", "a_reason_of_next_year"),
    ],
)
def test_every_stop_reason_has_its_finish_reason(stop_reason: str, finish_reason: str, detail: str | None) -> None:
    found = answer(body(stop_reason=stop_reason))
    assert (found.text, found.finish_reason, found.detail) == ("Yes.", finish_reason, detail)


@pytest.mark.parametrize(
    ("reported", "recorded"),
    [
        ("claude-opus-5-5", "claude-opus-5-5"),
        ("claude-opus-5-5-20260901", "claude-opus-5-5"),
        (None, "claude-opus-5-5"),
        ("claude-\ud800", "claude-opus-5-5"),
        ("claude-haiku-5-5", "claude-haiku-5-5"),
        ("claude-opus-5-5-mini", "claude-opus-5-5-mini"),
    ],
)
def test_another_model_is_named_and_a_dated_version_is_the_one_asked(reported: str | None, recorded: str) -> None:
    assert answer(body(model=reported)).model == recorded


def test_a_warm_cache_counts_apart() -> None:
    usage = {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": None, "cache_creation_input_tokens": 900}
    assert answer(body(usage=usage)).usage == Usage(7, 5, 0, 900)


@pytest.mark.parametrize(
    "reply",
    [
        *("{}", "[]", "null", "7", '"text"', '{"content": "Yes."}', '{"content": [], "stop_reason": null}'),
        *("[" * 100_000, "1" * 5_000),
    ],
)
def test_a_reply_that_is_no_finished_message_is_nobody_s_fault(reply: str) -> None:
    assert type(failure(f"body:{reply}")) is Unavailable


def test_odd_blocks_are_passed_over() -> None:
    blocks = [7, {"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}, {"type": "new"}]
    assert answer(body(content=blocks)).text == "Yes."


# --- what each failure becomes -----------------------------------------------------------------------------------

FAILURES = [
    ("invalid", RequestRejected),
    ("too_large", RequestRejected),
    ("no_credit", Unauthorized),
    ("hold", Unauthorized),
    ("bad_key", Unauthorized),
    ("billing", Unauthorized),
    ("forbidden", Unauthorized),
    ("no_model", NotServed),
    ("redirect:301", Unauthorized),
    ("redirect:307", Unauthorized),
    ("spend_cap", Unauthorized),
    ("limited", RateLimited),
    ("timeout", Unavailable),
    ("conflict", Unavailable),
    ("broken", Unavailable),
    ("gateway", Unavailable),
    ("overloaded", Unavailable),
    ("lost", Unavailable),
    ("hang", Unavailable),
    ("drip", Unavailable),
    ("truncated", Unavailable),
    ("page", Unavailable),
]


@pytest.mark.parametrize("prefix", [SHORT, LONG], ids=["whole", "streamed"])
@pytest.mark.parametrize(("fault", "kind"), FAILURES)
def test_every_failure_is_one_of_ours_with_nothing_of_the_key(
    fault: str, kind: type[ProviderError], prefix: Prefix, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = failure(fault, prefix, timeout="0.4")
    assert type(error) is kind
    assert_clean(error)
    assert not [each for each in caplog.records if KEY in each.getMessage() + str(each.__dict__)]


def assert_clean(error: BaseException) -> None:
    """Of the SDK's error, with its request and headers, nothing is left: not in words, nor in what hangs on it."""
    assert error.__cause__ is None and error.__context__ is None
    seen = [str(error), repr(error), repr(error.args), repr(vars(error)), "".join(traceback.format_exception(error))]
    seen.append(pickle.dumps(error).decode("latin-1"))
    for text in seen:
        assert KEY not in text and "CANARY" not in text and "QUERYSECRET" not in text and "Bearer" not in text


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", Unavailable),
        ("api_error", Unavailable),
        ("rate_limit_error", RateLimited),
        ("authentication_error", Unauthorized),
        ("invalid_request_error", RequestRejected),
        ("an_error_of_next_year", Unavailable),
    ],
)
def test_an_error_within_a_stream_counts_by_its_type(kind: str, expected: type[ProviderError]) -> None:
    error = failure(f"stream_error:{kind}", LONG)
    assert type(error) is expected
    assert_clean(error)


def test_what_an_answer_that_broke_off_had_said_may_be_billed() -> None:
    """The first event of a stream tells what its prompt took."""
    for kind in ("overloaded_error", "api_error", "rate_limit_error"):
        error = failure(f"stream_error:{kind}", LONG)
        assert isinstance(error, Unavailable) and error.maybe_billed


BEGUN = {
    "model": "claude-opus-5-5",
    "content": [],
    "stop_reason": None,
    "usage": {"input_tokens": 9, "output_tokens": 1},
}
WORDS = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Ye"}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "s."}},
    {"type": "content_block_stop", "index": 0},
]
ENDED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}


def told(*events: dict[str, Any], begun: Any = BEGUN, ended: dict[str, Any] = ENDED) -> Script:
    """A stream of these events, between its beginning and its end."""
    whole = [{"type": "message_start", "message": begun}, *events, ended, {"type": "message_stop"}]
    return lambda asked: "told:" + json.dumps(whole)


@pytest.mark.parametrize(
    ("script", "usage"),
    [
        (told(*WORDS), Usage(9, 5)),
        (told(*WORDS, begun={**BEGUN, "usage": None}), Usage(0, 5)),
        (told(*WORDS, begun={"content": []}, ended={**ENDED, "usage": None}), Usage()),
        (told(*WORDS, ended={name: ENDED[name] for name in ("type", "delta")}), Usage(9, 1)),
        (told(*WORDS, ended={**ENDED, "usage": {"output_tokens": 5, "input_tokens": None}}), Usage(9, 5)),
        (
            told({"type": "of_next_year", "index": 0}, *WORDS, {"type": "content_block_start", "index": {}}),
            Usage(9, 5),
        ),
    ],
    ids=["plain", "begins_without_usage", "without_usage", "ends_without_usage", "null", "unknown_events"],
)
def test_a_stream_is_read_for_what_it_tells(script: Script, usage: Usage) -> None:
    found = answer(script, what=request(prefix=LONG))
    assert (found.text, found.finish_reason, found.usage) == ("Yes.", "stop", usage)


@pytest.mark.parametrize("kind", ["thinking", "of_next_year"])
def test_of_a_stream_only_text_is_kept(kind: str, recwarn: pytest.WarningsRecorder) -> None:
    thought = [
        {"type": "content_block_start", "index": 7, "content_block": {"type": kind, "thinking": ""}},
        {"type": "content_block_delta", "index": 7, "delta": {"type": f"{kind}_delta", "thinking": "Well."}},
    ]
    assert answer(told(*thought, *WORDS), what=request(prefix=LONG)).text == "Yes."
    assert not recwarn.list


@pytest.mark.parametrize(("pieces", "arguments"), [(['{"term": ', '"rain"}'], {"term": "rain"}), (['{"te'], '{"te')])
def test_the_arguments_of_a_call_are_put_together_from_their_pieces(pieces: list[str], arguments: Any) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    events = [{"type": "content_block_delta", "index": 0, "delta": each} for each in deltas]
    found = answer(
        told({"type": "content_block_start", "index": 0, "content_block": call}, *events), what=request(prefix=LONG)
    )
    assert json.loads(found.tool_calls or "")[0]["arguments"] == arguments


def test_words_of_a_block_that_never_began_are_no_answer() -> None:
    stray = {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "And so on."}}
    with serving(told(*WORDS, stray)) as api:
        (error,) = ask(api, request(prefix=LONG))
    assert type(error) is Unavailable and error.maybe_billed


def test_events_out_of_order_are_nobody_s_fault() -> None:
    assert type(failure("stream_disorder", LONG)) is Unavailable


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0.25", 0.25), ("-3", 0.0), ("nan", None), ("inf", None), ("soon", None)]
)
def test_the_wait_that_a_rate_limit_asks_for_is_read(header: str, seconds: float | None) -> None:
    error = failure(f"limited:{header}")
    assert isinstance(error, RateLimited) and error.retry_after == seconds


def test_a_rate_limit_need_not_say_how_long() -> None:
    error = failure("limited")
    assert isinstance(error, RateLimited) and error.retry_after is None


def test_nobody_at_the_address_is_nobody_s_fault() -> None:
    with serving() as api:
        gone = FakeAPI(url=api.url)
    (error,) = ask(gone, request(prefix=SHORT))
    assert type(error) is Unavailable
    assert_clean(error)


def test_the_sdk_does_not_retry() -> None:
    with serving(first_of("broken", every=1)) as api:
        ask(api, request(prefix=SHORT))
        assert len(api.asked) == 1


# --- what is refused before anything is sent ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_urll": "https://x"}, r"unknown setting 'base_urll' \(did you mean 'base_url'\?\)"),
        ({"api_key": FORMED}, "api_key would hold a key"),
        ({"auth_token": "abc"}, "would hold a key"),
        ({"key_file": FORMED}, "would hold a key"),
        ({"base_url": f"https://host/?k={FORMED}"}, "would hold a key"),
        ({"cache_ttl": "2h"}, "write 5m or 1h"),
        ({"timeout": "0"}, "write seconds"),
        ({"timeout": "nan"}, "write seconds"),
        ({"allow_insecure": "yes"}, "write true or false"),
        ({"base_url": "http://api.example.com"}, "plain http"),
        ({"base_url": "http://10.0.0.7:8000"}, "plain http"),
        ({"base_url": "api.example.com"}, "is not an address"),
        ({"base_url": "file:///etc/passwd"}, "is not an address"),
        ({"base_url": "https://"}, "is not an address"),
        ({"base_url": "https://host:port"}, "is not an address"),
        ({"base_url": "https://[::1"}, "is not an address"),
        ({"base_url": "https://user:word@host"}, "would hold a key"),
        ({"base_url": "https://host/v1?x=1"}, "carries a user name, query"),
        ({"base_url": "https://host/v1#x"}, "carries a user name, query"),
        ({"base_url": "https://host/v1/"}, "ends in /v1, which the SDK adds; write 'https://host'"),
        ({"base_url": "https://169.254.169.254/v1"}, "serves no model"),
        ({"base_url": "http://2852039166/v1", "allow_insecure": "true"}, "serves no model"),
        ({"base_url": "http://0xa9fea9fe/v1", "allow_insecure": "true"}, "serves no model"),
        ({"base_url": "https://[::ffff:169.254.169.254]/"}, "serves no model"),
        ({"base_url": "https://[fe80::1]/"}, "serves no model"),
        ({"base_url": "https://[fd00:ec2::254]/"}, "metadata service"),
        ({"base_url": "https://0.0.0.0/"}, "serves no model"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        make("anthropic", settings)
    assert "CANARY" not in str(caught.value) and "user:word" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"base_url": "https://api.example.com/"},
        {"base_url": "http://localhost:8000"},
        {"base_url": "http://127.1:8000"},
        {"base_url": "http://[::1]:8000"},
        {"base_url": "https://sk-gateway.example.com"},
        {"base_url": "http://10.0.0.7:8000", "allow_insecure": "true"},
    ],
)
def test_settings_that_are_sound_pass(settings: dict[str, str]) -> None:
    make("anthropic", settings)


def test_no_key_says_where_one_may_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "  \n"):
        monkeypatch.setenv("ANTHROPIC_API_KEY", value)
        with pytest.raises(RecipeError, match=r"set ANTHROPIC_API_KEY .* key_file=PATH"):
            make("anthropic", {})


def a_directory(path: Path) -> None:
    path.mkdir()


WRITERS: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_text("\n"),
    "several lines": lambda path: path.write_text("-----BEGIN KEY-----\nCANARY\n"),
    "not text": lambda path: path.write_bytes(b"CANARY\xff"),
    "long": lambda path: path.write_text("CANARY" * 1_000),
    "a directory": a_directory,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_key_file_that_holds_no_key_is_named_and_not_shown(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path / "key")
    with pytest.raises(RecipeError, match="holds the key") as caught:
        make("anthropic", {"key_file": str(tmp_path / "key")})
    error = caught.value
    assert str(tmp_path / "key") in str(error)
    assert "CANARY" not in "".join(traceback.format_exception(error)) and error.__context__ is None


def test_the_provider_neither_shows_nor_pickles_its_key() -> None:
    asking = make("anthropic", {})
    assert KEY not in repr(vars(asking))
    with pytest.raises(TypeError, match="does not travel"):
        pickle.dumps(asking)


@pytest.mark.parametrize("marker", [None, {"type": "ephemeral", "ttl": "1h"}], ids=["unmarked", "marked"])
@pytest.mark.parametrize("n_system", [0, 1, 2])
@pytest.mark.parametrize("text", ["", 'A "prefix" of\nlines, ünd ' + "signs \U0001f33e " * 50])
def test_a_body_with_its_prefix_spliced_in_is_the_same_body(marker: Any, n_system: int, text: str) -> None:
    prefix = Prefix.of(text)
    messages = (*(Message("system", f"and {n}") for n in range(n_system)), Message("user", "say it"))
    asked = Request("m", prefix, messages, Sampling(100, stop=("END",)), Wants("text"), 1)
    body = body_of(asked, marker)
    assert json.loads(encoded(prefix, body)) == body
