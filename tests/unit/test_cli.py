"""The command line as a user meets it: exit codes, messages, JSON, signals. No traceback, whatever is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import sdf
from sdf.cli import app
from sdf.cli.flags import FLAGS, FOLDING, fraction
from sdf.errors import BudgetExhausted, Unauthorized
from sdf.genres import BUILTIN_DIR
from sdf.recipe import Recipe

GENRE = """---
key: note
kind: document
about: A short note.
n_words: [60, 90]
dedup: body
preamble: none
axes:
  tone: {warm: 3, dry: 1}
steps:
  draft: {role: write, context: principle, returns: text, tag: document}
emit: {text: draft}
---
## step: draft
Write a %s note of {{ brief.n_words }} words on {{ principle.title }}, in a {{ brief.axes.tone }} tone.
Put it between <document> and </document>.
"""
RECIPE = """name: notes
assistant: Tavrin
maker: Ostermead
tokens: 2k
mix: {note: 1}
genres_dir: [genres]
ray: none
workers: 1
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a small recipe of one cheap genre, and no SDF_ variable set."""
    (tmp_path / "genres").mkdir()
    (tmp_path / "genres" / "note.md").write_text(GENRE % "short")
    (tmp_path / "notes.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SDF_")]:
        monkeypatch.delenv(name)
    return tmp_path


def call(*args: str, env: Mapping[str, str] | None = None) -> Result:
    result = CliRunner().invoke(app, list(args), env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def found(*args: str, env: Mapping[str, str] | None = None) -> dict:
    result = call(*args, "--json", env=env)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def process(*args: str, cwd: Path) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(Path(sdf.__file__).parents[1])}
    command = [sys.executable, "-m", "sdf.cli", *args]
    return subprocess.Popen(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def refused(exit_code: int, args: Sequence[str], *fragments: str) -> None:
    result = call(*args)
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for fragment in fragments:
        assert fragment in result.stderr


def test_every_flag_sets_a_field_of_the_recipe() -> None:
    assert {flag.field for flag in FLAGS} <= set(Recipe.model_fields)
    assert set(FOLDING) <= set(FLAGS)
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)


def test_plan_says_what_would_be_made_and_writes_nothing(desk: Path) -> None:
    before = sorted(desk.rglob("*"))
    report = found("plan", "notes.yaml")
    assert report["n_tokens"] == 2_000
    assert report["genres"][0]["axes"] == [{"name": "tone", "shares": {"warm": 0.75, "dry": 0.25}}]
    assert "endless" in call("plan", "notes.yaml").stdout
    assert sorted(desk.rglob("*")) == before


def test_flags_override_the_environment_which_overrides_the_file(desk: Path) -> None:
    assert found("plan", "notes.yaml")["n_tokens"] == 2_000
    assert found("plan", "notes.yaml", env={"SDF_TOKENS": "3k"})["n_tokens"] == 3_000
    assert found("plan", "notes.yaml", "--tokens", "4k", env={"SDF_TOKENS": "3k"})["n_tokens"] == 4_000


def test_one_model_per_role_and_those_of_the_file_stay(desk: Path) -> None:
    quickstart = (BUILTIN_DIR / "recipes" / "quickstart.yaml").read_text()
    (desk / "own.yaml").write_text(quickstart + "models: {rewrite: careful}\n")
    models = found("plan", "own.yaml", "--model", "big", "--angle-model", "small")["models"]
    assert models == {"angle": "small", "write": "big", "rewrite": "careful", "judge": "big"}


def test_constitution_and_genres_of_a_flag_are_relative_to_the_working_directory(desk: Path) -> None:
    (desk / "mine.md").write_text("# Care\n\nIt takes care of people.\n\n# Truth\n\nIt says what is so.\n")
    arguments = ("--constitution", "mine.md", "--genres-dir", "genres", "--mix", "note=1")
    report = found("plan", "quickstart", *arguments)
    assert (report["constitution"], report["genres"][0]["key"]) == ("mine.md", "note")


def test_the_tour(desk: Path) -> None:
    """run, status, inspect, show, verify, gc, assemble: each reads what the one before it made."""
    made = found("run", "notes.yaml", "--out", "corpus")
    assert made["finished"]
    assert made["manifest"]["n_tokens"] >= 2_000
    status = found("status", "corpus")
    assert (status["state"], status["holder"], status["damaged"]) == ("complete", None, [])
    assert status["n_tokens"] == made["manifest"]["n_tokens"] == sum(each["n_tokens"] for each in status["genres"])
    inspection = found("inspect", "corpus")
    assert inspection["total"]["n_documents"] == made["manifest"]["n_documents"]
    assert found("verify", "corpus", "--replay") == {
        "problems": [],
        "made_good": [],
        "n_shards": 1,
        "n_documents": made["manifest"]["n_documents"],
        "n_tokens": made["manifest"]["n_tokens"],
        "replayed": True,
    }
    assert found("gc", "corpus") == {"deleted": []}
    again = found("assemble", "corpus", "--out", "other", "--shard-tokens", "500", "--tokens", "1k")
    assert again["n_requests"] == 0
    assert len(again["manifest"]["shards"]) > 1


def test_what_people_read_is_on_stdout_and_progress_on_stderr(desk: Path) -> None:
    result = call("run", "notes.yaml", "--out", "corpus")
    assert "documents" in result.stdout
    assert "tokens/s" not in result.stdout
    assert "tokens/s" in result.stderr
    for command in ("status", "inspect", "verify"):
        assert call(command, "corpus").stdout.strip()


def test_running_again_goes_on_without_paying(desk: Path) -> None:
    found("run", "notes.yaml", "--out", "corpus")
    assert found("run", "notes.yaml", "--out", "corpus")["n_requests"] == 0


def test_reuse_pays_only_for_what_was_never_asked(desk: Path) -> None:
    found("run", "notes.yaml", "--out", "corpus")
    again = found("run", "notes.yaml", "--out", "second", "--reuse", "corpus", "--shard-tokens", "1k")
    assert again["n_requests"] == 0


def test_match_keeps_what_another_corpus_accepted_and_has_no_quota(desk: Path) -> None:
    found("run", "notes.yaml", "--out", "corpus")
    small = found("assemble", "corpus", "--out", "small", "--tokens", "1k")
    found("run", "notes.yaml", "--out", "arm", "--tokens", "1k")
    matched = found("assemble", "corpus", "--out", "matched", "--match", "arm")
    assert matched["manifest"]["n_documents"] == small["manifest"]["n_documents"]


def test_an_unmet_quota_exits_3(desk: Path) -> None:
    found("run", "notes.yaml", "--out", "corpus")
    result = call("assemble", "corpus", "--out", "more", "--tokens", "1M", "--json")
    assert result.exit_code == 3
    assert not json.loads(result.stdout)["finished"]


def test_show_finds_a_brief_by_the_beginning_of_its_id(desk: Path) -> None:
    briefs = found("preview", "notes.yaml", "--genre", "note", "-n", "2", "--out", "corpus")["briefs"]
    trace = found("show", "corpus", briefs[0]["id"][:12])
    assert trace == briefs[0]
    assert trace["steps"][0]["messages"][0]["content"].startswith("Write a short note")
    assert trace["columns"]["text"] in call("show", "corpus", briefs[0]["id"]).stdout


def test_genres_and_recipes_are_listed_and_checked(desk: Path) -> None:
    assert "blog_post" in found("genres", "list")
    assert "note" in found("genres", "list", "--genres-dir", "genres")
    assert found("genres", "check", "genres/note.md") == {"genres/note.md": "note"}
    assert found("genres", "show", "note", "--genres-dir", "genres")["key"] == "note"
    assert "## step" not in call("genres", "show", "note", "--genres-dir", "genres").stdout
    assert "quickstart" in found("recipes")


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--mix", "nte=1"], "did you mean 'note'?"),
        (["--mix", "note=0"], "above 0"),
        (["--mix", "note=-1"], "above 0"),
        (["--mix", "note=nan"], "above 0"),
        (["--mix", "note=inf"], "above 0"),
        (["--mix", "note=many"], "not a number"),
        (["--mix", "note"], "write note=2"),
        (["--mix", ""], "write a=4,b=2"),
        (["--mix", "note=1,+note=2"], "write a=4,b=2"),
        (["--mix", "note=1, note=2"], "--mix: note is given twice; name it once"),
        (["--tokens", "0"], "positive whole number"),
        (["--tokens=-5"], "positive whole number"),
        (["--tokens", "lots"], "write 20M"),
        (["--shard-tokens", "0.5"], "positive whole number"),
        (["--provider", "ofline"], "'offline'"),
        (["--provider-setting", "latency"], "NAME=VALUE"),
        (["--engine", "enforce_eager"], "--engine: 'enforce_eager': write NAME=VALUE"),
        (["--engine", "a=true", "--engine", "a=false"], "--engine: a is given twice"),
        (["--provider-setting", "timeout=5", "--provider-setting", "timeout=6"], "timeout is given twice"),
        (
            ["--provider-setting", "judge.base_url=a", "--provider-setting", "judge.base_url=b"],
            "base_url is given twice",
        ),
        (["--provider-setting", "engine.a=1", "--engine", "a=2"], "engine.a is given by two flags"),
        (["--source", "note=a.jsonl", "--source", "note=b.jsonl"], "--source: note is given twice"),
        (["--source", "a.jsonl", "--source", "b.jsonl"], "--source: the path of every genre is given twice"),
        (["--tokenizer", "o200k_bas"], "did you mean 'o200k_base'"),
        (["--tokenizer", "./nowhere.tiktoken"], "nowhere.tiktoken"),
        (["--check-off", "repitition"], "'repetition'"),
        (["--holdout", "some"], "1% or 0.01"),
        (["--holdout", "100%"], "less than 1"),
        (["--dedup-threshold", "0"], "greater than 0"),
        (["--seed", "x"], "--seed"),
        (["--workers", "0"], "greater than or equal to 1"),
        (["--genres-dir", "nowhere"], "not a directory"),
        (["--constitution", "nowhere.md"], "no such file"),
        (["--tokns", "5"], "--tokens"),
        (["--provider-setting", "latency=x"], "latency is 'x'; write seconds"),
        (["--provider-setting", "latenc=1"], "did you mean 'latency'"),
        (["--provider-setting", "nobody.base_url=x"], "no role 'nobody'; known: write"),
        (["--provider", "openai", "--model", "m", "--provider-setting", "timeout=nan"], "timeout is 'nan'"),
        (["--provider", "openai", "--model", "m", "--tensor-parallel-size", "2"], "a setting of vllm"),
        (["--tokens-per-second", "1000"], "--tokens-per-second: only a forecast tells hours; add --forecast"),
        (["--out", "c"], "--out: only a forecast writes anything; add --forecast 3"),
        (["--forecast", "1", "--out", "c", "--reuse", "d"], "--reuse: a forecast asks for all anew"),
        (["--forecast", "1", "--out", "c", "--tokens-per-second", "inf"], "inf is no pace; write tokens above 0"),
        (["--forecast", "1", "--out", "c", "--tokens-per-second", "nan"], "nan is no pace"),
        (["--forecast", "1", "--out", "c", "--tokens-per-second", "0"], "0 is no pace"),
    ],
)
def test_a_wrong_flag_is_a_usage_error(desk: Path, flags: list[str], fragment: str) -> None:
    refused(2, ["plan", "notes.yaml", *flags], fragment)


@pytest.mark.parametrize(
    ("args", "fragment"),
    [
        (["plann", "notes.yaml"], "'plan'"),
        (["plan", "quikstart"], "did you mean 'quickstart'"),
        (["plan", "nowhere.yaml"], "nowhere.yaml"),
        (["plan"], "RECIPE"),
        (["run", "notes.yaml"], "--out"),
        (["run", "notes.yaml", "--out", "c", "--provider-setting", "latenc=1"], "did you mean 'latency'"),
        (["run", "notes.yaml", "--out", "c", "--provider-setting", "latency=x"], "latency"),
        (["genres", "show", "nte", "--genres-dir", "genres"], "did you mean 'note'"),
        (["genres", "check", "nowhere.md"], "nowhere.md"),
        (["preview", "notes.yaml", "--genre", "nte"], "did you mean 'note'"),
        (["preview", "notes.yaml", "--genre", "note", "-n", "0"], "-n"),
    ],
)
def test_a_wrong_call_is_a_usage_error(desk: Path, args: list[str], fragment: str) -> None:
    refused(2, args, fragment)


def test_a_setting_of_another_provider_ends_a_run_before_anything_is_done(desk: Path) -> None:
    told = call("run", "notes.yaml", "--out", "c", "--tensor-parallel-size", "2")
    assert told.exit_code == 2 and not (desk / "c").exists()
    wanted = "provider offline: takes no tensor_parallel_size, which is a setting of vllm; leave it out, or"
    assert told.stderr.startswith(f"error: {wanted}") and told.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("env", "flags", "begins"),
    [
        ({"SDF_MAX_COST": "0"}, [], "error: in SDF_MAX_COST: max_cost: 0 is no amount"),
        ({"SDF_MAX_COST": "abc"}, [], "Error: Invalid value for SDF_MAX_COST: 'abc' is no amount; write dollars"),
        ({"SDF_WORKERS": "-1"}, [], "error: in SDF_WORKERS: workers: "),
        ({"SDF_WORKERS": "-1"}, ["--workers", "0"], "error: on the command line: workers: "),
        ({"SDF_WORKERS": "3"}, ["--max-cost", "0"], "error: on the command line: max_cost: "),
        ({"SDF_PROVIDER": "nope"}, [], "error: in SDF_PROVIDER: provider: unknown provider 'nope'"),
        ({"SDF_JUDGE_PROVIDER": "nope"}, [], "error: in SDF_JUDGE_PROVIDER: providers: "),
        (
            {"SDF_JUDGE_PROVIDER": "nope"},
            ["--angle-provider", "offline"],
            "error: on the command line or in SDF_JUDGE_PROVIDER: providers: ",
        ),
        ({"SDF_MIX": "nte=1"}, [], "error: in SDF_MIX: unknown genre 'nte'"),
        ({"SDF_PROVIDER_SETTING": "a=1 a=2"}, [], "Error: Invalid value for SDF_PROVIDER_SETTING: a is given twice"),
        ({}, ["--max-cost", "abc"], "Error: Invalid value for --max-cost: 'abc' is no amount; write dollars"),
    ],
)
def test_a_wrong_value_is_blamed_on_where_it_stands(
    desk: Path, env: dict[str, str], flags: list[str], begins: str
) -> None:
    told = call("plan", "notes.yaml", *flags, env=env)
    assert told.exit_code == 2 and told.stderr.splitlines()[-1].startswith(begins), told.stderr


@pytest.mark.parametrize("content", ["", "- 1\n", "{", "name: x\nnme: y\n", "\x00\x01", "tokens: {a: 1}\n"])
def test_a_wrong_recipe_file_is_a_usage_error(desk: Path, content: str) -> None:
    (desk / "wrong.yaml").write_text(content)
    refused(2, ["plan", "wrong.yaml"], "wrong.yaml")


@pytest.mark.parametrize(
    ("content", "fragment"),
    [(b"", "mine.md"), (b"\x00\x01\x02binary\xff", "mine.md"), (b"Be good.", "mine.md"), (b"\n \n\t\n", "mine.md")],
)
def test_a_text_without_principles_is_a_usage_error(desk: Path, content: bytes, fragment: str) -> None:
    (desk / "mine.md").write_bytes(content)
    refused(2, ["plan", "notes.yaml", "--constitution", "mine.md"], fragment)


@pytest.mark.parametrize(
    ("before", "after", "fragment"),
    [
        ("kind: document", "kind: [document", "not YAML"),
        ("dedup: body", "dedupe: body", "did you mean 'dedup'"),
        ("kind: document", "kind: documnt", "did you mean 'document'"),
        ("## step: draft", "## step: drft", "drft"),
        ("emit: {text: draft}", "emit: {text: drft}", "draft"),
        ("{{ principle.title }}", "{{ principal.title }}", "principal"),
        ("{{ brief.axes.tone }}", "{{ brief.axes.tune }}", "tune"),
        ("{{ brief.axes.tone }}", "{% for i in range(10**9) %}x{% endfor %}", "note.md:"),
        ("{{ brief.axes.tone }}", "{% for i in range(1000000000) %}x{% endfor %}", "note.md:"),
        ("{{ brief.axes.tone }}", "{{ 'x' * 1000000000 }}", "note.md:"),
        ("{{ brief.axes.tone }}", "{% set x = x %}{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "note.md:"),
        ("{{ brief.axes.tone }}", "{{ brief.__class__ }}", "note.md:"),
        ("tone: {warm: 3, dry: 1}", "tone: {warm: 0, dry: 1}", "tone"),
        ("n_words: [60, 90]", "n_words: [90, 60]", "n_words"),
    ],
)
def test_a_wrong_genre_file_is_named_with_its_line(desk: Path, before: str, after: str, fragment: str) -> None:
    path = desk / "genres" / "note.md"
    path.write_text((GENRE % "short").replace(before, after))
    refused(2, ["genres", "check", "genres/note.md"], "genres/note.md:", fragment)
    refused(2, ["plan", "notes.yaml"], "note.md:", fragment)


def test_a_directory_that_cannot_hold_a_corpus(desk: Path) -> None:
    (desk / "file").write_text("mine")
    refused(1, ["run", "notes.yaml", "--out", "file"], "file")
    refused(1, ["run", "notes.yaml", "--out", "file/below"], "file")
    refused(1, ["status", "file"], "file")
    refused(1, ["status", "nowhere"], "no corpus here")
    assert (desk / "file").read_text() == "mine"


def test_a_directory_that_holds_another_corpus_keeps_it(desk: Path) -> None:
    found("run", "notes.yaml", "--out", "corpus")
    before = {path: path.read_bytes() for path in (desk / "corpus" / "data").rglob("*.parquet")}
    (desk / "genres" / "note.md").write_text(GENRE % "long")
    refused(2, ["run", "notes.yaml", "--out", "corpus"], "genre note", "decides text", "--reuse")
    refused(2, ["run", "notes.yaml", "--out", "corpus", "--dedup-threshold", "0.9"], "dedup_threshold")
    assert {path: path.read_bytes() for path in (desk / "corpus" / "data").rglob("*.parquet")} == before


def test_damage_is_named_by_verify_and_repaired_by_run(desk: Path) -> None:
    found("run", "notes.yaml", "--out", "corpus")
    shard = next((desk / "corpus" / "data").rglob("*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    result = call("verify", "corpus")
    assert result.exit_code == 1
    assert shard.name in result.stdout
    assert "Traceback" not in result.output
    refused(1, ["inspect", "corpus"], shard.name)
    found("run", "notes.yaml", "--out", "corpus")
    assert shard.read_bytes() == whole
    assert found("verify", "corpus", "--replay")["problems"] == []


@pytest.mark.parametrize("id", ["zz", "../../etc", "abc", "ffffffffffffffff"])
def test_an_id_that_names_nothing(desk: Path, id: str) -> None:
    found("run", "notes.yaml", "--out", "corpus")
    refused(1, ["show", "corpus", id], id[:3])


def test_assemble_needs_a_directory_of_its_own_and_known_names(desk: Path) -> None:
    found("run", "notes.yaml", "--out", "corpus")
    refused(1, ["assemble", "corpus", "--out", "corpus"], "another --out")
    refused(2, ["assemble", "corpus", "--out", "b", "--exclude", "gnre=note"], "did you mean 'genre'")
    refused(2, ["assemble", "corpus", "--out", "b", "--exclude", "genre=nte"], "did you mean 'note'")
    refused(1, ["assemble", "corpus", "--out", "b", "--match", "nowhere"], "nowhere")
    refused(2, ["assemble", "corpus", "--out", "b", "--mix", "nte=1"], "did you mean 'note'")


@pytest.mark.parametrize(("error", "exit_code"), [(BudgetExhausted("cap"), 4), (Unauthorized("key"), 5)])
def test_an_error_ends_the_command_with_its_own_code(
    desk: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, exit_code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sdf.api.run", fail)
    refused(exit_code, ["run", "notes.yaml", "--out", "corpus"], f"error: {error}")


def test_control_characters_of_a_message_do_not_reach_the_terminal(desk: Path) -> None:
    result = call("plan", "quick\x1b[2Jstart")
    assert "\x1b" not in result.stderr


def test_a_fraction() -> None:
    assert fraction("1%") == fraction("0.01") == 0.01


def test_the_first_signal_commits_and_the_same_command_goes_on(desk: Path) -> None:
    slow = ("--provider-setting", "latency=0.05", "--in-flight", "2", "--tokens", "1M")
    running = process("run", "notes.yaml", "--out", "corpus", *slow, cwd=desk)
    assert running.stderr is not None
    assert "settled" in running.stderr.readline()
    running.send_signal(signal.SIGTERM)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 143, stderr
    assert "SIGTERM: finishing" in stderr
    assert "Traceback" not in stderr
    found("run", "notes.yaml", "--out", "corpus")
    # A short shard of the first commit, which the second replaced, lies there until it is collected.
    found("gc", "corpus")
    found("run", "notes.yaml", "--out", "fresh")
    assert _shards(desk / "corpus") == _shards(desk / "fresh")


def test_the_second_signal_aborts_at_once(desk: Path) -> None:
    stuck = ("--provider-setting", "latency=3000", "--drain-timeout", "3000")
    running = process("run", "notes.yaml", "--out", "corpus", *stuck, cwd=desk)
    assert running.stderr is not None
    running.stderr.readline()
    running.send_signal(signal.SIGINT)
    assert "SIGINT: finishing" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in stderr
    assert found("run", "notes.yaml", "--out", "corpus")["finished"]


def test_a_reader_that_closes_the_pipe_sees_no_traceback(desk: Path) -> None:
    writer = process("genres", "show", "blog_post", cwd=desk)
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    assert "Traceback" not in writer.stderr.read()
    writer.wait(60)
    writer.stderr.close()


def test_help_needs_nothing_heavy() -> None:
    code = "import sys, sdf.cli; print([name for name in ('ray', 'rich', 'pyarrow', 'jinja2') if name in sys.modules])"
    env = os.environ | {"PYTHONPATH": str(Path(sdf.__file__).parents[1])}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def _shards(corpus: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (corpus / "data").rglob("*.parquet")}


def test_a_relative_out_inside_a_ray_job_is_refused(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    refused(2, ["run", "notes.yaml", "--out", "corpus"], "absolute")
    assert not (desk / "corpus").exists()
    assert call("run", "notes.yaml", "--out", str(desk / "corpus")).exit_code == 0
