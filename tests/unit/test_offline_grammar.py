"""The grammar file compiles, every template can be spoken, and texts keep far apart."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sdf.dedup import NUM_PERM, signatures
from sdf.providers.offline.grammar import CAST_SLOTS, Grammar, article, grammar, spread
from sdf.providers.offline.writer import STORIES, Writer

SMALL = """
# a comment
== pool colour
red | amber
== pool paint
{colour} ochre | {a colour} glaze
== rule wall
{a colour} wall | the {paint} wall
== beat say
{Wall} beside {wall}.
It costs 5% more in {colour}.
== domain yard
role: owl ~ bird
record: log
matter: fire
"""


def spoken(text: str, beat: str) -> set[str]:
    small = Grammar(text)
    table = small.table(small.domains[0], {})
    forms = [form for forms in small.beats[beat].templates for form in forms]
    return {
        form.text % tuple(pool[byte] for pool in form.pools(table))
        for form in forms
        for byte in range(len(spread("ab")))
    }


def test_rules_are_inlined_and_slots_filled_with_articles_and_capitals() -> None:
    said = spoken(SMALL, "say")
    assert {"It costs 5% more in red.", "It costs 5% more in amber."} <= said
    assert any(line.startswith("An amber wall beside ") for line in said)
    assert any(line.startswith("The a red glaze wall") or line.startswith("The red ochre wall") for line in said)


@pytest.mark.parametrize(
    ("phrase", "wanted"),
    [("owl", "an owl"), ("log", "a log"), ("honest page", "an honest page"), ("uneven floor", "an uneven floor")],
)
def test_articles_go_by_sound(phrase: str, wanted: str) -> None:
    assert article(phrase) == wanted


@pytest.mark.parametrize("phrase", ["useful thing", "usual day", "unit", "one-man show"])
def test_words_that_sound_of_you_or_one_take_a(phrase: str) -> None:
    assert article(phrase) == f"a {phrase}"


def test_pools_have_a_phrase_for_every_byte() -> None:
    assert [len(spread(range(n))) for n in (1, 2, 3, 255, 256)] == [256] * 5  # type: ignore[arg-type]


def test_every_form_of_every_beat_can_be_spoken_in_every_trade() -> None:
    built_in = grammar()
    cast = {slot: [slot] for slot in CAST_SLOTS}
    for domain in built_in.domains:
        table = built_in.table(domain, cast)
        for beat in built_in.beats.values():
            for forms in beat.templates:
                for form in forms:
                    said = form.text % tuple(pool[77] for pool in form.pools(table))
                    assert not re.search(r"[{}|~]|%s", said), said


def test_plans_and_paragraphs_name_what_exists() -> None:
    built_in = grammar()
    assert all(kind in built_in.paragraphs for kinds in built_in.plans.values() for kind in kinds)
    orders = [beats for variants in built_in.paragraphs.values() for order in variants for beats in order]
    assert all(beat in built_in.beats for beats in orders for beat in beats)
    assert set(STORIES) < set(built_in.plans)


def test_trades_have_two_roles_or_more_so_that_rivals_differ() -> None:
    assert all(len({role.short for role in domain.roles}) >= 2 for domain in grammar().domains)
    assert len(grammar().domains) >= 16


def test_a_beat_walks_through_all_its_templates_before_it_returns_to_one() -> None:
    n_templates = len(grammar().beats["title"].templates)
    fixed = [re.split(r"%s", forms[0].text) for forms in grammar().beats["title"].templates]
    for seed in range(20):
        writer = Writer(b"%d" % seed)
        titles = [writer.sentence("title") for _ in range(n_templates)]
        assert len(set(titles)) == n_templates == len(fixed)


def test_a_writer_never_writes_a_sentence_twice() -> None:
    writer = Writer(b"seed")
    sentences = [writer.sentence("short") for _ in range(3000)]
    assert len(set(sentences)) == len(sentences)


def test_rivals_have_another_role_than_heroes() -> None:
    spoken_of = re.compile(r'"You are the ([\w ]+)," the ([\w ]+) said')
    sentences = [Writer(b"%d" % seed).sentence("speech") for seed in range(6000)]
    found = [match.groups() for match in map(spoken_of.search, sentences) if match]
    assert len(found) > 20
    assert not [roles for roles in found if roles[0].split()[-1] == roles[1]]


def test_documents_never_come_near_each_other() -> None:
    documents = [Writer(b"%d" % seed, ("honesty", "oversight")).prose(800) for seed in range(400)]
    marks = np.asarray(signatures(documents))
    shared = np.array([(marks[n] == marks[n + 1 :]).sum(axis=1).max() for n in range(len(marks) - 1)])
    assert shared.max() / NUM_PERM < 0.3
