"""The provider of OpenAI's protocol against servers on loopback: what is sent, what comes back, what failures are."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import pickle
import traceback
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from fake_api import FakeAPI, Script, never, serving

from sdf.errors import NotServed, ProviderError, RateLimited, RecipeError, RequestRejected, Unauthorized, Unavailable
from sdf.providers import make
from sdf.providers import openai as provider
from sdf.records import Answer, Message, Prefix, Request, Sampling, Usage, Wants

KEY = "sk-proj-CANARY-0123456789"
PREFIX = Prefix.of('What is so,\n\tand "why" it is so: déjà vu \\ 雨 ' * 40)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def request(draw: int = 1, prefix: Prefix = PREFIX, **more: Any) -> Request:
    messages = more.pop(
        "messages", (Message("user", f"Note {draw}, some 40 words, between <document> and </document>."),)
    )
    sampling = more.pop("sampling", Sampling(2_000))
    return Request("a-model", prefix, messages, sampling, Wants("text", 40, tag="document"), draw, **more)


def ask(url: str, *requests: Request, **settings: str) -> list[Answer | BaseException]:
    """What each became, asked all at once."""

    async def asked() -> list[Answer | BaseException]:
        asking = make("openai", {"base_url": url, "timeout": "5", **settings})
        try:
            return await asyncio.gather(*(asking.answer(each) for each in requests), return_exceptions=True)
        finally:
            await asking.close()

    return asyncio.run(asked())


def answer(fault: Script = never, shape: Script = never, what: Request | None = None) -> Answer:
    with serving(fault, shape) as api:
        (found,) = ask(api.url, what or request())
    assert isinstance(found, Answer), found
    return found


def failure(fault: str, **settings: str) -> ProviderError:
    with serving(lambda asked: fault) as api:
        (found,) = ask(api.url, request(), **settings)
        assert (api.n_redirected, len(api.asked)) == (0, 1)
    assert isinstance(found, ProviderError), found
    return found


def sent(what: Request) -> dict[str, Any]:
    with serving() as api:
        ask(api.url, what)
        return {**api.asked[0].body, "path": api.asked[0].path}


# --- what is sent ------------------------------------------------------------------------------------------------


def test_a_chat_sends_the_prefix_first_and_everything_else_as_it_is() -> None:
    messages = (Message("user", 'Write "it".'), Message("assistant", "No."), Message("user", "Do."))
    sampling = Sampling(77, temperature=0.5, top_p=0.9, stop=("END", "\n\n"))
    assert sent(request(messages=messages, sampling=sampling)) == {
        "path": "/v1/chat/completions",
        "model": "a-model",
        "messages": [
            {"role": "system", "content": PREFIX.text},
            {"role": "user", "content": 'Write "it".'},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "Do."},
        ],
        "max_tokens": 77,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END", "\n\n"],
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("prefix", "system", "expected"),
    [
        (PREFIX.text, "Never mention 雨.", PREFIX.text + "\n\nNever mention 雨."),
        ("", "Never.", "Never."),
        (PREFIX.text, "", PREFIX.text),
        ("", "", None),
    ],
)
def test_there_is_one_system_message_at_most(prefix: str, system: str, expected: str | None) -> None:
    messages = (*([Message("system", system)] if system else []), Message("user", "Write."))
    found = [each["content"] for each in sent(request(1, Prefix.of(prefix), messages=messages))["messages"]]
    assert found == ([expected, "Write."] if expected is not None else ["Write."])


@pytest.mark.parametrize(("prefix", "expected"), [(PREFIX.text, PREFIX.text + '\n\nOnce "upon"'), ("", 'Once "upon"')])
def test_a_completion_sends_the_prefix_and_the_prompt_as_one_text(prefix: str, expected: str) -> None:
    body = sent(request(1, Prefix.of(prefix), messages=(), prompt='Once "upon"'))
    assert (body["path"], body["prompt"]) == ("/v1/completions", expected)
    assert "messages" not in body


def test_every_draw_has_its_seed_within_what_servers_hold() -> None:
    with serving() as api:
        ask(api.url, *(request(draw) for draw in (5, 6, 2**64 - 1)))
        assert sorted(each.body["seed"] for each in api.asked) == [5, 6, 2**31 - 1]


def test_a_prefix_is_encoded_once_for_all_its_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []

    def dumps(value: Any) -> str:
        text = json.dumps(value)
        encoded.append(len(text))
        return text

    # The module's own `json` alone: the server encodes too.
    monkeypatch.setattr(provider, "json", SimpleNamespace(**{**vars(json), "dumps": dumps}))
    prefix = Prefix.of("A constitution of 120 kB. " * 4_800)
    with serving() as api:
        outcomes = ask(api.url, *(request(draw, prefix) for draw in range(20)))
        assert all(isinstance(each, Answer) for each in outcomes)
        assert all(each.body["messages"][0]["content"] == prefix.text for each in api.asked)
    assert len([size for size in encoded if size > 100_000]) == 1


def test_a_body_of_megabytes_goes_out_whole() -> None:
    prefix = Prefix.of("Long. " * 400_000)
    assert sent(request(1, prefix))["messages"][0]["content"] == prefix.text


def test_tools_and_schemas_are_sent_as_this_protocol_has_them() -> None:
    schema = {"type": "object", "properties": {"term": {"type": "string"}}}
    function = {"name": "look_up", "description": "Finds.", "parameters": schema}
    ours = [{"name": "look_up", "description": "Finds.", "input_schema": schema}]
    body = sent(request(tools=json.dumps(ours), schema=json.dumps(schema)))
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def test_the_hosted_api_is_asked_in_its_own_words() -> None:
    _, hosted = provider._asked("https://api.openai.com/v1", request())
    assert json.loads(hosted)["max_completion_tokens"] == 2_000 and "max_tokens" not in json.loads(hosted)


def test_the_key_goes_in_the_header_and_without_one_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as api:
        ask(api.url, request())
        monkeypatch.delenv("OPENAI_API_KEY")
        ask(api.url, request())
    first, second = api.asked
    assert first.headers["Authorization"] == f"Bearer {KEY}" and "Authorization" not in second.headers
    assert KEY.encode() not in first.raw


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_an_address_may_be_given_with_its_path_or_without(path: str) -> None:
    with serving() as api:
        (found,) = ask(api.url + path, request())
        assert isinstance(found, Answer)


# --- several servers ---------------------------------------------------------------------------------------------


def across(faults: list[Script], n_rounds: int, n_at_once: int) -> tuple[list[int], list[Any]]:
    """How many requests each server got, and what became of them."""

    async def play(urls: str) -> list[Any]:
        asking = make("openai", {"base_url": urls, "timeout": "5"})
        outcomes: list[Any] = []
        for n in range(n_rounds):
            rounds = (asking.answer(request(n * n_at_once + k)) for k in range(n_at_once))
            outcomes += await asyncio.gather(*rounds, return_exceptions=True)
        await asking.close()
        return outcomes

    with ExitStack() as stack:
        apis = [stack.enter_context(serving(fault)) for fault in faults]
        outcomes = asyncio.run(play(" , ".join(api.url for api in apis)))
        return [len(api.asked) for api in apis], outcomes


def test_the_load_is_spread_evenly_at_once_and_one_by_one() -> None:
    assert across([never] * 3, 1, 12)[0] == [4, 4, 4]
    assert across([never] * 3, 6, 1)[0] == [2, 2, 2]


def test_a_server_that_fails_rests_and_does_not_draw_every_request() -> None:
    counts, outcomes = across([lambda asked: "broken", never], 10, 2)
    assert counts == [1, 19]
    assert [type(each) for each in outcomes].count(Unavailable) == 1


def test_a_server_that_goes_on_failing_is_named_once_and_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(provider, "FIRST_REST", 1e-6)
    n_asked = itertools.count()
    counts, _ = across([lambda asked: "broken" if next(n_asked) < 5 else None, never], 20, 2)
    assert min(counts) > 5
    told = [record.getMessage() for record in caplog.records if record.name == provider.__name__]
    assert len(told) == 2 and "500" in told[0] and "3 times in a row" in told[0] and "answers again" in told[1]
    caplog.clear()
    across([lambda asked: "broken"], 6, 1)
    assert not caplog.records, "of one alone the run itself says when it gives up"


def test_when_every_server_fails_all_are_still_tried() -> None:
    counts, outcomes = across([lambda asked: "broken"] * 2, 6, 1)
    assert sum(counts) == 6 and min(counts) >= 2
    assert {type(each) for each in outcomes} == {Unavailable}


def test_a_rate_limit_and_a_request_s_own_fault_rest_no_server() -> None:
    for fault in ("limited", "invalid"):
        counts, _ = across([lambda asked, fault=fault: fault, never], 10, 2)
        assert counts == [10, 10]


def test_a_server_that_is_well_again_is_asked_again() -> None:
    address = provider.Address("http://x")
    rests = []
    for now in (0.0, 10.0, 20.0):
        address.failed(now)
        rests.append(address.rests_until - now)
    assert rests == [1.0, 2.0, 4.0]
    for _ in range(50):
        address.failed(0.0)
    assert address.rests_until == provider.LONGEST_REST
    address.succeeded()
    assert (address.rests_until, address.n_failures) == (0.0, 0)


# --- what comes back ---------------------------------------------------------------------------------------------


def test_an_answer_carries_text_and_usage_without_what_the_cache_read() -> None:
    found = answer()
    assert found.text.startswith("<document>") and found.text.endswith("</document>")
    assert found == Answer(found.text, "stop", "a-model", Usage(40, 50, 100, 0))


def test_a_completion_is_read_too() -> None:
    prompt = "A letter, some 40 words, between <document> and </document>:"
    assert answer(what=request(messages=(), prompt=prompt)).text.endswith("</document>")


def test_a_filtered_answer_is_a_refusal() -> None:
    found = answer(shape=lambda asked: "refusal")
    assert (found.text, found.finish_reason, found.detail) == ("", "refusal", "content_filter")


def test_an_empty_text_stays_empty() -> None:
    found = answer(shape=lambda asked: "empty")
    assert (found.text, found.finish_reason, found.detail) == ("", "stop", None)


def test_a_tool_call_is_kept_beside_the_text() -> None:
    found = answer(shape=lambda asked: "tool_use")
    assert found.finish_reason == "tool_use"
    assert json.loads(found.tool_calls or "") == [{"arguments": {"term": "rain"}, "id": "call_1", "name": "look_up"}]


def reply(message: Any = None, **fields: Any) -> Script:
    choice = {"message": message or {"content": "Yes."}, "finish_reason": "stop"} | fields
    return lambda asked: "body:" + json.dumps({"choices": [choice], "model": "a-model"})


@pytest.mark.parametrize(
    ("said", "finish_reason", "detail"),
    [
        ("stop", "stop", None),
        ("length", "length", None),
        ("tool_calls", "tool_use", None),
        ("function_call", "tool_use", None),
        ("content_filter", "refusal", "content_filter"),
        ("repetition", "error", "repetition"),
    ],
)
def test_every_finish_reason_has_ours(said: str, finish_reason: str, detail: str | None) -> None:
    found = answer(reply(finish_reason=said))
    assert (found.text, found.finish_reason, found.detail) == ("Yes.", finish_reason, detail)


def test_a_refusal_in_words_is_a_refusal() -> None:
    found = answer(reply({"content": None, "refusal": "I cannot."}))
    assert (found.text, found.finish_reason, found.detail) == ("", "refusal", "refusal")


def test_arguments_that_are_no_json_are_kept_as_they_came() -> None:
    calls = [{"id": "1", "function": {"name": "f", "arguments": "{half"}}, {"id": "2", "function": {"name": "g"}}, 7]
    found = answer(reply({"content": "", "tool_calls": calls}, finish_reason="tool_calls"))
    assert [each["arguments"] for each in json.loads(found.tool_calls or "")] == ["{half", None, None]


@pytest.mark.parametrize(
    "written",
    ["[" * 100_000, "[" * 90 + "]" * 90, "1" * 5_000, '{"a": NaN}', '{"a": "\\ud800"}'],
    ids=["without end", "deep", "digits", "no number", "half a sign"],
)
def test_arguments_that_no_file_can_hold_are_kept_as_they_came(written: str) -> None:
    calls = [{"id": "1", "function": {"name": "f", "arguments": written}}]
    found = answer(reply({"content": "", "tool_calls": calls}, finish_reason="tool_calls"))
    assert [each["arguments"] for each in json.loads(found.tool_calls or "")] == [written]


@pytest.mark.parametrize("calls", [7, True, "f", {"name": "f"}])
def test_calls_that_are_no_list_are_none(calls: object) -> None:
    assert answer(reply({"content": "Yes.", "tool_calls": calls})).tool_calls is None


def test_a_cache_read_no_more_than_there_was() -> None:
    choice = {"message": {"content": "Yes."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 500}}
    found = answer(lambda asked: "body:" + json.dumps({"choices": [choice], "usage": usage}))
    assert found.usage == Usage(0, 3, 7)


@pytest.mark.parametrize("count", [10**400, 10**13, -1, 1.5, "7", None])
def test_a_count_that_is_none_counts_as_not_told(count: object) -> None:
    said = {"choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}], "usage": {"prompt_tokens": count}}
    assert answer(lambda asked: "body:" + json.dumps(said)).usage == Usage()


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "[]", "null", '"text"', '{"choices": []}', '{"choices": [7]}', '{"choices": {"a": 1}}', "[" * 100_000),
        "1" * 5_000,
        '{"choices": [{"message": {"content": "Half"}, "finish_reason": null}]}',
        '{"choices": [{"message": {"content": "Half"}, "finish_reason": "abort"}]}',
        '{"choices": [{"message": {"content": "Half"}, "finish_reason": "error"}]}',
    ],
)
def test_a_reply_that_is_no_finished_answer_is_nobody_s_fault(text: str) -> None:
    assert type(failure(f"body:{text}")) is Unavailable


# --- what each failure becomes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("invalid", RequestRejected),
        ("too_large", RequestRejected),
        ("bad_key", Unauthorized),
        ("billing", Unauthorized),
        ("forbidden", Unauthorized),
        ("no_model", NotServed),
        ("redirect:302", Unauthorized),
        ("redirect:308", Unauthorized),
        ("quota", Unauthorized),
        ("limited", RateLimited),
        ("timeout", Unavailable),
        ("conflict", Unavailable),
        ("broken", Unavailable),
        ("gateway", Unavailable),
        ("lost", Unavailable),
        ("hang", Unavailable),
        ("drip", Unavailable),
        ("truncated", Unavailable),
        ("page", Unavailable),
    ],
)
def test_every_failure_is_one_of_ours_with_nothing_of_the_key(
    fault: str, kind: type[ProviderError], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = failure(fault, timeout="0.4")
    assert type(error) is kind
    assert_clean(error)
    assert not [each for each in caplog.records if KEY in each.getMessage() + str(each.__dict__)]


def assert_clean(error: BaseException) -> None:
    assert error.__cause__ is None and error.__context__ is None
    seen = [str(error), repr(error), repr(error.args), repr(vars(error)), "".join(traceback.format_exception(error))]
    seen.append(pickle.dumps(error).decode("latin-1"))
    for text in seen:
        assert KEY not in text and "CANARY" not in text and "QUERYSECRET" not in text and "Bearer" not in text


def test_the_words_of_a_server_are_made_fit_to_print() -> None:
    words = json.dumps({"error": {"message": "No.\x1b[2J\u202e\nNo! " + "x" * 5_000, "code": "b\x1bad"}})
    with serving(lambda asked: "status:422:" + words) as api:
        (error,) = ask(api.url, request())
    assert isinstance(error, RequestRejected)
    assert str(error).startswith("openai: 422 b ad: No. [2J No! xxx") and len(str(error)) < 400
    assert str(error).isprintable()


@pytest.mark.parametrize(
    "body", ['{"object": "error", "message": "No model.", "type": "NotFoundError", "code": 404}', "No"]
)
def test_older_error_bodies_are_read_too(body: str) -> None:
    with serving(lambda asked: "status:404:" + body) as api:
        (error,) = ask(api.url, request())
    assert isinstance(error, Unauthorized) and "No" in str(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("-3", 0.0), ("nan", None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("", None)],
)
def test_the_wait_that_a_rate_limit_asks_for_is_read(header: str, seconds: float | None) -> None:
    error = failure(f"limited:{header}")
    assert isinstance(error, RateLimited) and error.retry_after == seconds


def test_nobody_at_the_address_is_nobody_s_fault() -> None:
    with serving() as api:
        gone: FakeAPI = api
    (error,) = ask(gone.url, request())
    assert type(error) is Unavailable and gone.url in str(error)
    assert_clean(error)


# --- what is refused before anything is sent ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "no address; write .*base_url=http://localhost:8000/v1"),
        ({"base_url": " , "}, "no address"),
        ({"base_url": "http://localhost:1,http://example.com"}, "plain http"),
        ({"base_url": "http://localhost:1", "api_key": KEY}, "would hold a key"),
        ({"base_url": "http://localhost:1", "time_out": "3"}, "did you mean 'timeout'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        make("openai", settings)
    assert KEY not in str(caught.value)
