"""Genre files: whatever bytes are loaded, the answer is a genre or an error with its line; decks deal exactly."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf.errors import GenreError
from sdf.genres import Genre, load
from sdf.genres.decks import MAX_DECK, deck

LINES = """\
---
key: note
kind: document
about: A note.
n_words: [100, 200]
dedup: body
axes:
  tone: {warm: 4, sceptical: 2}
steps:
  angle: {per: round, context: principle, returns: list, tag: ideas}
  draft: {role: write, context: full, returns: text, tag: document}
emit: {text: draft}
preamble: none
---
## step: angle
{% for idea in taken %}- {{ idea }}
{% endfor %}{{ n_items }} ideas in <ideas>.
## step: draft
{{ angle }}, {{ brief.axes.tone }}, {{ names.person(1) }}
Between <document> and </document>.
""".splitlines()


def loaded(data: bytes) -> Genre | str:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "g.md"
        path.write_bytes(data)
        try:
            return load(path)
        except GenreError as error:
            return str(error).removeprefix(str(path))


def test_the_lines_to_be_broken_are_whole() -> None:
    assert isinstance(loaded("\n".join(LINES).encode()), Genre)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_file_loads_or_names_a_line_it_has(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        cut = data.draw(st.integers(0, len(line)))
        noise = data.draw(st.text(max_size=4) | st.sampled_from(["{{", "}}", "{%", ": ", "- ", "&a ", "*a", "[", '"']))
        lines[at] = line[:cut] + noise + line[data.draw(st.integers(cut, len(line))) :]
    text = "\n".join(lines)
    found = loaded(text.encode("utf-8", "surrogatepass"))
    if isinstance(found, str):
        match = re.match(r":(\d+): \S", found)
        assert match is not None, found
        assert 1 <= int(match[1]) <= len(re.split(r"[\n\r\x85\u2028\u2029]", text)) + 1


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_politely(data: bytes) -> None:
    assert isinstance(loaded(data), str)


@given(st.dictionaries(st.text(min_size=1, max_size=3).filter(str.strip), st.integers(1, 40), min_size=1, max_size=20))
def test_whole_weights_are_dealt_in_exact_proportion(weights: dict[str, int]) -> None:
    _, cards = deck(weights)
    counts = Counter(cards)
    assert len(cards) <= MAX_DECK
    assert all(counts[value] * sum(weights.values()) == weight * len(cards) for value, weight in weights.items())


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_fractions_are_dealt_to_within_a_card(parts: list[int]) -> None:
    weights = {str(i): part / sum(parts) for i, part in enumerate(parts)}
    if min(weights.values()) < 0.01:
        return
    _, cards = deck(weights)
    counts = Counter(cards)
    assert len(cards) == 100
    assert all(abs(counts[value] - 100 * weight) < 1 for value, weight in weights.items())


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats() | st.integers() | st.none(), max_size=5))
def test_any_weights_make_a_deck_or_a_reason(weights: dict[str, float | int | None]) -> None:
    try:
        values, cards = deck(weights)
    except ValueError as error:
        assert str(error)
    else:
        assert set(values) == set(cards)


@pytest.mark.parametrize(
    "bomb", ["[" * 50_000, "{a: " * 20_000, "- " * 40_000, "? " * 40_000, '"' + "a\n" * 40_000, "a: &a [" * 9000]
)
def test_yaml_made_to_hurt_is_refused(bomb: str) -> None:
    assert isinstance(loaded(f"---\nabout: {bomb}\n---\n".encode()), str)
