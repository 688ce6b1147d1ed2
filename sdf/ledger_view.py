"""What a resume learns of a ledger: which settlement of a brief counts, and where each paid answer lies.

Canonical, wherever two answers or settlements compete: the first that the driver's logs name, in the order
of epoch, log and entry; without one the smallest (epoch, part, row). So a ledger has one view, whatever
order its parts arrived in. Everything is decided on columns (numpy and Arrow, no Python per row), so 300,000
settlements take seconds; only the receipts themselves become Python objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from sdf.key_index import Ints, KeyIndex, Words, firsts, key_words
from sdf.ledger_rows import LEDGER, USAGE_COLUMNS, Column, Table, part_path
from sdf.ledger_sheet import Mask, Sheet, read_logs, read_sheet
from sdf.records import Location, Receipt, RoundKey, RoundReceipt, Usage
from sdf.storage import RunDir

# Its functions are made when it is imported, so a type checker sees none of them.
pc: Any = pyarrow.compute

# Of an answer or a part: not in this view.
LOST = -1


@dataclass(frozen=True, slots=True)
class LedgerView:
    """A ledger as one listing found it.

    receipts, rounds: canonical, one per brief or round id, in order of location.
    unlogged: the locations among them that no log names. A driver logs these when it opens its epoch: a worker
        of an older one may still write a part that holds a smaller location.
    damaged: paths of parts, sidecars and logs that are torn, unreadable or missing, sorted.
    n_answers: answers that can be read, of whatever key.
    usage_by_model: everything billed, by the model that answered; lost answers too, while their sidecar tells.
    rebilled: what of it lies beyond one canonical answer per key.
    """

    receipts: list[Receipt]
    rounds: list[RoundReceipt]
    unlogged: list[Location]
    keys: KeyIndex
    damaged: tuple[str, ...]
    n_answers: int
    usage_by_model: dict[str, Usage]
    rebilled: Usage

    @property
    def usage(self) -> Usage:
        return sum(self.usage_by_model.values(), Usage())


def read_ledger(run_dir: RunDir, *, parts: Callable[[str], bool] | None = None) -> LedgerView:
    """The canonical view of every part, or of those whose name ("000003/w1-000007") `parts` accepts.

    A settlement that refers to an answer in a damaged or missing part is dropped; so its brief is generated
    again, and pays for the lost answers alone. What is damaged is reported, never raised; StorageError still
    is, since trouble with the store says nothing about the bytes. A part without a sidecar (its writer was
    killed between the two) gives its answers to `keys` and is not damaged.
    """
    files = dict(run_dir.files(LEDGER))
    sheet = read_sheet(run_dir, files, parts)
    log, damaged_logs = read_logs(run_dir, files)
    answers = _answers(sheet)
    settled = _settled(sheet, answers, files)
    rank = _log_rank(sheet, settled, log)
    chosen = _canonical(settled, rank)
    paid = _canonical_answers(answers, settled, rank, len(log))
    usage = _usage_by_model(answers.bills)
    return LedgerView(
        receipts=_receipts(sheet, settled.place[chosen]),
        rounds=_rounds(sheet, settled.place[chosen]),
        unlogged=sheet.locations(settled.place[chosen[rank[chosen] == len(log)]]),
        keys=KeyIndex(answers.words[paid], answers.part[paid], answers.row[paid], sheet.names),
        damaged=tuple(sorted({*sheet.damaged, *damaged_logs, *settled.missing})),
        n_answers=int(answers.is_readable.sum()),
        usage_by_model=usage,
        rebilled=_beyond(usage, _usage_by_model(answers.bills.take(pa.array(paid)))),
    )


class _Answers(NamedTuple):
    """All answers in the order of location; those of part p are starts[p] .. starts[p + 1]."""

    words: Words
    part: Ints
    row: Ints
    is_readable: Mask
    starts: Ints
    bills: Table


def _answers(sheet: Sheet) -> _Answers:
    is_answer = pc.equal(sheet.rows["kind"], "answer")
    rows = sheet.rows.filter(is_answer)
    part = sheet.part_of(np.flatnonzero(is_answer.to_numpy()))
    return _Answers(
        words=key_words("".join(rows["id"].to_pylist())),
        part=part,
        row=rows["row"].to_numpy().astype(np.int64),
        is_readable=sheet.is_whole[part],
        starts=np.searchsorted(part, np.arange(len(sheet.names) + 1)),
        bills=rows.select(["model", *USAGE_COLUMNS]),
    )


class _Settled(NamedTuple):
    """All settlements of briefs and rounds in the order of location, and the answers they used.

    `place` is where each lies in the sheet; `unit` is equal for those that compete; `is_sound`: every answer it
    used can be read. Use k is that of answer `answer[k]` (LOST: not in this view) by settlement `by[k]`.
    """

    place: Ints
    unit: Ints
    is_sound: Mask
    by: Ints
    answer: Ints
    missing: tuple[str, ...]


def _settled(sheet: Sheet, answers: _Answers, files: Mapping[str, int]) -> _Settled:
    is_settled = pc.not_equal(sheet.rows["kind"], "answer")
    rows = sheet.rows.filter(is_settled)
    used = rows["answers"].combine_chunks()
    by = pc.list_parent_indices(used).to_numpy()
    encoded = used.flatten().field("part").dictionary_encode()
    names = encoded.dictionary.to_pylist()
    name = encoded.indices.to_numpy()
    number = {part: i for i, part in enumerate(sheet.names)}
    part = np.array([number.get(part, LOST) for part in names], dtype=np.int64)[name]
    answer = _answer_at(answers, part, used.flatten().field("row").to_numpy())
    # A part outside the view is taken to be whole when it is listed.
    is_listed = np.array([part_path(part) in files for part in names], dtype=bool)
    is_good = np.where(part == LOST, is_listed[name], answers.is_readable[answer] & (answer != LOST))
    place = np.flatnonzero(is_settled.to_numpy())
    is_sound = np.ones(len(place), dtype=bool)
    is_sound[by[~is_good]] = False
    competing = pc.binary_join_element_wise(rows["kind"], rows["id"], " ").combine_chunks().dictionary_encode()
    missing = tuple(part_path(part) for part in names if part not in number and part_path(part) not in files)
    return _Settled(place, competing.indices.to_numpy(), is_sound, by, answer, missing)


def _answer_at(answers: _Answers, part: Ints, row: Ints) -> Ints:
    """The number of the answer at (part, row) for each; LOST where the part is, or has no such row."""
    answer = answers.starts[part] + row
    return np.where((part != LOST) & (answer < answers.starts[part + 1]), answer, LOST)


def _log_rank(sheet: Sheet, settled: _Settled, log: Sequence[Location]) -> Ints:
    """When the log first names each settlement; len(log) for those it does not."""
    rank = np.full(len(settled.place), len(log))
    number = {part: i for i, part in enumerate(sheet.names)}
    entry = np.array([i for i, location in enumerate(log) if location.part in number], dtype=np.int64)
    part = np.array([number[log[i].part] for i in entry], dtype=np.int64)
    place = sheet.starts[part] + np.array([log[i].row for i in entry], dtype=np.int64)
    # Of a part whose sidecar was lost only the answers' rows are known; none of them is a settlement.
    is_known = (place < sheet.starts[part + 1]) & np.isin(place, settled.place)
    np.minimum.at(rank, np.searchsorted(settled.place, place[is_known]), entry[is_known])
    return rank


def _canonical(settled: _Settled, rank: Ints) -> Ints:
    """One settlement per unit, of those that are sound, in order of location."""
    order = np.argsort(rank, kind="stable")
    order = order[settled.is_sound[order]]
    first = np.unique(settled.unit[order], return_index=True)[1]
    return np.sort(order[first])


def _canonical_answers(answers: _Answers, settled: _Settled, rank: Ints, n_logged: int) -> Ints:
    """One readable answer per key, in the order of keys."""
    is_named = (rank[settled.by] < n_logged) & (settled.answer != LOST) & answers.is_readable[settled.answer]
    named = np.flatnonzero(is_named)
    named = named[np.argsort(rank[settled.by[named]], kind="stable")]
    candidates = np.concatenate([settled.answer[named], np.flatnonzero(answers.is_readable)])
    return candidates[firsts(answers.words[candidates])]


def _usage_by_model(bills: Table) -> dict[str, Usage]:
    sums = bills.group_by("model").aggregate([(name, "sum") for name in USAGE_COLUMNS]).sort_by("model")
    columns = [sums[f"{name}_sum"].to_pylist() for name in USAGE_COLUMNS]
    return {model: Usage(*tokens) for model, *tokens in zip(sums["model"].to_pylist(), *columns, strict=True)}


def _beyond(total: Mapping[str, Usage], kept: Mapping[str, Usage]) -> Usage:
    all_, of_them = sum(total.values(), Usage()), sum(kept.values(), Usage())
    return Usage(*(getattr(all_, name) - getattr(of_them, name) for name in USAGE_COLUMNS))


def _receipts(sheet: Sheet, places: Ints) -> list[Receipt]:
    rows, places = _rows_of_kind(sheet, "settlement", places)
    columns = zip(
        rows["id"].to_pylist(),
        _shared(rows["genre"]),
        rows["index"].to_pylist(),
        sheet.locations(places),
        _shared(pc.coalesce(rows["reason"], rows["reject"])),
        pc.fill_null(rows["n_tokens"], 0).to_pylist(),
        sheet.signatures_at(places),
        _shared(rows["basis"]),
        strict=True,
    )
    return [Receipt(*values) for values in columns]


def _rounds(sheet: Sheet, places: Ints) -> list[RoundReceipt]:
    rows, places = _rows_of_kind(sheet, "round", places)
    keys = zip(*(rows[name].to_pylist() for name in RoundKey._fields), strict=True)
    columns = zip(keys, sheet.locations(places), rows["angles"].to_pylist(), rows["id"].to_pylist(), strict=True)
    return [RoundReceipt(RoundKey(*key), location, tuple(angles), round) for key, location, angles, round in columns]


def _rows_of_kind(sheet: Sheet, kind: str, places: Ints) -> tuple[Table, Ints]:
    wanted = np.zeros(len(sheet.rows), dtype=bool)
    wanted[places] = True
    wanted &= pc.equal(sheet.rows["kind"], kind).to_numpy()
    return sheet.rows.filter(pa.array(wanted)), np.flatnonzero(wanted)


def _shared(column: Column) -> list[Any]:
    """The values, equal ones as one object: a genre's name comes 100,000 times."""
    seen: dict[Any, Any] = {}
    return [seen.setdefault(value, value) for value in column.to_pylist()]
