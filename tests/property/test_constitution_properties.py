from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdf.constitution import parse
from sdf.errors import ConstitutionError

words = st.text("abcdefgh éßЖ誠AB", min_size=1, max_size=12).map(str.strip).filter(bool)
sentences = st.lists(words, min_size=4, max_size=12).map(lambda parts: " ".join(parts).capitalize() + ".")
bodies = st.lists(sentences, min_size=1, max_size=4).map("\n\n".join)
pieces = st.sampled_from(
    [
        "# Light",
        "## Log",
        "Log\n===",
        "A bare title",
        "1. item",
        "- item",
        "  - nested",
        "```",
        "***",
        "",
        "\r",
        "Read more",
    ]
)
anything = st.lists(st.one_of(pieces, words, sentences, bodies, st.text(max_size=40)), max_size=25).map("\n".join)


@example("A bare title\nLog\n===\n```\n")
@given(anything)
def test_any_text_gives_ordered_spans_of_itself_or_is_refused(text: str) -> None:
    try:
        principles = parse(text, source="test")
    except ConstitutionError:
        return
    assert principles
    for principle in principles:
        assert principle.text == text[principle.start : principle.end]
        assert principle.text.strip()
        assert principle.title.strip()
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", principle.id)
    assert all(one.end <= other.start for one, other in pairwise(principles))
    assert len({principle.id for principle in principles}) == len(principles)


@pytest.mark.parametrize("mark", ["## {}\n\n", "{}\n\n", "{}\n"])
@given(data=st.data())
def test_editing_one_section_leaves_the_others_alone(mark: str, data: st.DataObject) -> None:
    names = ["Candour", "Care and haste", "Thrift", "The log", "Fairness"]
    texts = [data.draw(bodies) for _ in names]
    edited = data.draw(st.integers(0, len(names) - 1))
    changed = [data.draw(bodies) if place == edited else text for place, text in enumerate(texts)]
    # Lines long enough to show that the text is not wrapped, whatever was drawn.
    long = "\n\n" + "The keeper weighs the oil against the boats that may be out, and says so. " * 3

    def principles(bodies: list[str]) -> list[tuple[str, str]]:
        text = "".join(f"{mark.format(name)}{body.strip()}{long}\n\n" for name, body in zip(names, bodies, strict=True))
        return [(principle.id, principle.text) for principle in parse(text, source="test")]

    before, after = principles(texts), principles(changed)
    assert [name for name, _ in before] == [name for name, _ in after]
    assert len(before) == len(names)
    assert [one for place, one in enumerate(before) if place != edited] == [
        one for place, one in enumerate(after) if place != edited
    ]
