"""Names of people, places and organisations, dealt from a seed instead of being asked of a model.

Left to themselves, models call everybody the same few names; here each document gets its own hand from pools of
rare names, local to a country. Places are compounded of local stems and endings and need not exist. The pools
are finite: within a large corpus a first name comes back, seldom with the same surname.
"""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal, TypedDict

from sdf.records import stream

Kind = Literal["given", "surnames", "places", "organisations"]


class _Pool(TypedDict):
    family_first: bool
    given: list[str]
    surnames: list[str]
    stems: list[str]
    endings: list[str]
    organisations: list[str]


class _Data(TypedDict):
    telling: list[str]
    banned: dict[str, list[str]]
    locales: dict[str, _Pool]


@cache
def _data() -> _Data:
    return json.loads(resources.files("sdf").joinpath("data/names.json").read_text(encoding="utf-8"))


# Countries by their English names, in the order of the data file; an axis named `locale` takes these values.
LOCALES: tuple[str, ...] = tuple(_data()["locales"])
# What language models call people, places and companies when they are not told. No pool holds one of these.
BANNED: tuple[str, ...] = tuple(sorted({name for names in _data()["banned"].values() for name in names}))
# Of these, one alone betrays a text; the others are common names too, and only a pair of them does.
TELLING: tuple[str, ...] = tuple(_data()["telling"])
COMMON_NAMES: tuple[frozenset[str], frozenset[str]] = (
    frozenset(_data()["banned"]["given"]),
    frozenset(_data()["banned"]["surnames"]),
)


class Names:
    """The names of one document: a pure function of seed and locale, and of `i`, which counts from 1.

    `person(i)` bears the first name `given(i)`, and different `i` give different names. Where a locale's own
    pool ends (after 36 people, 90 places, 10 organisations) the other locales' go on. A locale of None is drawn
    from the seed. ValueError for an unknown locale, and for an `i` below 1 or beyond all pools (about 1,000).
    """

    __slots__ = ("_dealt", "_seed", "locale")

    def __init__(self, seed: int, locale: str | None = None) -> None:
        if locale is not None and locale not in LOCALES:
            close = difflib.get_close_matches(locale, LOCALES, n=1)
            raise ValueError(f"no names for locale {locale!r}; nearest: {close[0] if close else ', '.join(LOCALES)}")
        self.locale = locale or LOCALES[stream(seed, "locale") % len(LOCALES)]
        self._seed = seed
        self._dealt: dict[Kind, list[str]] = {}

    def given(self, i: int) -> str:
        return self._name("given", i)

    def person(self, i: int) -> str:
        """First name and surname, in the order that the country keeps in English text."""
        given, surname = self.given(i), self._name("surnames", i)
        family_first = _data()["locales"][self.locale]["family_first"]
        return f"{surname} {given}" if family_first else f"{given} {surname}"

    def place(self, i: int) -> str:
        return self._name("places", i)

    def organisation(self, i: int) -> str:
        """Called after places and surnames from the far end of the hand, which `place` and `person` reach last."""
        pattern, places, surnames = self._name("organisations", i), self._hand("places"), self._hand("surnames")
        last = surnames[len(surnames) // 2 :]
        surname, other = last[2 * i % len(last)], last[(2 * i + 1) % len(last)]
        return pattern.format(place=places[-i % len(places)], surname=surname, other=other)

    def _name(self, kind: Kind, i: int) -> str:
        hand = self._hand(kind)
        if 1 <= i <= len(hand):
            return hand[i - 1]
        abroad = _abroad(self.locale, kind)
        if not 1 <= i <= len(hand) + len(abroad):
            raise ValueError(f"names count from 1 to {len(hand) + len(abroad)}, not {i}")
        return abroad[(i + self._seed) % len(abroad)]

    def _hand(self, kind: Kind) -> list[str]:
        """The locale's own names of a kind, shuffled for this document."""
        if kind not in self._dealt:
            # Of all draws, only random() is promised to stay the same from one Python to the next.
            draw = random.Random(stream(self._seed, self.locale, kind)).random
            self._dealt[kind] = sorted(_local(self.locale, kind), key=lambda _: draw())
        return self._dealt[kind]


@cache
def _local(locale: str, kind: Kind) -> Sequence[str]:
    pool = _data()["locales"][locale]
    if kind == "places":
        return [stem + ending for stem in pool["stems"] for ending in pool["endings"]]
    return pool[kind]


@cache
def _abroad(locale: str, kind: Kind) -> Sequence[str]:
    """The other locales' names, in turn, each once."""
    return list(dict.fromkeys(name for other in LOCALES if other != locale for name in _local(other, kind)))
