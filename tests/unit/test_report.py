"""Reports: what a plan promises, what is counted of a corpus, and the whole story of a brief."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sdf import api
from sdf.cli.app import Result, show
from sdf.directory import job_of
from sdf.errors import StorageError
from sdf.report.corpus import inspection_of, status_of, trace_of
from sdf.report.plans import plan_report
from sdf.report.progress import Lines, Panel, Rate, duration, line, panel, reporter
from sdf.report.terminal import plain
from sdf.report.text import inspection_text, json_of, plan_text, status_text, trace_text
from sdf.shards import read_manifest, read_shard
from sdf.storage import RunDir
from sdf.story import Progress

GENRE = """---
key: note
kind: document
about: A short note.
n_words: [60, 90]
dedup: body
redraws: 3
preamble: none
axes:
  tone: {warm: 3, dry: 1}
steps:
  angle: {per: round, role: angle, context: principle, returns: list, tag: angles, n_items: 8}
  draft: {role: write, context: principle, returns: text, tag: document}
  score: {role: judge, context: none, returns: score, tag: score}
emit: {text: draft}
---
## step: angle
{{ n_items }} ideas on {{ principle.title }} between <angles> and </angles>.
## step: draft
Write on {{ principle.title }}, in a {{ brief.axes.tone }} tone. {{ angle }}
Put it between <document> and </document>.
## step: score
Rate it: {{ draft }} Put a number between <score> and </score>.
"""


def made(folder: Path, **settings: str) -> RunDir:
    (folder / "genres").mkdir(exist_ok=True)
    (folder / "genres" / "note.md").write_text(GENRE)
    genres = [str(folder / "genres")]
    out = folder / "corpus"
    api.run(
        "quickstart",
        out,
        mix="note=1",
        genres_dir=genres,
        tokens=3_000,
        ray="none",
        workers=1,
        provider_settings=settings,
    )
    return RunDir(out)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return made(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A corpus whose model refuses and truncates often."""
    return made(tmp_path_factory.mktemp("faulty"), refuse="0.6", truncate="0.1")


def rows(run_dir: RunDir) -> list[dict]:
    manifest = read_manifest(run_dir)
    assert manifest is not None
    return [row for shard in manifest.shards for group in read_shard(run_dir, shard) for row in group]


def test_a_plan_expects_what_a_run_then_asks(corpus: RunDir) -> None:
    """Off by rejections, lengths drawn and the overshoot of a small corpus, so within a third."""
    report = plan_report(job_of(corpus))
    status = status_of(corpus, job_of(corpus))
    assert report.n_documents == pytest.approx(status.n_documents, rel=1 / 3)
    (genre,) = report.genres
    assert genre.share == 1.0
    assert genre.n_tokens == 3_000
    assert genre.axes[0].shares == {"warm": 0.75, "dry": 0.25}
    n_blocks = -(-genre.n_documents // 8)
    assert genre.n_requests == 2 * genre.n_documents + n_blocks
    assert "note" in plan_text(report)


def test_status_counts_what_is_committed_and_what_is_not(corpus: RunDir) -> None:
    status, held = status_of(corpus, job_of(corpus)), rows(corpus)
    assert (status.state, status.holder, status.epoch) == ("complete", None, 1)
    assert status.n_documents == len(held) == status.genres[0].n_documents
    assert status.n_tokens == sum(row["n_tokens"] for row in held)
    assert status.n_settled == status.uncommitted + status.n_documents + sum(status.rejected.values())
    assert status.usage["offline-grammar"].output_tokens > 0
    assert "complete" in status_text(status)


def test_an_inspection_adds_up(corpus: RunDir) -> None:
    inspection, held = inspection_of(corpus, job_of(corpus)), rows(corpus)
    assert inspection.total.n_documents == len(held)
    for counts in (inspection.genres, inspection.principles, inspection.axes["note"]["tone"]):
        assert sum(count.n_documents for count in counts.values()) == len(held)
        assert sum(count.n_tokens for count in counts.values()) == inspection.total.n_tokens
    by_principle = Counter(row["principle"] for row in held)
    assert {key: count.n_documents for key, count in inspection.principles.items() if count.n_documents} == by_principle
    lengths = sorted(row["n_tokens"] for row in held)
    quantiles = inspection.quantiles["note"]
    assert (quantiles[0.0], quantiles[1.0]) == (lengths[0], lengths[-1])
    assert quantiles[0.5] == lengths[-(-len(lengths) // 2) - 1]
    assert "documents" in inspection_text(inspection)


def test_rejections_come_with_ids_that_can_be_shown(faulty: RunDir) -> None:
    inspection, job = inspection_of(faulty, job_of(faulty)), job_of(faulty)
    assert inspection.rejected["refused (offline)"].count >= 1
    for reason, rejected in inspection.rejected.items():
        assert len(rejected.examples) <= 3
        for id in rejected.examples:
            assert trace_of(faulty, job, id).reason == reason


def test_a_trace_tells_the_whole_story(corpus: RunDir) -> None:
    row = rows(corpus)[0]
    trace = trace_of(corpus, job_of(corpus), row["id"][:16].upper())
    assert (trace.id, trace.n_tokens, trace.reason) == (row["id"], row["n_tokens"], None)
    assert trace.columns == {"text": row["text"]}
    assert trace.shard in {shard.path for shard in read_manifest(corpus).shards}  # type: ignore[union-attr]
    draft, score = trace.steps
    assert (draft.step, score.step, draft.used) == ("draft", "score", True)
    assert trace.angle is not None
    assert trace.angle in draft.messages[0].content
    assert row["text"] in score.messages[0].content
    text = trace_text(trace)
    assert row["text"] in text
    assert draft.prefix_hash[:12] in text


def test_a_trace_shows_the_answers_that_were_redrawn(faulty: RunDir) -> None:
    job, held = job_of(faulty), rows(faulty)
    traces = [trace_of(faulty, job, row["id"]) for row in held]
    redrawn = [step for trace in traces for step in trace.steps if not step.used]
    assert redrawn
    assert all(step.answer is not None and step.answer.finish_reason != "stop" for step in redrawn)
    for trace in traces:
        assert [step.step for step in trace.steps if step.used] == ["draft", "score"]


def test_a_trace_of_a_refused_brief_ends_where_it_was_refused(faulty: RunDir) -> None:
    job = job_of(faulty)
    id = inspection_of(faulty, job).rejected["refused (offline)"].examples[0]
    trace = trace_of(faulty, job, id)
    assert (trace.columns, trace.shard) == (None, None)
    last = trace.steps[-1]
    assert (last.redraw, last.used) == (3, False)
    assert last.answer is not None
    assert last.answer.finish_reason == "refusal"


@pytest.mark.parametrize(
    ("id", "message"), [("abc", "is not an id"), ("x" * 8, "is not an id"), ("f" * 32, "no settled")]
)
def test_an_id_that_names_nothing(corpus: RunDir, id: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        trace_of(corpus, job_of(corpus), id)


def test_nothing_committed_yet(tmp_path: Path, corpus: RunDir) -> None:
    empty, job = RunDir(tmp_path), job_of(corpus)
    assert status_of(empty, job).state == "empty"
    assert inspection_of(empty, job).total.n_documents == 0
    assert "empty" in status_text(status_of(empty, job))
    assert "rejected: none" in inspection_text(inspection_of(empty, job))
    with pytest.raises(StorageError, match="its ledger is empty"):
        trace_of(empty, job, "abcd")


def test_json_holds_every_field() -> None:
    assert json_of(Progress(1, 2, {"a": (1, 2, 3.0)}, {}, 4, 5))["genres"] == {"a": [1, 2, 3.0]}


def test_json_is_the_same_data_and_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said = "red \x9b31m, \x1b[2J, back \u202e, gone \x7f, lone \ud800, plain é 雨 🌾\n"
    show(Result({said: [said]}, ""), as_json=True)
    shown = capsys.readouterr().out
    assert json.loads(shown) == {said: [said]} and "plain é 雨 🌾" in shown
    assert shown == plain(shown), "what plain takes out was there"


def progress(n_tokens: int, **rejected: int) -> Progress:
    return Progress(n_tokens, 1_000, {"no\x1b[2Jte": (n_tokens, 3, 1_000.0)}, rejected, 7, 1)


def test_lines_come_at_intervals_and_at_the_end() -> None:
    now = [0.0]
    stream = io.StringIO()
    with Lines(stream, clock=lambda: now[0], interval=10) as lines:
        for second in range(26):
            now[0] = float(second)
            lines.tell(progress(second * 10))
    printed = stream.getvalue().splitlines()
    assert [text.split(" of ")[0] for text in printed] == ["0", "100", "200", "250"]
    assert "10 tokens/s" in printed[-1]
    assert "about 1 min left" in printed[-1]


def test_a_stage_begins_with_a_line_and_with_no_rate_of_the_one_before() -> None:
    now = [0.0]
    stream = io.StringIO()
    with Lines(stream, clock=lambda: now[0], interval=10) as lines:
        lines.tell(progress(6_400))
        now[0] = 4.0
        for n_tokens in (500, 5_400):
            lines.tell(replace(progress(n_tokens), target_tokens=5_000))
            now[0] += 2
    first, second, last = stream.getvalue().splitlines()
    assert first.startswith("6,400 of") and second.startswith("500 of 5,000 ") and " 0 tokens/s" in second
    assert last.startswith("5,400 of 5,000 ") and " 1,225 tokens/s" in last


def test_a_stage_with_the_genres_and_the_target_of_the_one_before_is_another() -> None:
    stream, now = io.StringIO(), [0.0]
    with Lines(stream, clock=lambda: now[0]) as lines:
        lines.tell(replace(progress(900), n_settled=40))
        now[0] += 2
        lines.tell(replace(progress(100), n_settled=3))
    first, second = stream.getvalue().splitlines()
    assert first.startswith("900 of 1,000") and second.startswith("100 of 1,000") and " 0 tokens/s" in second


def test_all_there_is_is_measured_in_briefs() -> None:
    rate = Rate()
    rate.add(0.0, 0)
    rate.add(10.0, 500)
    halfway = replace(progress(500), target_tokens=2**62, briefs={"note": (5, 20)})
    assert line(halfway, rate).startswith("500 tokens, 5 of 20 briefs (25.0%)")
    assert rate.seconds_left(halfway) == 30.0
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    console.print(panel(replace(halfway, genres={"note": (500, 5, 2.0**62)}), rate))
    assert "5 of 20 briefs" in stream.getvalue() and "4,6" not in stream.getvalue()


def test_a_resumed_run_does_not_count_what_it_found() -> None:
    rate = Rate()
    rate.add(0.0, 900)
    assert rate.per_second == 0.0
    rate.add(10.0, 950)
    assert rate.per_second == 5.0
    assert rate.seconds_left(progress(950)) == 10.0


def test_a_rate_forgets_what_is_older_than_a_minute() -> None:
    rate = Rate()
    for second in range(0, 600, 10):
        rate.add(float(second), 1_000 if second < 300 else 1_000 + second - 300)
    assert rate.per_second == pytest.approx(1.0)


def test_rejections_are_named_with_their_share() -> None:
    assert "rejected 70.0% (duplicate 6, too_short 1)" in line(progress(10, too_short=1, duplicate=6), Rate())


def test_a_panel_draws_every_genre_and_steers_no_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    panel = reporter(stream)
    assert isinstance(panel, Panel)
    with panel:
        panel.tell(progress(500, duplicate=1))
    drawn = stream.getvalue()
    assert "500" in drawn
    assert "duplicate 1" in drawn
    assert "[2Jte" in drawn
    assert "no\x1b[2J" not in drawn
    assert drawn.count("\x1b[?25h") == drawn.count("\x1b[?25l")


@pytest.mark.parametrize(("seconds", "text"), [(None, "?"), (8, "8 s"), (200, "3 min"), (7_500, "2 h 05 min")])
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_plain_text_keeps_lines_and_drops_what_steers() -> None:
    assert plain("a\tb\r\nc") == "a\tb\nc"
    for unsafe in ("\x1b", "\x07", "\x9b", "\r", "\u202e", "\u2066", "\ud800", "\u2028"):
        assert plain(f"a{unsafe}b") == "a\ufffdb"
