"""One writer writes one answer: prose of a given length, list items, verdicts, all from one seed.

Every choice is a byte of a SHAKE stream over the seed, so a text is a pure function of seed, themes and names
on every machine. A writer never writes the same sentence twice.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from operator import getitem, length_hint

from sdf.providers.offline.grammar import Domain, Named, Pool, grammar
from sdf.words import spaced_words

# Random bytes drawn at once; no sentence uses more than MIN_BYTES.
BLOCK_BYTES, MIN_BYTES = 1024, 64
# With fewer words left than this, one closing sentence ends the text.
LAST_WORDS = 26
# Sentences written to find one of a fitting length. Only below so many words does a tenth need the many tries,
# and a choice before the last sentence too.
N_TRIES, N_SHORT_TRIES, NEEDS_FITTING = 3, 20, 200
# The longest text that is one short sentence, and the lengths of an item.
SHORT_WORDS, ITEM_WORDS = 9, range(8, 26)
# Attempts at a new sentence; the smallest beat has thousands.
N_ATTEMPTS = 100
# Of these, those for a sentence without a banned phrase. Where none can do without it, it is written all the same.
N_CAREFUL = 80


class Writer:
    """Writes from `seed`: about `themes`, with the people of `names` first where the cast has a part for them, and
    without a sentence that makes one of `bans` (as `spaced_words` gives phrases)."""

    def __init__(
        self, seed: bytes, themes: Sequence[str] = (), names: Sequence[str] = (), bans: Sequence[bytes] = ()
    ) -> None:
        self._grammar = grammar()
        self._seed, self._n_blocks = seed, 0
        self._bytes: Iterator[int] = iter(b"")
        self._seen: set[str] = set()
        self._bans, self._last = bans, b""
        self._walks: dict[str, tuple[int, int]] = {}
        pool = self._grammar.pool
        self._themes = themes or [self.pick(pool("themes")) for _ in range(3)]
        self._helper = self.pick(pool("assistants"))
        domains = self._grammar.domains
        domain = domains[self.byte() % len(domains)]
        self._story = self._grammar.table(domain, self._cast(domain, names))
        self._ideas: dict[int, list[Pool]] = {}

    def byte(self) -> int:
        """The next 8 random bits."""
        return next(self._ready())

    def prose(self, n_words: int, *, plan: str | None = None, end: str = "close", title: bool = False) -> str:
        """Paragraphs of `n_words` words to within a tenth (three words below thirty), ending in a full stop.

        `plan` names the order of paragraphs (None: one is drawn), `end` the beat that the last sentence serves;
        with `title` the first line is one, without a full stop.
        """
        paragraphs = [self.sentence("title")] if title else []
        left = n_words - sum(line.count(" ") + 1 for line in paragraphs)
        n_tries = N_SHORT_TRIES if n_words < NEEDS_FITTING else N_TRIES
        for beats in self._paragraphs(plan):
            sentences: list[str] = []
            for beat in beats:
                if left <= LAST_WORDS:
                    break
                is_fitted = n_words < NEEDS_FITTING and left <= 2 * LAST_WORDS
                sentences.append(self.fitting(beat, left // 2, n_tries // 3) if is_fitted else self.sentence(beat))
                left -= sentences[-1].count(" ") + 1
            if sentences:
                paragraphs.append(" ".join(sentences))
            if left <= LAST_WORDS:
                break
        if left > 3 or not paragraphs or not paragraphs[-1].endswith("."):
            paragraphs.append(self.fitting(end if n_words > SHORT_WORDS else "short", left, n_tries))
        return "\n\n".join(paragraphs)

    def sentence(self, beat: str) -> str:
        """A sentence of `beat` that this writer has not written before."""
        return self._new(beat, self._story)

    def item(self) -> str:
        """One idea in one line of 8 to 25 words, of any trade: not one this writer has had before."""
        domains = self._grammar.domains
        n = self.byte() % len(domains)
        if n not in self._ideas:
            cast = {"theme": self._themes, "helper": [self._helper]}
            self._ideas[n] = self._grammar.table(domains[n], cast)
        while True:
            idea = self._new("item", self._ideas[n])
            if idea.count(" ") + 1 in ITEM_WORDS:
                return idea

    def fitting(self, beat: str, n_words: int, n_tries: int) -> str:
        """Of `n_tries` new sentences of `beat`, the one whose length is nearest to `n_words`."""
        tries = [self.sentence(beat) for _ in range(n_tries)]
        return min(tries, key=lambda sentence: abs(sentence.count(" ") + 1 - n_words))

    def pick(self, phrases: Sequence[str]) -> str:
        return phrases[(self.byte() << 8 | self.byte()) % len(phrases)]

    def _new(self, beat: str, table: list[Pool]) -> str:
        templates, strides = self._grammar.beats[beat]
        at, stride = self._walks.get(beat) or (self.byte(), strides[self.byte() % len(strides)])
        for attempt in range(N_ATTEMPTS):
            ready = self._ready()
            at = (at + stride) % len(templates)
            forms = templates[at]
            text, pools = forms[next(ready) % len(forms)]
            sentence = text % tuple(map(getitem, pools(table), ready))
            if sentence not in self._seen and not (self._bans and attempt < N_CAREFUL and self._is_banned(sentence)):
                self._seen.add(sentence)
                self._walks[beat] = at, stride
                return sentence
        raise RuntimeError(f"the grammar's beat {beat!r} has run out of sentences; add templates to grammar.txt")

    def _is_banned(self, sentence: str) -> bool:
        """By itself, or across the full stop behind the sentence that was found last."""
        own = spaced_words(sentence)
        both = self._last + own[1:]
        if any(phrase in both for phrase in self._bans):
            return True
        self._last = own
        return False

    def _ready(self) -> Iterator[int]:
        """Random bytes, at least MIN_BYTES of them."""
        if length_hint(self._bytes) < MIN_BYTES:
            self._n_blocks += 1
            self._bytes = iter(hashlib.shake_128(self._seed + b"%d" % self._n_blocks).digest(BLOCK_BYTES))
        return self._bytes

    def _paragraphs(self, plan: str | None) -> Iterator[Sequence[str]]:
        """Beats by paragraph, endlessly: the plan once, then its body round and round."""
        plans = self._grammar.plans
        kinds = plans[plan] if plan else plans[self.pick(STORIES)]
        for kind in itertools.chain(kinds, itertools.cycle(kinds[1:] or kinds)):
            orders = self._grammar.paragraphs[kind]
            yield from orders[self.byte() % len(orders)]

    def _cast(self, domain: Domain, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
        pool = self._grammar.pool
        full = [*names[:2], *(f"{self.pick(pool('given'))} {self.pick(pool('surname'))}" for _ in range(2))]
        hero, rival = (name.split()[0] for name in full[:2])
        # Different pronouns keep the two apart.
        (he, him, his), (rhe, rhim, _) = PRONOUNS if self.byte() % 2 else PRONOUNS[::-1]
        n = self.byte()
        role, roletwo = (domain.roles[(n + k) % len(domain.roles)] for k in range(2))
        record = domain.records[self.byte() % len(domain.records)]
        matter = domain.matters[self.byte() % len(domain.matters)]
        place, body = self.pick(pool("town")), self.pick(pool("body"))
        return {
            "hero": [hero, hero, hero, f"the {role.short}"],
            "rival": [rival, rival, rival, f"the {roletwo.short}"],
            "herofull": [full[0]],
            "rivalfull": [full[1]],
            "he": [he],
            "him": [him],
            "his": [his],
            "rhe": [rhe],
            "rhim": [rhim],
            "role": [role.full],
            "roletwo": [roletwo.full],
            "place": [place],
            "org": [f"the {body}"],
            "orgfull": [f"the {place} {body}"],
            "helper": [self._helper],
            "theme": self._themes,
            **_both("record", record),
            **_both("matter", matter),
        }


PRONOUNS = (("she", "her", "her"), ("he", "him", "his"))
# Plans for prose nobody asked to be a question or an answer.
STORIES = ("essay", "story", "report", "dispute", "sketch")


def _both(slot: str, named: Named) -> Mapping[str, Sequence[str]]:
    """Mentions of a thing: by either name, and in full where it is introduced."""
    return {slot: [named.full, named.short], f"{slot}full": [named.full]}
