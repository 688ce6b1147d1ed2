from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdf import tokens

O200K = tokens.load("o200k_base")


@given(st.lists(st.text(), max_size=8))
def test_a_batch_counts_as_its_texts_do(texts: list[str]) -> None:
    assert O200K.count(texts) == [O200K.count([text])[0] for text in texts]


@given(st.text())
def test_a_count_lies_between_zero_and_the_bytes(text: str) -> None:
    count = O200K.count([text])[0]
    assert (count == 0) == (text == "")
    assert count <= len(text.encode("utf-8", "surrogatepass"))


@given(st.text(alphabet=" \n\tab."), st.integers(1, 5))
def test_parts_lose_nothing_and_bound_every_run(text: str, longest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "MAX_SPACES", longest)
        parts = list(tokens._parts(text))
    assert "".join(parts) == text
    assert all(len(run) <= longest for part in parts for run in tokens.re.findall(r"\s+", part))
