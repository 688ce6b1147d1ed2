"""A forecast of a recipe in stages: those that read another are sampled before it is made; nothing is paid twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_api import FakeAPI, serving
from staging import STAGES as GIVEN
from staging import recipe
from support import documents, shard_hashes
from typer.testing import CliRunner

from sdf import api, worker
from sdf.cli import app
from sdf.errors import BudgetExhausted, RecipeChanged
from sdf.forecast import kept
from sdf.grants.spent import cost_line
from sdf.ledger import read_answers, read_ledger
from sdf.records import Usage
from sdf.storage import RunDir

STAGES: dict[str, Any] = {
    "documents": GIVEN["documents"],
    "chat": GIVEN["chat"],
    "memos": {"share": 0.1, "mix": {"memo": 1}},
}
NAMES = ("1-documents", "2-chat", "3-memos")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-CANARY-3f9b1c7d5e2a4860")
    monkeypatch.setattr(worker, "FLUSH_SECONDS", 0.05)


def asking(server: FakeAPI) -> dict[str, Any]:
    return {
        "provider": "anthropic",
        "model": "claude-sonnet-5-5",
        "provider_settings": {"base_url": server.url},
    }


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for found in documents(out).values() for row in found]


def keys(out: Path) -> set[str]:
    run_dir = RunDir(out)
    return {entry.key for entry in read_answers(run_dir, [place for _, place in read_ledger(run_dir).keys])}


def paid(out: Path) -> set[str]:
    """Keys of what was bought there, not copied."""
    run_dir = RunDir(out)
    entries = read_answers(run_dir, [place for _, place in read_ledger(run_dir).keys])
    return {entry.key for entry in entries if entry.answer.usage != Usage()}


def check_paid_once(out: Path, name: str) -> None:
    sampled = keys(out / "forecast" / "sampled" / name)
    assert sampled and sampled <= keys(out / name) and not sampled & paid(out / name)


def test_every_stage_is_sampled_and_the_run_pays_for_nothing_again(tmp_path: Path) -> None:
    source, out = recipe(tmp_path, STAGES), tmp_path / "out"
    with serving() as server:
        given = asking(server)
        report = api.forecast(source, 8, out, tokens_per_second=1_000.0, **given)
        assert list(report.stages) == list(STAGES) and report.unsampled == {}
        assert report.n_requests == len(server.asked) == sum(each.n_requests for each in report.stages.values())
        assert not any((out / name / "manifests").exists() for name in NAMES), "a forecast commits nothing"
        n_paid, usd_paid = len(server.asked), sum(paid_in(out).values())
        outcome = api.run(source, out, **given)
        assert outcome.finished and len(server.asked) == n_paid + outcome.n_requests
    assert api.status(out).rebilled == Usage()
    check_paid_once(out, "2-chat")
    assert [each.forecast.target_tokens for each in report.stages.values()] == [3_600, 1_800, 600]
    # What was read are the first rows of the stage as it then was made.
    read = rows(out / "forecast" / "read" / "1-documents")
    assert 4 <= len(read) <= 8 and read == rows(out / "1-documents")[: len(read)]
    assert api.verify(out, replay=True).problems == ()
    held = (api.compared(out) or "").splitlines()
    assert [line.partition(":")[0] for line in held] == list(STAGES) and all(" taken; $" in line for line in held)
    spent = paid_in(out)
    assert outcome.cost is not None and outcome.cost.spent == pytest.approx(sum(spent.values()))
    assert outcome.cost.here == pytest.approx(sum(spent.values()) - usd_paid)
    assert usd_paid < sum(spent.values()) and spent["2-chat"] > 0 < spent["forecast/sampled/2-chat"]
    # The stage that reads cost what both directories hold.
    assert f"${spent['2-chat'] + spent['forecast/sampled/2-chat']:,.2f} spent" in held[1]
    online, batches = report.cost_usd["online"], report.cost_usd["in batches"]
    assert online is not None and batches is not None and batches.mean == pytest.approx(online.mean / 2)
    assert sum(spent.values()) == pytest.approx(online.mean, rel=0.3)


def paid_in(out: Path) -> dict[str, float]:
    places = (*NAMES, *(f"forecast/sampled/{name}" for name in NAMES))
    return {name: read_ledger(RunDir(out / name)).cost_usd for name in places}


def test_totals_are_sums_of_the_stages_with_intervals(tmp_path: Path) -> None:
    with serving() as server:
        report = api.forecast(
            recipe(tmp_path, STAGES), 8, tmp_path / "out", tokens_per_second=1_000.0, **asking(server)
        )
    every = list(report.stages.values())
    assert report.forecast.target_tokens == 6_000
    for total, parts in (
        (report.forecast.n_briefs, [each.forecast.n_briefs for each in every]),
        (report.forecast.n_output, [each.forecast.n_output for each in every]),
        (report.cost_usd["online"], [each.cost_usd["online"] for each in every]),
        (report.hours, [each.hours for each in every]),
        (report.own_hours, [each.own_hours for each in every]),
    ):
        known = [part for part in parts if part is not None]
        assert total is not None and len(known) == 3
        assert total.mean == pytest.approx(sum(part.mean for part in known))
        # Independent of each other, they are wider together than one is, and narrower than their sum.
        assert max(part.high - part.mean for part in known) <= total.high - total.mean
        assert total.high - total.mean < 0.99 * sum(part.high - part.mean for part in known)
        assert total.low < total.mean < total.high
    assert report.n_batches == sum(each.n_batches for each in every)


def test_a_second_forecast_asks_nothing_and_a_larger_one_only_what_is_more(tmp_path: Path) -> None:
    source, out = recipe(tmp_path, STAGES), tmp_path / "out"
    with serving() as server:
        given = asking(server)
        first = api.forecast(source, 5, out, **given)
        n_paid = len(server.asked)
        again = api.forecast(source, 5, out, **given)
        assert len(server.asked) == n_paid and again.n_requests == 0 and again.hours is None
        assert {name: each.forecast for name, each in again.stages.items()} == {
            name: each.forecast for name, each in first.stages.items()
        }
        before = paid(out / "forecast" / "sampled" / "2-chat")
        more = api.forecast(source, 10, out, **given)
    assert before < paid(out / "forecast" / "sampled" / "2-chat")
    assert read_ledger(RunDir(out / "forecast" / "sampled" / "2-chat")).rebilled == Usage()
    for name, each in more.stages.items():
        (genre,), (fewer,) = each.forecast.genres, first.stages[name].forecast.genres
        assert genre.n_sampled > fewer.n_sampled


def test_after_the_run_a_forecast_counts_what_its_samples_cost_when_they_were_bought(tmp_path: Path) -> None:
    source, out = recipe(tmp_path, STAGES), tmp_path / "out"
    with serving() as server:
        given = asking(server)
        before = api.forecast(source, 6, out, **given)
        api.run(source, out, **given)
        n_paid = len(server.asked)
        after = api.forecast(source, 6, out, **given)
        assert len(server.asked) == n_paid
    for stage in STAGES:
        (old,), (new,) = before.stages[stage].forecast.genres, after.stages[stage].forecast.genres
        assert old.n_output is not None and new.n_output is not None and new.n_output.mean > 0
        # More of its rows are there to be sampled now.
        assert new.n_sampled >= old.n_sampled and new.n_output.mean == pytest.approx(old.n_output.mean, rel=0.3)
        assert new.cost_usd is not None and old.cost_usd is not None
        assert new.cost_usd.mean == pytest.approx(old.cost_usd.mean, rel=0.3)


def test_one_cap_holds_for_all_that_is_sampled_and_for_the_run_after_it(tmp_path: Path) -> None:
    source, out = recipe(tmp_path, STAGES), tmp_path / "out"
    with serving() as server:
        given = asking(server)
        api.forecast(source, 40, out, **given)
        spent = paid_in(out)
        # No stage alone is near the cap: a request costs a tenth of a dollar at its worst.
        assert max(spent.values()) < sum(spent.values()) - 0.1
        n_paid, cap = len(server.asked), sum(spent.values())
        with pytest.raises(BudgetExhausted, match="--max-cost"):
            api.forecast(source, 50, out, max_cost=cap, **given)
        with pytest.raises(BudgetExhausted, match="--max-cost"):
            api.run(source, out, max_cost=cap, **given)
    assert len(server.asked) == n_paid and paid_in(out) == spent


def test_a_stage_whose_rows_are_not_there_is_named_with_what_its_genres_declare(tmp_path: Path) -> None:
    source, out = recipe(tmp_path, STAGES, holdout=0.999), tmp_path / "out"
    told = CliRunner().invoke(app, ["plan", source, "--forecast", "3", "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert (
        "stage chat, 1,800 tokens: not sampled (among the first documents of the stage documents none was"
        in told.stdout
    )
    assert "by declared lengths alone 0 documents" in told.stdout and "all stages but chat" in told.stdout
    report = api.forecast(source, 3, out)
    assert list(report.stages) == ["documents", "memos"] and list(report.unsampled) == ["chat"]
    assert report.forecast.target_tokens == 4_200


def test_what_reads_a_stage_that_was_not_sampled_is_not_sampled_either(tmp_path: Path) -> None:
    chain = {**STAGES, "more": {"share": 0.1, "mix": {"answered": 1}, "sources": {"answered": "stage:chat"}}}
    source = recipe(tmp_path, chain, holdout=0.999)
    report = api.forecast(source, 3, tmp_path / "out")
    assert "reads the stage chat, which was not sampled either" in report.unsampled["more"].why


def test_a_chain_of_stages_is_sampled_to_its_end(tmp_path: Path) -> None:
    chain = {**STAGES, "more": {"share": 0.1, "mix": {"answered": 1}, "sources": {"answered": "stage:chat"}}}
    source, out = recipe(tmp_path, chain), tmp_path / "out"
    with serving() as server:
        given = asking(server)
        report = api.forecast(source, 8, out, **given)
        assert list(report.stages) == list(chain)
        (answered,) = report.stages["more"].forecast.genres
        outcome = api.run(source, out, **given)
    chats = outcome.stages["chat"].manifest
    assert outcome.finished and chats is not None and answered.n_briefs is not None
    # By their declared lengths there would be more than twice as many chats.
    assert answered.n_there == pytest.approx(chats.n_documents, rel=0.2)
    check_paid_once(out, "2-chat")
    check_paid_once(out, "4-more")
    for name in ("1-documents", "2-chat"):
        read = rows(out / "forecast" / "read" / name)
        assert read and read == rows(out / name)[: len(read)]


def test_a_stage_that_takes_its_principles_from_a_bank_is_sampled_of_all(tmp_path: Path) -> None:
    stages = {"bank": {"share": 1, "mix": {"bank": 1}}, "documents": {"share": 1, "mix": {"note": 1}}}
    source, out = recipe(tmp_path, stages, tokens=2_000, principles="stage:bank"), tmp_path / "out"
    with serving() as server:
        given = asking(server)
        assert list(api.forecast(source, 4, out, **given).stages) == ["bank", "documents"]
        assert api.run(source, out, **given).finished
    check_paid_once(out, "2-documents")


def test_rows_that_will_not_suffice_bound_the_forecast_and_are_named(tmp_path: Path) -> None:
    short = {"documents": {"share": 1, "mix": {"note": 1}}, "chat": {**STAGES["chat"], "share": 9}}
    source, out = recipe(tmp_path, short, tokens=3_000), str(tmp_path / "out")
    told = CliRunner().invoke(app, ["plan", source, "--forecast", "4", "--out", out])
    assert told.exit_code == 0 and "back will probably fall short: its " in told.stdout
    (back,) = api.forecast(source, 4, out).stages["chat"].forecast.genres
    ran = api.run(source, out)
    documents_made = ran.stages["documents"].manifest
    assert documents_made is not None and back.n_there is not None and back.n_briefs is not None
    assert back.n_briefs.mean == back.n_there == pytest.approx(documents_made.n_documents, rel=0.4)


def test_the_command_line_tells_each_stage_and_the_run_compares_itself(tmp_path: Path) -> None:
    source, out = recipe(tmp_path, STAGES), str(tmp_path / "out")
    told = CliRunner().invoke(app, ["plan", source, "--forecast", "5", "--out", out])
    assert told.exit_code == 0, told.output
    for words in ("forecast for 6,000 tokens", "stage documents, 3,600 tokens", "stage chat, 1,800", "all stages"):
        assert words in told.stdout
    assert "stage 2 of 3: chat, its first documents" in told.stderr
    assert all(kept(RunDir(tmp_path / "out" / name)) is not None for name in NAMES)
    status = CliRunner().invoke(app, ["status", out])
    assert status.exit_code == 0 and "3 stages" in status.stdout
    as_json = json.loads(CliRunner().invoke(app, ["plan", source, "--forecast", "5", "--out", out, "--json"]).stdout)
    assert as_json["n_requests"] == 0 and list(as_json["stages"]) == list(STAGES)
    ran = CliRunner().invoke(app, ["run", source, "--out", out])
    assert ran.exit_code == 0
    assert all(f"{stage}: briefs: " in ran.stdout for stage in STAGES) and ran.stdout.count(" taken; ") == 3
    api.run(source, tmp_path / "fresh")
    for name in NAMES:
        assert shard_hashes(tmp_path / "out" / name) == shard_hashes(tmp_path / "fresh" / name)


def test_a_forecast_that_is_stopped_says_which_stages_it_did_not_reach(tmp_path: Path) -> None:
    stop = api.Stop()
    stop.request()
    report = api.forecast(recipe(tmp_path, STAGES), 3, tmp_path / "out", stop=stop)
    assert report.stages == {} and [each.why for each in report.unsampled.values()] == ["stopped before it"] * 3


def test_a_directory_of_stages_takes_no_forecast_of_one_corpus(tmp_path: Path) -> None:
    api.forecast(recipe(tmp_path, STAGES), 3, tmp_path / "out")
    one = recipe(tmp_path / "one", {}, mix={"note": 1})
    with pytest.raises(RecipeChanged, match="was made in stages"):
        api.forecast(one, 3, tmp_path / "out")


def test_what_was_sampled_is_reused_elsewhere_too(tmp_path: Path) -> None:
    source = recipe(tmp_path, STAGES)
    api.forecast(source, 3, tmp_path / "out")
    outcome = api.run(source, tmp_path / "elsewhere", reuse=[tmp_path / "out"])
    assert outcome.finished
    for name in NAMES:
        place = "forecast/sampled/2-chat" if name == "2-chat" else name
        sampled = keys(tmp_path / "out" / place)
        assert sampled and not sampled & paid(tmp_path / "elsewhere" / name)


def test_status_tells_what_all_has_cost_samples_included(tmp_path: Path) -> None:
    source, out = recipe(tmp_path, STAGES, tokens=1_000), tmp_path / "out"
    with serving() as server:
        api.forecast(source, 2, out, **asking(server), max_cost=5.0)
        run = api.run(source, out, **asking(server), max_cost=5.0)
    found = api.status(out).cost
    assert run.cost is not None and found is not None
    assert (found.spent, found.cap) == (pytest.approx(run.cost.spent), 5.0)
    head, *parts = CliRunner().invoke(app, ["status", str(out)]).stdout.split("\n\n")
    assert head.endswith(f"cost       {cost_line(run.cost)}")
    assert "spent" in "".join(parts) and "of $5.00" not in "".join(parts), "one cap binds all together"
