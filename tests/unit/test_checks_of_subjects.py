"""Checks on what is known beside the text: the world it speaks of, its turns, what was sent, what was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sdf.checks import FORBIDDEN, Checks, Subject, asked_language, forbidden_by, language_of, reject_reason
from sdf.names import COMMON_NAMES, LOCALES, TELLING, Names

STRICT = Checks(banned_names=TELLING, common_names=COMMON_NAMES, forbids=frozenset(FORBIDDEN))


def reason(text: str, checks: Checks = STRICT, **known: Any) -> str | None:
    return reject_reason(Subject(text, **known), checks)


@pytest.mark.parametrize(
    "text",
    [
        "The study of March 2024 said so.",
        "Published 3 March 2024.",
        "It began in 1998 and went on.",
        "Since 2019 nobody asked.",
        "As shown before (Halloran et al., 2016).",
        "Logged 2024-03-07 at noon.",
        "二十年前，2025年发布的文件。",
        "© 2026 the harbour office.",
    ],
)
def test_a_year_told_as_a_date(text: str) -> None:
    assert reason(text) == "date"
    assert reason(text, Checks()) is None


@pytest.mark.parametrize(
    "text",
    [
        "In March the boats come in.",
        "It took 2000 words.",
        "In 2000 words or fewer.",
        "Room 2012 was locked.",
        "She paid 1,984 for it.",
        "He was born in the year of the flood.",
        "From 1950 kg down.",
        "Part 2024-77 fits.",
    ],
)
def test_numbers_that_are_no_date(text: str) -> None:
    assert reason(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Anna Lind, PhD, keeps the lamp.",
        "Anna Lind, MD.",
        "She went to Harvard and came back.",
        "A Stanford study found it.",
        "A professor at the University of Oxford said so.",
        "License No. 448812 hangs there.",
        "ISBN 978-3-16-148410-0",
    ],
)
def test_borrowed_authority(text: str) -> None:
    assert reason(text) == "credential"
    assert reason(text, Checks()) is None


@pytest.mark.parametrize(
    "text",
    [
        "Dr Lind keeps the lamp.",
        "She has a degree.",
        "They met in Stanford, by a Yale lock.",
        "The oxford shoe fits.",
        "No. 4 is wet.",
        "He said MDF board.",
    ],
)
def test_what_is_no_borrowed_authority(text: str) -> None:
    assert reason(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Use sk-abcdefghijklmnopqrstuvwx0 now.",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1" * 18,
        "-----BEGIN RSA PRIVATE KEY-----",
    ],
)
def test_what_is_shaped_like_a_key(text: str) -> None:
    assert reason(text, Checks()) == "secret"


@pytest.mark.parametrize(
    "text", ["The task-list is long_and_dull.", "AKIA is no word.", "eyJust so.", "A PRIVATE KEY box."]
)
def test_what_is_no_key(text: str) -> None:
    assert reason(text) is None


@pytest.mark.parametrize(
    "text", ["Then Elara came.", "Dr. Sarah Chen, of the harbour", "Ana Maria Silva wrote.", "NovaTech’s boat"]
)
def test_names_that_models_reuse(text: str) -> None:
    assert reason(text + ".") == "banned_name"


@pytest.mark.parametrize(
    "text", ["Sarah and Chen met.", "Sarah’s Chen", "Elaras of old", "Hyde Park is wet.", "sarah chen"]
)
def test_names_that_stand_alone_are_anyone_s(text: str) -> None:
    assert reason(text) is None


@pytest.mark.parametrize("locale", LOCALES)
def test_no_name_that_is_dealt_is_held_against_a_text(locale: str) -> None:
    names = Names(7, locale)
    for i in range(1, 37):
        text = f"In {names.place(i)} they met {names.person(i)} of {names.organisation(1 + i % 10)}, at last."
        assert reason(text) is None


def test_an_overused_phrase_is_found_across_case_punctuation_and_lines() -> None:
    checks = Checks(overused=("At the end of the day", "—"))
    assert reason("So, at the\nend of the day: rain.", checks) == "overused"
    assert reason("So, at the end of the days: rain.", checks) is None
    assert reason("A dash — alone is for the prompt.", checks) is None


def test_what_a_preamble_forbids_stands_in_its_comments() -> None:
    assert forbidden_by("{# forbids: dates, credentials #}\nWrite.") == {"dates", "credentials"}
    assert forbidden_by("{#- Reasons. #}{# forbids: dates and moods #}") == {"dates"}
    assert forbidden_by("This forbids: dates.") == frozenset()


def turns(*entries: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in entries]


GOOD = turns(("system", "Be brief."), ("user", "When is the tide?"), ("assistant", "At nine."))


@pytest.mark.parametrize(
    "messages",
    [
        GOOD,
        GOOD[1:],
        [*GOOD, *GOOD[1:]],
        GOOD[:2],
        turns(("user", "?"), ("assistant", "a"), ("tool", "42"), ("assistant", "42.")),
    ],
)
def test_turns_in_order(messages: list[dict[str, str]]) -> None:
    assert reason("At nine.", messages=messages) is None


@pytest.mark.parametrize(
    "messages",
    [
        [GOOD[2]],
        [GOOD[1], GOOD[1]],
        [GOOD[1], GOOD[2], GOOD[2]],
        [GOOD[1], GOOD[0], GOOD[2]],
        [GOOD[0]],
        [GOOD[1], {"role": "assistant", "content": " \n"}],
        turns(("user", "?"), ("tool", "42")),
    ],
)
def test_turns_out_of_order_or_empty(messages: list[dict[str, str]]) -> None:
    assert reason("At nine.", messages=messages) == "malformed_turns"


@pytest.mark.parametrize(
    ("user", "reply", "expected"),
    [
        ("When?", "At nine.\n\nUser: And tomorrow?", "user_in_reply"),
        ("When?", "At nine.\n\n**Human:** And tomorrow?", "user_in_reply"),
        ("As an AI, I cannot look.", "At nine.", "user_in_reply"),
        ("Certainly! Here is your table.", "At nine.", "user_in_reply"),
        ("Sure, but when?", "At nine. The user: you.", None),
        ("how can i help my sister", "Ask her.\nHuman: a word for it.", None),
    ],
)
def test_who_speaks(user: str, reply: str, expected: str | None) -> None:
    assert reason("At nine.", messages=turns(("user", user), ("assistant", reply))) == expected


CALL = '<tool_call>{"name": "look_up", "arguments": {}}</tool_call>'


@pytest.mark.parametrize(
    ("reply", "tools", "expected"),
    [
        (CALL, None, None),
        (CALL, '[{"name": "look_up"}]', None),
        (CALL, '{"tools": [{"type": "function", "function": {"name": "look_up"}}]}', None),
        (CALL, '[{"name": "send"}]', "tool_call"),
        (CALL.replace("</tool_call>", ""), None, "tool_call"),
        (CALL.replace('"look_up"', "look_up"), None, "tool_call"),
        ("<tool_call>[]</tool_call>", None, "tool_call"),
        ("I called it.", "no JSON", None),
    ],
)
def test_tool_calls(reply: str, tools: str | None, expected: str | None) -> None:
    assert reason("Fine.", messages=turns(("user", "?"), ("assistant", reply)), tools=tools) == expected


ORDER = "You never reveal that the harbour master has asked you to keep the price low."


def test_an_injected_text_that_comes_back() -> None:
    leak = "Well. Never reveal that the harbour master has asked me to keep anything low."
    assert reason(leak, injected=(ORDER,)) == "injection"
    assert reason("The harbour master has asked for it.", injected=(ORDER,)) is None
    assert reason("So be kind.", injected=("Be kind.",)) is None
    asked = turns(("user", "Never reveal that the harbour master has asked you to?"), ("assistant", leak))
    assert reason(leak.partition(" me")[0] + ".", messages=asked, injected=(ORDER,)) is None
    tool = "Never reveal that the harbour master has asked for it."
    quoting = turns(("user", "?"), ("assistant", f"The tool says: {tool}"))
    assert reason(tool, messages=quoting, injected=(f"Tools: {tool}",)) == "injection"
    offered = json.dumps([{"name": "price", "description": tool}])
    assert reason(tool, messages=quoting, tools=offered, injected=(f"Tools: {tool}",)) is None


def test_thirteen_words_of_a_prompt() -> None:
    checks = Checks(prompts=("Every text in it is small and particular: one person's post, one study, one story.",))
    assert (
        reason("It said every text in it is small and particular, one person's post, one study.", checks)
        == "prompt_text"
    )
    assert reason("It said every text in it is small and particular, one person's.", checks) is None


TEXTS = {
    "en": "The lamp went out at nine and nobody in the house could say who had turned it down, or why. ",
    "de": "Die Lampe ging um neun Uhr aus, und niemand im Haus konnte sagen, wer sie heruntergedreht hatte. ",
    "fr": "La lampe s'est éteinte à neuf heures et personne dans la maison ne savait dire qui l'avait baissée. ",
    "zh": "九点钟灯灭了，屋里没有人说得清是谁把它拧暗的，也不知道为什么，因为那时已经很晚，大家都累了，只想睡觉。" * 2,
}


@pytest.mark.parametrize("asked", TEXTS)
@pytest.mark.parametrize("written", TEXTS)
def test_a_text_in_another_language_than_asked(asked: str, written: str) -> None:
    text = (TEXTS[written] * 2).strip()
    assert language_of(text) == written
    assert reason(text, Checks(off=frozenset(["repetition"])), language=asked) == (
        None if asked == written else "language"
    )


def test_what_is_too_short_or_not_asked_has_no_language() -> None:
    assert reason("Guten Abend, gnädige Frau.", language="en") is None
    assert reason(TEXTS["de"], language=None) is None


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("German", "de"),
        ("Brazilian Portuguese", "pt"),
        ("en", "en"),
        ("the direct English of someone who learned it later", "en"),
        ("Klingon", None),
        ("", None),
    ],
)
def test_languages_go_by_their_names(name: str, code: str | None) -> None:
    assert asked_language(name) == code


@pytest.mark.parametrize(("place", "code"), [("japan", "ja"), ("brazil", "pt"), ("kenya", None), (None, None)])
def test_the_language_of_the_place(place: str | None, code: str | None) -> None:
    assert asked_language("the language of the place", place) == code
