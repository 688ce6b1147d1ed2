"""Packing: every token once, sequences full or padded, what is left over opens the next window."""

from __future__ import annotations

import numpy as np
import pytest

from sdf.stream.packing import Piece, Plan, best_fit, wrapped

ROWS = np.array([7, 3, 9, 1])
LENGTHS = np.array([5, 12, 1, 4])


def pieces(plan: Plan) -> list[list[tuple[int, int, int]]]:
    return [[tuple(piece) for piece in sequence] for sequence in plan.pieces(0, len(plan))]


def test_wrapped_cuts_where_a_sequence_is_full() -> None:
    plan = wrapped(ROWS, LENGTHS, 8)
    assert pieces(plan) == [[(7, 0, 5), (3, 0, 3)], [(3, 3, 11)]]
    assert plan.rest == (Piece(3, 11, 12), Piece(9, 0, 1), Piece(1, 0, 4))
    assert plan.n_tokens.tolist() == [8, 8]


def test_what_is_left_over_opens_the_next_window() -> None:
    plan = wrapped(ROWS, LENGTHS, 8)
    after = wrapped(np.array([4]), np.array([3]), 8, plan.rest)
    assert pieces(after) == [[(3, 11, 12), (9, 0, 1), (1, 0, 4), (4, 0, 2)]]
    assert after.rest == (Piece(4, 2, 3),)


@pytest.mark.parametrize("lengths", [[], [0, 0], [3]])
def test_too_little_for_a_sequence_is_all_left_over(lengths: list[int]) -> None:
    plan = wrapped(np.arange(len(lengths)), np.array(lengths, np.int64), 8)
    assert len(plan) == 0
    assert sum(piece.stop - piece.start for piece in plan.rest) == sum(lengths)


def test_a_document_that_ends_with_its_sequence_leaves_nothing() -> None:
    plan = wrapped(np.array([0, 1]), np.array([8, 8]), 8)
    assert pieces(plan) == [[(0, 0, 8)], [(1, 0, 8)]]
    assert plan.rest == ()


def test_best_fit_keeps_documents_whole_and_fills_the_fullest_first() -> None:
    plan = best_fit(np.arange(5), np.array([5, 6, 3, 2, 7]), 8, truncate=False, purpose=())
    assert pieces(plan) == [[(4, 0, 7)], [(1, 0, 6), (3, 0, 2)], [(0, 0, 5), (2, 0, 3)]]
    assert plan.rest == ()


def test_best_fit_splits_a_long_document_or_truncates_it() -> None:
    split = best_fit(ROWS, LENGTHS, 8, truncate=False, purpose=())
    assert sorted(piece for sequence in pieces(split) for piece in sequence) == [
        (1, 0, 4), (3, 0, 8), (3, 8, 12), (7, 0, 5), (9, 0, 1),
    ]  # fmt: skip
    cut = best_fit(ROWS, LENGTHS, 8, truncate=True, purpose=())
    assert cut.truncated == 4
    assert sorted(piece for sequence in pieces(cut) for piece in sequence) == [
        (1, 0, 4),
        (3, 0, 8),
        (7, 0, 5),
        (9, 0, 1),
    ]


def test_sequences_change_places_but_keep_their_documents() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, 200)
    plain = best_fit(np.arange(200), lengths, 32, truncate=False, purpose=())
    shuffled = best_fit(np.arange(200), lengths, 32, truncate=False, purpose=("x", 1))
    assert pieces(plain) != pieces(shuffled)
    assert sorted(pieces(plain)) == sorted(pieces(shuffled))
    assert plain.n_tokens.sum() / (len(plain) * 32) > 0.95
