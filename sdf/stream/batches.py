"""Sequences into batches: ids, labels, positions and document boundaries, by slices, without a loop over tokens."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sdf.stream.frames import Frame
from sdf.stream.ids import Encoded
from sdf.stream.packing import Piece
from sdf.stream.states import State

# What cross-entropy passes over, in torch and in Hugging Face's models.
IGNORED = -100

# More than loaders have under way, so that the state of the batch last handed out is among them.
KEPT_STATES = 1024


@dataclass(slots=True)
class Arrivals:
    """Batches that came here from worker processes: the step of their iteration's first, and their states by step."""

    first: int
    states: OrderedDict[int, State]


# By the run of iteration that a stream is in.
_ARRIVED: dict[str, Arrivals] = {}


def arrivals(run: str) -> Arrivals | None:
    """None while no batch of this run was made in another process than this one."""
    return _ARRIVED.get(run)


def forget(run: str) -> None:
    """The stream is in another run of iteration now, and asks for no state of this one."""
    _ARRIVED.pop(run, None)


class Batch(dict[str, Any]):
    """A dict of tensors; `state` is where the stream is after it, `step` its number from 0."""

    def __init__(self, values: Mapping[str, Any], state: State | None = None, run: str = "", first: int = 0) -> None:
        super().__init__(values)
        self.state, self.run, self.first = state, run, first

    @property
    def step(self) -> int:
        assert self.state is not None, "a copy of a batch without its state"
        return int(self.state["step"]) - 1

    def split(self, n_rows: int) -> Iterator[dict[str, Any]]:
        """Micro-batches of `n_rows` rows (the last may have fewer), each with its own `cu_seqlens`."""
        rows, seq_len = self["input_ids"].shape
        bounds = self["cu_seqlens"]
        for start in range(0, rows, n_rows):
            stop = min(start + n_rows, rows)
            micro = {name: value[start:stop] for name, value in self.items() if name != "cu_seqlens"}
            inside = (bounds >= start * seq_len) & (bounds <= stop * seq_len)
            yield micro | {"cu_seqlens": bounds[inside] - start * seq_len}

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (dict(self), self.state, self.run, self.first, os.getpid())


def _arrived(values: dict[str, Any], state: State | None, run: str, first: int, pid: int) -> Batch:
    if pid != os.getpid() and state is not None:
        here = _ARRIVED.setdefault(run, Arrivals(first, OrderedDict()))
        here.first, here.states[int(state["step"])] = first, state
        while len(here.states) > KEPT_STATES:
            here.states.popitem(last=False)
    return Batch(values, state, run, first)


@dataclass(frozen=True, slots=True)
class Report:
    """What was given since the start, of all ranks: `n_padding` is waste, `n_truncated` tokens were cut away.

    Documents are counted when their window is planned.
    """

    steps: int
    n_tokens: int
    n_padding: int
    n_truncated: int
    n_documents: int
    n_empty: int
    tokens_of: dict[str, int]

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Report:
        cursors = state["cursors"]
        totals = {
            name: sum(int(cursor[name]) for cursor in cursors.values())
            for name in ("n_tokens", "n_padding", "n_truncated", "n_documents", "n_empty")
        }
        totals["n_padding"] += int(state["n_blank"]) * int(state["stream"]["seq_len"])
        return cls(
            int(state["step"]), **totals, tokens_of={name: int(each["n_tokens"]) for name, each in cursors.items()}
        )

    @property
    def waste(self) -> float:
        """The share of positions that hold padding."""
        return self.n_padding / max(1, self.n_tokens + self.n_padding)


class Row(NamedTuple):
    """A sequence with what it is filled from."""

    pieces: Sequence[Piece]
    documents: Mapping[int, Encoded]
    frame: Frame


@dataclass(frozen=True, slots=True)
class Layout:
    """`mask_boundaries`: the first token of a piece, which would be predicted from another document, is not learnt."""

    seq_len: int
    pad: int
    mask_boundaries: bool


def filled(rows: Sequence[Row], layout: Layout) -> dict[str, Any]:
    """int64 `input_ids`, `labels`, `position_ids` of shape (rows, seq_len), and int32 `cu_seqlens` over all of it.

    `labels` lie under their own tokens, as Hugging Face's models want them (they shift). Padding is a document of its
    own in `cu_seqlens`, of `pad` ids that are not learnt.
    """
    n = len(rows) * layout.seq_len
    ids, positions = np.empty(n, np.int64), np.empty(n, np.int64)
    count = np.arange(layout.seq_len)
    starts: list[int] = []
    ignored: list[tuple[int, int]] = []
    masks: list[tuple[int, Any]] = []
    for number, row in enumerate(rows):
        at, end = number * layout.seq_len, (number + 1) * layout.seq_len
        for piece in row.pieces:
            size = piece.stop - piece.start
            starts.append(at)
            positions[at : at + size] = count[:size]
            _put(ids, at, piece, row, ignored, masks)
            at += size
        if at < end:
            starts.append(at)
            ids[at:end] = layout.pad
            positions[at:end] = count[: end - at]
            ignored.append((at, end))
    labels = _labels(ids, starts if layout.mask_boundaries else [], ignored, masks)
    shape = (len(rows), layout.seq_len)
    bounds = np.array([*starts, n], np.int32)
    return {
        "input_ids": ids.reshape(shape),
        "labels": labels.reshape(shape),
        "position_ids": positions.reshape(shape),
        "cu_seqlens": bounds,
    }


def _put(
    ids: Any, at: int, piece: Piece, row: Row, ignored: list[tuple[int, int]], masks: list[tuple[int, Any]]
) -> None:
    """The tokens of a piece from `at` on: of the head, of the document, of the tail, as far as they are in it."""
    body, mask = row.documents[piece.row]
    (head, tail), start, stop = row.frame, piece.start, piece.stop
    n_head = len(head)
    first, last = max(start - n_head, 0), min(stop - n_head, len(body))
    if start < n_head:
        here = head[start:stop]
        ids[at : at + len(here)] = here
        ignored.append((at, at + len(here)))
        at += len(here)
    if first < last:
        ids[at : at + last - first] = body[first:last]
        if mask is not None:
            masks.append((at, mask[first:last]))
        at += last - first
    here = tail[max(start - n_head - len(body), 0) : max(stop - n_head - len(body), 0)]
    ids[at : at + len(here)] = here


def _labels(ids: Any, starts: list[int], ignored: list[tuple[int, int]], masks: list[tuple[int, Any]]) -> Any:
    labels = ids.copy()
    for start, stop in ignored:
        labels[start:stop] = IGNORED
    for start, mask in masks:
        labels[start : start + len(mask)][mask == 0] = IGNORED
    if starts:
        labels[np.array(starts)] = IGNORED
    return labels
