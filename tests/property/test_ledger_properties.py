"""A ledger has one view: a plain reading of the rule, in Python, agrees with it whatever was written, named,
logged, lost or torn, and in whatever order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf.errors import DamagedError
from sdf.ledger import (
    LedgerView,
    LedgerWriter,
    SettlementLog,
    check_ledger,
    read_answers,
    read_ledger,
    read_settlements,
)
from sdf.ledger.file import decode, part_path, sidecar_path
from sdf.ledger.key_index import KeyIndex
from sdf.ledger.rows import SIDECAR, Entry
from sdf.records import (
    Answer,
    AnswerEntry,
    Location,
    Measures,
    Receipt,
    RoundKey,
    RoundSettlement,
    Settlement,
    StepAnswer,
    Usage,
    digest,
    receipt_of,
)
from sdf.storage import RunDir

N_KEYS, N_BRIEFS = 4, 3
KEYS = [digest("key", str(i)) for i in range(N_KEYS)]
# An example writes and reads some twenty files.
fewer = settings(deadline=None, max_examples=50)


@pytest.fixture(autouse=True, scope="module")
def nothing_left_in_memory() -> Iterator[None]:
    yield
    empty_memory()


def empty_memory() -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def new_run_dir() -> RunDir:
    """The only one: listing goes through all that the memory file system holds."""
    empty_memory()
    return RunDir("memory://ledger")


@dataclass
class Written:
    """What a test put into a ledger, and where."""

    run_dir: RunDir
    answers: list[tuple[Location, AnswerEntry]] = field(default_factory=list)
    settled: list[tuple[Location, Settlement]] = field(default_factory=list)
    log: list[Location] = field(default_factory=list)
    lost_parts: set[str] = field(default_factory=set)
    lost_sidecars: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)

    def first_logged(self, location: Location) -> int:
        return self.log.index(location) if location in self.log else len(self.log)

    def is_known(self, settled: Location) -> bool:
        return settled.part not in self.lost_sidecars

    def receipts(self) -> list[Receipt]:
        chosen: dict[str, tuple[int, Location, Settlement]] = {}
        for location, settlement in self.settled:
            is_sound = all(used.location.part not in self.lost_parts for used in settlement.answers)
            if self.is_known(location) and is_sound:
                one = (self.first_logged(location), location, settlement)
                chosen[settlement.brief] = min(one, chosen.get(settlement.brief, one), key=lambda each: each[:2])
        return [receipt_of(one, at) for _, at, one in sorted(chosen.values(), key=lambda each: each[1])]

    def keys(self) -> dict[str, Location]:
        chosen: dict[str, tuple[int, Location]] = {}
        for location, entry in self.answers:
            if location.part not in self.lost_parts:
                users = [at for at, one in self.settled if any(location == used.location for used in one.answers)]
                when = min([self.first_logged(at) for at in users if self.is_known(at)], default=len(self.log))
                chosen[entry.key] = min((when, location), chosen.get(entry.key, (when, location)))
        return {key: location for key, (_, location) in chosen.items()}

    def usage(self) -> Usage:
        """Of the answers that are not lost with both of their files."""
        lost = self.lost_parts & self.lost_sidecars
        known = [entry.answer.usage for location, entry in self.answers if location.part not in lost]
        return sum(known, Usage())


parts = st.lists(
    st.tuples(st.integers(1, 3), st.text("wxyz_-.0189", max_size=4).map("w".__add__)),
    min_size=1,
    max_size=5,
    unique=True,
)
answer_ops = st.tuples(st.just("answer"), st.integers(0, N_KEYS - 1))
settle_ops = st.tuples(st.just("settle"), st.integers(0, N_BRIEFS - 1), st.lists(st.integers(0, 9), max_size=3))
ops = st.lists(answer_ops | settle_ops | st.just(("flush",)), min_size=1, max_size=8)


@st.composite
def ledgers(draw: st.DrawFn) -> Written:
    """Writers of several epochs; each answer and each settlement differs from every other in what it holds."""
    written = Written(new_run_dir())
    names = draw(parts)
    for epoch, name in names:
        writer = LedgerWriter(written.run_dir, epoch, name)
        for op in draw(ops):
            put(written, writer, op)
        writer.flush()
    for epoch in sorted({epoch for epoch, _ in names}, reverse=True):
        log = SettlementLog(written.run_dir, epoch)
        for _ in range(draw(st.integers(0, 2))):
            some = draw(st.lists(st.sampled_from([at for at, _ in written.settled]))) if written.settled else []
            log.append(some)
            log.flush()
            written.log += some
    return written


def put(written: Written, writer: LedgerWriter, op: Any) -> None:
    serial = len(written.answers) + len(written.settled)
    if op[0] == "flush":
        writer.flush()
    elif op[0] == "answer":
        usage = Usage(serial + 1, 10 * serial, 0, 1)
        entry = AnswerEntry(KEYS[op[1]], "unit", "draft", "prefix", Answer(f"text {serial}", "stop", "m", usage))
        written.answers.append((writer.append(entry), entry))
    else:
        used = [written.answers[i % len(written.answers)] for i in op[2] if written.answers]
        answers = tuple(StepAnswer("draft", entry.key, location) for location, entry in used)
        measures = Measures("basis", serial, None, bytes([serial]) * 480)
        settlement = Settlement(f"brief {op[1]}", "blog", op[1], None, None, None, answers, measures)
        written.settled.append((writer.settle(settlement), settlement))


def shown(view: LedgerView) -> tuple[Any, ...]:
    """All of a view, comparable."""
    rest = (view.unlogged, view.damaged, view.n_answers, view.usage_by_model, view.rebilled)
    return view.receipts, view.rounds, dict(view.keys), *rest


@fewer
@given(ledgers())
def test_the_view_is_what_the_rule_says(written: Written) -> None:
    view = read_ledger(written.run_dir)
    assert view.receipts == written.receipts()
    assert dict(view.keys) == written.keys()
    assert all(view.keys.find(key) == written.keys().get(key) for key in KEYS)
    assert view.unlogged == [one.location for one in view.receipts if one.location not in written.log]
    assert view.n_answers == len(written.answers)
    assert view.usage == written.usage()
    assert view.damaged == () and check_ledger(written.run_dir) == []
    kept = sum((entry.answer.usage for at, entry in written.answers if at in written.keys().values()), Usage())
    assert view.rebilled + kept == view.usage


@fewer
@given(ledgers(), st.randoms(use_true_random=False))
def test_the_order_in_which_files_arrive_changes_nothing(written: Written, random: Random) -> None:
    files = [path for path, _ in written.run_dir.files()]
    random.shuffle(files)
    copy = RunDir("memory://copy")
    for path in files:
        copy.write(path, written.run_dir.read(path))
    assert shown(read_ledger(copy)) == shown(read_ledger(written.run_dir))


@fewer
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=20), st.permutations("abcd"))
def test_what_the_log_names_counts_whatever_the_parts_are_called(
    settled: list[tuple[int, bool]], names: Sequence[str]
) -> None:
    """Two settlements a brief, of different answers to one key: the logged ones decide, not their names."""

    def texts(names: Sequence[str]) -> dict[str, str]:
        written, writers = Written(new_run_dir()), {}
        for number, (which, _) in enumerate(settled):
            writer = writers.setdefault(which, LedgerWriter(written.run_dir, 1, names[which]))
            put(written, writer, ("answer", number % N_KEYS))
            put(written, writer, ("settle", number % N_KEYS, [len(written.answers) - 1]))
        for writer in writers.values():
            writer.flush()
        log = SettlementLog(written.run_dir, 1)
        first = dict(reversed([(one.brief, at) for at, one in written.settled]))
        log.append([at for (at, _), (_, early) in zip(written.settled, settled, strict=True) if early])
        log.append(first.values())
        log.flush()
        view = read_ledger(written.run_dir)
        assert view.unlogged == []
        used = read_settlements(written.run_dir, [receipt.location for receipt in view.receipts])
        by_brief = read_answers(written.run_dir, [one.answers[0].location for one in used])
        by_key = read_answers(written.run_dir, [at for _, at in view.keys])
        return {receipt.brief: entry.answer.text for receipt, entry in zip(view.receipts, by_brief, strict=True)} | {
            entry.key: entry.answer.text for entry in by_key
        }

    assert texts(names) == texts("abcd")


@st.composite
def damaged_ledgers(draw: st.DrawFn) -> Written:
    written = draw(ledgers())
    files = dict(written.run_dir.files("ledger"))
    names = {at.part for at, _ in [*written.answers, *written.settled]}
    for name in sorted(names):
        part, sidecar = part_path(name), sidecar_path(name)
        if draw(st.booleans()):
            tear(draw, written, sidecar, draw(st.sampled_from(["gone", "short", "flipped"])))
            written.lost_sidecars.add(name)
        if part in files and draw(st.booleans()):
            # A flipped bit inside a part is found when it is read, not by a listing.
            tear(draw, written, part, draw(st.sampled_from(["gone", "short", "long"])))
            written.lost_parts.add(name)
    files = dict(written.run_dir.files("ledger"))
    known = [one for at, one in written.settled if written.is_known(at)]
    wanted = {used.location.part for one in known for used in one.answers}
    wanted |= {at.part for at, _ in written.answers if at.part not in written.lost_sidecars}
    written.damaged |= {part_path(name) for name in wanted if part_path(name) not in files}
    written.damaged |= {sidecar_path(at.part) for at in written.log if sidecar_path(at.part) not in files}
    return written


def tear(draw: st.DrawFn, written: Written, path: str, how: str) -> None:
    data = written.run_dir.read(path)
    if how == "gone":
        written.run_dir.delete(path)
        return
    place = draw(st.integers(0, len(data) - 1))
    flipped = data[:place] + bytes([data[place] ^ 1 << draw(st.integers(0, 7))]) + data[place + 1 :]
    written.run_dir.write(path, {"short": data[:place], "long": data + b"\0", "flipped": flipped}[how])
    written.damaged.add(path)


@fewer
@given(damaged_ledgers())
def test_what_is_torn_or_gone_is_reported_and_takes_only_its_own_with_it(written: Written) -> None:
    view = read_ledger(written.run_dir)
    assert view.receipts == written.receipts()
    assert dict(view.keys) == written.keys()
    assert view.damaged == tuple(sorted(written.damaged))
    assert view.usage == written.usage()
    assert {problem.partition(": ")[0] for problem in check_ledger(written.run_dir)} == written.damaged
    # What the view promises can be had.
    read_answers(written.run_dir, [at for _, at in view.keys])
    read_settlements(written.run_dir, [receipt.location for receipt in view.receipts])


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
some = st.none() | texts
usages = st.builds(Usage, *[st.integers(0, 2**62)] * 4)
answers = st.builds(Answer, texts, st.sampled_from(["stop", "length", "refusal"]), texts, usages, some, some)
entries = st.builds(AnswerEntry, st.sampled_from(KEYS), texts, texts, texts, answers)
locations = st.builds(Location, st.sampled_from(["000001/w-000000", "000002/v-000001"]), st.integers(0, 2**31 - 1))
used = st.lists(st.builds(StepAnswer, texts, st.sampled_from(KEYS), locations), max_size=3).map(tuple)
measures = st.builds(Measures, texts, st.integers(0, 2**62), some, st.binary(max_size=20))
briefs = st.builds(Settlement, texts, texts, st.integers(0, 2**62), some, some, some, used, st.none() | measures)
round_keys = st.builds(RoundKey, texts, texts, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
rounds = st.builds(RoundSettlement, texts, round_keys, st.lists(some, max_size=3).map(tuple), used)


@fewer
@given(
    st.lists(entries | briefs | rounds, min_size=1, max_size=12), st.randoms(use_true_random=False), st.integers(1, 6)
)
def test_what_was_written_is_read_in_the_order_asked(everything: list[Entry], random: Random, n_per_part: int) -> None:
    run_dir = new_run_dir()
    writer, at = LedgerWriter(run_dir, 1, "w"), []
    for number, entry in enumerate(everything):
        at.append(writer.append(entry) if isinstance(entry, AnswerEntry) else writer.settle(entry))
        if number % n_per_part == 0:
            writer.flush()
    writer.flush()
    asked = random.choices(range(len(everything)), k=2 * len(everything))
    answers = [i for i in asked if isinstance(everything[i], AnswerEntry)]
    settled = [i for i in asked if not isinstance(everything[i], AnswerEntry)]
    assert read_answers(run_dir, [at[i] for i in answers]) == [everything[i] for i in answers]
    assert read_settlements(run_dir, [at[i] for i in settled]) == [everything[i] for i in settled]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_changed_byte_of_a_file_is_read(data: st.DataObject) -> None:
    written = Written(new_run_dir())
    writer = LedgerWriter(written.run_dir, 1, "w")
    put(written, writer, ("answer", 0))
    put(written, writer, ("settle", 0, [0]))
    writer.flush()
    path = sidecar_path(written.settled[0][0].part)
    whole = written.run_dir.read(path)
    assert len(decode(whole, SIDECAR, path)) == 2
    tear(data.draw, written, path, data.draw(st.sampled_from(["short", "long", "flipped"])))
    with pytest.raises(DamagedError, match=path):
        decode(written.run_dir.read(path), SIDECAR, path)


# Of the last four, halves are equal.
ALIKE = [*KEYS, "0" * 32, "0" * 31 + "1", "f" * 32, "f" * 31 + "0"]


@given(st.lists(st.tuples(st.sampled_from(ALIKE), locations)))
def test_a_key_index_is_a_dict_of_smallest_locations(pairs: list[tuple[str, Location]]) -> None:
    index = KeyIndex.of(pairs)
    smallest = {key: min(at for other, at in pairs if other == key) for key, _ in pairs}
    assert dict(index) == smallest and len(index) == len(smallest)
    assert list(dict(index)) == sorted(smallest)
    assert [index.find(key) for key in ALIKE] == [smallest.get(key) for key in ALIKE]
