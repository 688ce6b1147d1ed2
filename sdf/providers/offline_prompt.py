"""What a prompt is about, read cheaply: themes and people for the grammar to write on.

A few regular expressions over the head of the body, and over the prefix once; a theme missed costs only relevance.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sdf.providers.offline_writer import Writer
from sdf.records import Prefix, Request, digest

# Words with these endings name a quality or a practice, and so fit where the grammar says "theme".
_NOUN = re.compile(
    r"\b(?:[a-z]{3,12}(?:esty|ity|ness|ency|ancy|ship|ence|ance|mony|acy|hood)|trust|care|truth|harm|power|candou?r"
    r"|courage|consent|judg(?:e?)ment|restraint|freedom|oversight|deception|manipulation|compassion|caution|discretion"
    r"|moderation|cooperation|correction|persuasion|commitment|dissent|deference|loyalty|humility|wisdom|respect)\b"
)
_NAME = re.compile(r"(?<=[a-z,:;] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,}(?:-[A-Z][a-z]+)?)+\b")
# Nouns of the task rather than of its subject.
_NOT_A_THEME = frozenset(
    [
        "sentence",
        "audience",
        "reference",
        "presence",
        "absence",
        "distance",
        "difference",
        "sequence",
        "instance",
        "entrance",
        "surface",
        "science",
        "experience",
        "evidence",
        "influence",
        "university",
        "city",
        "community",
        "facility",
        "activity",
        "personality",
        "entity",
        "identity",
        "quality",
        "quantity",
        "utility",
        "opportunity",
        "majority",
        "minority",
        "business",
        "witness",
        "likelihood",
        "preference",
        "existence",
        "finance",
        "insurance",
        "appearance",
        "relationship",
        "agency",
        "emergency",
        "frequency",
        "currency",
        "ability",
        "possibility",
        "consequence",
        "circumstance",
        "guidance",
        "importance",
        "conference",
        "performance",
    ]
)
N_THEMES = 4
# The head of a body says what is asked; a draft pasted after it would only take time to read.
BODY_WINDOW, PREFIX_WINDOW = 2000, 20_000


def themes_of(text: str) -> tuple[str, ...]:
    """Up to N_THEMES nouns of quality in `text`, the most frequent first, the earlier first among equals."""
    counts: dict[str, int] = {}
    for word in _NOUN.findall(text.lower()):
        if word not in _NOT_A_THEME:
            counts[word] = counts.get(word, 0) + 1
    return tuple(sorted(counts, key=lambda word: -counts[word])[:N_THEMES])


def names_of(text: str) -> tuple[str, ...]:
    """Capitalised names of two or more words within a sentence, each once, in order."""
    return tuple(dict.fromkeys(_NAME.findall(text)))


@lru_cache(maxsize=4096)
def _themes_of_prefix(prefix: Prefix) -> tuple[str, ...]:
    return themes_of(prefix.text[:PREFIX_WINDOW])


def writer_for(request: Request, salt: bytes = b"") -> Writer:
    """A writer on the prompt's themes and people, seeded by the request's draw, prefix and body, and `salt`."""
    contents = [message.content for message in request.messages]
    seed = digest(str(request.draw), request.prefix.hash, *contents, request.prompt or "", salt)
    body = (request.prompt or (contents[-1] if contents else ""))[:BODY_WINDOW]
    return Writer(seed.encode(), themes_of(body) or _themes_of_prefix(request.prefix), names_of(body))
