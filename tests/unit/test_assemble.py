"""The fold by example: whose turn it is, what is rejected and why, where shards end, when a genre leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import receipt

from sdf.assemble import HOPELESS, Fold, GenreTerms, Terms
from sdf.dedup import signatures
from sdf.records import Receipt

TEXT = "the keeper asked before the gate was moved and wrote down why it had to stay where it was that night"
SAME = signatures([TEXT])[0].astype("<u4").tobytes()
OTHER = signatures(["nothing of this is said anywhere else in the whole long collection of notes"])[0].tobytes()


def terms(*sequences: GenreTerms, **fields: Any) -> Terms:
    given: dict[str, Any] = {"target_tokens": 1_000, "shard_tokens": 10_000, "threshold": 0.8} | fields
    return Terms(sequences=sequences, split_of=given.pop("split_of", lambda genre, index: "train"), **given)


def genre(name: str, share: float = 1.0, **fields: Any) -> GenreTerms:
    return GenreTerms(name, share, **({"config": "documents", "compared": True} | fields))


def folded(which: Terms, *receipts: Receipt, similarity: float = 1.0) -> Fold:
    fold = Fold(which)
    for each in receipts:
        fold.offer(each)
    while pairs := fold.advance():
        fold.learn(dict.fromkeys(pairs, similarity))
    return fold


def kept(fold: Fold) -> list[str]:
    return [each.brief for cut in [*fold.take_full(), *fold.short()] for each in cut.receipts]


def reasons(fold: Fold) -> list[tuple[str, str, str | None]]:
    return [(each.brief, each.reason, each.of) for each in fold.rejections]


def test_next_comes_the_genre_with_the_least_tokens_per_share() -> None:
    receipts = [receipt(name, index) for name in "ab" for index in range(9)]
    fold = folded(terms(genre("a", 2), genre("b", 1), target_tokens=900), *receipts)
    assert kept(fold) == ["a-0", "b-0", "a-1", "a-2", "b-1", "a-3", "a-4", "b-2", "a-5"]


def test_a_tie_goes_to_the_first_of_the_recipe() -> None:
    receipts = [receipt(name, index) for name in "ab" for index in range(3)]
    assert kept(folded(terms(genre("b"), genre("a"), target_tokens=400), *receipts)) == ["b-0", "a-0", "b-1", "a-1"]


def test_it_stops_at_the_document_that_reaches_the_target() -> None:
    fold = folded(terms(genre("a"), target_tokens=250), *(receipt("a", index) for index in range(9)))
    assert fold.finished and fold.n_tokens == 300 and kept(fold) == ["a-0", "a-1", "a-2"]


def test_it_waits_for_the_next_brief_and_for_no_other() -> None:
    fold = Fold(terms(genre("a"), genre("b")))
    for each in [receipt("a", 1), receipt("a", 2), receipt("b", 0)]:
        fold.offer(each)
    assert fold.advance() == [] and not fold.finished and kept(fold) == []
    fold.offer(receipt("a", 0))
    assert fold.advance() == [] and kept(fold) == ["a-0", "b-0", "a-1"]


def test_the_first_receipt_of_a_brief_counts() -> None:
    fold = folded(terms(genre("a")), receipt("a", 0, 100), receipt("a", 0, 999))
    fold.offer(receipt("a", 0, 999))
    fold.advance()
    assert fold.n_tokens == 100 and kept(fold) == ["a-0"]


def test_a_rejected_brief_is_recorded_and_the_next_takes_its_turn() -> None:
    fold = folded(terms(genre("a")), receipt("a", 0, 70, "refused"), receipt("a", 1), receipt("a", 2, 80, "link"))
    assert kept(fold) == ["a-1"]
    assert reasons(fold) == [("a-0", "refused", None), ("a-2", "link", None)]
    assert fold.tallies["a"].rejected == {"refused": 1, "link": 1} and fold.n_tokens == 100


def test_of_near_duplicates_the_first_in_fold_order_is_kept_and_named() -> None:
    receipts = [receipt("a", 0, signature=SAME), receipt("b", 0, signature=SAME), receipt("a", 1, signature=OTHER)]
    fold = folded(terms(genre("a"), genre("b")), *reversed(receipts))
    assert kept(fold) == ["a-0"]
    fold.offer(receipt("b", 1, signature=OTHER))
    while pairs := fold.advance():
        fold.learn(dict.fromkeys(pairs, 1.0))
    assert kept(fold) == ["a-0", "b-1"]
    assert reasons(fold) == [("b-0", "duplicate", "a-0"), ("a-1", "duplicate", "b-1")]


def test_bands_only_propose_the_exact_similarity_decides() -> None:
    receipts = [receipt("a", 0, signature=SAME), receipt("a", 1, signature=SAME)]
    assert kept(folded(terms(genre("a")), *receipts, similarity=0.79)) == ["a-0", "a-1"]
    assert kept(folded(terms(genre("a")), *receipts, similarity=0.8)) == ["a-0"]


def test_it_asks_for_the_pair_it_cannot_decide_and_goes_no_further() -> None:
    fold = Fold(terms(genre("a")))
    first, second, third = (receipt("a", index, signature=SAME) for index in range(3))
    for each in (first, second, third):
        fold.offer(each)
    assert (first.location, second.location) in fold.advance()
    assert kept(fold) == ["a-0"] and fold.advance() != []


@pytest.mark.parametrize(
    "second",
    [genre("b", config="chats"), genre("b", compared=False)],
    ids=["another config", "not deduplicated"],
)
def test_only_what_is_compared_within_a_config_can_be_a_duplicate(second: GenreTerms) -> None:
    fold = folded(terms(genre("a"), second), receipt("a", 0, signature=SAME), receipt("b", 0, signature=SAME))
    assert sorted(kept(fold)) == ["a-0", "b-0"]


def test_a_rejected_document_makes_nothing_a_duplicate() -> None:
    fold = folded(terms(genre("a")), receipt("a", 0, reason="link", signature=SAME), receipt("a", 1, signature=SAME))
    assert kept(fold) == ["a-1"]


def test_twins_are_not_compared_with_each_other() -> None:
    fold = folded(terms(genre("a", n_twins=2)), receipt("a", 0, signature=SAME), receipt("a", 1, signature=SAME))
    assert kept(fold) == ["a-0", "a-1"]


def test_twins_fall_together_and_each_is_recorded() -> None:
    receipts = [receipt("a", 0), receipt("a", 1, reason="refused"), receipt("a", 2), receipt("a", 3)]
    fold = folded(terms(genre("a", n_twins=2)), *receipts)
    assert kept(fold) == ["a-2", "a-3"]
    assert reasons(fold) == [("a-0", "twin", None), ("a-1", "refused", None)]


def test_a_duplicate_twin_takes_its_sibling_along_and_neither_blocks_others() -> None:
    receipts = [receipt("a", 0, signature=SAME), receipt("a", 1), receipt("a", 2, signature=SAME)]
    receipts += [receipt("a", 3, signature=OTHER), receipt("a", 4, signature=OTHER), receipt("a", 5)]
    fold = folded(terms(genre("a", n_twins=2)), *receipts)
    assert kept(fold) == ["a-0", "a-1", "a-4", "a-5"]
    assert reasons(fold) == [("a-2", "duplicate", "a-0"), ("a-3", "twin", None)]


def test_twins_wait_for_each_other() -> None:
    fold = folded(terms(genre("a", n_twins=2)), receipt("a", 0))
    assert kept(fold) == []


def rejected(name: str, indices: range, reason: str = "refused") -> list[Receipt]:
    return [receipt(name, index, reason=reason) for index in indices]


def test_500_rejections_in_a_row_end_a_genre_and_499_do_not() -> None:
    hopeless = folded(terms(genre("a"), genre("b")), *rejected("a", range(HOPELESS)), receipt("b", 0))
    assert HOPELESS == 500 and hopeless.tallies["a"].gone is not None
    assert hopeless.turn() == "b" and kept(hopeless) == ["b-0"]
    close = folded(terms(genre("a")), *rejected("a", range(HOPELESS - 1)), receipt("a", HOPELESS - 1))
    assert close.tallies["a"].gone is None and close.tallies["a"].streak == 0
    again = folded(terms(genre("a")), *rejected("a", range(499)), receipt("a", 499), *rejected("a", range(500, 999)))
    assert again.tallies["a"].gone is None


def test_duplicates_are_rejections_too() -> None:
    receipts = [receipt("a", index, signature=SAME) for index in range(HOPELESS + 1)]
    assert folded(terms(genre("a")), *receipts).tallies["a"].gone is not None


def excluding(unwanted: Callable[[Receipt], bool], *sequences: GenreTerms, **fields: Any) -> Terms:
    return terms(*sequences, keeps=lambda each: not unwanted(each), **fields)


def test_what_the_caller_leaves_out_is_no_rejection_streak() -> None:
    which = excluding(lambda each: each.index < 900, genre("a"))
    fold = folded(which, *(receipt("a", index) for index in range(901)))
    assert fold.tallies["a"].gone is None and kept(fold) == ["a-900"]
    assert fold.tallies["a"].rejected == {"excluded": 900}


def test_what_is_left_out_does_not_end_a_streak_either() -> None:
    which = excluding(lambda each: each.index % 2 == 0, genre("a"))
    fold = folded(which, *rejected("a", range(2 * HOPELESS)))
    assert fold.tallies["a"].gone is not None


def test_what_is_left_out_makes_nothing_a_duplicate() -> None:
    which = excluding(lambda each: each.index == 0, genre("a"))
    assert kept(folded(which, receipt("a", 0, signature=SAME), receipt("a", 1, signature=SAME))) == ["a-1"]


def test_a_matched_arm_keeps_what_checks_and_dedup_would_drop_but_not_what_has_no_text() -> None:
    receipts = [receipt("a", 0, signature=SAME), receipt("a", 1, reason="link", signature=SAME)]
    receipts += [receipt("a", 2, 0, reason="refused"), receipt("a", 3, signature=SAME)]
    which = excluding(lambda each: each.index == 0, genre("a"), exactly=True)
    fold = folded(which, *receipts)
    assert kept(fold) == ["a-1", "a-3"]
    assert reasons(fold) == [("a-0", "excluded", None), ("a-2", "refused", None)]


def test_of_twins_the_one_that_is_wanted_stays_and_still_falls_with_its_sibling() -> None:
    """Arms cut along a twin axis hold the same briefs."""
    receipts = [receipt("a", 0), receipt("a", 1), receipt("a", 2), receipt("a", 3, reason="link")]
    first = folded(excluding(lambda each: each.index % 2 == 0, genre("a", n_twins=2)), *receipts)
    second = folded(excluding(lambda each: each.index % 2 == 1, genre("a", n_twins=2)), *receipts)
    assert kept(first) == ["a-1"] and kept(second) == ["a-0"]
    assert reasons(first) == [("a-0", "excluded", None), ("a-2", "twin", None), ("a-3", "link", None)]


def test_an_exhausted_source_leaves_the_merge_and_the_others_go_on() -> None:
    receipts = [receipt("a", 0), receipt("a", 1), *(receipt("b", index) for index in range(9))]
    fold = folded(terms(genre("a", n_briefs=2), genre("b"), target_tokens=700), *receipts)
    assert fold.finished and fold.tallies["a"].gone == "source exhausted" and fold.tallies["b"].gone is None
    assert fold.tallies["b"].n_documents == 5


def test_it_is_over_when_every_genre_has_left() -> None:
    fold = folded(terms(genre("a", n_briefs=1), genre("b", n_briefs=0)), receipt("a", 0))
    assert fold.finished and fold.n_tokens == 100 and fold.turn() is None


def test_a_shard_is_full_at_the_document_that_reaches_its_size() -> None:
    fold = folded(terms(genre("a"), shard_tokens=200), *(receipt("a", index, 90) for index in range(7)))
    full = fold.take_full()
    assert [(cut.number, cut.n_tokens, len(cut.receipts)) for cut in full] == [(0, 270, 3), (1, 270, 3)]
    assert [(cut.number, cut.n_tokens) for cut in fold.short()] == [(2, 90)]
    assert fold.take_full() == [] and len(fold.short()) == 1


def test_a_document_as_large_as_a_shard_leaves_no_empty_one_behind() -> None:
    fold = folded(terms(genre("a"), shard_tokens=100), receipt("a", 0))
    assert len(fold.take_full()) == 1 and fold.short() == []


def test_each_config_and_split_is_cut_on_its_own() -> None:
    def split(name: str, index: int) -> str:
        return "validation" if index == 1 else "train"

    receipts = [receipt(name, index) for name in "ab" for index in range(3)]
    which = terms(genre("a"), genre("b", config="chats"), shard_tokens=200, split_of=split)
    fold = folded(which, *receipts)
    cuts = [*fold.take_full(), *fold.short()]
    assert {(cut.config, cut.split, cut.number): [each.brief for each in cut.receipts] for cut in cuts} == {
        ("documents", "train", 0): ["a-0", "a-2"],
        ("documents", "validation", 0): ["a-1"],
        ("chats", "train", 0): ["b-0", "b-2"],
        ("chats", "validation", 0): ["b-1"],
    }
