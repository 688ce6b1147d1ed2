"""The embedded provider, judged by what a step can read from its answers."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from sdf.angles import Gate
from sdf.answers import value
from sdf.errors import RateLimited, RecipeError, Unavailable
from sdf.providers import make
from sdf.records import Answer, Message, Prefix, Request, Returns, Sampling, Wants, digest

PREFIX = Prefix.of("You write documents for a library. They touch on humility and consent. " * 3)
SHAPES: tuple[Returns, ...] = ("text", "list", "score", "messages", "json")


def request(
    draw: int = 1, returns: Returns = "text", n_words: int = 300, body: str = "Write it.", **more: Any
) -> Request:
    tag = more.pop("tag", "document")
    wants = Wants(returns, n_words, more.pop("n_items", 12), tag, more.pop("lowest", 1), more.pop("highest", 10))
    sampling = more.pop("sampling", Sampling(20_000))
    return Request("offline-grammar", PREFIX, (Message("user", body),), sampling, wants, draw, **more)


def answer(request: Request, **settings: str) -> Answer:
    return asyncio.run(make("offline", settings).answer(request))


def text(request: Request, **settings: str) -> str:
    found = value(request.wants, answer(request, **settings))
    assert isinstance(found, str)
    return found


def outcomes(n_calls: int, **settings: str) -> list[str]:
    async def calls() -> list[str]:
        provider, found = make("offline", settings), list[str]()
        for draw in range(n_calls):
            try:
                found.append((await provider.answer(request(draw))).finish_reason)
            except (RateLimited, Unavailable) as error:
                found.append(type(error).__name__)
        return found

    return asyncio.run(calls())


# --- the table of providers and the settings --------------------------------------------------------------------


def test_an_unknown_provider_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"unknown provider 'offlin'; did you mean 'offline'\?"):
        make("offlin", {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latencey": "1"}, r"unknown setting 'latencey'; did you mean 'latency'\?"),
        ({"latency": "fast"}, r"latency is 'fast'; write seconds from 0 to 3600"),
        ({"latency": "-1"}, r"latency is '-1'"),
        ({"latency": "nan"}, r"latency is 'nan'"),
        ({"refuse": "1.5"}, r"refuse is '1.5'; write a fraction from 0 to 1"),
        ({"crash_after": "-3"}, r"crash_after is '-3'; write a whole number of calls, 0 for never"),
        ({"hang_every": "2.5"}, r"hang_every is '2.5'"),
        ({"sampled": "yes"}, r"sampled is 'yes'; write true or false"),
    ],
)
def test_a_bad_setting_says_what_to_write(settings: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make("offline", settings)


# --- text -------------------------------------------------------------------------------------------------------


def test_equal_requests_get_equal_answers_and_other_draws_others() -> None:
    assert answer(request(7)) == answer(request(7))
    assert len({text(request(draw)) for draw in range(50)}) == 50


def test_another_prefix_or_body_gets_another_text() -> None:
    first = request(7)
    other = Request(
        first.model, Prefix.of(PREFIX.text + "Be brief."), first.messages, first.sampling, first.wants, first.draw
    )
    assert len({text(first), text(other), text(request(7, body="Write it again."))}) == 3


def test_what_is_wanted_but_not_said_leaves_the_choices_alone() -> None:
    assert text(request(7, sampling=Sampling(9_000))) == text(request(7, sampling=Sampling(20_000)))


def test_it_says_what_it_is_and_counts_what_it_would_bill() -> None:
    found = answer(request(1, body="x" * 400))
    assert found.model == "offline-grammar"
    assert found.usage.input_tokens == (len(PREFIX.text) + 400) // 4
    assert found.usage.output_tokens == -(-len(found.text) // 4)


@pytest.mark.parametrize("n_words", [60, 100, 250, 800, 2400])
def test_text_has_the_asked_length_paragraphs_and_no_sentence_twice(n_words: int) -> None:
    for draw in range(40):
        found = text(request(draw, n_words=n_words))
        assert abs(len(found.split()) - n_words) <= n_words / 10
        assert found.endswith(".")
        paragraphs = found.split("\n\n")
        assert len(paragraphs) >= 2
        assert len(set(paragraphs)) == len(paragraphs)
        sentences = [
            sentence for sentence in re.split(r'(?<=[.?!])"? ', found.replace("\n\n", " ")) if len(sentence) > 40
        ]
        assert len(set(sentences)) == len(sentences)


def test_text_ends_in_a_full_stop_even_after_speech() -> None:
    assert all(text(request(draw, n_words=230)).endswith(".") for draw in range(1500))


@pytest.mark.parametrize("n_words", range(3, 60, 4))
def test_short_text_is_within_three_words_or_so(n_words: int) -> None:
    lengths = [len(text(request(draw, n_words=n_words)).split()) for draw in range(30)]
    assert sum(abs(length - n_words) <= 3 for length in lengths) >= 24
    assert all(abs(length - n_words) <= max(8, n_words / 10) for length in lengths)


def test_text_is_clean_english() -> None:
    for draw in range(200):
        found = text(request(draw, n_words=600))
        assert not re.search(r"[{}%\[\]|~_<>]|  |\ba [aeio]|\bthe the\b|\ba a\b", found), found
        for paragraph in found.split("\n\n"):
            assert re.match(r'["A-Z]', paragraph), paragraph
            assert not re.search(r'[.?!]"? [a-z]', re.sub(r'[?.]" [a-z]', "", paragraph)), paragraph


def test_one_long_text_in_four_has_a_title() -> None:
    titled = [not text(request(draw, n_words=400)).split("\n")[0].endswith((".", '"', "?")) for draw in range(400)]
    assert 0.15 < sum(titled) / len(titled) < 0.35


def test_the_tag_wraps_the_text_and_nothing_else() -> None:
    assert re.fullmatch(r"<essay>\n[^<>]+\n</essay>", answer(request(tag="essay")).text)
    assert "<" not in answer(request(tag=None)).text


def test_a_completion_is_answered_like_a_chat() -> None:
    asked = Request("m", PREFIX, (), Sampling(9_000), Wants("text", 500), 3, prompt="Once there was")
    assert 450 <= len(answer(asked).text.split()) <= 550


def test_text_keeps_to_the_themes_and_people_of_the_prompt() -> None:
    body = "Write on transparency; let the story follow Brunhild Okonjo and, later, Tebogo Varga-Lund."
    found = [text(request(draw, n_words=700, body=body)) for draw in range(20)]
    assert all("transparency" in each.lower() for each in found)
    assert all("Brunhild" in each for each in found)
    assert all(re.search("humility|consent", text(request(draw, n_words=700)).lower()) for draw in range(20))


def test_stop_sequences_and_max_tokens_are_honoured() -> None:
    stopped = answer(request(1, sampling=Sampling(20_000, stop=(". ",))))
    assert ". " not in stopped.text
    assert stopped.finish_reason == "stop"
    short = answer(request(1, sampling=Sampling(3)))
    assert (len(short.text), short.finish_reason) == (12, "length")


def test_what_stands_beside_a_long_text_is_as_short_as_its_budget() -> None:
    """A step asks for the question that a document of 3,000 words would answer, with room for a question."""
    found = answer(request(1, n_words=3_000, sampling=Sampling(2_048)))
    assert found.finish_reason == "stop" and 900 < len(found.text.split()) < 1_100


def test_judges_keep_nearly_all_by_the_built_in_thresholds() -> None:
    asked = [request(draw, "score", tag="score", lowest=1, highest=10) for draw in range(400)]
    found = [value(each.wants, answer(each)) for each in asked]
    n_low = sum(isinstance(each, int) and each < 7 for each in found)
    assert 0 < n_low < 20


def test_phrases_that_the_prefix_asks_to_leave_out_are_not_written() -> None:
    def texts(prefix: str) -> str:
        every = [answer(replace(request(draw), prefix=Prefix(prefix, digest(prefix)))).text for draw in range(60)]
        return " ".join(re.sub(r"\W+", " ", each.lower()) for each in every)

    plain = texts("Rules.")
    words = plain.split()
    common = Counter(" ".join(words[place : place + 3]) for place in range(len(words) - 2)).most_common(5)
    worn = [phrase for phrase, _ in common]
    spared = texts(f"Rules. The plainer word\nis wanted: {'; '.join(worn)}.\n")
    assert min(map(plain.count, worn)) > 3
    assert sum(map(spared.count, worn)) <= 3
    # What no sentence can do without is written all the same.
    assert " the " in texts("Rules. The plainer word is wanted: the; a.\n")


# --- other shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_items", [1, 12, 64])
def test_a_list_has_the_asked_items_each_a_distinct_line(n_items: int) -> None:
    for draw in range(20):
        asked = request(draw, "list", n_items=n_items, tag="angles")
        found = value(asked.wants, answer(asked))
        assert isinstance(found, list)
        assert len(set(map(str, found))) == n_items
        assert all(8 <= len(str(item).split()) <= 25 for item in found)
        inside = answer(asked).text.split("\n")[1:-1]
        assert [line.split(". ")[0] for line in inside] == [str(n) for n in range(1, n_items + 1)]


def test_items_of_one_cell_seldom_resemble_each_other() -> None:
    shares = list[float]()
    for cell in range(10):
        gate = Gate()
        asked = [request(100 * cell + draw, "list", n_items=50, tag="angles") for draw in range(2)]
        items = [str(item) for each in asked for item in value(each.wants, answer(each)) or ()]
        shares.append(sum(not gate.admit(item) for item in items) / len(items))
    assert sum(shares) / len(shares) < 0.03


@pytest.mark.parametrize(("lowest", "highest"), [(1, 10), (0, 3), (5, 5), (-2, 100)])
def test_scores_are_in_range_and_mostly_high(lowest: int, highest: int) -> None:
    asked = [request(draw, "score", tag="score", lowest=lowest, highest=highest) for draw in range(200)]
    found = [int(re.search(r"<score>(-?\d+)</score>", answer(each).text)[1]) for each in asked]  # type: ignore[index]
    assert all(lowest <= score <= highest for score in found)
    assert sum(score >= lowest + 0.6 * (highest - lowest) for score in found) > 140
    if highest > lowest:
        assert len(set(found)) > 2
    assert value(asked[0].wants, answer(asked[0])) == found[0]


def test_messages_take_turns_and_share_the_words() -> None:
    for draw in range(40):
        asked = request(draw, "messages", n_words=400, tag="chat")
        found: Any = value(asked.wants, answer(asked))
        assert [message["role"] for message in found] == ["user", "assistant"] * (len(found) // 2)
        assert 350 <= sum(len(message["content"].split()) for message in found) <= 450


SCHEMA = {
    "type": "object",
    "required": ["name", "mood", "age", "score", "kin", "sure", "note", "next", "kind", "nothing", "short"],
    "properties": {
        "name": {"type": "string"},
        "mood": {"enum": ["calm", "cross"]},
        "age": {"type": "integer", "minimum": 18, "maximum": 21},
        "score": {"type": "number", "maximum": 0},
        "kin": {"type": "array", "items": {"$ref": "#/$defs/person"}, "minItems": 4},
        "sure": {"type": "boolean"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "next": {"type": ["string", "null"]},
        "kind": {"const": "letter"},
        "nothing": {"type": "null"},
        "short": {"type": "string", "maxLength": 9},
    },
    "$defs": {"person": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
}


def test_json_follows_the_schema() -> None:
    for draw in range(60):
        asked = request(draw, "json", n_words=0, schema=json.dumps(SCHEMA))
        jsonschema.validate(value(asked.wants, answer(asked)), SCHEMA)


def test_json_without_a_schema_is_an_object_and_a_schema_of_itself_ends() -> None:
    assert isinstance(value(request(1, "json").wants, answer(request(1, "json"))), dict)
    endless = {"type": "object", "properties": {"again": {"$ref": "#"}, "all": {"type": "array", "maxItems": 1}}}
    assert "again" in json.loads(answer(request(1, "json", schema=json.dumps(endless), tag=None)).text)


def test_json_strings_share_the_words_asked_for() -> None:
    schema = {"type": "object", "properties": {"system": {"type": "string"}, "user": {"type": "string"}}}
    asked = request(1, "json", n_words=200, schema=json.dumps(schema))
    found: Any = value(asked.wants, answer(asked))
    assert all(90 <= len(found[name].split()) <= 110 for name in ("system", "user"))


# --- faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "reason"), [("refuse", "refusal"), ("truncate", "length"), ("unparsable", "stop")])
def test_faults_of_answers_follow_the_request_key(fault: str, reason: str) -> None:
    asked = [request(draw, n_words=80) for draw in range(400)]
    once = [answer(each, **{fault: "0.25"}) for each in asked]
    assert once == [answer(each, **{fault: "0.25", "rate_limit_every": "0"}) for each in asked]
    hit = [value(each.wants, found) is None for each, found in zip(asked, once, strict=True)]
    assert 60 < sum(hit) < 140
    assert {found.finish_reason for found, is_hit in zip(once, hit, strict=True) if is_hit} == {reason}
    assert [found for found, is_hit in zip(once, hit, strict=True) if not is_hit] == [
        answer(each) for each, is_hit in zip(asked, hit, strict=True) if not is_hit
    ]


@pytest.mark.parametrize("returns", SHAPES)
@pytest.mark.parametrize("tag", ["part", None])
def test_an_unparsable_answer_is_unusable_in_every_shape(returns: Returns, tag: str | None) -> None:
    asked = request(1, returns, tag=tag)
    assert value(asked.wants, answer(asked)) is not None
    assert value(asked.wants, answer(asked, unparsable="1")) is None


def test_a_truncated_answer_is_a_beginning_of_the_whole() -> None:
    cut = answer(request(1), truncate="1").text
    assert 0 < len(cut) < len(answer(request(1)).text)
    assert answer(request(1)).text.startswith(cut)


def test_a_refusal_names_its_category_and_bills_no_output() -> None:
    refused = answer(request(1), refuse="1")
    assert (refused.text, refused.detail, refused.usage.output_tokens) == ("", "offline", 0)


def test_tools_are_called_only_when_offered_and_set() -> None:
    tools = json.dumps([{"name": "look_up", "input_schema": SCHEMA}])
    called = answer(request(1, tools=tools), tool_use="1")
    assert (called.text, called.finish_reason) == ("", "tool_use")
    (call,) = json.loads(called.tool_calls or "")
    assert call["name"] == "look_up"
    jsonschema.validate(call["arguments"], SCHEMA)
    assert answer(request(1, tools=tools)).tool_calls is None
    assert answer(request(1), tool_use="1").finish_reason == "stop"


def test_sampled_answers_differ_and_keep_their_length() -> None:
    found = {text(request(1), sampled="true") for _ in range(5)}
    assert len(found) == 5
    assert all(270 <= len(each.split()) <= 330 for each in found)


def test_rate_limits_come_by_the_count_of_calls() -> None:
    assert outcomes(6, rate_limit_every="3") == ["stop", "stop", "RateLimited"] * 2


def test_outages_come_at_the_asked_rate_and_scattered() -> None:
    found = outcomes(3000, unavailable_every="4")
    assert 600 < found.count("Unavailable") < 900
    assert len({tuple(found[at : at + 8]) for at in range(0, 3000, 8)}) > 20
    assert outcomes(5, unavailable_every="1") == ["Unavailable"] * 5


def test_a_hanging_call_never_ends_while_others_do() -> None:
    async def test() -> tuple[bool, bool]:
        provider = make("offline", {"hang_every": "2"})
        calls = [asyncio.ensure_future(provider.answer(request(draw))) for draw in range(2)]
        for _ in range(20):
            await asyncio.sleep(0)
        done = calls[0].done(), calls[1].done()
        calls[1].cancel()
        return done

    assert asyncio.run(test()) == (True, False)


def test_every_call_yields_to_the_event_loop() -> None:
    async def test() -> list[str]:
        order = list[str]()

        async def ask(name: str) -> None:
            for _ in range(2):
                await provider.answer(request(1))
                order.append(name)

        provider = make("offline", {})
        await asyncio.gather(ask("a"), ask("b"))
        return order

    assert asyncio.run(test()) == ["a", "b", "a", "b"]


CRASHING = """
import asyncio
from sdf.providers import make
from sdf.records import Message, Prefix, Request, Sampling, Wants

async def main():
    provider = make("offline", {"crash_after": "3"})
    asked = Request("m", Prefix.of("p"), (Message("user", "q"),), Sampling(900), Wants("score"), 1)
    for n in range(9):
        await provider.answer(asked)
        print(n, flush=True)

asyncio.run(main())
"""


def test_crash_after_kills_the_process_once_so_many_answers_were_given() -> None:
    ended = subprocess.run([sys.executable, "-c", CRASHING], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split() == ["0", "1", "2"]
