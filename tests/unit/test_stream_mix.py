"""Mixing: weights in tokens, what happens when a corpus runs out, weights that change, and mistakes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from streams import complete, documents

from sdf.errors import StreamError
from sdf.stream import Corpus, Mix
from sdf.stream.mix import Cursor, Rules, Schedule, Walk
from sdf.stream.order import Shuffle
from sdf.stream.states import check_same, merged_weights


class Lengths:
    """Documents of 10 tokens, or of none."""

    def __init__(self, length: int = 10) -> None:
        self.length = length

    def lengths(self, version: int, rows: Any) -> Any:
        return np.full(len(rows), self.length)

    def encoded(self, version: int, rows: Any) -> Any:
        raise NotImplementedError


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(complete(tmp_path_factory.mktemp("small"), documents(40)))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(complete(tmp_path_factory.mktemp("large"), documents(400)))


def drawn(mix: Mix, n: int, length: int = 10, **rules: Any) -> list[str]:
    """Which corpus each of `n` sequences of 20 tokens comes from, a step each."""
    given: dict[str, Any] = {"seq_len": 20, "packing": "wrapped", "truncate": False, "pad_tail": False} | rules
    made = Rules(**given, shuffle=Shuffle(0, 100))
    walks = [
        Walk(corpus, Lengths(length), made, 0, mix.epochs[name], Cursor(corpus.start))
        for name, corpus in mix.corpora.items()
    ]
    schedule = Schedule(mix, walks, mix.schedule, 0, [0] * len(walks))
    found: list[str] = []
    names = list(mix.corpora)
    for _ in range(n):
        _, sequences = schedule.draw(1, want=True)
        if not sequences:
            break
        found.append(names[sequences[0].source])
        schedule.end_step()
    return found


def test_weights_are_of_tokens_and_hold_at_every_length(small: Corpus, large: Corpus) -> None:
    mix = Mix({"sdf": small, "web": large}, weights={"sdf": 0.2, "web": 0.8}, exhausted="stop")
    found = drawn(mix, 90)
    for n in range(5, 90):
        assert abs(found[:n].count("sdf") - 0.2 * n) <= 1


@pytest.mark.parametrize(
    ("exhausted", "epochs", "expected"),
    [
        # 20 sequences in an epoch of the small corpus, 200 in one of the large.
        ("stop", 1, {"sdf": 20, "web": 20}),
        ("renormalise", 1, {"sdf": 20, "web": 200}),
        ("repeat", 1, {"sdf": 200, "web": 200}),
        ("stop", {"sdf": 3}, {"sdf": 60, "web": 60}),
        ("renormalise", {"sdf": 3, "web": 2}, {"sdf": 60, "web": 400}),
        ("stop", {"sdf": None}, {"sdf": 200, "web": 200}),
    ],
)
def test_what_happens_when_a_corpus_runs_out(
    small: Corpus, large: Corpus, exhausted: Any, epochs: Any, expected: dict[str, int]
) -> None:
    mix = Mix({"sdf": small, "web": large}, weights={"sdf": 1, "web": 1}, exhausted=exhausted, epochs=epochs)
    found = Counter(drawn(mix, 2_000))
    assert all(abs(found[name] - n) <= 1 for name, n in expected.items()), found


def test_a_corpus_without_end_does_not_end(small: Corpus) -> None:
    assert len(drawn(Mix({"a": small}, weights={"a": 1}, exhausted="stop", epochs=None), 500)) == 500


def test_weights_change_at_their_step(small: Corpus, large: Corpus) -> None:
    weights = {"sdf": 0.5, "web": 0.5}
    mix = Mix({"sdf": small, "web": large}, weights=weights, exhausted="stop", schedule={10: {"web": 1}, 20: weights})
    found = drawn(mix, 30)
    assert [found[start : start + 10].count("sdf") for start in (0, 10, 20)] == [5, 0, 5]


def test_what_the_epochs_leave_over_is_given_when_it_is_padded(small: Corpus) -> None:
    mix = Mix({"a": small}, weights={"a": 1}, exhausted="stop")
    assert len(drawn(mix, 100, length=11)) == 40 * 11 // 20
    assert len(drawn(mix, 100, length=11, pad_tail=True)) == 40 * 11 // 20 + (40 * 11 % 20 > 0)
    assert len(drawn(mix, 100, length=15, packing="best_fit")) == 40


def test_a_search_that_finds_nothing_ends(small: Corpus) -> None:
    mix = Mix({"a": small}, weights={"a": 1}, exhausted="stop", epochs=None)
    with pytest.raises(StreamError, match="a whole pass gave no document"):
        drawn(mix, 1, length=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"a": 0}}, "weights of 'a', 'b' sum to zero"),
        ({"weights": {"a": -1}}, "weight of 'a' is -1; give a number from 0"),
        ({"weights": {"a": float("nan")}}, "weight of 'a' is nan"),
        ({"weights": {"a": "1"}}, "weight of 'a' is '1'; give a number from 0"),
        ({"epochs": 1.5}, "epochs of 'a' is 1.5; give a whole number from 1"),
        ({"weights": {"aa": 1}}, "no corpus 'aa' in this mix; did you mean 'a'"),
        ({"weights": {}}, "sum to zero"),
        ({"schedule": {5: {"b": 0}}}, "sum to zero"),
        ({"schedule": {-5: {"b": 1}}}, "there is no step -5"),
        ({"epochs": 0}, "epochs of 'a': give a whole number from 1"),
        ({"epochs": {"c": 1}}, "no corpus 'c' in this mix"),
        ({"tags": {"c": "x"}}, "no corpus 'c' in this mix"),
        ({"exhausted": "wrap"}, "exhausted='wrap': give 'stop', 'repeat' or 'renormalise'"),
    ],
)
def test_mistakes_are_named(small: Corpus, changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"weights": {"a": 1, "b": 1}, "exhausted": "stop"} | changes
    with pytest.raises(StreamError, match=message):
        Mix({"a": small, "b": small}, **given)
    address: Any = "web/*.parquet"
    with pytest.raises(StreamError, match=r"corpus 'a' is 'web/\*\.parquet'; give Corpus"):
        Mix({"a": address}, weights={"a": 1}, exhausted="stop")
    with pytest.raises(StreamError, match="at least one corpus"):
        Mix({}, weights={}, exhausted="stop")


def test_past_weights_come_from_the_state_and_later_ones_may_be_new() -> None:
    state = {"step": 10, "weights": [[0, {"a": 1.0}], [7, {"a": 0.5}], [20, {"a": 0.1}]]}
    given = {0: {"a": 1.0}, 20: {"a": 0.2}, 30: {"a": 0.3}}
    assert merged_weights(state, given) == {0: {"a": 1.0}, 7: {"a": 0.5}, 20: {"a": 0.2}, 30: {"a": 0.3}}
    with pytest.raises(StreamError, match="other weights from step 0 on"):
        merged_weights(state, {0: {"a": 0.9}})


def test_a_difference_shows_both_sides() -> None:
    with pytest.raises(StreamError, match=r"another stream: seed was 1, is 2\. Give the same stream to resume"):
        check_same("stream", {"a": 1, "seed": 1}, {"a": 1, "seed": 2})
