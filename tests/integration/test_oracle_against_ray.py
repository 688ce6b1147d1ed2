"""One suite over two crews: whatever Ray does with workers, its corpus is that of one undisturbed process."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import ray
from fake_api import serving
from runs import SLOW, Oracle, Process, answers, check_whole, corpus, make, make_oracle, recipe, rows_of
from support import LETTER, documents, write_recipe

from sdf import api, driver

pytestmark = pytest.mark.filterwarnings(
    # Ray leaves sockets and log files to the end of the process; ours would show in the other modules.
    "ignore::ResourceWarning",
    # Ray's own: it announces a change of its defaults for a variable that we do not set.
    "ignore:Tip. In future versions of Ray:FutureWarning",
)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return make_oracle(tmp_path_factory.mktemp("oracle"))


@pytest.fixture(scope="module")
def cluster() -> Generator[str]:
    """A local cluster for the module: `--ray auto` finds it."""
    driver.connect("local", 8)
    yield "auto"
    ray.shutdown()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_any_number_of_workers(oracle: Oracle, cluster: str, tmp_path: Path, workers: int) -> None:
    made = make(oracle.source, tmp_path / "out", ray=cluster, workers=workers)
    assert made.finished
    check_whole(tmp_path / "out", oracle.corpus)


@pytest.mark.parametrize(
    ("faults", "workers"),
    [
        ({"rate_limit_every": "7", "latency": "0.002"}, 2),
        ({"unavailable_every": "9"}, 2),
        pytest.param({"rate_limit_every": "7", "latency": "0.002"}, 8, marks=pytest.mark.slow),
        pytest.param({"unavailable_every": "9"}, 8, marks=pytest.mark.slow),
    ],
)
def test_trouble_at_the_provider(
    oracle: Oracle, cluster: str, tmp_path: Path, faults: dict[str, str], workers: int
) -> None:
    assert make(oracle.source, tmp_path / "out", ray=cluster, workers=workers, provider_settings=faults).finished
    check_whole(tmp_path / "out", oracle.corpus)


def test_workers_that_crash(oracle: Oracle, cluster: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each worker dies after 150 answers, again and again, in the middle of what it does."""
    out = tmp_path / "out"
    faults = {"crash_after": "150", "latency": "0.02"}
    with caplog.at_level(logging.WARNING, "sdf"):
        assert make(oracle.source, out, ray=cluster, workers=3, provider_settings=faults).finished
    n_lost = sum("is lost" in record.message for record in caplog.records)
    assert n_lost >= 2
    check_whole(out, oracle.corpus)


def test_what_workers_warn_of_is_said_once(cluster: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are processes of their own, whose log nobody reads: of a prefix that is too short to be cached, say."""
    genre = LETTER.replace("form: completion, context: none", "context: full")
    (tmp_path / "key").write_text("sk-of-a-test")
    fields: dict[str, Any] = {"provider": "anthropic", "model": "claude-sonnet-5-5", "tokens": 1_000, "in_flight": 2}
    with serving() as server, caplog.at_level(logging.WARNING, "sdf"):
        settings = {"base_url": server.url, "key_file": str(tmp_path / "key")}
        source = write_recipe(tmp_path, {"letter": genre}, **fields, provider_settings=settings)
        assert make(source, tmp_path / "out", ray=cluster, workers=3).finished
    assert sum("below what claude-sonnet-5-5 caches" in record.getMessage() for record in caplog.records) == 1


def test_workers_that_die_before_their_receipts_leave(oracle: Oracle, tmp_path: Path) -> None:
    """Each worker is killed at its second flush: what it wrote counts, though it never said so."""
    out = tmp_path / "out"
    told = Process(oracle.source, out, "part written:2", ray="local", workers=2, provider_setting="latency=0.05")
    assert told.wait() == 0, told.said
    assert told.said.count("is lost") >= 2
    assert "Token authentication" not in told.said, "what Ray warns of is no news to who waits for a corpus"
    check_whole(out, oracle.corpus)


def test_workers_that_are_killed(oracle: Oracle, cluster: str, tmp_path: Path) -> None:
    """SIGKILL from outside, at whatever they are doing."""
    out = tmp_path / "out"
    killed: list[int] = []

    def kill_now_and_then() -> None:
        for n_parts in (2, 5, 9):
            while len(list(out.glob("ledger/*/*.sidecar.parquet"))) < n_parts and not over.is_set():
                time.sleep(0.02)
            victims = worker_pids()
            if victims and not over.is_set():
                killed.append(victims[0])
                os.kill(victims[0], signal.SIGKILL)

    over = threading.Event()
    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    try:
        assert make(oracle.source, out, ray=cluster, workers=3, provider_settings=SLOW | {"latency": "0.03"}).finished
    finally:
        over.set()
        killer.join()
    assert len(killed) >= 2
    check_whole(out, oracle.corpus)


def worker_pids() -> list[int]:
    """Processes of our actors, which Ray names after their class: those of this cluster, by its raylet's children."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and is_our_actor(entry):
            found.append(int(entry.name))
    return sorted(found)


def is_our_actor(process: Path) -> bool:
    try:
        raylet = Path(f"/proc/{parent_of(process)}")
        return (process / "cmdline").read_bytes().startswith(b"ray::_Actor") and parent_of(raylet) == os.getpid()
    except OSError:
        return False


def parent_of(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("drained", [True, False])
def test_a_corpus_that_grows(oracle: Oracle, cluster: str, tmp_path: Path, drained: bool) -> None:
    """5,000, then 10,000, then 15,000 tokens: each a prefix of the next, the last as if made at once."""
    out = tmp_path / "out"
    before: list[str] = []
    for tokens, workers in ((5_000, 2), (10_000, 1), (15_000, 3)):
        if drained:
            stop = api.Stop()
            make(
                oracle.source,
                out,
                ray=cluster,
                workers=workers,
                tokens=tokens,
                provider_settings=SLOW,
                stop=stop,
                on_progress=lambda told, stop=stop, tokens=tokens: (
                    stop.request() if told.n_tokens > tokens - 2_500 else None
                ),
            )
        made = make(oracle.source, out, ray=cluster, workers=workers, tokens=tokens)
        assert made.finished and made.manifest is not None and made.manifest.n_tokens >= tokens
        check_whole(out, corpus(out))
        ids = sorted(ids_of(out))
        assert set(before) <= set(ids)
        before = ids
    assert corpus(out) == oracle.corpus


def ids_of(out: Path) -> list[str]:
    return [row["id"] for rows in documents(out).values() for row in rows]


def test_two_crews_on_one_corpus(oracle: Oracle, cluster: str, tmp_path: Path) -> None:
    """Begun on Ray, continued in one process, finished on Ray."""
    out = tmp_path / "out"
    make(oracle.source, out, ray=cluster, workers=2, tokens=5_000)
    make(oracle.source, out, ray="none", workers=1, tokens=10_000)
    make(oracle.source, out, ray=cluster, workers=8)
    check_whole(out, oracle.corpus)


@pytest.mark.parametrize("crew", ["none", "auto"])
def test_reuse_pays_for_what_was_never_answered(oracle: Oracle, cluster: str, tmp_path: Path, crew: str) -> None:
    same = make(oracle.source, tmp_path / "same", ray=crew, workers=2, reuse=[oracle.out])
    # What another run overshot may differ; the corpus itself costs nothing.
    assert corpus(tmp_path / "same") == oracle.corpus
    assert same.n_requests == len(set(answers(tmp_path / "same")) - set(answers(oracle.out)))
    more = make(oracle.source, tmp_path / "more", ray=crew, workers=2, tokens=20_000, reuse=[oracle.out])
    assert more.n_requests == len(set(answers(tmp_path / "more")) - set(answers(oracle.out))) > 0
    check_whole(tmp_path / "more", corpus(tmp_path / "more"))


def test_assembling_otherwise_is_free(oracle: Oracle, tmp_path: Path) -> None:
    n_answers = len(answers(oracle.out))
    changes = (
        {"shard_tokens": 700},
        {"checks_off": ("cut_off", "repetition")},
        {"mix": "note=1,letter=2"},
        {"dedup_threshold": 0.5},
        {"tokens": 5_000},
        {"holdout": 0.6},
    )
    for number, change in enumerate(changes):
        out = tmp_path / f"out{number}"
        made = api.assemble(oracle.out, out, **change)
        assert made.n_requests == 0 and made.manifest is not None and made.manifest.n_documents > 0
        # Checks and dedup may find nothing to judge otherwise in so small a corpus.
        assert corpus(out) != oracle.corpus or change.keys() & {"checks_off", "dedup_threshold"}
    assert api.assemble(oracle.out, tmp_path / "same").finished
    assert corpus(tmp_path / "same") == oracle.corpus
    assert len(answers(oracle.out)) == n_answers


def test_whole_cells_are_held_out(oracle: Oracle) -> None:
    cells: dict[str, set[tuple[str, str]]] = {"train": set(), "validation": set()}
    for name, rows in documents(oracle.out).items():
        cells[name.split("/")[1]] |= {(row["genre"], row["principle"]) for row in rows}
    assert cells["train"] and cells["validation"] and not cells["train"] & cells["validation"]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_model_that_samples_replays_to_its_own_bytes(cluster: str, tmp_path: Path, workers: int) -> None:
    """No two runs agree, but each corpus is what its ledger says, whatever died on the way."""
    source = recipe(tmp_path)
    out = tmp_path / "out"
    faults = {"sampled": "true", "crash_after": "150", "latency": "0.02"}
    make(source, out, ray=cluster, workers=workers, tokens=5_000, provider_settings=faults)
    assert api.verify(out, replay=True).problems == ()
    first = {row["id"]: row["n_tokens"] for row in rows_of(out, "settlement")}
    assert make(source, out, ray=cluster, workers=3, provider_settings=faults).finished
    assert api.verify(out, replay=True).problems == ()
    # Nothing that was settled is settled again, so nothing of it can have changed.
    assert set(Counter(row["id"] for row in rows_of(out, "settlement")).values()) == {1}
    assert first.items() <= {row["id"]: row["n_tokens"] for row in rows_of(out, "settlement")}.items()
    other = tmp_path / "other"
    make(source, other, ray="none", provider_settings={"sampled": "true"})
    assert corpus(other) != corpus(out)
