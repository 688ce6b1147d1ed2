"""Text that was sent to a model and must not come back: the injected system text, and the prompts themselves.

Both by runs of words in common. Eight words in a row are no accident between a reply and the order it was given; a
prompt is longer and closer to what it asks for, so there it takes thirteen.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sdf.checks.subject import Checks, Subject
from sdf.words import Hashes, n_words, runs

INJECTED_RUN = 8
PROMPT_RUN = 13
# A shorter order ("Be kind.") is said without having been told.
FEWEST_WORDS = 4


def injection(subject: Subject, _: Checks) -> bool:
    """The reply repeats a run of the injected text that no other turn of the conversation holds, nor its tools."""
    return any(_repeats(subject, text) for text in subject.injected)


def _repeats(subject: Subject, injected: str) -> bool:
    n = min(INJECTED_RUN, n_words(injected))
    if n < FEWEST_WORDS:
        return False
    shared = np.intersect1d(runs(injected, n), runs(subject.text, n))
    if not len(shared) or not subject.messages:
        return bool(len(shared))
    told = [str(turn["content"]) for turn in subject.messages if turn["role"] != "assistant"]
    told += [subject.tools] if subject.tools else []
    return bool(len(np.setdiff1d(shared, np.concatenate([runs(text, n) for text in told])))) if told else True


def prompt_text(subject: Subject, checks: Checks) -> bool:
    """Thirteen words in a row of what the models were told to do."""
    if not checks.prompts:
        return False
    told = _told(checks.prompts)
    found = runs(subject.text, PROMPT_RUN)
    return bool(len(told) and np.any(told[told.searchsorted(found).clip(max=len(told) - 1)] == found))


@lru_cache(maxsize=64)
def _told(prompts: tuple[str, ...]) -> Hashes:
    return np.unique(np.concatenate([runs(text, PROMPT_RUN) for text in prompts]))
