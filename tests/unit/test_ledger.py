from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from sdf.errors import DamagedError, Missing, StorageError
from sdf.ledger import (
    AnswerReader,
    LedgerWriter,
    SettlementLog,
    check_ledger,
    read_answers,
    read_ledger,
    read_settlements,
)
from sdf.records import (
    Answer,
    AnswerEntry,
    Location,
    Measures,
    Prefix,
    Receipt,
    RoundKey,
    RoundReceipt,
    RoundSettlement,
    Settlement,
    StepAnswer,
    Usage,
    digest,
)
from sdf.storage import RunDir

USAGE = Usage(100, 20, 3000, 4)
SIGNATURE = bytes(range(240)) * 2


@pytest.fixture(params=["local", "memory"])
def run_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunDir]:
    if request.param == "local":
        yield RunDir(tmp_path / "run")
        return
    yield RunDir("memory://bucket/run")
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


@pytest.fixture
def local(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def an_answer(name: str, text: str = "It rained.") -> AnswerEntry:
    return AnswerEntry(
        digest(name), f"unit of {name}", "draft", "prefix", Answer(text, "stop", "offline-grammar", USAGE)
    )


def a_settlement(brief: str, *used: tuple[AnswerEntry, Location], reason: str | None = None) -> Settlement:
    measures = None if reason else Measures("o200k_base", 7, None, SIGNATURE)
    answers = tuple(StepAnswer(entry.step, entry.key, location) for entry, location in used)
    return Settlement(brief, "blog_post", 3, reason, None, "an angle", answers, measures)


def write_brief(writer: LedgerWriter, name: str) -> tuple[Location, Location]:
    """One answer and the settlement that uses it."""
    entry = an_answer(name)
    location = writer.append(entry)
    return location, writer.settle(a_settlement(f"brief {name}", (entry, location)))


def briefs(run_dir: RunDir) -> list[str]:
    return [receipt.brief for receipt in read_ledger(run_dir).receipts]


def file_of(run_dir: RunDir, suffix: str) -> str:
    return next(path for path, _ in run_dir.files("ledger") if path.endswith(suffix))


def flip_byte(run_dir: RunDir, path: str, place: int) -> None:
    data = bytearray(run_dir.read(path))
    data[place] ^= 1
    run_dir.write(path, bytes(data))


def test_an_empty_directory_has_an_empty_ledger(run_dir: RunDir) -> None:
    view = read_ledger(run_dir)
    assert (view.receipts, view.rounds, len(view.keys), view.damaged, view.usage) == ([], [], 0, (), Usage())
    assert check_ledger(run_dir) == [] and read_answers(run_dir, []) == [] and read_settlements(run_dir, []) == []


def test_a_receipt_says_what_the_settlement_measured(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 3, "w1")
    location, settled = write_brief(writer, "a")
    refused = writer.settle(a_settlement("brief b", reason="refused"))
    checked = Settlement("brief c", "letter", 4, None, measures=Measures("o200k_base", 5, "too_short", b""))
    rejected = writer.settle(checked)
    writer.flush()
    view = read_ledger(run_dir)
    assert location == Location("000003/w1-000000", 0)
    assert settled == Location("000003/w1-000000", 1)
    assert view.receipts == [
        Receipt("brief a", "blog_post", 3, settled, None, 7, SIGNATURE, "o200k_base"),
        Receipt("brief b", "blog_post", 3, refused, "refused", 0, b"", None),
        Receipt("brief c", "letter", 4, rejected, "too_short", 5, b"", "o200k_base"),
    ]
    assert view.keys.find(digest("a")) == location and view.keys.find(digest("z")) is None
    assert view.usage_by_model == {"offline-grammar": USAGE} and view.n_answers == 1


def test_a_round_brings_its_angles(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    entry, key = an_answer("round"), RoundKey("blog_post", "honesty", 0, 2)
    settlement = RoundSettlement(
        "r" * 32, key, ("a ferry", None), (StepAnswer("angle", entry.key, writer.append(entry)),), "refused (policy)"
    )
    location = writer.settle(settlement)
    writer.flush()
    assert read_ledger(run_dir).rounds == [RoundReceipt(key, location, ("a ferry", None), "r" * 32, "refused (policy)")]
    assert read_settlements(run_dir, [location]) == [settlement]


def test_locations_are_final_before_anything_is_written(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    early = [write_brief(writer, "a"), write_brief(writer, "b")]
    assert (writer.pending, writer.pending_bytes > 0, run_dir.files()) == (4, True, [])
    writer.flush()
    late = write_brief(writer, "c")
    assert (writer.pending, writer.pending_bytes) == (2, len("It rained.") + len("an angle"))
    writer.flush()
    answers = read_answers(run_dir, [location for location, _ in [late, *early]])
    assert [entry.unit for entry in answers] == ["unit of c", "unit of a", "unit of b"]
    c, a = read_settlements(run_dir, [late[1], early[0][1]])
    assert c == a_settlement("brief c", (an_answer("c"), late[0]))
    assert a == a_settlement("brief a", (an_answer("a"), early[0][0]))


def test_a_flush_of_nothing_writes_nothing_and_one_of_settlements_no_part(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    writer.flush()
    assert run_dir.files() == []
    writer.settle(a_settlement("brief", reason="no_angle"))
    writer.flush()
    assert [path for path, _ in run_dir.files()] == ["ledger/000001/w1-000000.sidecar.parquet"]
    assert briefs(run_dir) == ["brief"] and check_ledger(run_dir) == []


def test_sealed_parts_become_durable_in_order(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    write_brief(writer, "a")
    first = writer.seal()
    write_brief(writer, "b")
    second = writer.seal()
    write_brief(writer, "c")
    assert first and second and writer.pending == 2
    second.write()
    assert briefs(run_dir) == ["brief a", "brief b"]
    first.write()
    assert briefs(run_dir) == ["brief a", "brief b"]
    writer.flush()
    assert briefs(run_dir) == ["brief a", "brief b", "brief c"]
    assert writer.seal() is None


def test_a_part_is_written_without_those_sealed_after_it(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    write_brief(writer, "a")
    first = writer.seal()
    write_brief(writer, "b")
    writer.seal()
    assert first
    first.write()
    assert briefs(run_dir) == ["brief a"]


def test_a_part_whose_sidecar_failed_is_finished_by_the_next_flush(local: RunDir) -> None:
    writer = LedgerWriter(local, 1, "w1")
    write_brief(writer, "a")
    blocked = Path(local.root, "ledger/000001/w1-000000.sidecar.parquet")
    blocked.mkdir(parents=True)
    with pytest.raises(StorageError):
        writer.flush()
    blocked.rmdir()
    writer.flush()
    assert briefs(local) == ["brief a"] and check_ledger(local) == []


def test_a_flush_that_failed_is_made_good_by_the_next(local: RunDir) -> None:
    writer, log = LedgerWriter(local, 1, "w1"), SettlementLog(local, 1)
    _, settled = write_brief(writer, "a")
    log.append([settled])
    blocked = Path(local.root, "ledger")
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a directory should be")
    with pytest.raises(StorageError):
        writer.flush()
    with pytest.raises(StorageError):
        log.flush()
    blocked.unlink()
    write_brief(writer, "b")
    log.append([Location("000001/w1-000001", 1)])
    log.flush()
    writer.flush()
    assert briefs(local) == ["brief a", "brief b"] and read_ledger(local).unlogged == []


def test_what_another_writer_of_the_same_name_wrote_is_never_overwritten(run_dir: RunDir) -> None:
    first, second = LedgerWriter(run_dir, 1, "w1"), LedgerWriter(run_dir, 1, "w1")
    write_brief(first, "a")
    write_brief(second, "b")
    first.flush()
    with pytest.raises(StorageError, match=r"w1-000000\.answers\.parquet: written by another writer"):
        second.flush()
    assert briefs(run_dir) == ["brief a"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".w", "w 1", "w" * 101])
def test_a_writer_has_a_name_that_files_can_have(local: RunDir, name: str) -> None:
    with pytest.raises(ValueError, match="writer"):
        LedgerWriter(local, 1, name)


def test_what_cannot_be_written_is_refused_alone(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    location, _ = write_brief(writer, "a")
    with pytest.raises(ValueError, match="unit of b"):
        writer.append(an_answer("b", "half a pair: \ud83d"))
    with pytest.raises(ValueError, match="32 hex digits"):
        writer.append(AnswerEntry("k1", "unit", "draft", "prefix", Answer("", "stop", "m")))
    with pytest.raises(ValueError, match="round r"):
        writer.settle(RoundSettlement("r", RoundKey("g", "p", 0, 0), ("\udc00",)))
    assert writer.append(an_answer("c")) == Location(location.part, 1)
    writer.flush()
    assert read_ledger(run_dir).n_answers == 2 and briefs(run_dir) == ["brief a"]


def test_a_prefix_is_kept_once_under_its_hash(run_dir: RunDir) -> None:
    prefix = Prefix.of("The constitution.\n")
    for name in ("w1", "w2"):
        writer = LedgerWriter(run_dir, 1, name)
        writer.keep_prefix(prefix)
        writer.keep_prefix(prefix)
    assert run_dir.files() == [(f"ledger/prefixes/{prefix.hash}.txt", 18)]
    assert run_dir.read(RunDir.prefix(prefix.hash)) == prefix.text.encode()


def test_of_two_settlements_the_logged_one_counts_else_the_smallest(run_dir: RunDir) -> None:
    for epoch, name in [(1, "b"), (2, "a"), (1, "a")]:
        writer = LedgerWriter(run_dir, epoch, name)
        write_brief(writer, "same")
        writer.flush()
    view = read_ledger(run_dir)
    assert [receipt.location.part for receipt in view.receipts] == ["000001/a-000000"]
    assert view.keys.find(digest("same")) == Location("000001/a-000000", 0)
    assert view.unlogged == [Location("000001/a-000000", 1)]
    log = SettlementLog(run_dir, 2)
    log.append([Location("000002/a-000000", 1), Location("000001/b-000000", 1)])
    log.flush()
    view = read_ledger(run_dir)
    assert [receipt.location.part for receipt in view.receipts] == ["000002/a-000000"]
    assert view.keys.find(digest("same")) == Location("000002/a-000000", 0)
    assert view.unlogged == [] and view.rebilled == USAGE + USAGE


def test_the_log_of_a_newer_epoch_counts_before_an_older_ones(run_dir: RunDir) -> None:
    """Whichever was written last: a driver that slept through its lease may still write its own."""
    for epoch in (1, 2):
        writer = LedgerWriter(run_dir, epoch, "w")
        write_brief(writer, "same")
        writer.flush()
    for epoch, named in [(2, "000002/w-000000"), (1, "000001/w-000000")]:
        log = SettlementLog(run_dir, epoch)
        log.append([Location(named, 1)])
        log.flush()
    assert [receipt.location.part for receipt in read_ledger(run_dir).receipts] == ["000002/w-000000"]


def test_a_filter_shows_some_parts_and_trusts_the_others(run_dir: RunDir) -> None:
    old, new = LedgerWriter(run_dir, 1, "old"), LedgerWriter(run_dir, 2, "new")
    location, _ = write_brief(old, "a")
    gone, _ = write_brief(LedgerWriter(run_dir, 1, "gone"), "b")
    new.settle(a_settlement("uses old", (an_answer("a"), location)))
    new.settle(a_settlement("uses gone", (an_answer("b"), gone)))
    old.flush()
    new.flush()
    view = read_ledger(run_dir, parts=lambda part: part.startswith("000002/new-"))
    assert [receipt.brief for receipt in view.receipts] == ["uses old"]
    assert view.n_answers == 0 and view.damaged == ("ledger/000001/gone-000000.answers.parquet",)


def test_a_part_without_sidecar_gives_its_answers(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    location, _ = write_brief(writer, "a")
    writer.flush()
    run_dir.delete(file_of(run_dir, ".sidecar.parquet"))
    view = read_ledger(run_dir)
    assert view.keys.find(digest("a")) == location and view.usage == USAGE
    assert (view.receipts, view.damaged) == ([], ())


def test_a_torn_sidecar_is_reported_and_its_part_still_used(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    location, settled = write_brief(writer, "a")
    writer.flush()
    path = file_of(run_dir, ".sidecar.parquet")
    run_dir.write(path, run_dir.read(path)[:-1])
    view = read_ledger(run_dir)
    assert (view.receipts, view.damaged) == ([], (path,))
    assert view.keys.find(digest("a")) == location
    with pytest.raises(DamagedError, match=path):
        read_settlements(run_dir, [settled])


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_settlement_goes_with_the_answers_it_used(run_dir: RunDir, is_gone: bool) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    lost, _ = write_brief(writer, "lost")
    writer.flush()
    kept, _ = write_brief(writer, "kept")
    writer.settle(a_settlement("of both", (an_answer("lost"), lost), (an_answer("kept"), kept)))
    writer.flush()
    path = "ledger/000001/w1-000000.answers.parquet"
    data = run_dir.read(path)
    run_dir.delete(path) if is_gone else run_dir.write(path, data[: len(data) // 2])
    view = read_ledger(run_dir)
    assert [receipt.brief for receipt in view.receipts] == ["brief kept"]
    assert view.keys.find(digest("lost")) is None and view.keys.find(digest("kept")) == kept
    assert view.damaged == (path,) and view.n_answers == 1
    # Billed nevertheless, and again when it is asked again.
    assert view.usage == USAGE + USAGE and view.rebilled == USAGE


def test_a_torn_log_is_reported(run_dir: RunDir) -> None:
    writer, log = LedgerWriter(run_dir, 1, "w1"), SettlementLog(run_dir, 1)
    log.append([write_brief(writer, "a")[1]])
    writer.flush()
    log.flush()
    path = "ledger/000001/log-000000.parquet"
    run_dir.write(path, run_dir.read(path)[:40])
    view = read_ledger(run_dir)
    assert view.damaged == (path,) and len(view.receipts) == len(view.unlogged) == 1


def test_a_sidecar_that_a_log_names_and_that_is_gone_is_reported(run_dir: RunDir) -> None:
    writer, log = LedgerWriter(run_dir, 1, "w1"), SettlementLog(run_dir, 1)
    log.append([write_brief(writer, "a")[1]])
    writer.flush()
    log.flush()
    path = file_of(run_dir, ".sidecar.parquet")
    run_dir.delete(path)
    assert read_ledger(run_dir).damaged == (path,)
    assert check_ledger(run_dir) == [f"{path}: missing, though other files refer to it"]


def test_files_that_are_not_the_ledgers_are_left_alone(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    write_brief(writer, "a")
    writer.flush()
    for path in ("ledger/000001/EPOCH", "ledger/x.answers.parquet", "ledger/000001/.DS_Store", "ledger/log-1.parquet"):
        run_dir.write(path, b"not ours")
    assert briefs(run_dir) == ["brief a"] and read_ledger(run_dir).damaged == () and check_ledger(run_dir) == []


def test_a_whole_file_of_another_version_stops_the_run_instead_of_paying_again(run_dir: RunDir) -> None:
    writer, log = LedgerWriter(run_dir, 1, "w1"), SettlementLog(run_dir, 1)
    log.append([write_brief(writer, "a")[1]])
    log.flush()
    run_dir.write("ledger/000001/w9-000000.sidecar.parquet", run_dir.read("ledger/000001/log-000000.parquet"))
    with pytest.raises(StorageError, match=r"w9-000000.*another version of sdf"):
        read_ledger(run_dir)


def test_check_names_each_file_that_is_not_what_was_written(run_dir: RunDir) -> None:
    writer, log = LedgerWriter(run_dir, 1, "w1"), SettlementLog(run_dir, 1)
    for name in "abcd":
        log.append([write_brief(writer, name)[1]])
        writer.flush()
    log.flush()
    writer.keep_prefix(Prefix.of("one"))
    assert check_ledger(run_dir) == []
    flip_byte(run_dir, "ledger/000001/log-000000.parquet", 9)
    flip_byte(run_dir, "ledger/000001/w1-000000.answers.parquet", 9)
    flip_byte(run_dir, "ledger/000001/w1-000001.sidecar.parquet", -9)
    run_dir.delete("ledger/000001/w1-000002.answers.parquet")
    other = run_dir.read("ledger/000001/w1-000001.answers.parquet")
    run_dir.write("ledger/000001/w1-000003.answers.parquet", other)
    prefix = RunDir.prefix(Prefix.of("one").hash)
    run_dir.write(prefix, b"two")
    problems = check_ledger(run_dir)
    assert [problem.partition(": ")[0] for problem in problems] == [
        "ledger/000001/log-000000.parquet",
        "ledger/000001/w1-000000.answers.parquet",
        "ledger/000001/w1-000001.sidecar.parquet",
        "ledger/000001/w1-000002.answers.parquet",
        "ledger/000001/w1-000003.answers.parquet",
        prefix,
    ]


def test_damaged_and_missing_parts_are_named_by_those_who_read_them(run_dir: RunDir) -> None:
    writer = LedgerWriter(run_dir, 1, "w1")
    location, _ = write_brief(writer, "a")
    writer.flush()
    path = file_of(run_dir, ".answers.parquet")
    with pytest.raises(DamagedError, match="has 1 rows, and row 7"):
        read_answers(run_dir, [location._replace(row=7)])
    flip_byte(run_dir, path, 20)
    for read in (lambda: read_answers(run_dir, [location]), lambda: AnswerReader(run_dir).read(location)):
        with pytest.raises(DamagedError, match=path):
            read()
    run_dir.delete(path)
    with pytest.raises(Missing, match=path):
        read_answers(run_dir, [location])


def test_every_file_is_read_once_for_a_batch(run_dir: RunDir) -> None:
    read: list[str] = []

    class Counting(RunDir):
        def read(self, path: str) -> bytes:
            read.append(path)
            return super().read(path)

    writer, places = LedgerWriter(run_dir, 1, "w1"), []
    for name in "abcdef":
        places.append(write_brief(writer, name))
        if name in "bd":
            writer.flush()
    writer.flush()
    counting = Counting(run_dir.root)
    read_answers(counting, [location for location, _ in places + places])
    read_settlements(counting, [location for _, location in reversed(places)])
    assert len(read) == len(set(read)) == 6


def test_a_reader_keeps_the_parts_it_used_last(run_dir: RunDir) -> None:
    writer, places = LedgerWriter(run_dir, 1, "w1"), []
    for name in "abc":
        places.append(writer.append(an_answer(name, f"text {name}")))
        writer.flush()
    reader = AnswerReader(run_dir, n_parts=2)
    a, b, c = places
    assert [reader.read(place).answer.text for place in (a, b, a, c)] == ["text a", "text b", "text a", "text c"]
    for path, _ in run_dir.files():
        run_dir.delete(path)
    assert [reader.read(place).answer.text for place in (c, a)] == ["text c", "text a"]
    with pytest.raises(Missing):
        reader.read(b)


def test_an_index_pickles_and_plain_parquet_readers_read_the_files(local: RunDir) -> None:
    writer = LedgerWriter(local, 1, "w1")
    location, _ = write_brief(writer, "a")
    writer.flush()
    keys = pickle.loads(pickle.dumps(read_ledger(local).keys))
    assert dict(keys) == {digest("a"): location}
    table = pq.read_table(Path(local.root, file_of(local, ".answers.parquet")))
    assert table["text"].to_pylist() == ["It rained."]


WRITER = """
import sys
from sdf.ledger import LedgerWriter
from sdf.records import Answer, AnswerEntry, Settlement, StepAnswer, digest
from sdf.storage import RunDir
writer = LedgerWriter(RunDir(sys.argv[1]), 1, "w1")
for number in range(100_000):
    entry = AnswerEntry(digest(str(number)), "unit", "draft", "prefix", Answer("word " * 500, "stop", "m"))
    step = StepAnswer("draft", entry.key, writer.append(entry))
    writer.settle(Settlement(f"brief {number}", "blog", number, None, answers=(step,)))
    writer.flush()
    print(number, flush=True)
"""


def run_writer(run_dir: RunDir, failpoint: str | None) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root} | ({"SDF_FAILPOINT": failpoint} if failpoint else {})
    command = [sys.executable, "-c", WRITER, run_dir.root]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("n_lines", [1, 7])
def test_a_kill_at_any_moment_leaves_every_flush_before_it(local: RunDir, n_lines: int) -> None:
    with run_writer(local, None) as process:
        assert process.stdout
        flushed = [int(process.stdout.readline()) for _ in range(n_lines)]
        process.send_signal(signal.SIGKILL)
        flushed += [int(line) for line in process.stdout.read().split()]
    view = read_ledger(local)
    assert view.damaged == () and check_ledger(local) == []
    # At most the one flush in progress lies beyond what was acknowledged.
    assert [receipt.index for receipt in view.receipts] in (flushed, [*flushed, len(flushed)])
    assert len(read_answers(local, [location for _, location in view.keys])) >= len(flushed)


def test_a_kill_between_part_and_sidecar_keeps_the_answer_and_not_the_settlement(local: RunDir) -> None:
    with run_writer(local, "answers written:3") as process:
        assert process.stdout and process.stdout.read().split() == ["0", "1"]
    assert process.returncode == -signal.SIGKILL
    view = read_ledger(local)
    assert briefs(local) == ["brief 0", "brief 1"] and view.damaged == ()
    assert view.keys.find(digest("2")) == Location("000001/w1-000002", 0)
    # A resume goes on in a new epoch, and its own settlement counts.
    writer = LedgerWriter(local, 2, "w1")
    entry = read_answers(local, [Location("000001/w1-000002", 0)])[0]
    writer.settle(a_settlement("brief 2", (entry, Location("000001/w1-000002", 0))))
    writer.flush()
    assert briefs(local) == ["brief 0", "brief 1", "brief 2"] and read_ledger(local).n_answers == 3
