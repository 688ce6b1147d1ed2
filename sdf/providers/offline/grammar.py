"""The offline provider's grammar, read from `data/grammar.txt` and compiled for speed.

The file holds pools of phrases, rules, sentence templates grouped by the beat they serve, and orders of beats
and paragraphs. Compiling flattens each template into `%`-forms whose slots are pools of exactly 256 phrases, so
that a sentence is one C-level map of random bytes over pools. The trade-off: nothing is decided by meaning, so
the text keeps its cast, place and trade and stays on its themes, yet argues nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from operator import itemgetter
from typing import NamedTuple

from sdf.records import stream

# One byte picks one phrase.
POOL_SIZE = 256
# A template that uses rules is flattened this often, with other alternatives each time.
N_VARIANTS = 12

SLOT = re.compile(r"\{(?:([aA]) )?(\w+)\}")
SECTION_KINDS = ("pool", "rule", "beat", "paragraph", "plan", "domain")
# Slots that each text binds to its own cast; their pools stand empty in a domain's table.
CAST_SLOTS = frozenset(
    [
        "hero",
        "herofull",
        "he",
        "him",
        "his",
        "rival",
        "rivalfull",
        "rhe",
        "rhim",
        "role",
        "roletwo",
        "place",
        "org",
        "orgfull",
        "helper",
        "theme",
        "record",
        "recordfull",
        "matter",
        "matterfull",
    ]
)

Pool = tuple[str, ...]
Sections = dict[str, dict[str, list[str]]]


class Form(NamedTuple):
    """A flat template: `text % phrases`, one phrase from each of `pools(table)`."""

    text: str
    pools: Callable[[Sequence[Pool]], tuple[Pool, ...]]


class Beat(NamedTuple):
    """The templates that serve one purpose; each stride is coprime to their number, and so walks them all."""

    templates: tuple[tuple[Form, ...], ...]
    strides: tuple[int, ...]


class Named(NamedTuple):
    """What a thing of a trade is called at first, and later on."""

    full: str
    short: str


@dataclass(frozen=True, slots=True)
class Domain:
    """The words of one trade, and its pools by slot number."""

    roles: tuple[Named, ...]
    records: tuple[Named, ...]
    matters: tuple[Named, ...]
    table: tuple[Pool, ...]


class Grammar:
    """Compiled and never changed: `beats`, `paragraphs` (beat names, in paragraphs, by kind), `plans`, `domains`."""

    def __init__(self, text: str) -> None:
        self._sections = read_sections(text)
        self._slots: dict[tuple[str, str], int] = {}
        # One tuple for all trades: what stays in the processor's cache decides the speed.
        self._shared: dict[tuple[str, str], Pool] = {}
        self._pools = {name: self._expanded(name) for name in self._sections["pool"]}
        self.beats = {name: self._beat(lines) for name, lines in self._sections["beat"].items()}
        self.paragraphs = {kind: tuple(map(_orders, lines)) for kind, lines in self._sections["paragraph"].items()}
        self.plans = {name: tuple(" ".join(lines).split()) for name, lines in self._sections["plan"].items()}
        self.domains = tuple(self._domain(lines) for _, lines in sorted(self._sections["domain"].items()))
        self._bound = tuple((slot, *key) for key, slot in self._slots.items() if key[0] in CAST_SLOTS)

    def pool(self, name: str) -> Pool:
        return self._pools[name]

    def table(self, domain: Domain, cast: Mapping[str, Sequence[str]]) -> list[Pool]:
        """Every slot's pool by number, the cast's slots bound to what `cast` calls them."""
        table = list(domain.table)
        for slot, name, how in self._bound:
            if name in cast:
                table[slot] = spread([MODIFIERS[how](phrase) for phrase in cast[name]])
        return table

    def _expanded(self, name: str) -> Pool:
        """The pool's phrases with their own slots filled: POOL_SIZE of them, distinct where there are so many."""
        entries = self._sections["pool"][name]
        if not any("{" in entry for entry in entries):
            return spread(entries)
        draws = (self._filled(entries[n % len(entries)], stream(name, n)) for n in range(4 * POOL_SIZE))
        return spread(list(dict.fromkeys(draws))[:POOL_SIZE])

    def _filled(self, entry: str, seed: int) -> str:
        def fill(match: re.Match[str]) -> str:
            options = self._sections["pool"][match[2]]
            at = stream(seed, match.start())
            phrase = self._filled(options[at % len(options)], at)
            return MODIFIERS[match[1] or ""](phrase)

        return SLOT.sub(fill, entry)

    def _beat(self, lines: Sequence[str]) -> Beat:
        templates = tuple(tuple(self._variants(line)) for line in lines)
        n = len(templates)
        return Beat(templates, tuple(step for step in range(1, n + 1) if math.gcd(step, n) == 1))

    def _variants(self, line: str) -> Iterator[Form]:
        for text in dict.fromkeys(self._inlined(line, stream(line, n)) for n in range(N_VARIANTS)):
            slots = tuple(self._slot(match) for match in SLOT.finditer(text))
            yield Form(SLOT.sub("%s", text.replace("%", "%%")), _getter(slots))

    def _inlined(self, line: str, seed: int) -> str:
        """`line` with each rule replaced by one of its alternatives, and the rules within that."""

        def choose(match: re.Match[str]) -> str:
            options = self._sections["rule"].get(match[2].lower())
            if options is None:
                return match[0]
            at = stream(seed, match.start())
            chosen = self._inlined(options[at % len(options)], at)
            return _capital_template(chosen) if match[2][0].isupper() else chosen

        return SLOT.sub(choose, line)

    def _slot(self, match: re.Match[str]) -> int:
        name = match[2].lower()
        how = match[1] or ("^" if match[2] != name else "")
        return self._slots.setdefault((name, how), len(self._slots))

    def _domain(self, lines: Sequence[str]) -> Domain:
        words = {key: _named(phrases) for key, _, phrases in (line.partition(": ") for line in lines)}
        own = {key: [named.full for named in words[key]] for key in words}
        own |= {"rolename": own["role"]} | {f"any{key}": own[key] for key in ("record", "matter")}
        table = tuple(self._bound_to(own, name, how) for name, how in self._slots)
        return Domain(words["role"], words["record"], words["matter"], table)

    def _bound_to(self, own: Mapping[str, Sequence[str]], name: str, how: str) -> Pool:
        if name in CAST_SLOTS:
            return ()
        if name in own:
            return spread([MODIFIERS[how](phrase) for phrase in own[name]])
        if (name, how) not in self._shared:
            self._shared[name, how] = tuple(MODIFIERS[how](phrase) for phrase in self._pools[name])
        return self._shared[name, how]


def read_sections(text: str) -> Sections:
    """Section kind -> name -> its entries: phrases of pools and rules, lines of the others."""
    sections: Sections = {kind: {} for kind in SECTION_KINDS}
    kind, entries = "", list[str]()
    for line in text.splitlines():
        if line.startswith("== "):
            _, kind, name = line.split()
            entries = sections[kind].setdefault(name, [])
        elif line and not line.startswith("#"):
            entries.extend(_phrases(line) if kind in {"pool", "rule"} else [line])
    return sections


def _phrases(line: str) -> list[str]:
    return [phrase.strip() for phrase in line.split("|")]


def _named(phrases: str) -> tuple[Named, ...]:
    parts = (phrase.partition(" ~ ") for phrase in _phrases(phrases))
    return tuple(Named(full, short or full) for full, _, short in parts)


def _orders(line: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(part.split()) for part in line.split("/"))


def _getter(slots: tuple[int, ...]) -> Callable[[Sequence[Pool]], tuple[Pool, ...]]:
    """Picks the pools of `slots` out of a table: in C, where there are two or more."""
    return itemgetter(*slots) if len(slots) > 1 else lambda table: tuple(table[slot] for slot in slots)


def spread(phrases: Sequence[str]) -> Pool:
    """Exactly POOL_SIZE phrases, each as often as any other to within one."""
    return (tuple(phrases) * -(-POOL_SIZE // len(phrases)))[:POOL_SIZE]


def article(phrase: str) -> str:
    """`phrase` behind its indefinite article, chosen by sound for the words this grammar knows."""
    is_silent_h = phrase.startswith(("hour", "honest", "heir"))
    says_you_or_one = phrase.startswith(("uni", "use", "usu", "one", "eu"))
    return f"{'an' if is_silent_h or (phrase[0] in 'aeiou' and not says_you_or_one) else 'a'} {phrase}"


def capital(phrase: str) -> str:
    return phrase[0].upper() + phrase[1:]


MODIFIERS: Mapping[str, Callable[[str], str]] = {
    "": str,
    "^": capital,
    "a": article,
    "A": lambda phrase: capital(article(phrase)),
}


def _capital_template(line: str) -> str:
    """`line` with its first letter a capital, inside its slot when it begins with one."""
    match = SLOT.match(line)
    if match is None:
        return capital(line)
    first = f"{{A {match[2]}}}" if match[1] else f"{{{capital(match[2])}}}"
    return first + line[match.end() :]


@cache
def grammar() -> Grammar:
    """The built-in grammar, compiled once per process."""
    return Grammar((files("sdf") / "data" / "grammar.txt").read_text(encoding="utf-8"))
