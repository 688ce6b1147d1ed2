"""Cheap checks that reject a finished text, by rules a person can read.

They are conservative: each is meant for what no reader would defend, and stays silent on real documents (the false
alarms of each are measured in docs/checks.md). They know English best; a rule without words holds in any language.
Checks act when a corpus is assembled, so a change here costs no new answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sdf.checks import amounts, languages, leaks, turns, wording, world
from sdf.checks.amounts import n_words
from sdf.checks.languages import asked_language, language_of
from sdf.checks.subject import Checks, Subject
from sdf.checks.world import FORBIDDEN, forbidden_by

__all__ = [
    "CHECKS",
    "FORBIDDEN",
    "NAMES",
    "TEXT_CHECKS",
    "Checks",
    "Subject",
    "asked_language",
    "forbidden_by",
    "language_of",
    "n_words",
    "reject_reason",
]

# Judged on the text alone.
TEXT_CHECKS: Mapping[str, Callable[[str, Checks], bool]] = {
    "empty": amounts.empty,
    "meta_talk": wording.meta_talk,
    "leaked_tag": wording.leaked_tag,
    "placeholder": wording.placeholder,
    "link": wording.link,
    "secret": world.secret,
    "date": world.date,
    "credential": world.credential,
    "too_short": amounts.too_short,
    "too_long": amounts.too_long,
    "repetition": amounts.repetition,
    "cut_off": wording.cut_off,
    "banned_name": world.banned_name,
    "overused": world.overused,
}
# Judged on what else is known: the turns, what was sent, what was asked for.
CHECKS: Mapping[str, Callable[[Subject, Checks], bool]] = {
    "malformed_turns": turns.malformed_turns,
    "user_in_reply": turns.user_in_reply,
    "tool_call": turns.tool_call,
    "injection": leaks.injection,
    "prompt_text": leaks.prompt_text,
    "language": languages.language,
}
NAMES = (*TEXT_CHECKS, *CHECKS, "low_score")


def reject_reason(subject: Subject, checks: Checks) -> str | None:
    """The first check that fails, in the order of NAMES; None when the text is kept.

    A step of `min_score` without a score fails: a verdict that is not clear is no approval.
    """
    for name, fails in TEXT_CHECKS.items():
        if name not in checks.off and fails(subject.text, checks):
            return name
    for name, judges in CHECKS.items():
        if name not in checks.off and judges(subject, checks):
            return name
    scores = subject.scores
    if "low_score" not in checks.off and any(scores.get(step, least - 1) < least for step, least in checks.min_score):
        return "low_score"
    return None
