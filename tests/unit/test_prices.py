"""What tokens cost: the table, its tiers and dates, price files, and what is not known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdf.errors import RecipeError
from sdf.money import prices
from sdf.money.prices import FREE, Price, builtin, load_prices, tariff
from sdf.records import Usage

MILLION = 1_000_000


def test_each_kind_of_token_has_its_own_rate() -> None:
    price = builtin().price_of("anthropic", "claude-opus-5-5")
    assert price is not None
    cost = lambda **used: price.cost(Usage(**used), cache_ttl="5m", batch=False)  # noqa: E731
    assert cost(input_tokens=MILLION) == pytest.approx(4)
    assert cost(output_tokens=MILLION) == pytest.approx(20)
    assert cost(cache_read_tokens=MILLION) == pytest.approx(0.2)
    assert cost(cache_write_tokens=MILLION) == pytest.approx(5)
    assert price.cost(Usage(cache_write_tokens=MILLION), cache_ttl="1h", batch=False) == pytest.approx(8)
    assert price.cost(Usage(1_000, 1_000), cache_ttl="5m", batch=True) == pytest.approx(0.5 * 0.024)


def test_a_longer_prompt_is_billed_whole_at_the_rates_of_its_tier() -> None:
    price = builtin().price_of("anthropic", "claude-haiku-5-5")
    assert price is not None
    at, above = Usage(50_000, 1_000, 50_000), Usage(50_000, 1_000, 50_001)
    assert price.cost(at, cache_ttl="5m", batch=False) == pytest.approx((50_000 * 0.1 + 500 + 50_000 * 0.01) / MILLION)
    assert price.cost(above, cache_ttl="5m", batch=False) == pytest.approx(
        (50_000 * 0.5 + 2_500 + 50_001 * 0.05) / MILLION
    )


@pytest.mark.parametrize("ttl", ["5m", "1h"])
@pytest.mark.parametrize("n_prompt", [10, 99_999, 100_000, 100_001, 400_000])
def test_no_split_of_a_prompt_costs_more_than_its_worst(ttl: prices.Ttl, n_prompt: int) -> None:
    for price in builtin().models["anthropic"].values():
        worst = price.worst(n_prompt, 2_000, cache_ttl=ttl, batch=False)
        for used in ((n_prompt, 0, 0), (0, n_prompt, 0), (0, 0, n_prompt), (n_prompt // 2, 0, n_prompt // 2)):
            fresh, cached, written = used
            assert price.cost(Usage(fresh, 2_000, cached, written), cache_ttl=ttl, batch=False) <= worst + 1e-12


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("claude-opus-5-5", True),
        ("claude-opus-5-5-20260901", True),
        ("claude-opus-5-5@20260901", True),
        ("claude-opus-5-5-2026-09-01", True),
        ("claude-opus-5-5-20261301", False),
        ("claude-opus-5-5-6", False),
        ("claude-opus-5", False),
        ("claude-opus-5-5-latest", False),
        ("claude-opus-5-5-fast", False),
        ("us.claude-opus-5-5", False),
        ("", False),
    ],
)
def test_a_dated_model_costs_what_its_base_costs_and_nothing_else_is_guessed(model: str, known: bool) -> None:
    assert (builtin().price_of("anthropic", model) is not None) is known


def test_what_nobody_bills_is_free_and_what_is_not_listed_has_no_price() -> None:
    table = builtin()
    assert table.price_of("offline", "offline-grammar") is FREE and table.price_of("vllm", "anything") is FREE
    assert table.price_of("openai", "claude-opus-5-5") is None
    unknown = tariff(table, "openai", {}, "m")
    assert unknown.cost(Usage(1, 1)) is None


def test_a_batch_is_half_and_caches_for_an_hour_unless_told_otherwise() -> None:
    online = tariff(builtin(), "anthropic", {}, "claude-opus-5-5")
    batch = tariff(builtin(), "anthropic-batch", {}, "claude-opus-5-5")
    short = tariff(builtin(), "anthropic-batch", {"cache_ttl": "5m"}, "claude-opus-5-5")
    used = Usage(cache_write_tokens=MILLION)
    assert [each.cost(used) for each in (online, batch, short)] == pytest.approx([5, 4, 2.5])


def test_a_price_file_replaces_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(prices.example("openai", "our-model"))
    found = load_prices(str(path))
    assert found.price_of("openai", "our-model") == Price(input=3, output=15)
    assert found.price_of("anthropic", "claude-opus-5-5") == builtin().price_of("anthropic", "claude-opus-5-5")
    assert found.date == "2026-11-20"
    usage = Usage(cache_read_tokens=MILLION, cache_write_tokens=MILLION)
    assert tariff(found, "openai", {}, "our-model").cost(usage) == pytest.approx(6), "what is left out costs as input"


GOOD = {"input": 1.0, "output": 2.0}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not: [json", r"prices .*:\d+: not YAML"),
        ('{"date": "2026-11-20", "source": "x"}', "'models' is missing"),
        (json.dumps({"date": "soon", "source": "x", "models": {}}), "date: 'soon' has not the form"),
        (json.dumps({"date": "2026-13-45", "source": "x", "models": {}}), "date: '2026-13-45' has not the form"),
        ({"openai": {"m": {"input": -1, "output": 2}}}, "models.openai.m.input"),
        ({"openai": {"m": {"input": True, "output": 2}}}, "models.openai.m.input"),
        ({"openai": {"m": {"input": float("nan"), "output": 2}}}, "models.openai.m.input"),
        ({"openai": {"m": {"input": 1, "outputs": 2}}}, "unknown key 'models.openai.m.outputs'; did you mean 'output'"),
        ({"openai": {"m": {**GOOD, "above": [{"input": 1, "output": 1}]}}}, "prompt_tokens' is missing"),
        ({"open-ai": {"m": GOOD}}, "no provider 'open-ai' bills; did you mean 'openai'"),
        ({"offline": {"m": GOOD}}, "no provider 'offline' bills"),
    ],
)
def test_a_price_file_that_is_wrong_names_file_and_place(content: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    whole = {"date": "2026-11-20", "source": "x", "models": content}
    path.write_text(content if isinstance(content, str) else json.dumps(whole).replace("NaN", ".nan"))
    with pytest.raises(RecipeError, match=words) as caught:
        load_prices(str(path))
    assert "prices.json" in str(caught.value)


def test_a_price_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_prices(str(tmp_path / "none.json"))
