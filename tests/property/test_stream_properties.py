"""For any corpus, ranks, workers, packing and save points: every token exactly once an epoch, in one order."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from streams import Growing, byte_tokenizer, document

from sdf.stream import Corpus, Follow, Mix
from sdf.stream.batches import Layout, Row, filled
from sdf.stream.frames import Frame
from sdf.stream.packing import Piece, best_fit, wrapped
from sdf.stream.tokens_format import TOKEN

# Sizes in words of the documents of a corpus; 0 makes an empty text.
CORPORA = st.lists(st.integers(0, 40), min_size=1, max_size=60)
LENGTHS = st.lists(st.integers(0, 70), max_size=40)


def made(folder: str, sizes: list[int], rows_per_shard: int, cuts: list[int]) -> Corpus:
    """A corpus committed in parts, the first ending at each cut; followed, so that each is read in its turn."""
    rows = [document(number, " ".join(f"{number}.{word}" for word in range(size))) for number, size in enumerate(sizes)]
    growing = Growing(Path(folder), rows_per_shard)
    bounds = sorted({min(cut, len(rows)) for cut in cuts} - {0, len(rows)})
    for start, stop in itertools.pairwise([0, *bounds]):
        growing.grow(rows[start:stop])
    growing.grow(rows[bounds[-1] if bounds else 0 :], "complete")
    return Corpus(folder, follow=Follow(0) if bounds else None)


@given(CORPORA, st.integers(1, 30), st.lists(st.integers(1, 60), max_size=2), st.data())
@settings(max_examples=60)
def test_any_ranks_read_one_order_and_any_state_goes_on_under_others(
    sizes: list[int], rows_per_shard: int, cuts: list[int], data: Any
) -> None:
    window_rows, seed = data.draw(st.integers(1, 50)), data.draw(st.integers(0, 3))
    before, after = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    with tempfile.TemporaryDirectory() as folder:
        corpus = made(folder, sizes, rows_per_shard, cuts)

        def readers(world_size: int) -> list[Any]:
            options: dict[str, Any] = {"seed": seed, "window_rows": window_rows, "tail": "keep"}
            return [corpus.documents(rank, world_size, **options) for rank in range(world_size)]

        order = [row["id"] for row in readers(1)[0]]
        assert sorted(order) == [f"{number:032x}" for number in range(len(sizes))]
        n_steps = data.draw(st.integers(0, len(sizes) // before))
        first = readers(before)
        taken = [next(reader)["id"] for _ in range(n_steps) for reader in first]
        state = json.loads(json.dumps(data.draw(st.sampled_from(first)).state_dict()))
        second = readers(after)
        for reader in second:
            reader.load_state_dict(state)
        rest = [row["id"] for step in itertools.zip_longest(*second) for row in step if row is not None]
        assert taken + rest == order


@given(st.lists(LENGTHS, max_size=4), st.integers(2, 33))
def test_wrapped_windows_hold_every_token_once_in_order(windows: list[list[int]], seq_len: int) -> None:
    carry: tuple[Piece, ...] = ()
    found: list[tuple[int, int]] = []
    expected: list[tuple[int, int]] = []
    for number, lengths in enumerate(windows):
        rows = np.arange(len(lengths)) + 100 * number
        plan = wrapped(rows, np.array(lengths, np.int64), seq_len, carry)
        assert set(plan.n_tokens.tolist()) <= {seq_len}
        found += [(row, at) for sequence in plan.pieces(0, len(plan)) for row, *span in sequence for at in range(*span)]
        expected += [(int(row), at) for row, length in zip(rows, lengths, strict=True) for at in range(length)]
        carry = plan.rest
        assert sum(piece.stop - piece.start for piece in carry) < seq_len
    found += [(row, at) for row, *span in carry for at in range(*span)]
    assert found == expected


@given(LENGTHS, st.integers(2, 33), st.booleans())
def test_best_fit_holds_every_token_once_and_never_too_many(lengths: list[int], seq_len: int, truncate: bool) -> None:
    plan = best_fit(np.arange(len(lengths)), np.array(lengths, np.int64), seq_len, truncate=truncate, purpose=("x",))
    sequences = plan.pieces(0, len(plan))
    found = sorted((row, at) for sequence in sequences for row, *span in sequence for at in range(*span))
    kept = [min(length, seq_len) if truncate else length for length in lengths]
    assert found == [(row, at) for row, length in enumerate(kept) for at in range(length)]
    assert plan.truncated == sum(lengths) - sum(kept)
    fill = [sum(piece.stop - piece.start for piece in sequence) for sequence in sequences]
    assert all(0 < each <= seq_len for each in fill)
    # Two sequences that fit into one would have been one.
    assert len(fill) < 2 or sum(sorted(fill)[:2]) > seq_len


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=12), st.integers(2, 9), st.data())
def test_a_filled_row_is_head_body_tail_of_each_document(
    documents: list[tuple[int, bool]], seq_len: int, data: Any
) -> None:
    """Cut anywhere: heads and masked tokens are never learnt, and everything else is but the first of a piece."""
    n_head, n_tail = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 2))
    frame = Frame(np.arange(900, 900 + n_head).astype(TOKEN), np.arange(950, 950 + n_tail).astype(TOKEN))
    bodies = [
        (np.arange(size, dtype=TOKEN), np.arange(size, dtype="u1") % 2 if masked else None)
        for size, masked in documents
    ]
    lengths = np.array([size + n_head + n_tail for size, _ in documents], np.int64)
    plan = wrapped(np.arange(len(documents)), lengths, seq_len)
    rows = [Row(pieces, dict(enumerate(bodies)), frame) for pieces in plan.pieces(0, len(plan))]
    rows.append(Row(plan.rest, dict(enumerate(bodies)), frame))
    found = filled(rows, Layout(seq_len, 7, mask_boundaries=data.draw(st.booleans())))
    ids: list[int] = []
    learnt: list[bool] = []
    for body, mask in bodies:
        ids += [*frame.head.tolist(), *body.tolist(), *frame.tail.tolist()]
        learnt += [False] * n_head + [mask is None or bool(each) for each in (body if mask is None else mask)]
        learnt += [True] * n_tail
    flat, labels = found["input_ids"].reshape(-1), found["labels"].reshape(-1)
    assert flat.tolist() == ids + [7] * (len(flat) - len(ids))
    starts = set(found["cu_seqlens"].tolist()) if -100 in labels[found["cu_seqlens"][:-1]] else set()
    for at, label in enumerate(labels.tolist()):
        expected = at < len(ids) and learnt[at]
        assert label == (ids[at] if expected and label != -100 else -100)
        assert label != -100 or not expected or at in starts


@pytest.mark.train
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@given(CORPORA.filter(any), st.integers(1, 30), st.lists(st.integers(1, 60), max_size=2), st.data())
@settings(max_examples=25)
@example([0, 1], 1, [], None)
@example([14, 3], 1, [], None)
def test_any_packing_ranks_workers_and_save_points_give_the_same_tokens(
    sizes: list[int], rows_per_shard: int, cuts: list[int], data: Any
) -> None:
    from torch.utils.data import DataLoader

    from sdf.stream import TokenStream

    def draw(strategy: Any, default: Any) -> Any:
        return default if data is None else data.draw(strategy)

    options: dict[str, Any] = {
        "tokenizer": byte_tokenizer(),
        "seq_len": draw(st.integers(2, 40), 5),
        "global_batch": draw(st.integers(4, 8), 4),
        "packing": draw(st.sampled_from(["wrapped", "best_fit"]), "wrapped"),
        "window_rows": draw(st.integers(1, 50), 3),
        "seed": draw(st.integers(0, 3), 0),
        "tail": "pad",
        "eos": None,
        "index_dir": None,
    }
    epochs = draw(st.integers(1, 2), 2)
    (before, workers), (after, later) = (
        draw(st.tuples(st.integers(1, 4), st.sampled_from([0, 0, 0, 1, 2])), default) for default in ((2, 0), (1, 0))
    )
    with tempfile.TemporaryDirectory() as folder:
        corpus = made(folder, sizes, rows_per_shard, cuts)
        mixed = draw(st.booleans(), False)
        source: Any = corpus
        if mixed:
            parts = {"a": corpus, "b": Corpus(folder)}
            source = Mix(parts, weights={"a": 0.3, "b": 0.7}, exhausted="renormalise", epochs=epochs)

        def ranks(n: int, n_workers: int, state: Any = None) -> Any:
            """The rows of each step of all ranks, with the state after it."""
            loaders: list[Any] = []
            for rank in range(n):
                given = {} if mixed else {"epochs": epochs}
                stream = TokenStream(source, **options, **given, rank=rank, world_size=n)
                if state is not None:
                    stream.load_state_dict(state)
                loaders.append(DataLoader(stream, batch_size=None, num_workers=n_workers))
            for batches in zip(*loaders, strict=True):
                assert all(batch.state == batches[0].state for batch in batches)
                yield [row for batch in batches for row in _rows(batch)], batches[0].state

        whole = list(ranks(1, 0))
        assert sorted(_tokens(whole)) == sorted(_expected(sizes) * epochs * (2 if mixed else 1))
        if draw(st.booleans(), True):
            assert [rows for rows, _ in ranks(before, workers)] == [rows for rows, _ in whole]
        at = draw(st.integers(0, len(whole) - 1), 0)
        state = json.loads(json.dumps(whole[at][1]))
        assert list(ranks(after, later, state)) == whole[at + 1 :]


def _rows(batch: Any) -> list[tuple[list[int], list[int]]]:
    return list(zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True))


def _tokens(steps: Any) -> list[int]:
    """All tokens but padding, which is 0 where documents have no end token."""
    return [token for rows, _ in steps for ids, _ in rows for token in ids if token]


def _expected(sizes: list[int]) -> list[int]:
    texts = (" ".join(f"{number}.{word}" for word in range(size)) for number, size in enumerate(sizes))
    return [byte for text in texts for byte in text.encode()]
