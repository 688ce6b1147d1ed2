"""What a prompt is about, read cheaply: themes and people for the grammar to write on.

A few regular expressions over the head of the body, and over the prefix once; a theme missed costs only relevance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache, lru_cache

from sdf.providers.offline.grammar import grammar
from sdf.providers.offline.writer import Writer
from sdf.records import Prefix, Request, digest
from sdf.words import spaced_words

# In texts on other topics than the grammar knows, words with these endings mostly fit where it says "theme".
_ENDINGS = ("esty", "ity", "ness", "ency", "ancy", "ship", "ence", "ance", "mony", "acy")
_WORD = re.compile(r"[a-z]{4,}")
_NAME = re.compile(r"(?<=[a-z,:;] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,}(?:-[A-Z][a-z]+)?)+\b")
# A list of what is not to be written, as the built-in preamble gives it.
_BANS = re.compile(r"\bis\s+wanted: ([^\n]+)")
N_THEMES = 4
# The head of a body says what is asked; a draft pasted after it would only take time to read.
BODY_WINDOW, PREFIX_WINDOW = 2000, 20_000


def themes_of(body: str, prefix: Prefix) -> tuple[str, ...]:
    """Up to N_THEMES nouns, most frequent first: topics of the body, else of the prefix, else likely words."""
    return _topics(body) or _topics_of_prefix(prefix) or _most_frequent(filter(_is_likely, _words(body)))


def _topics(text: str) -> tuple[str, ...]:
    return _most_frequent(filter(_known_topics().__contains__, _words(text)))


@lru_cache(maxsize=4096)
def _topics_of_prefix(prefix: Prefix) -> tuple[str, ...]:
    return _topics(prefix.text[:PREFIX_WINDOW])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _is_likely(word: str) -> bool:
    return len(word) > 6 and word.endswith(_ENDINGS)


def _most_frequent(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for word, _ in Counter(words).most_common(N_THEMES))


@cache
def _known_topics() -> frozenset[str]:
    return frozenset(grammar().pool("topics"))


def names_of(text: str) -> tuple[str, ...]:
    """Capitalised names of two or more words within a sentence, each once, in order."""
    return tuple(dict.fromkeys(_NAME.findall(text)))


@lru_cache(maxsize=4096)
def bans_of(prefix: Prefix) -> tuple[bytes, ...]:
    """Phrases that the prefix asks to leave out, as `spaced_words` gives them."""
    found = _BANS.search(prefix.text)
    phrases = found[1].split("; ") if found is not None else []
    return tuple(phrase for phrase in map(spaced_words, phrases) if phrase.strip())


def writer_for(request: Request, salt: bytes = b"") -> Writer:
    """A writer on the prompt's themes and people, seeded by the request's draw, prefix and body, and `salt`."""
    contents = [message.content for message in request.messages]
    seed = digest(str(request.draw), request.prefix.hash, *contents, request.prompt or "", salt)
    body = (request.prompt or (contents[-1] if contents else ""))[:BODY_WINDOW]
    return Writer(seed.encode(), themes_of(body, request.prefix), names_of(body), bans_of(request.prefix))
