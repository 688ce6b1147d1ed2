"""Rate limits as servers tell them, and the pace within them."""

from __future__ import annotations

import pytest

from sdf.money.allowance import Limits, Told
from sdf.providers.pace import Pace, told_by_anthropic, told_by_openai
from sdf.records import Usage


def anthropic(**limits: tuple[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, (limit, remaining) in limits.items():
        word = name.replace("_", "-")
        found[f"anthropic-ratelimit-{word}-limit"] = limit
        found[f"anthropic-ratelimit-{word}-remaining"] = remaining
    return found


def test_headers_of_both_protocols_are_read() -> None:
    headers = anthropic(
        requests=("4000", "3999"), input_tokens=("2000000", "500000"), output_tokens=("400000", "400000")
    )
    assert told_by_anthropic(headers) == Told(Limits(4000, None, 2_000_000, 400_000), 0.25)
    found = told_by_openai({"x-ratelimit-limit-requests": "60", "x-ratelimit-limit-tokens": "150000"})
    assert found == Told(Limits(60, 150_000))


@pytest.mark.parametrize("value", ["", "many", "nan", "inf", "-5", "0"])
def test_headers_that_are_no_numbers_say_nothing(value: str) -> None:
    assert told_by_anthropic(anthropic(requests=(value, "3"))) is None
    assert told_by_openai({"x-ratelimit-limit-requests": value, "x-ratelimit-remaining-requests": "9"}) is None
    assert told_by_anthropic({}) is None and told_by_openai({"retry-after": "3"}) is None


def sent_within(pace: Pace, seconds: float, usage: Usage) -> int:
    """How many requests go, one after another, each answered at once."""
    now, n_sent = 0.0, 0
    while True:
        now += pace.wait(now)
        if now > seconds:
            return n_sent
        pace.sent()
        pace.answered(usage)
        n_sent += 1
        now += 1e-4


def test_requests_go_as_often_as_the_limit_allows() -> None:
    pace = Pace()
    pace.follow(Limits(requests=120), 0.0)
    assert sent_within(pace, 60.0, Usage()) == pytest.approx(120, abs=6)


def test_tokens_are_counted_as_they_were_taken_whatever_was_expected() -> None:
    pace = Pace()
    pace.follow(Limits(input_tokens=6_000, output_tokens=60_000), 0.0)
    # 100 fresh tokens each, and 5,000 of a cache that do not count.
    assert sent_within(pace, 60.0, Usage(80, 10, 5_000, 20)) == pytest.approx(60, abs=4)


def test_without_limits_nothing_waits_and_a_limit_that_goes_is_forgotten() -> None:
    pace = Pace()
    assert pace.wait(0.0) == 0
    pace.follow(Limits(requests=1), 0.0)
    pace.sent()
    pace.sent()
    assert 0 < pace.wait(0.0) <= 60
    pace.follow(Limits(), 1.0)
    assert pace.wait(1.0) == 0


def test_a_higher_limit_is_followed_at_once() -> None:
    pace = Pace()
    pace.follow(Limits(requests=1), 0.0)
    pace.sent()
    pace.sent()
    before = pace.wait(0.0)
    pace.follow(Limits(requests=600), 0.0)
    assert pace.wait(0.0) < before / 100
