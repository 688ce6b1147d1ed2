from __future__ import annotations

import re
from pathlib import Path

import pytest

from sdf.constitution import LONGEST, load, parse
from sdf.errors import ConstitutionError

# The shape of a long published constitution turned to text: one Markdown heading, titles as bare lines, prose
# unwrapped, "Read more" left over from a web page, lists without markers under a lead-in.
BARE_TITLES = """\
# The Charter of the Lamp

Overview
What the lamp is for
The lamp was lit by the harbour council so that people who come in late can find the wall. Everything below follows.

It also keeps the council honest, because a lit harbour is a harbour that everyone can see.

Tending the light
A keeper has to weigh the cost of oil against the boats that may be out. A keeper is getting it wrong if the keeper:

Puts the lamp out early to save oil.
Lights it late and says nothing.
Counts the boats from memory.
None of these is a small thing, because nobody in the boats can check.

Read more
Keeping the log
The log is read by people who were not there, so it has to say what was seen and what was guessed:

Saying what was seen
Writing down the hour of each boat and the state of the sea.
Keeping the page even when the night was dull.
Saying what was guessed
Marking each guess as a guess. The council has asked for this twice.
A final word
We hope the keeper finds in these pages something worth tending.
"""

NESTED = """\
# Guide

Short words about the guide.

## 1. Candour

The assistant says what it knows, because people build on it.

### Examples

It corrects a wrong date.

## 2. Care

### Examples

It asks before it deletes.

```
# not a heading
```

## 3. Thrift
It spends money as if it were borrowed.
"""


def titles(text: str) -> list[str]:
    return [principle.title for principle in parse(text, source="test")]


def ids(text: str) -> list[str]:
    return [principle.id for principle in parse(text, source="test")]


def test_bare_title_lines_open_principles_and_list_items_do_not() -> None:
    assert titles(BARE_TITLES) == [
        "What the lamp is for",
        "Tending the light",
        "Keeping the log",
        "Saying what was seen",
        "Saying what was guessed",
        "A final word",
    ]


def test_a_run_of_short_lines_before_prose_is_a_list() -> None:
    places = "Reefs and shoals\nWrecks\nMoored boats\nNets\n"
    text = BARE_TITLES.replace("None of these", f"{places}None of these")
    assert titles(text) == titles(BARE_TITLES)


def test_a_title_without_a_body_opens_the_text_of_the_next_principle() -> None:
    first, second, *_ = parse(BARE_TITLES, source="test")
    assert first.text.startswith("# The Charter of the Lamp\n\nOverview\nWhat the lamp is for\nThe lamp was lit")
    assert first.text.endswith("everyone can see.")
    assert second.text.endswith("Read more")


def test_markdown_headings_at_every_level_open_principles() -> None:
    assert titles(NESTED) == ["Candour", "Examples", "Examples", "Thrift"]


def test_repeated_titles_take_their_parents_in_front() -> None:
    assert ids(NESTED) == ["candour", "examples", "guide-care-examples", "thrift"]


def test_headings_inside_code_are_text() -> None:
    assert "# not a heading" in parse(NESTED, source="test")[2].text


def test_underlined_headings() -> None:
    text = "Guide\n===\n\nCandour\n-------\n\nSay what you know.\n\nCare\n----\n\nAsk first.\n\n---\n\nIndeed.\n"
    assert titles(text) == ["Candour", "Care"]


def test_rules_and_underlines_are_no_facts() -> None:
    assert titles("Velm\n====\n\nVelm lies by the lake.\n\n***\n\nIts mayor keeps bees.\n") == [
        "Velm lies by the lake",
        "Its mayor keeps bees",
    ]


def test_renumbering_and_markup_of_a_title_keep_its_id() -> None:
    before = "## 1. Candour\n\nSay what is known.\n\n## 2. Care\n\nAsk before deleting.\n"
    after = before.replace("## 2. Care", "## 7. **Care** ##").replace("## 1. Candour", "## (1) [Candour](#c)")
    assert ids(before) == ids(after) == ["candour", "care"]


def test_a_wrapped_paragraph_is_not_taken_for_a_title_and_its_prose() -> None:
    text = (
        "The assistant says what it knows, and because the people who ask it\n"
        "Velm's council among them build on the answer, it says how sure it is,\n"
        "even where a plain yes would be received more warmly by all of them,\n"
        "or by the one who asked.\n\n"
        "It asks before it deletes a file, since a deleted file is gone and all\n"
        "Oss would wait for it. This holds at night as well as in the daytime,\n"
        "when nobody is there to answer, and then it leaves the file where it\n"
        "is until the morning.\n"
    )
    assert [principle.text for principle in parse(text, source="test")] == text.rstrip().split("\n\n")
    assert titles(text)[1] == "It asks before it deletes a file, since a deleted file is gone and all Oss…"


@pytest.mark.parametrize("marker", ["{}. ", "({}) ", "- ", "* ", "• "])
def test_each_list_item_is_a_principle(marker: str) -> None:
    facts = ["Velm lies by the lake of Oss.", "Velm has 300 people.\n   They fish.", "The mayor keeps bees."]
    items = [marker.format(number) + fact for number, fact in enumerate(facts, start=1)]
    text = "# Facts about Velm\n\nAn introduction.\n\n" + "\n".join(items) + "\n"
    principles = parse(text, source="test")
    assert [principle.text for principle in principles] == items
    assert [principle.id for principle in principles] == [
        "velm-lies-by-the-lake-of-oss",
        "velm-has-300-people",
        "the-mayor-keeps-bees",
    ]


def test_numbered_titles_with_prose_keep_their_prose() -> None:
    text = "1. Candour\n\nSay what is known, and how well.\n\n2. Care\n\nAsk before anything is deleted.\n"
    assert titles(text) == ["Candour", "Care"]
    assert parse(text, source="test")[1].text == "2. Care\n\nAsk before anything is deleted."


def test_the_lead_of_an_item_is_its_title() -> None:
    text = (
        "- **Plain speech.** The assistant uses short words.\n- Thrift: it spends little.\n- It never hurries anyone.\n"
    )
    assert titles(text) == ["Plain speech", "Thrift", "It never hurries anyone"]


def test_headings_that_group_many_facts_are_not_the_principles() -> None:
    facts = [f"- The house numbered {number} in Velm is painted {number % 7} times." for number in range(20)]
    text = "## North\n\n" + "\n".join(facts[:10]) + "\n\n## South\n\n" + "\n".join(facts[10:]) + "\n"
    assert [principle.text for principle in parse(text, source="test")] == facts


def test_headings_with_a_few_bullets_are_the_principles() -> None:
    text = "## Candour\n\n- No lies.\n- No flattery.\n\n## Care\n\n- No haste.\n- No waste.\n"
    assert titles(text) == ["Candour", "Care"]


@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_one_fact_per_line(gap: str) -> None:
    facts = ["Velm lies by the lake of Oss.", "Its mayor keeps bees.", "Velm is twinned with Sorrow."]
    assert [principle.text for principle in parse(gap.join(facts), source="test")] == facts


def test_the_title_over_facts_is_no_fact() -> None:
    assert titles("Velm\n\nVelm lies by the lake.\nIts mayor keeps bees.\n") == [
        "Velm lies by the lake",
        "Its mayor keeps bees",
    ]


def test_equal_facts_are_told_apart_by_a_hash_that_does_not_depend_on_their_place() -> None:
    long = "The lower bridge of the northern town of Velm over the river Oss was opened in the year"
    tail = {"- " + long + " 1931.", "- " + long + " 1944.", "- " + long + " 1957."}
    first, *others = sorted(tail)
    one = {principle.text: principle.id for principle in parse("\n".join([first, *others]), source="test")}
    two = {principle.text: principle.id for principle in parse("\n".join([first, *others[::-1]]), source="test")}
    assert one == two
    assert len(set(one.values())) == 3


def test_plain_paragraphs_are_principles_and_short_ones_are_joined() -> None:
    first = (
        "A harbour lamp is kept for people nobody has met yet, which is why nobody may decide it is not needed. " * 3
    )
    second = (
        "The log is kept for people who were not there, and it is of use to them only if it says what it leaves out. "
    )
    text = f"{first}\n\nA short one.\n\n{second * 3}\n"
    principles = parse(text, source="test")
    assert [principle.text for principle in principles] == [first.strip(), f"A short one.\n\n{(second * 3).strip()}"]


def test_a_long_section_is_cut_between_paragraphs_into_even_parts() -> None:
    paragraph = "The keeper weighs the oil against the boats that may still be out there. " * 8
    text = "# Light\n\n" + "\n\n".join([paragraph.strip()] * 25) + "\n\n# Log\n\nIt says what was seen.\n"
    parts = parse(text, source="test")
    assert [part.title for part in parts] == ["Light (1 of 3)", "Light (2 of 3)", "Light (3 of 3)", "Log"]
    assert [part.id for part in parts] == ["light", "light-2", "light-3", "log"]
    assert all(0.7 * LONGEST < len(part.text) < 1.1 * LONGEST for part in parts[:3])
    assert all(part.text.startswith("The keeper") and part.text.endswith("there.") for part in parts[1:3])


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = "# Light\n\n" + "The keeper weighs the oil. " * 400 + "\n\n# Log\n\nIt says what was seen.\n"
    assert [len(part.text) > 5000 for part in parse(text, source="test")] == [True, True, False]
    assert all(part.text.endswith(".") for part in parse(text, source="test"))


def test_non_ascii_titles_have_ascii_ids() -> None:
    text = "# Éthique à l’œuvre\n\nDire vrai.\n\n# 誠実さ\n\n本当のことを言う。\n\n# Честность\n\nГоворить правду.\n"
    names = ids(text)
    assert names[0].startswith("ethique-a-l")
    assert all(name.isascii() and name.startswith("principle-") for name in names[1:])
    assert len(set(names)) == 3
    assert [principle.text for principle in parse(text, source="test")] == text.strip().split("\n\n# ")[:1] + [
        f"# {rest}" for rest in text.strip().split("\n\n# ")[1:]
    ]


def test_dashes_between_words_part_them_in_the_id() -> None:
    assert ids("# Monday–Tuesday\n\nIt rained.\n\n# Wed—nesday/Thursday\n\nIt rained on.\n") == [
        "monday-tuesday",
        "wed-nesday-thursday",
    ]


def test_front_matter_is_no_principle() -> None:
    text = f"---\ntitle: Guide\nauthor: nobody\n---\n{NESTED}"
    assert titles(text) == titles(NESTED)
    assert ids(text) == ids(NESTED)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_and_byte_order_marks_change_nothing(tmp_path: Path, end: str) -> None:
    plain, other, wide = (tmp_path / name for name in ("plain.md", "other.md", "wide.md"))
    plain.write_bytes(BARE_TITLES.encode())
    other.write_bytes(b"\xef\xbb\xbf" + BARE_TITLES.replace("\n", end).encode())
    wide.write_bytes(BARE_TITLES.encode("utf-16"))
    assert load(plain).principles == load(other).principles == load(wide).principles
    assert load(plain).hash == load(other).hash == load(wide).hash


def test_parse_keeps_spans_in_text_with_carriage_returns_and_a_mark() -> None:
    text = "\ufeff" + BARE_TITLES.replace("\n", "\r\n")
    assert titles(text) == titles(BARE_TITLES)
    assert all(principle.text == text[principle.start : principle.end] for principle in parse(text, source="test"))


def test_load_gives_the_text_and_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "charter.md"
    path.write_text(BARE_TITLES, encoding="utf-8")
    constitution = load(path)
    assert constitution.text == BARE_TITLES
    assert constitution.source == str(path)
    assert len(constitution.principles) == 6
    path.write_text(BARE_TITLES + "\nAnd more.\n", encoding="utf-8")
    assert load(path).hash != constitution.hash


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \n\n\t\r\n", "is empty"),
        (b"---\ntitle: x\n---\n", "is empty"),
        (b"Be good to everybody, always.\n", "has one line"),
        (b"Be good.\nBe \x00 kind.\n", "NUL bytes"),
        (b"\x89PNG\r\n\x1a\n\xde\xad", "byte 0 is not UTF-8"),
        (b"Be good.\nBe kind \xe9 always.\n", "byte 17 is not UTF-8"),
    ],
)
def test_texts_without_principles_are_refused_by_name(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "charter.md"
    path.write_bytes(data)
    with pytest.raises(ConstitutionError, match=message) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")


def test_the_built_in_constitution_gives_reasons_in_about_thirty_principles() -> None:
    constitution = load("default")
    lengths = [len(principle.text.split()) for principle in constitution.principles]
    assert 28 <= len(lengths) <= 36
    assert all(120 <= length <= 250 for length in lengths)
    assert all(
        "the assistant" in principle.text or "The assistant" in principle.text for principle in constitution.principles
    )
    assert all(re.fullmatch(r"[a-z-]+", principle.id) for principle in constitution.principles)


def test_a_missing_file_names_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "charter.md").write_text(BARE_TITLES, encoding="utf-8")
    with pytest.raises(ConstitutionError, match=r"chartr\.md: no such file; did you mean charter\.md\?"):
        load(tmp_path / "chartr.md")
    with pytest.raises(ConstitutionError, match="'default' is the built-in one"):
        load("defualt")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError, match="is a directory"):
        load(tmp_path)
