from __future__ import annotations

import random

import pytest

from sdf.checks import CHECKS, FORBIDDEN, NAMES, TEXT_CHECKS, Checks, Subject, n_words, reject_reason

NONE = Checks()


WORDS = ["tide", "lamp", "glass", "road", "harbour", "boat", "keeper", "north", "page", "oil", "rain", "letter"]


def story(n: int = 12) -> str:
    """Paragraphs of one sentence each, all different."""
    draw = random.Random(n)
    return "\n\n".join(f"On day {day} the {' '.join(draw.choices(WORDS, k=30))} came in." for day in range(n))


def reason(text: str, checks: Checks = NONE, **scores: int) -> str | None:
    return reject_reason(Subject(text, scores=scores), checks)


def test_prose_passes() -> None:
    assert reason(story()) is None
    assert reason("Yes.") is None


@pytest.mark.parametrize("text", ["", " \n\t", "...", "— ***\n___"])
def test_empty(text: str) -> None:
    assert reason(text) == "empty"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two words", 2),
        ("  spaces\n\nand\tlines  ", 3),
        ("it's well-known — café", 4),
        ("हिन्दी में तीन", 3),
        ("한국어 두 단어", 3),
        ("未雨绸缪", 1 + 4),
        ("カタカナ", 1 + 4),
        ("กรุงเทพมหานคร", 1 + 13 // 4),
        ("\ud800", 1),
    ],
)
def test_words_are_counted_as_a_reader_counts(text: str, expected: int) -> None:
    assert n_words(text) == expected


@pytest.mark.parametrize(
    ("n", "expected"), [(1, "too_short"), (99, "too_short"), (100, None), (800, None), (801, "too_long")]
)
def test_length_has_slack(n: int, expected: str | None) -> None:
    checks = Checks(n_words=(200, 400))
    assert reason(" ".join(f"w{place}" for place in range(n)) + ".", checks) == expected


def test_no_length_asked_no_length_checked() -> None:
    assert reason(story(500), Checks(n_words=(0, 0))) is None


META = [
    "Certainly! Here is the blog post you asked for.\n\n" + story(),
    "**Sure — here's a short story about the harbour:**\n\n" + story(),
    "Here’s the revised document, with the tone adjusted:\n\n" + story(),
    "As an AI language model, I do not have a lighthouse. " + story(),
    "I'm sorry, but I can't help with that request.",
    "Unfortunately, I cannot write this story, because it may cause harm.",
    story() + "\n\nLet me know if you'd like any changes.",
    story() + "\n\nWould you like me to expand the second part of this essay?",
    story() + "\n\n(Word count: 1,204)",
    story() + "\n\n[End of document]",
    story() + "\n\n*This article has approximately 900 words.*",
]
PLAIN = [
    "Certainly the tide was early. " + story(),
    "Here is the harbour of my childhood: grey, loud, and full of gulls.\n\n" + story(),
    'Nobody likes the phrase "As an AI language model, I cannot say". ' + story(),
    "As an AI model, Claude is asked such things every day. " + story(),
    "I can't write this letter without shaking, Anna. " + story(),
    "I can't help with that, and I will say why. " + story(),
    "I won't write that review, but I can help you answer the one you were given.",
    story() + "\n\nLet me know if you'd like to come by on Sunday.",
    story() + "\n\nWould you like me to model the second option too?",
]


@pytest.mark.parametrize("text", META)
def test_meta_talk(text: str) -> None:
    assert reason(text) == "meta_talk"


@pytest.mark.parametrize("text", PLAIN)
def test_what_only_resembles_meta_talk(text: str) -> None:
    assert reason(text) is None


@pytest.mark.parametrize(
    "blank",
    [
        "[Name]",
        "[Your Name]",
        "[insert date here]",
        "[Company Name]",
        "[DATE]",
        "[ City ]",
        "[Patient Name]",
        "{{ names.person }}",
        "{{title}}",
        "TODO: write this",
        "[TODO]",
        "Lorem ipsum dolor",
        "FIXME",
    ],
)
def test_placeholder(blank: str) -> None:
    assert reason(f"Dear {blank}, the boat leaves at nine.") == "placeholder"


@pytest.mark.parametrize(
    "text",
    [
        "[laughs]",
        "[...]",
        "[1]",
        "[signature]",
        "[your actual approach]",
        "[Wall]",
        "array[date]",
        "TODO LO QUE HAY",
        "{{cite|a=b}}",
        "[Nameless]",
    ],
)
def test_brackets_that_are_no_placeholder(text: str) -> None:
    assert reason(f"She said {text} and left] the room.") is None


@pytest.mark.parametrize(
    "address",
    [
        "http://a.org",
        "https://harbour.example/x?y",
        "www.harbour.net",
        "anna.lind+x@mail.harbour.org",
        "doi.org/10.1000/182",
        "10.1038/s41586-020-2649-2",
    ],
)
def test_link(address: str) -> None:
    assert reason(f"See {address} for more.") == "link"


@pytest.mark.parametrize("text", ["@anna", "a @ b.c", "10.50 a.m.", "10.12 / 3", "the www of old", "user@localhost"])
def test_what_is_no_link(text: str) -> None:
    assert reason(f"It cost {text} then.") is None


@pytest.mark.parametrize(
    "tag",
    ["<document>", "</document>", "</rewrite>", "<scratchpad>", "<Thinking>", "</scores>", "<|im_end|>", "[INST]"],
)
def test_leaked_tag(tag: str) -> None:
    assert reason(f"The lamp went out. {tag} Then it came back.") == "leaked_tag"


@pytest.mark.parametrize("text", ["a < b > c", "<3", "Anna <anna>", "<p>html</p>", "<documentation>"])
def test_angle_brackets_that_are_no_leaked_tag(text: str) -> None:
    assert reason(f"We wrote {text} there.") is None


def with_refrain(share: float) -> str:
    """A thousand different words, the last share of them a copy of the first."""
    words = [f"word{n}" for n in range(1000)]
    n_copied = round(1000 * share)
    return " ".join(words[: 1000 - n_copied] + words[:n_copied]) + "."


@pytest.mark.parametrize(("share", "expected"), [(0.0, None), (0.1, None), (0.14, None), (0.17, "repetition")])
def test_repeated_runs(share: float, expected: str | None) -> None:
    assert reason(with_refrain(share)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "the same again " * 200 + ".",
        "哈哈" * 400 + "。",
        "我们明天再来看海好吗" * 60 + "。",
        "a" * 5000 + ".",
        "\n".join(f"I agree with Anna.\n{n} is {n * n} other points{n}." for n in range(12)),
        story(12) + "\n\n" + story(12),
    ],
)
def test_repetition(text: str) -> None:
    assert reason(text) == "repetition"


@pytest.mark.parametrize(
    "text",
    [
        "Yes, yes, yes, yes.",
        "\n".join(["Yes.", "No.", "Yes.", "No."]),
        "\n---\n".join(story(8).split("\n\n")),
        "未雨绸缪是一个成语，意思是趁着天没下雨，先修缮房屋门窗，比喻事先做好准备工作，预防意外的事发生，出自诗经豳风鸱鸮一篇。",
    ],
)
def test_what_repeats_little(text: str) -> None:
    assert reason(text) is None


CUT = [
    story() + "\n\nHe opened the door and",
    story() + "\n\nThen he said “",
    story() + "\n\nFirst, the lamp,",
    story() + "\n\n- oil\n-",
    story() + "\n\n1. oil\n2.",
    story() + "\n\nThe price is [X",
    story()[:-40],
    "。\n".join(f"第{n}天" + "".join(random.Random(n).choices("天地玄黄宇宙洪荒日月盈昃", k=50)) for n in range(9)),
]
ENDED = [
    story() + "\n\nMachine ethics",
    story() + "\n\n— Anna Lind, keeper of the lamp at Norrhamn",
    story() + "\n\nglad it worked out lol",
    story() + "\n\nSee also: " + "; ".join(f"the history of lamp number {n}" for n in range(6)),
    story() + "\n\nAnd so on…",
    story() + '\n\n"Tell them I said so."',
    story() + "\n\nKirche im Dorf lassen 😄",
    "so " + story().replace(".", "").replace(",", ""),
    "Anna: and then I thought —",
    story().replace(" in.\n", " in\n", 2) + "\n\n" + story(1)[:-1] + " and " + story(2).replace("\n\n", " ")[:-1],
    "मौसम साफ़ है",
]


@pytest.mark.parametrize("text", CUT)
def test_cut_off(text: str) -> None:
    assert reason(text) == "cut_off"


@pytest.mark.parametrize("text", ENDED)
def test_endings_without_a_full_stop(text: str) -> None:
    assert reason(text) is None


def test_a_banned_name_counts_as_a_whole_word() -> None:
    checks = Checks(banned_names=("Elara Voss", "Sarah Chen"))
    assert reason("Then Sarah Chen's boat came in.", checks) == "banned_name"
    assert reason("Then Sarah Chenoweth came in.", checks) is None
    assert reason("Then AnnaSarah Chen came in.", checks) is None
    assert reason("Sarah met Chen.", checks) is None


def test_a_score_below_the_least_rejects_and_a_missing_one_too() -> None:
    checks = Checks(min_score=(("style", 5), ("truth", 3)))
    assert reason("Fine.", checks, style=5, truth=3, other=0) is None
    assert reason("Fine.", checks, style=5, truth=2) == "low_score"
    assert reason("Fine.", checks, style=9) == "low_score"


def test_the_first_of_the_table_is_the_reason() -> None:
    text = "Certainly! Here is the story: see https://a.org [Name]"
    order = ["meta_talk", "placeholder", "link"]
    assert [reason(text, Checks(off=frozenset(order[:n]))) for n in range(4)] == [*order, None]


def test_every_check_can_be_turned_off() -> None:
    checks = Checks(n_words=(10, 20), off=frozenset(NAMES), min_score=(("style", 5),), banned_names=("Anna",))
    for text in ["", "Anna", *META, *CUT, "<document>"]:
        assert reason(text, checks) is None
    assert (*TEXT_CHECKS, *CHECKS, "low_score") == NAMES


@pytest.mark.parametrize("filler", ["a", " ", "[", "<", "@", "a@a", "a.", "\n", "10.", "{{", "的", "\u0301", "1)"])
def test_a_megabyte_of_anything_is_judged(filler: str) -> None:
    """Ends at all: a rule that went back over its steps would need hours here."""
    text = "x@" + filler * (1_000_000 // len(filler))
    terms = Checks(
        n_words=(1, 10),
        banned_names=("Anna",),
        common_names=(frozenset({"Anna"}), frozenset({"Lind"})),
        overused=("at the end of the day",),
        forbids=frozenset(FORBIDDEN),
        prompts=("do it again " * 20,),
    )
    for fails in TEXT_CHECKS.values():
        fails(text, terms)
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    for judges in CHECKS.values():
        judges(Subject(text, turns, "[]", ("never say that it was so",), "en"), terms)
