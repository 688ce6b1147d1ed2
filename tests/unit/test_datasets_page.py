"""The page about the datasets says what the recipe and its genres hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sdf import genres, recipe

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
GENRES = genres.discover([])
MIX = recipe.load("constitution-documents", {}).mix
# What kind of document it is: the axis of that name, or for older genres the axis that says where it appeared.
FORMS = {"blog_post": "outlet", "podcast_transcript": "show", "research_paper": "venue"}


def n_forms(key: str) -> int:
    axes = {axis.name: axis.values for axis in GENRES[key].axes}
    return len(axes[FORMS.get(key, "form")])


@pytest.mark.parametrize("key", MIX)
def test_share_and_forms_of_a_genre_are_as_told(key: str) -> None:
    assert re.search(rf"^\| `{key}` \| {MIX[key]:g} \| {n_forms(key)} \|", PAGE, re.MULTILINE)


def test_sums_are_as_told() -> None:
    assert sum(MIX.values()) == 100
    assert f"{len(MIX)} genres with {sum(map(n_forms, MIX))} forms" in PAGE
