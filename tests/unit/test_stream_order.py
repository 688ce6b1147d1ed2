"""The global order: every row once, a pure function of seed and epoch, any window found by itself."""

from __future__ import annotations

import numpy as np
import pytest

from sdf.stream.order import Chunks, EpochOrder, Shuffle, permutation

CHUNKS = Chunks(np.array([0, 10, 20, 23, 33, 40]), np.array([0, 0, 0, 1, 1]))


def order(first: int = 0, last: int = 40, epoch: int = 0, seed: int = 0, **shuffle: object) -> EpochOrder:
    return EpochOrder(CHUNKS, first, last, epoch, Shuffle(seed, **{"window_rows": 15, **shuffle}))


def rows(found: EpochOrder) -> list[int]:
    return [row for number in range(found.n_windows) for row in found.window(number).tolist()]


def test_the_permutation_is_the_same_for_ever() -> None:
    # A state saved by one version must find its place in the next: another order here breaks every saved state.
    assert permutation(10, "order", 0).tolist() == [7, 8, 5, 9, 6, 0, 1, 4, 2, 3]
    assert permutation(0, "x").tolist() == []


@pytest.mark.parametrize(("first", "last"), [(0, 40), (0, 20), (5, 33), (22, 24), (39, 40), (7, 7)])
def test_every_row_of_the_range_once(first: int, last: int) -> None:
    assert sorted(rows(order(first, last))) == list(range(first, last))


def test_seed_and_epoch_change_the_order_and_nothing_else_does() -> None:
    assert rows(order()) == rows(order())
    assert len({tuple(rows(each)) for each in (order(), order(seed=1), order(epoch=1), order(epoch=2))}) == 4


def test_rows_leave_their_chunk_and_files_their_place() -> None:
    first = order(window_rows=15).window(0)
    assert len(set(CHUNKS.holding(first).tolist())) > 1
    assert sorted({tuple(CHUNKS.files[CHUNKS.holding(order(seed=seed).window(0))]) for seed in range(20)})[0][0] == 0
    assert {int(CHUNKS.files[CHUNKS.holding(order(seed=seed).window(0))[0]]) for seed in range(20)} == {0, 1}


def test_a_window_ends_with_the_chunk_that_fills_it() -> None:
    sizes = [len(order().window(number)) for number in range(order().n_windows)]
    assert sum(sizes) == 40
    assert all(15 <= size < 15 + 10 for size in sizes[:-1])


def test_unshuffled_is_the_order_on_disk() -> None:
    assert rows(order(3, 38, on=False)) == list(range(3, 38))
