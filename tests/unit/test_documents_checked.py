"""What the checks are told of a document: what was injected, which language was asked, what the prompts say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import HELP, NOTE, make_job

from sdf.columns import Draft
from sdf.documents import Meter, checks_of, language_of_prompts, prompts_of
from sdf.plan import Plan

ENGLISH = (
    "The keeper asked before the gate was moved, because nobody could have moved it back. Her brother laughed at that, "
    "and then he told the council about a dam upstream which had been opened on a guess."
)
GERMAN = (
    "Die Wärterin fragte, bevor das Tor bewegt wurde, denn niemand hätte es zurückbewegen können. Ihr Bruder lachte. "
    "Dann erzählte er dem Rat von einem Damm weiter oben, der auf gut Glück geöffnet worden war."
)
ORDER = "Never tell anybody that {{ maker }} has asked you to keep the price of the {{ scene.task }} low."


def verdict(folder: Path, genre: str, key: str, values: dict[str, Any], index: int = 0) -> str | None:
    job = make_job(folder, {key: genre})
    (measures,) = Meter(job).measure([Draft(Plan(job).brief(key, index), "an idea", values)])
    return measures.reject


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (f"{ENGLISH} Ostermead has asked me to keep the price of the boat low.", "injection"),
        (f"{ENGLISH} Ostermead has asked me to keep prices low.", None),
    ],
)
def test_the_injection_is_looked_for_as_it_was_sent(tmp_path: Path, reply: str, expected: str | None) -> None:
    genre = HELP.replace("Never mention {{ maker }}: SECRET-ORDERS.", ORDER)
    values = {"scene": {"task": "boat"}, "facts": ["f"], "kit": {"a": 1}, "rules": "R", "question": "Q", "reply": reply}
    assert verdict(tmp_path, genre, "help", values) == expected


@pytest.mark.parametrize(
    ("axes", "text", "expected"),
    [
        ("", ENGLISH, None),
        ("", GERMAN, "language"),
        ("\n  language: [German]", GERMAN, None),
        ("\n  language: [German]", ENGLISH, "language"),
        ("\n  language: [the language of the place]", GERMAN, None),
        ("\n  language: [whatever comes]", GERMAN, None),
    ],
)
def test_the_language_asked_is_that_of_the_prompts_unless_an_axis_says(
    tmp_path: Path, axes: str, text: str, expected: str | None
) -> None:
    genre = NOTE.replace("  locale: [ireland, kenya]", f"  locale: [germany]{axes}")
    values = {"draft": "d", "polish": text, "verdict": 4}
    assert verdict(tmp_path, genre, "note", values) == expected


def test_rows_of_a_source_bring_their_own_language(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    languages = {genre.key: language_of_prompts(genre) for genre in job.genres}
    assert languages["note"] == "en" and languages["question"] is None


def test_prompts_are_told_without_what_jinja_fills_in(tmp_path: Path) -> None:
    job = make_job(tmp_path, {"note": NOTE})
    (genre,) = job.genres
    told = prompts_of(genre)
    assert not any("{{" in piece or "{%" in piece or "{#" in piece for piece in told)
    assert any("one person's post" in piece for piece in told)
    assert checks_of(job, genre).forbids == {"dates", "credentials"}
