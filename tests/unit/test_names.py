from __future__ import annotations

import json
import pickle
import re
from importlib import resources

import pytest

from sdf.names import BANNED, LOCALES, Names

DATA = json.loads(resources.files("sdf").joinpath("data/names.json").read_text(encoding="utf-8"))
KINDS = ["given", "person", "place", "organisation"]


def hand(seed: int, locale: str | None, kind: str, n: int) -> list[str]:
    names = Names(seed, locale)
    return [getattr(names, kind)(i) for i in range(1, n + 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_a_function_of_seed_locale_and_number_alone(kind: str) -> None:
    asked_in_order = hand(7, "kenya", kind, 20)
    names = Names(7, "kenya")
    assert [getattr(names, kind)(i) for i in range(20, 0, -1)][::-1] == asked_in_order
    assert asked_in_order != hand(8, "kenya", kind, 20)


def test_the_deal_never_changes() -> None:
    """Pinned: another hand for an old seed would rename every document of every corpus."""
    names = Names(1, "poland")
    assert [names.person(1), names.place(1), names.organisation(1)] == [
        "Zbysława Jastrzębowy",
        "Topolnogóra",
        "Grzmotowicz Sweets",
    ]
    assert Names(1).locale == "japan"


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_two_hundred_names_of_a_document_differ(locale: str, kind: str) -> None:
    for seed in (0, 5):
        assert len(set(hand(seed, locale, kind, 200))) == 200


@pytest.mark.parametrize("locale", LOCALES)
def test_a_person_bears_the_given_name_of_the_same_number(locale: str) -> None:
    names = Names(3, locale)
    for i in range(1, 10):
        surname = names.person(i).replace(names.given(i), "", 1).strip()
        assert surname in DATA["locales"][locale]["surnames"]


def test_family_names_come_first_where_the_country_puts_them_first() -> None:
    assert Names(3, "korea").person(1).split(" ", 1)[1] == Names(3, "korea").given(1)
    assert Names(3, "japan").person(1).startswith(Names(3, "japan").given(1))


@pytest.mark.parametrize("locale", LOCALES)
def test_organisations_share_no_surname_or_place_with_the_first_people_and_places(locale: str) -> None:
    for seed in range(20):
        names = Names(seed, locale)
        organisations = " ".join(names.organisation(i) for i in range(1, 5))
        for i in range(1, 13):
            surname = names.person(i).replace(names.given(i), "", 1).strip()
            assert not re.search(rf"(?<!\w){re.escape(surname)}(?!\w)", organisations)
            assert not re.search(rf"(?<!\w){re.escape(names.place(i))}(?!\w)", organisations)


def test_a_missing_locale_is_drawn_and_all_are_drawn_in_time() -> None:
    assert {Names(seed).locale for seed in range(600)} == set(LOCALES)


def test_an_unknown_locale_or_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no names for locale 'polland'; nearest: poland"):
        Names(1, "polland")
    for i in (0, -1, 100_000):
        with pytest.raises(ValueError, match="names count from 1 to"):
            Names(1, "poland").given(i)


def test_names_pickle() -> None:
    names = Names(9, "peru")
    assert names.person(2) == pickle.loads(pickle.dumps(names)).person(2)


def test_every_pool_is_deep_and_no_name_is_in_two() -> None:
    assert len(LOCALES) >= 14
    towns = [s + e for pool in DATA["locales"].values() for s in pool["stems"] for e in pool["endings"]]
    assert len(set(towns)) == len(towns)
    for kind in ("given", "surnames"):
        everyone = [name for locale in LOCALES for name in DATA["locales"][locale][kind]]
        assert len(set(everyone)) == len(everyone)
        assert all(len(DATA["locales"][locale][kind]) == 36 for locale in LOCALES)
    for locale in LOCALES:
        pool = DATA["locales"][locale]
        places = {stem + ending for stem in pool["stems"] for ending in pool["endings"]}
        assert len(places) == len(pool["stems"]) * len(pool["endings"]) >= 90
        assert len(pool["organisations"]) >= 10
        assert all(name == name.strip() and "  " not in name for name in [*pool["given"], *pool["surnames"], *places])


def test_no_pool_holds_a_name_models_overuse() -> None:
    assert len(BANNED) > 300
    assert {"Elara", "Chen", "Oakhaven", "NovaTech"} <= set(BANNED)
    banned = {name.casefold() for name in BANNED}
    for locale in LOCALES:
        pool = DATA["locales"][locale]
        names = [*pool["given"], *pool["surnames"], *(Names(0, locale).place(i) for i in range(1, 91))]
        assert not {word.casefold() for name in names for word in [name, *re.split(r"[\s-]", name)]} & banned


def test_organisation_patterns_name_something_local() -> None:
    for locale in LOCALES:
        for pattern in DATA["locales"][locale]["organisations"]:
            assert set(re.findall(r"{(\w+)}", pattern)) <= {"place", "surname", "other"}
            assert "{place}" in pattern or "{surname}" in pattern


def test_a_corpus_of_documents_meets_few_people_twice() -> None:
    people = [Names(seed).person(1) for seed in range(5_000)]
    # 28 locales x 36 x 36 combinations: chance alone repeats 6 % of 5,000.
    assert len(set(people)) > 0.9 * len(people)
