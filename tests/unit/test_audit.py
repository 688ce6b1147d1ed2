from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from sdf.audit import MAX_BANS, changes
from sdf.audit.agreement import agreement, kappa
from sdf.audit.coverage import axes, chi_square_p, principles
from sdf.audit.embedding import effective, vendi
from sdf.audit.findings import FEWEST, Finding, Scale
from sdf.audit.people import names
from sdf.audit.phrases import shared_phrases
from sdf.audit.sample import Census, written
from sdf.audit.shapes import closings, openings
from sdf.audit.spread import compression, distinct, near_duplicates, topics
from sdf.audit.tics import habits
from sdf.genres import Genre
from sdf.genres.model import Axis

DRAW = random.Random(5)
WORDS = ["".join(DRAW.choices("etaoinshrdlu", k=DRAW.randint(4, 9))) for _ in range(3_000)]


def prose(n_words: int = 120, seed: int = 0) -> str:
    draw = random.Random(seed)
    sentences = [" ".join(draw.choices(WORDS, k=12)).capitalize() + "." for _ in range(n_words // 12)]
    return "\n\n".join(" ".join(sentences[at : at + 4]) for at in range(0, len(sentences), 4))


def texts(n: int = 60, **kwargs: Any) -> list[str]:
    return [prose(seed=seed, **kwargs) for seed in range(n)]


def one(findings: list[Finding], name: str) -> Finding:
    return next(each for each in findings if each.name == name)


def test_prose_has_no_habits() -> None:
    found = [*openings("d", texts()), *closings("d", texts()), shared_phrases("d", texts(), ""), *habits("d", texts())]
    found += [names("d", texts(), ()), near_duplicates("d", texts(), [str(n) for n in range(60)])]
    assert {each.verdict for each in found} == {"ok"}
    assert not any(each.bans for each in found)


@pytest.mark.parametrize(
    ("scale", "values", "verdicts"),
    [
        (Scale(0.3, 0.5, ""), (0.29, 0.3, 0.5), ("ok", "look", "bad")),
        (Scale(0.5, 0.3, ""), (0.51, 0.5, 0.3), ("ok", "look", "bad")),
    ],
)
def test_scales_rise_and_fall(scale: Scale, values: tuple[float, ...], verdicts: tuple[str, ...]) -> None:
    assert tuple(map(scale.verdict, values)) == verdicts
    assert scale.finding("x", "d", values[2], n=FEWEST - 1, bans=("y",)).verdict == "not judged"
    assert scale.finding("x", "d", None).value is None
    assert scale.finding("x", "d", values[0], bans=("y",)).bans == ()
    assert scale.finding("x", "d", values[1], bans=("y",)).bans == ("y",)


def test_openings_and_closings_by_words() -> None:
    habit = [
        f"When the lamp {text}\n\nSo it was, in the end." if n % 6 == 0 else text for n, text in enumerate(texts())
    ]
    opening, closing = openings("d", habit)[0], closings("d", habit)[0]
    assert (opening.verdict, opening.bans) == ("bad", ("texts that begin “when the lamp”",))
    assert (closing.verdict, closing.bans) == ("bad", ("texts that end “in the end”",))
    assert "10 of 60 begin “when the lamp”: When the lamp" in opening.example


@pytest.mark.parametrize(
    ("first", "shape"),
    [
        ("# On lamps", "a heading"),
        ("**On lamps**", "a bold line"),
        ("- oil", "a list"),
        ("[Music fades in]", "a stage direction"),
        ("“Lamps,” she said, were wet.", "a quotation"),
        ("Anna: the lamp is out.", "a speaker"),
        ("A Keeper of Lamps", "a short title"),
        ("What is a lamp?", "a question"),
    ],
)
def test_shapes_of_openings(first: str, shape: str) -> None:
    found = one(openings("d", [f"{first}\n\n{text}" for text in texts()]), "opening shape")
    assert (found.value, found.verdict, found.bans) == (1.0, "bad", (f"texts that begin with {shape}",))


@pytest.mark.parametrize(
    ("last", "shape"),
    [
        ("And who will tell them?", "a question"),
        ("— Anna Lind", "a signature"),
        ("- oil", "a list"),
        ("She said “so be it.”", "a quotation"),
        ("The lamp went out.", "one short sentence"),
    ],
)
def test_shapes_of_closings(last: str, shape: str) -> None:
    found = one(closings("d", [f"{text}\n\n{last}" for text in texts()]), "closing shape")
    assert (found.value, found.verdict, found.bans) == (1.0, "bad", (f"texts that end with {shape}",))


def test_a_phrase_is_shown_whole_and_grammar_and_the_constitution_are_left_out() -> None:
    tic = "a quiet note of Gratitude, though: it won't last"
    own = "The keeper keeps the lamp lit through every storm"
    shared = [f"{text} {own}. It was at the end of the day. {tic}." for text in texts()]
    found = shared_phrases("d", shared, own)
    assert (found.value, found.verdict) == (1.0, "bad")
    assert any("a quiet note of gratitude though it won't last" in ban for ban in found.bans)
    assert not any("keeper keeps" in ban for ban in found.bans)
    assert shared_phrases("d", [f"{text} It was at the end of the day." for text in texts()], "").value == 0.0


@pytest.mark.parametrize(
    ("name", "habit", "plain"),
    [
        ("dashes", "The lamp — lit — was out.", "A well-known lamp, from 4–5, -- no: so."),
        ("bold", "The **lamp** was out.", "2 ** 3 and *so*."),
        ("headings", "\n\n## Lamps\n\nOut.", "A #lamp."),
        ("lists", "\n\n1. Oil.\n2. Glass.", "In 1. place."),
        ("contrasts", "It wasn't just a lamp, but a promise.", "It was not lit."),
        ("contrasts", "This is not about oil; it's about trust.", "It is not. But so."),
    ],
)
def test_habits_of_punctuation_and_layout(name: str, habit: str, plain: str) -> None:
    assert one(habits("d", [f"{text} {habit}" for text in texts()]), name).verdict == "bad"
    if name != "dashes":
        assert one(habits("d", [f"{text} {plain}" for text in texts()]), name).value == 0.0


def test_names_but_for_those_that_belong() -> None:
    told = [f"{text} So said Elara to Tavrin in March, and the Harbour of harbour." for text in texts()]
    found = names("d", told, ("Tavrin",))
    assert (found.value, found.bans) == (1.0, ("the name Elara",))


def test_near_duplicates_are_clustered() -> None:
    some = texts()
    copies = [*some, *(f"{text} And {n} more." for n, text in enumerate(some[:6]))]
    found = near_duplicates("d", copies, [f"id{n}" for n in range(len(copies))])
    assert found.value == round(12 / 66, 4) and found.verdict == "bad"
    assert "6 clusters, the largest of 2" in found.example


def test_topics_that_are_few() -> None:
    def told(share: float) -> list[str]:
        about = [f"harbour{n if n % 100 >= share * 100 else 0} and constitution. " * 4 for n in range(200)]
        return [subject + text for subject, text in zip(about, texts(200), strict=True)]

    heap, even = (topics("d", told(share), "The constitution.") for share in (0.5, 0.0))
    assert heap.value == round(100 / 200 + 9 / 200, 4) and heap.verdict == "bad"
    assert heap.example.startswith("harbour0 (100), ")
    assert even.value == 0.05 and even.verdict == "ok"
    assert topics("d", texts(60), "").verdict == "not judged"


def test_distinct_runs_and_compression() -> None:
    many = texts(500, n_words=720)
    assert distinct("d", many).verdict == compression("d", many).verdict == "ok"
    assert distinct("d", [prose(1_200)] * 500).verdict == compression("d", [prose(1_200)] * 500).verdict == "bad"
    assert distinct("d", texts()).verdict == compression("d", texts()).verdict == "not judged"


def genre_of(weights: dict[str, int]) -> Genre:
    deck = tuple(value for value, n in weights.items() for _ in range(n))
    return Genre(
        *("note", "document", "", "", (1, 2), "none", 0, 1, None, (Axis("mood", tuple(weights), deck),), (), {}, None),
        *(None, None, None, ""),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [({"calm": 300, "cross": 100}, "ok"), ({"calm": 280, "cross": 120}, "ok"), ({"calm": 370, "cross": 30}, "bad")],
)
def test_axes_against_their_decks(counts: dict[str, int], verdict: str) -> None:
    census = Census()
    census.axes["note", "mood"] = Counter(counts)
    found = axes(census, [genre_of({"calm": 3, "cross": 1})])
    assert found.verdict == verdict
    assert verdict == "ok" or "note, mood: 'cross' in 30 texts, 100 dealt" in found.example


def test_principles_without_a_document() -> None:
    census = Census(n_documents=160, principles=Counter({"a": 80, "b": 80}))
    found = principles(census, list("abcdefghij"))
    assert (found.value, found.verdict) == (0.8, "bad") and "none: c, d, e, f, g" in found.example
    assert principles(Census(n_documents=20), list("ab")).verdict == "not judged"


@pytest.mark.parametrize(
    ("square", "degrees", "p"), [(3.841, 1, 0.05), (9.488, 4, 0.05), (29.588, 10, 0.001), (0, 3, 1)]
)
def test_chi_square(square: float, degrees: int, p: float) -> None:
    assert chi_square_p(square, degrees) == pytest.approx(p, abs=0.004)


def test_kappa_by_hand() -> None:
    assert kappa({(1, 1): 20, (2, 2): 20}) == 1
    assert kappa({(1, 1): 25, (1, 2): 25, (2, 1): 25, (2, 2): 25}) == 0
    # The textbook table: 20 + 15 agree of 50, 5 and 10 do not.
    assert kappa({(1, 1): 20, (1, 2): 5, (2, 1): 10, (2, 2): 15}) == pytest.approx(0.4)
    assert kappa({(3, 3): 50}) is None


def test_judges_of_a_sample() -> None:
    census = Census()
    for n in range(100):
        scores = json.dumps({"second": 1 + n % 5, "verdict": 5})
        row = {"id": str(n), "genre": "note", "principle": "p", "axes": "{}", "scores": scores, "text": "x"}
        census.add("documents", row, False)
    judges, *verdicts = agreement(census)
    assert judges.value == 0 and judges.verdict == "bad"
    assert "second and verdict on 100 texts: equal 20%, within 1 40%" in judges.example
    assert [each.verdict for each in verdicts] == ["ok", "bad"]
    assert [each.name for each in verdicts] == ["one verdict of note/second", "one verdict of note/verdict"]


def test_of_three_judges_no_two_findings_have_one_name() -> None:
    census = Census()
    for n in range(100):
        scores = json.dumps({"first": 1 + n % 2, "second": 1 + n % 5} | ({"third": 3} if n < 50 else {}))
        row = {"id": str(n), "genre": "note", "principle": "p", "axes": "{}", "scores": scores, "text": "x"}
        census.add("documents", row, False)
    found = {each.name: each.example for each in agreement(census)}
    assert len(found) == len(agreement(census)) == 6
    assert "judges of note/first, third" in found
    # Most of its verdicts lie beside the second's.
    assert found["one verdict of note/first"] == "first gives 1 to 50 of 100"


def test_what_a_model_is_taught_to_write() -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    assert written("chats", {"messages": turns}) == "!"
    assert written("prompts", {"messages": turns[:1]}) == "?"
    assert written("documents", {"text": "a"}) == "a"


def test_the_vendi_score_counts_what_differs() -> None:
    assert vendi(np.eye(7)) == pytest.approx(7)
    assert vendi(np.ones((7, 3))) == pytest.approx(1)
    assert vendi(np.repeat(np.eye(4), 5, axis=0)) == pytest.approx(4)


def test_effective_documents_where_a_model_is_installed() -> None:
    found = effective("d", texts())
    if "not installed" in found.reason or "no embedding model" in found.reason:
        assert found.verdict == "not judged" and "sdf[embed]" in found.reason
    else:
        copies = effective("d", [prose(seed=1)] * 60)
        assert copies.value is not None and found.value is not None and copies.value < 0.05 < found.value


def test_changes_stand_beside_what_was_found_before() -> None:
    scale = Scale(0.3, 0.5, "")
    before = {"findings": [{"name": "bold", "config": "d", "value": 0.9, "verdict": "bad"}]}
    bold, lists = changes([scale.finding("bold", "d", 0.1), scale.finding("lists", "d", 0.2)], before)
    assert (bold.before, bold.now, bold.verdict_before, bold.verdict) == (0.9, 0.1, "bad", "ok")
    assert (lists.before, lists.verdict_before) == (None, "not found")
    assert MAX_BANS == 20
