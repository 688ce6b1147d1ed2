"""A seeded grammar that writes readable English prose at tens of megabytes a second.

`data/grammar.txt` holds pools of phrases, rules, sentence templates grouped by the beat they serve, and
plans that order beats into paragraphs and paragraphs into documents. Loading flattens each template into
`%`-forms whose slots are pools of exactly 256 phrases, so that a sentence is one C-level `map` of random
bytes over pools. The trade-off: nothing is decided by meaning, so the text is grammatical, coherent in
its cast, place and trade, and on the prompt's themes, yet argues nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from operator import getitem, length_hint
from typing import NamedTuple

from sdf.records import stream

# One byte picks one phrase.
POOL_SIZE = 256
# A template that uses rules is flattened this many times, with other choices of alternatives.
N_VARIANTS = 8
# Random bytes drawn at a time; no sentence uses more than MIN_BYTES of them.
BLOCK_BYTES, MIN_BYTES = 1024, 64
# Below this many words left, one closing sentence ends the text: the best of N_TRIES by length.
LAST_WORDS, N_TRIES = 26, 16

SLOT = re.compile(r"\{(?:([aA]) )?(\w+)\}")
Pool = tuple[str, ...]


class Form(NamedTuple):
    """A flat template: `text % phrases`, one phrase from each of the pools numbered in `slots`."""

    text: str
    slots: tuple[int, ...]


class Beat(NamedTuple):
    """The templates that serve one purpose; `strides` are coprime to their number, to walk them all in any order."""

    templates: tuple[tuple[Form, ...], ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """What stays fixed throughout a text: who, where, in which trade, and the themes that recur."""

    values: Mapping[str, Sequence[str]]
    domain: str


def article(phrase: str) -> str:
    """`phrase` behind its indefinite article, chosen by sound for the words this grammar uses."""
    silent = phrase.startswith(("hour", "honest", "heir", "honour"))
    spoken_you = phrase.startswith(("uni", "use", "usu", "one", "once", "eu"))
    return f"{'an' if silent or (phrase[0] in 'aeiou' and not spoken_you) else 'a'} {phrase}"


def capital(phrase: str) -> str:
    return phrase[0].upper() + phrase[1:]


def spread(phrases: Sequence[str]) -> Pool:
    """Exactly POOL_SIZE phrases, each as often as the next to within one."""
    return tuple(itertools.islice(itertools.cycle(phrases), POOL_SIZE))


class Sections(NamedTuple):
    """The grammar file, read: every line of every section, by kind and name."""

    pools: dict[str, list[str]]
    rules: dict[str, list[str]]
    beats: dict[str, list[str]]
    domains: dict[str, dict[str, list[str]]]
    paragraphs: dict[str, list[list[str]]]
    plans: dict[str, list[str]]


def read_sections(text: str) -> Sections:
    sections = Sections({}, {}, {}, {}, {}, {})
    kind = name = ""
    for line in filter(None, (line.split("#")[0].strip() for line in text.splitlines())):
        if line.startswith("== "):
            kind, name = line[3:].split()
            continue
        if kind in {"pool", "rule"}:
            target = sections.pools if kind == "pool" else sections.rules
            target.setdefault(name, []).extend(entry.strip() for entry in line.split("|") if entry.strip())
        elif kind == "beat":
            sections.beats.setdefault(name, []).append(line)
        elif kind == "domain":
            key, _, entries = line.partition(":")
            sections.domains.setdefault(name, {})[key] = [entry.strip() for entry in entries.split("|")]
        elif kind == "paragraph":
            sections.paragraphs.setdefault(name, []).append(line.split())
        else:
            sections.plans[name] = line.split()
    return sections


class Grammar:
    """The compiled grammar: immutable after construction, shared by every text of the process."""

    def __init__(self, text: str) -> None:
        self.sections = read_sections(text)
        self.domains = tuple(sorted(self.sections.domains))
        self._ids: dict[tuple[str, str], int] = {}
        self._pools: dict[str, Pool] = {name: self._expanded(name) for name in self.sections.pools}
        self.beats = {name: self._beat(lines) for name, lines in self.sections.beats.items()}
        self.paragraphs = self.sections.paragraphs
        self.plans = tuple(self.sections.plans[name] for name in sorted(self.sections.plans))
        self._tables = {name: self._table(domain) for name, domain in self.sections.domains.items()}

    def pool(self, name: str) -> Pool:
        return self._pools[name]

    def table(self, cast: Cast) -> list[Pool]:
        """Every slot's pool, with the slots of the cast and its domain bound to it."""
        table = self._tables[cast.domain].copy()
        for (name, how), slot in self._ids.items():
            if name in cast.values:
                table[slot] = spread([MODIFIERS[how](value) for value in cast.values[name]])
        return table

    def _expanded(self, name: str) -> Pool:
        """The pool's entries with their own slots filled, POOL_SIZE of them, each distinct while that is possible."""
        entries = self.sections.pools[name]
        if not any("{" in entry for entry in entries):
            return spread(entries)
        draws = (
            self._filled(entries[n % len(entries)], stream("pool", name, n)) for n in itertools.count() if n < 4096
        )
        return spread(list(itertools.islice(dict.fromkeys(itertools.islice(draws, 2048)), POOL_SIZE)))

    def _filled(self, entry: str, seed: int) -> str:
        def fill(match: re.Match[str]) -> str:
            options = self.sections.pools.get(match[2]) or self.sections.rules[match[2]]
            chosen = options[stream(seed, match.start(), match[2]) % len(options)]
            phrase = self._filled(chosen, stream(seed, match.start(), "in"))
            return article(phrase) if match[1] else phrase

        return SLOT.sub(fill, entry)

    def _beat(self, lines: Sequence[str]) -> Beat:
        templates = tuple(self._variants(line) for line in lines)
        n = len(templates)
        return Beat(templates, tuple(step for step in range(1, n + 1) if math.gcd(step, n) == 1))

    def _variants(self, line: str) -> tuple[Form, ...]:
        flat = dict.fromkeys(self._inlined(line, stream("variant", line, n)) for n in range(N_VARIANTS))
        return tuple(self._form(text) for text in flat)

    def _inlined(self, line: str, seed: int) -> str:
        """`line` with every rule replaced by one of its alternatives, rules within rules included."""

        def choose(match: re.Match[str]) -> str:
            name = match[2] if match[2] in self.sections.rules else match[2].lower()
            if name not in self.sections.rules:
                return match[0]
            options = self.sections.rules[name]
            chosen = self._inlined(
                options[stream(seed, match.start()) % len(options)], stream(seed, match.start(), "in")
            )
            return chosen if name == match[2] else capital_template(chosen)

        return SLOT.sub(choose, line)

    def _form(self, line: str) -> Form:
        slots = tuple(self._slot(match) for match in SLOT.finditer(line))
        return Form(SLOT.sub("%s", line.replace("%", "%%")), slots)

    def _slot(self, match: re.Match[str]) -> int:
        name = match[2].lower()
        how = f"{match[1] or ''}{'^' if match[2][0].isupper() else ''}"
        return self._ids.setdefault((name, how), len(self._ids))

    def _table(self, domain: Mapping[str, Sequence[str]]) -> list[Pool]:
        table: list[Pool] = []
        for name, how in self._ids:
            phrases = domain.get(name) or self._pools.get(name) or CAST_SLOTS[name]
            table.append(spread([MODIFIERS[how](phrase) for phrase in phrases]))
        return table


MODIFIERS: Mapping[str, Callable[[str], str]] = {
    "": lambda phrase: phrase,
    "^": capital,
    "a": article,
    "A": lambda phrase: capital(article(phrase)),
}
# Slots bound by the cast of each text; the values here only keep an unbound table readable.
CAST_SLOTS: Mapping[str, Sequence[str]] = {
    name: (name,)
    for name in (
        "hero",
        "herofull",
        "he",
        "him",
        "his",
        "rival",
        "rivalfull",
        "place",
        "org",
        "theme",
        "helper",
        "role",
        "roletwo",
    )
}


def capital_template(line: str) -> str:
    """`line` with its first letter capitalised, inside the slot when it starts with one."""
    if not line.startswith("{"):
        return capital(line)
    match = SLOT.match(line)
    assert match is not None
    first = f"{{A {match[2]}}}" if match[1] else f"{{{capital(match[2])}}}"
    return first + line[match.end() :]


@cache
def grammar() -> Grammar:
    """The built-in grammar, compiled at first use (about 50 ms)."""
    return Grammar(files("sdf").joinpath("data", "grammar.txt").read_text(encoding="utf-8"))


class Writer:
    """Writes one text after another from one seed; equal seeds, themes and names give equal texts."""

    def __init__(self, seed: bytes, themes: Sequence[str] = (), names: Sequence[str] = ()) -> None:
        self._seed, self._block = seed, 0
        self._bytes: Iterator[int] = iter(b"")
        self._grammar = grammar()
        self._seen: set[str] = set()
        self._walks: dict[str, tuple[int, int]] = {}
        self._pools = self._grammar.table(self._cast(themes, names))

    def byte(self) -> int:
        """The next 8 random bits."""
        if length_hint(self._bytes) < MIN_BYTES:
            self._block += 1
            block = hashlib.shake_128(self._seed + self._block.to_bytes(4, "little")).digest(BLOCK_BYTES)
            self._bytes = iter(block)
        return next(self._bytes)

    def pick(self, phrases: Sequence[str]) -> str:
        return phrases[(self.byte() << 8 | self.byte()) % len(phrases)]

    def sentence(self, beat: str) -> str:
        """A sentence of `beat` that this writer has not written before."""
        templates, strides = self._grammar.beats[beat]
        for _ in range(64):
            at, stride = self._walks.get(beat) or (self.byte(), strides[self.byte() % len(strides)])
            at = (at + stride) % len(templates)
            self._walks[beat] = at, stride
            forms = templates[at]
            text, slots = forms[self.byte() % len(forms)]
            sentence = text % tuple(map(getitem, map(self._pools.__getitem__, slots), self._bytes))
            if sentence not in self._seen:
                break
        self._seen.add(sentence)
        return sentence

    def prose(self, n_words: int, *, title: bool = False) -> str:
        """Paragraphs of `n_words` words to within a tenth (three words below thirty); ends with a full stop."""
        plan = self._grammar.plans[self.byte() % len(self._grammar.plans)]
        paragraphs = [self.sentence("title")] if title else []
        left = n_words - sum(len(line.split()) for line in paragraphs)
        for kind in itertools.chain(plan, itertools.cycle(plan[1:])):
            sentences: list[str] = []
            for beat in self._beats(kind):
                if left <= LAST_WORDS:
                    break
                sentences.append(self.sentence(beat))
                left -= sentences[-1].count(" ") + 1
            if left <= LAST_WORDS and (left > 3 or not (sentences or paragraphs)):
                sentences.append(self.fitting("close", left))
            if sentences:
                paragraphs.append(" ".join(sentences))
            if left <= LAST_WORDS:
                return "\n\n".join(paragraphs)
        raise AssertionError("a plan is cycled for ever")

    def fitting(self, beat: str, n_words: int) -> str:
        """Of several sentences of `beat`, the one whose length is nearest to `n_words`."""
        tries = [self.sentence(beat) for _ in range(N_TRIES)]
        return min(tries, key=lambda sentence: abs(sentence.count(" ") + 1 - n_words))

    def _beats(self, kind: str) -> Sequence[str]:
        variants = self._grammar.paragraphs[kind]
        return variants[self.byte() % len(variants)]

    def _cast(self, themes: Sequence[str], names: Sequence[str]) -> Cast:
        pool = self._grammar.pool
        full = [*names[:2], *(f"{self.pick(pool('given'))} {self.pick(pool('surname'))}" for _ in range(2))]
        town = self.pick(pool("town"))
        he, him, his = ("she", "her", "her") if self.byte() % 2 else ("he", "him", "his")
        values = {
            "hero": [full[0].split()[0]],
            "herofull": [full[0]],
            "rival": [full[1].split()[0]],
            "rivalfull": [full[1]],
            "he": [he],
            "him": [him],
            "his": [his],
            "place": [town],
            "org": [f"the {town} {self.pick(pool('body'))}"],
            "helper": [self.pick(pool("assistants"))],
            "theme": list(themes) or [self.pick(pool("themes")) for _ in range(3)],
        }
        domain = self._grammar.domains[self.byte() % len(self._grammar.domains)]
        words = self._grammar.sections.domains[domain]
        for slot, name in (("role", "role"), ("roletwo", "role"), ("record", "record"), ("matter", "matter")):
            values[slot] = [self.pick(words[name])]
        return Cast(values, domain)
