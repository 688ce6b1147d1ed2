"""A cap on dollars, against a server that keeps its own bill: never exceeded, whatever is lost, killed or storming."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_api import Asked, Script, first_of, never
from runs import Process, answers
from support import documents, shard_hashes
from test_api_providers import KEY, MODEL, Desk, desk

from sdf import api, worker
from sdf.errors import BudgetExhausted, RecipeError, Unauthorized
from sdf.grants import treasury
from sdf.ledger import read_ledger
from sdf.money.prices import builtin, load_prices, tariff
from sdf.providers import governor
from sdf.storage import RunDir

PROVIDERS = ("anthropic", "openai")
# Enough for some ten answers, one at a time at their worst; the whole corpus takes half of it, and as much to reserve.
TIGHT = 0.12
AMPLE = 50.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setattr(governor, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(governor, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(worker, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(treasury, "GRANT_EVERY", 0.02)


@contextmanager
def shop(folder: Path, provider: str, fault: Script = never, **fields: Any) -> Iterator[Desk]:
    """A desk whose recipe knows what the model costs at either provider."""
    table = folder / "prices.json"
    rates = {"input": 4.0, "output": 20.0, "cache_read": 0.4}
    folder.mkdir(parents=True, exist_ok=True)
    table.write_text(json.dumps({"date": "2026-11-20", "source": "this test", "models": {"openai": {MODEL: rates}}}))
    with desk(folder, provider, fault, prices=str(table), **fields) as opened:
        yield opened


def billed(opened: Desk) -> float:
    return opened.server.billed_usd(rates_of(opened))


def rates_of(opened: Desk) -> Any:
    prices = load_prices(str(Path(opened.recipe).parent / "prices.json")) if opened.provider == "openai" else builtin()
    return tariff(prices, opened.provider, {}, MODEL)


def texts(out: Path) -> dict[str, list[str]]:
    return {name: [row["text"] for row in rows] for name, rows in documents(out).items()}


def proved(out: Path) -> float:
    return read_ledger(RunDir(out)).cost_usd


@pytest.fixture(scope="module", params=PROVIDERS)
def oracle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as context, shop(folder, request.param) as quiet:
        context.setenv("ANTHROPIC_API_KEY", KEY)
        context.setenv("OPENAI_API_KEY", KEY)
        assert quiet.make(folder / "out").finished
        assert proved(folder / "out") == pytest.approx(billed(quiet)), "the ledger says what the server billed"
    return request.param, folder / "out"


def test_a_cap_that_does_not_bind_changes_nothing(oracle: tuple[str, Path], tmp_path: Path) -> None:
    provider, undisturbed = oracle
    with shop(tmp_path, provider) as quiet:
        outcome = quiet.make(tmp_path / "out", max_cost=AMPLE)
        assert outcome.finished and shard_hashes(tmp_path / "out") == shard_hashes(undisturbed)
        assert outcome.cost is not None and outcome.cost.here == pytest.approx(billed(quiet))
        assert outcome.cost.presumed == pytest.approx(0.0)


def test_a_cap_that_binds_stops_with_a_prefix_and_the_next_run_goes_on(
    oracle: tuple[str, Path], tmp_path: Path
) -> None:
    provider, undisturbed = oracle
    whole = texts(undisturbed)
    with shop(tmp_path, provider) as quiet:
        for cap in (TIGHT, TIGHT + 0.02):
            with pytest.raises(BudgetExhausted, match=r"higher --max-cost goes on") as caught:
                quiet.make(tmp_path / "out", max_cost=cap)
            assert caught.value.exit_code == 4
            assert 0 < billed(quiet) <= cap
        made = texts(tmp_path / "out")
        assert sum(map(len, made.values())) > 0
        for name, found in made.items():
            assert found == whole[name][: len(found)]
        assert quiet.make(tmp_path / "out", max_cost=AMPLE).finished
        assert shard_hashes(tmp_path / "out") == shard_hashes(undisturbed)
        assert quiet.server.n_billed_again == 0


def test_money_is_used_up_before_a_run_gives_up(oracle: tuple[str, Path], tmp_path: Path) -> None:
    provider, _ = oracle
    with shop(tmp_path, provider) as quiet:
        with pytest.raises(BudgetExhausted):
            quiet.make(tmp_path / "out", max_cost=TIGHT)
        # One request's worst case at most is left: that of the smallest that waited.
        assert TIGHT - billed(quiet) < 0.12


STORMS: dict[str, Script] = {
    "429": first_of("limited"),
    "429 with a wait": first_of("limited:0.02"),
    "529": first_of("overloaded"),
    "lost replies": first_of("lost"),
    "truncated": first_of("truncated", every=4),
    "slow drip": first_of("drip", every=7),
    "all at once": lambda asked: (
        ("limited:0.01", "broken", "lost", "truncated", None)[asked.dice % 5] if asked.attempt == 1 else None
    ),
}


@pytest.mark.parametrize("storm", STORMS)
@pytest.mark.parametrize("cap", [2 * TIGHT, AMPLE])
def test_no_storm_makes_it_spend_more(oracle: tuple[str, Path], storm: str, cap: float, tmp_path: Path) -> None:
    provider, undisturbed = oracle
    with shop(tmp_path, provider, STORMS[storm]) as stormy:
        timeout = "0.5" if storm == "slow drip" else "30"
        try:
            assert stormy.make(tmp_path / "out", timeout=timeout, max_cost=cap).finished
        except BudgetExhausted:
            assert cap < AMPLE
        assert billed(stormy) <= cap and proved(tmp_path / "out") <= billed(stormy) + 1e-9
        assert stormy.make(tmp_path / "out", timeout=timeout, max_cost=10 * AMPLE).finished
        assert shard_hashes(tmp_path / "out") == shard_hashes(undisturbed)
        assert stormy.server.n_billed_again == 0


def test_what_was_refused_costs_nothing_and_what_was_lost_counts_in_full(
    oracle: tuple[str, Path], tmp_path: Path
) -> None:
    provider, _ = oracle
    for fault, presumed in (("limited", False), ("overloaded", False), ("lost", True), ("truncated", True)):
        with shop(tmp_path / fault, provider, first_of(fault)) as stormy:
            cost = stormy.make(tmp_path / fault / "out", max_cost=AMPLE).cost
            assert cost is not None and (cost.presumed > 0.01) is presumed
            assert cost.spent + cost.presumed >= billed(stormy) - 1e-9


def test_what_was_lost_before_there_was_a_cap_counts_against_it(oracle: tuple[str, Path], tmp_path: Path) -> None:
    provider, _ = oracle
    with shop(tmp_path, provider, first_of("lost")) as stormy:
        cost = stormy.make(tmp_path / "out").cost
        assert cost is not None and cost.presumed > 0.01
        told = api.status(tmp_path / "out").cost
        assert told is not None and told.presumed == pytest.approx(cost.presumed)
        with pytest.raises(BudgetExhausted, match="presumed"):
            stormy.make(tmp_path / "out", tokens=9_000, max_cost=cost.spent + cost.presumed)


def test_a_spend_limit_of_the_account_is_not_ours(oracle: tuple[str, Path], tmp_path: Path) -> None:
    provider, undisturbed = oracle

    def script(asked: Asked) -> str | None:
        return "spend_cap" if len(broken.server.attempts) > 10 else None

    with shop(tmp_path, provider, script) as broken:
        with pytest.raises(Unauthorized) as caught:
            broken.make(tmp_path / "out", max_cost=AMPLE)
        assert caught.value.exit_code == 5
        broken.server.fault = never
        assert broken.make(tmp_path / "out", max_cost=AMPLE).finished
        assert shard_hashes(tmp_path / "out") == shard_hashes(undisturbed)


def test_killed_again_and_again_it_never_passes_the_cap(oracle: tuple[str, Path], tmp_path: Path) -> None:
    """Each life may spend what the ones before it left: the worst case of what was in flight is gone with each kill."""
    provider, undisturbed = oracle
    slow = lambda asked: "slow:0.05"  # noqa: E731
    cap = 6.0
    with shop(tmp_path, provider, slow) as server:
        flags = {
            "provider": provider,
            "model": MODEL,
            "max_cost": cap,
            "ray": "none",
            "base_url": server.server.url,
        }
        spent = 0.0
        for _ in range(3):
            life = Process(server.recipe, tmp_path / "out", **flags)
            n_before = len(server.server.bills)
            life.until(lambda n=n_before: len(server.server.bills) >= n + 8)
            life.kill()
            assert billed(server) <= cap and billed(server) > spent
            spent = billed(server)
        before = api.status(tmp_path / "out").cost
        assert before.presumed > 0 and before.spent + before.presumed >= billed(server) - 1e-9
        server.server.fault = never
        assert server.make(tmp_path / "out", max_cost=10 * cap).finished
        assert shard_hashes(tmp_path / "out") == shard_hashes(undisturbed)
        cost = api.status(tmp_path / "out").cost
        assert cost.spent + cost.presumed >= billed(server) - 1e-9


@pytest.mark.slow
def test_three_workers_on_ray_never_pass_it_together(oracle: tuple[str, Path], tmp_path: Path) -> None:
    provider, undisturbed = oracle
    with shop(tmp_path, provider, first_of("lost", every=9)) as server:
        flags = {"provider": provider, "model": MODEL, "ray": "local", "workers": 3, "base_url": server.server.url}
        out = tmp_path / "out"
        for cap, exit_code in ((2.5 * TIGHT, 4), (AMPLE, 0)):
            run = Process(server.recipe, out, **flags, max_cost=cap)
            assert run.wait() == exit_code, run.said
            assert 0 < billed(server) <= cap
        assert shard_hashes(out) == shard_hashes(undisturbed)
        assert set(answers(out).values()) == {1}, "no request was paid twice for want of memory"


def test_a_cap_below_one_request_stops_before_anything_is_sent(oracle: tuple[str, Path], tmp_path: Path) -> None:
    provider, _ = oracle
    with shop(tmp_path, provider) as quiet:
        with pytest.raises(
            BudgetExhausted, match=r"\$0\.00 of \$0\.0100 spent, and the next request may cost up to \$0\.\d{4};"
        ):
            quiet.make(tmp_path / "out", max_cost=0.01)
        assert not quiet.server.asked


def test_a_cap_without_a_price_is_refused_and_without_a_cap_the_cost_is_unknown(tmp_path: Path) -> None:
    with desk(tmp_path, "openai") as quiet:
        with pytest.raises(
            RecipeError, match=rf"the price of {MODEL} at openai is not known.*--prices FILE.*\"input\""
        ):
            quiet.make(tmp_path / "out", max_cost=1.0)
        assert not quiet.server.asked
        cost = quiet.make(tmp_path / "out").cost
        assert cost is not None and cost.n_unpriced == len(quiet.server.bills) and cost.spent == 0


@pytest.mark.parametrize("cap", [0, -1, float("nan"), float("inf")])
def test_a_cap_that_is_no_amount_is_refused(cap: float, tmp_path: Path) -> None:
    with desk(tmp_path, "anthropic") as idle:
        with pytest.raises(RecipeError, match=r"max_cost: .* is no amount to spend"):
            idle.make(tmp_path / "out", max_cost=cap)
        assert not idle.server.asked


def test_what_was_bought_before_there_was_a_cap_counts_against_it(oracle: tuple[str, Path], tmp_path: Path) -> None:
    provider, _ = oracle
    with shop(tmp_path, provider) as quiet:
        quiet.make(tmp_path / "out")
        n_before = len(quiet.server.bills)
        with pytest.raises(BudgetExhausted):
            quiet.make(tmp_path / "out", tokens=4_000, max_cost=billed(quiet) + 0.01)
        assert len(quiet.server.bills) == n_before


def test_a_server_that_tells_no_usage_is_held_to_the_worst(tmp_path: Path) -> None:
    """Its answers count in full: a cap that took them for free would be none."""
    with shop(tmp_path, "openai") as silent:
        silent.server.shape = lambda _: "no_usage"
        with pytest.raises(BudgetExhausted):
            silent.make(tmp_path / "out", max_cost=4 * TIGHT)
        n_asked = len(silent.server.asked)
        cost = api.status(tmp_path / "out").cost
        assert (
            cost is not None
            and TIGHT < cost.spent <= 4 * TIGHT
            and proved(tmp_path / "out") == pytest.approx(cost.spent)
        )
        with pytest.raises(BudgetExhausted):
            silent.make(tmp_path / "out", max_cost=4 * TIGHT)
        assert len(silent.server.asked) == n_asked < 12
