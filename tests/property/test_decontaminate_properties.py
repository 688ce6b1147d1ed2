from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdf.decontaminate import RUN_WORDS, Decontaminator, pin
from sdf.words import encoded_words, runs, runs_within

WORDS = st.sampled_from(["lamp", "Oil", "keeper's", "tide", "ünder", "雨", "42", "—", "rain,", "“so”"])
TEXTS = st.lists(WORDS, min_size=1, max_size=60).map(" ".join)
PLAIN = st.lists(st.integers(0, 10**6).map(lambda n: f"w{n}"), min_size=RUN_WORDS, max_size=80, unique=True)


@given(st.lists(TEXTS, max_size=6), st.integers(1, 15))
def test_runs_within_texts_are_the_runs_of_each(texts: list[str], n: int) -> None:
    together = runs_within([encoded_words(text) for text in texts], n).tolist()
    assert together == [run for text in texts for run in runs(text, n).tolist()]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLAIN, st.data(), st.lists(st.just("other"), max_size=40), st.lists(st.just("words"), max_size=40))
def test_thirteen_words_in_a_row_are_found_wherever_they_stand_and_fewer_never(
    tmp_path: Path, item: list[str], data: st.DataObject, before: list[str], after: list[str]
) -> None:
    path = tmp_path / "set.txt"
    path.write_text(" ".join(item))
    found = Decontaminator(pin([str(path)]), "")
    start = data.draw(st.integers(0, len(item) - RUN_WORDS))
    planted = item[start : start + RUN_WORDS]
    assert found.reason([" ".join([*before, *planted, *after])]) == "contaminated: set"
    if len(item) > 3 * RUN_WORDS:
        assert found.reason([" ".join([*before, *planted[:-1], *after])]) is None
    assert found.reason([" ".join([*before, *(f"x{word}" for word in item), *after])]) is None
