from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdf.checks import CHECKS, NAMES, TEXT_CHECKS, Checks, Subject, n_words, reject_reason

PIECES = [
    "Certainly! ",
    "Here is the story:\n",
    "[Name] ",
    "https://a.org ",
    "</draft> ",
    "未雨",
    "and",
    "\n",
]
TEXTS = st.text() | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
CHECKED = st.builds(
    Checks,
    n_words=st.tuples(st.integers(0, 5), st.integers(5, 50)),
    off=st.frozensets(st.sampled_from(NAMES)),
    min_score=st.just((("score", 5),)),
    banned_names=st.just(("Anna",)),
)


@given(TEXTS, CHECKED, st.dictionaries(st.just("score"), st.integers(0, 10)))
def test_the_reason_is_the_first_failing_check_of_the_table(text: str, checks: Checks, scores: dict[str, int]) -> None:
    subject = Subject(text, scores=scores)
    failing = [name for name, fails in TEXT_CHECKS.items() if fails(text, checks)]
    failing += [name for name, judges in CHECKS.items() if judges(subject, checks)]
    failing += ["low_score"] * (scores.get("score", 0) < 5)
    left = [name for name in failing if name not in checks.off]
    assert reject_reason(subject, checks) == (left[0] if left else None)


@given(TEXTS, CHECKED)
def test_loosening_never_rejects_what_was_kept(text: str, checks: Checks) -> None:
    if reject_reason(Subject(text, scores={"score": 5}), checks) is None:
        for name in NAMES:
            looser = Checks((0, 0), checks.off | {name}, (), ())
            assert reject_reason(Subject(text), looser) is None


@given(st.lists(st.text("abcé-'", min_size=1), max_size=30), st.sampled_from([" ", "\n", "  "]))
def test_spaced_words_are_counted(words: list[str], space: str) -> None:
    assert n_words(space.join(words)) == len(words)


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_words_are_those_that_split_gives(text: str) -> None:
    assert n_words(text) == len(text.split())
