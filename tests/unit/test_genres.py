"""Genre files: what a good one becomes, and that a bad one is refused with its line and a way out."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from sdf import genres
from sdf.errors import GenreError
from sdf.genres import Axis, Genre, Source, discover, dump, load, restore

GOOD = """\
---
key: note
kind: document
about: A note that touches the principle.
n_words: [100, 200]
dedup: body
axes:
  tone: {warm: 4, "sceptical": 2}
  outlet: [a diary, a letter]
steps:
  angle: {per: round, context: principle, returns: list, tag: ideas}
  draft: {role: write, context: full, returns: text, tag: document}
  score: {role: judge, context: none, returns: score, tag: score, highest: 5}
emit: {text: draft}
checks: {off: [link], min_score: {score: 3}}
---

## instructions

Notes by {{ assistant }}.

## step: angle
{% for idea in taken %}
- {{ idea }}
{% endfor %}
{{ n_items }} ideas on {{ principle.title }} in <ideas>.

## step: draft

{{ angle }}, {{ brief.axes.tone }}, {{ names.person(1) }}
Write between <document> and </document>.

## step: score
{{ draft }}
Answer in <score>.
"""

CHAT = """\
---
key: advice
kind: chat
about: Advice.
n_words: [50, 50]
dedup: scenario
redraws: 0
lanes: 4
twin: voice
axes:
  voice: [you, the model]
  hard: {no: 0.7, yes: 0.3}
steps:
  angle: {per: round, role: write, context: principle, returns: list, n_items: 64}
  plan: {role: write, context: principle, returns: json, schema: {type: object}}
  points: {role: write, context: principle, returns: list, n_items: 5}
  reply:
    role: rewrite
    context: principle
    returns: text
    max_tokens: 900
    tools: [{name: search}]
    inject: |
      You weigh {{ principle.title }}.
      Then you answer.
  talk: {role: write, context: principle, form: completion, returns: messages}
emit: {user: reply, assistant: reply, tools: plan}
source: {path: rows.jsonl, columns: [prompt, "Row id"]}
preamble: none
---
## instructions
On {{ principle.text }}
## step: angle
Ideas.
## step: plan
{{ brief.twin }} {{ brief.row.prompt }} {{ brief.row["Row id"] }}
## step: points
{{ plan.goal }} {{ n_items }}
## step: reply
{% for point in points %}{{ point }}{% endfor %}
## step: talk
## A heading of the prompt
{{ reply }}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "preamble.md").write_text("In a world where {{ maker }} made {{ assistant }}.\n")
    return tmp_path


def written(folder: Path, text: str, name: str = "note.md") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str) -> Genre:
    return load(written(folder, text))


def test_a_genre_is_what_its_file_says(folder: Path) -> None:
    genre = loaded(folder, GOOD)
    assert (genre.key, genre.kind, genre.config) == ("note", "document", "documents")
    assert (genre.n_words, genre.dedup, genre.redraws, genre.lanes) == ((100, 200), "body", 2, None)
    assert genre.axes[0] == Axis("tone", ("warm", "sceptical"), ("warm", "warm", "sceptical"))
    assert genre.axes[1] == Axis("outlet", ("a diary", "a letter"), ("a diary", "a letter"))
    assert [step.name for step in genre.steps] == ["angle", "draft", "score"]
    assert [step.name for step in genre.brief_steps] == ["draft", "score"]
    assert genre.emit == {"text": "draft"}
    assert (genre.checks.off, genre.checks.min_score) == (("link",), {"score": 3})
    assert (genre.twin, genre.source) == (None, None)


def test_steps_take_what_they_declare_and_plain_defaults(folder: Path) -> None:
    genre = loaded(folder, GOOD)
    angle, draft, score = genre.steps
    assert genre.round_step is angle
    assert (angle.role, angle.n_items, angle.form, angle.line) == ("angle", genres.ROUND_ITEMS, "chat", 11)
    assert (draft.n_items, draft.max_tokens, draft.schema, draft.tools, draft.inject) == (0, None, None, None, None)
    assert (score.lowest, score.highest, score.context) == (1, 5, "none")
    assert draft.body.line == 30
    assert draft.body.source.startswith("{{ angle }}")
    assert draft.body.source.endswith("</document>.")


def test_the_wide_forms_of_a_genre(folder: Path) -> None:
    genre = loaded(folder, CHAT)
    reply = genre.steps[3]
    assert (genre.config, genre.twin, genre.lanes, genre.redraws, genre.preamble) == ("chats", "voice", 4, 0, None)
    assert genre.source == Source("rows.jsonl", None, ("prompt", "Row id"), 28)
    assert genre.axes[1].deck == ("no",) * 70 + ("yes",) * 30
    assert (genre.steps[1].schema, reply.tools, reply.max_tokens) == ('{"type":"object"}', '[{"name":"search"}]', 900)
    assert reply.inject is not None
    assert (reply.inject.line, reply.inject.source) == (24, "You weigh {{ principle.title }}.\nThen you answer.")
    assert genre.steps[4].body.source == "## A heading of the prompt\n{{ reply }}"


def test_a_genre_travels(folder: Path) -> None:
    for text in (GOOD, CHAT):
        genre = loaded(folder, text)
        assert pickle.loads(pickle.dumps(genre)) == genre
        assert restore(json.loads(json.dumps(dump(genre)))) == genre
        assert len({genre, pickle.loads(pickle.dumps(genre))}) == 1


def test_a_stored_genre_that_is_not_one_is_refused(folder: Path) -> None:
    data = dump(loaded(folder, GOOD))
    with pytest.raises(GenreError, match=r"stored genre cannot be read: kind"):
        restore({**data, "kind": "poem"})


def test_the_preamble_lies_beside_the_genre_else_among_the_built_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genre = loaded(folder, GOOD)
    assert genre.preamble is not None
    assert genre.preamble.render({"maker": "M", "assistant": "A"}) == "In a world where M made A."
    monkeypatch.setattr("sdf.genres.loading.BUILTIN_DIR", folder)
    inner = folder / "own"
    inner.mkdir()
    assert loaded(inner, GOOD).preamble == genre.preamble
    (folder / "preamble.md").unlink()
    with pytest.raises(GenreError, match=r"note\.md:1: no preamble\.md"):
        loaded(inner, GOOD)


def test_a_preamble_is_shared_by_everything_so_it_knows_only_two_names(folder: Path) -> None:
    (folder / "preamble.md").write_text("One\n{{ principle.title }}\n")
    with pytest.raises(GenreError, match=r"preamble\.md:2: nothing here is called 'principle'"):
        loaded(folder, GOOD)


def test_windows_line_ends_and_byte_order_marks_change_nothing(folder: Path) -> None:
    plain = loaded(folder, GOOD)
    path = folder / "note.md"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(path) == plain


def change(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


TEXT_CHANGES = [
    ("key: note", "key: notes"),
    ("[100, 200]", "[100, 201]"),
    ("warm: 4", "warm: 6"),
    ("[a diary, a letter]", "[a letter, a diary]"),
    ("dedup: body", "dedup: body\nredraws: 3"),
    ("dedup: body", "dedup: body\nlanes: 2"),
    ("dedup: body", "dedup: body\ntwin: tone"),
    ("context: full", "context: none"),
    ("role: write", "role: rewrite"),
    ("highest: 5", "highest: 6"),
    ("tag: ideas}", "tag: ideas, n_items: 8}"),
    ("tag: document}", "tag: document, max_tokens: 9}"),
    ("tag: document}", "tag: document, inject: Be brief.}"),
    ("Notes by", "Note by"),
    ("Answer in", "Reply in"),
]
OTHER_CHANGES = [
    ("about: A note", "about: Some note"),
    ("dedup: body", "dedup: none"),
    ("[link]", "[]"),
    ("score: 3", "score: 4"),
    ('warm: 4, "sceptical": 2', "warm: 2, sceptical: 1"),
    ("\n\n## step: score", "\n\n\n\n## step: score"),
]


@pytest.mark.parametrize(("old", "new"), TEXT_CHANGES)
def test_the_hash_names_all_that_decides_text(folder: Path, old: str, new: str) -> None:
    assert loaded(folder, change(GOOD, old, new)).hash != loaded(folder, GOOD).hash


@pytest.mark.parametrize(("old", "new"), OTHER_CHANGES)
def test_the_hash_names_nothing_else(folder: Path, old: str, new: str) -> None:
    assert loaded(folder, change(GOOD, old, new)).hash == loaded(folder, GOOD).hash


def test_the_preamble_is_part_of_the_hash_and_the_place_is_not(folder: Path) -> None:
    before = loaded(folder, GOOD)
    assert load(written(folder, GOOD, "renamed.md")).hash == before.hash
    (folder / "preamble.md").write_text("Another world.")
    assert loaded(folder, GOOD).hash != before.hash


BROKEN = [
    # (old, new, line, reason)
    ("---\nkey", "key", 1, "begins with front matter"),
    ("min_score: {score: 3}}\n---\n", "min_score: {score: 3}}\n", 1, "not closed"),
    ("key: note", "key: Note!", 2, "key: 'Note!' has not the form"),
    ("key: note\n", "", 2, "'key' is missing"),
    ("key: note", "key: note\nkey: other", 3, "'key' stands here a second time"),
    ("tone: {warm: 4", "tone: {warm: 4, warm: 1", 8, "'warm' stands here a second time"),
    ("kind: document", "kind: documents", 3, "unknown value 'documents'; did you mean 'document'"),
    ("dedup: body", "dedupe: body", 6, "unknown key 'dedupe'; did you mean 'dedup'"),
    ("dedup: body", "dedup: body\nredraw: 2", 7, "unknown key 'redraw'; did you mean 'redraws'"),
    ("dedup: body", "dedup: body\nredraws: 11", 7, "less than or equal to 10"),
    ("dedup: body", "dedup: body\nredraws: -1", 7, "greater than or equal to 0"),
    ("dedup: body", "dedup: body\nredraws: true", 7, "valid integer"),
    ("dedup: body", "dedup: body\nlanes: 0", 7, "greater than or equal to 1"),
    ("dedup: body", "dedup: body\ntwin: tome", 7, "twin: no axis 'tome'; did you mean 'tone'"),
    ("dedup: body", "dedup: user", 6, "dedup: of a document: body, scenario, none"),
    ("[100, 200]", "[200, 100]", 5, "runs from a positive number"),
    ("[100, 200]", "[0, 100]", 5, "runs from a positive number"),
    ("[100, 200]", "[100]", 5, "two whole numbers"),
    ("[100, 200]", "[100, 200.5]", 5, "two whole numbers"),
    ("[100, 200]", "[true, 200]", 5, "two whole numbers"),
    ("[100, 200]", "100", 5, "two whole numbers"),
    ("[100, 200]", "[100, 200", 6, "not YAML"),
    ("about: A note", "about: *note", 4, "aliases"),
    ("about: A note that touches the principle.", "about: &a [*a]", 4, "aliases"),
    ("about: A note that touches the principle.", "about: !!python/object:os.system x", 4, "read as"),
    ("about: A note that touches the principle.", "about: " + "9" * 5000, 4, "not a number that can be read"),
    ("about: A note that touches the principle.", "about: " + "[" * 2000, 2, "nested too deeply|not YAML"),
    ("about: A note that touches the principle.", "about: \x07", 4, "cannot stand in YAML"),
    ("about: A note that touches the principle.", "about: |\n" + "  x\n" * 60_000, 2, "characters of YAML"),
    ("tone: {warm: 4", "tone: {true: 4", 8, "the key true is not text; put it in quotes"),
    ("tone: {warm: 4", "tone: {1990: 4", 8, "the key 1990 is not text; put it in quotes"),
    ("tone: {warm: 4", "tone: {[a]: 4", 8, "the key a list or mapping is not text"),
    ("tone: {warm: 4", "tone: {warm: 0", 8, "weight of 'warm' is a number above 0; found 0"),
    ("tone: {warm: 4", "tone: {warm: x", 8, "weight of 'warm' is a number above 0; found 'x'"),
    ("tone: {warm: 4", "tone: {<<: {a: 1}, warm: 4", 8, "weight of '<<' is a number"),
    ("[a diary, a letter]", "[a diary, true]", 9, "the value True is not text; put it in quotes"),
    ("[a diary, a letter]", "[a diary, a diary]", 9, "'a diary' stands there twice"),
    ("[a diary, a letter]", "[]", 9, "no values"),
    ("[a diary, a letter]", "a diary", 9, "a list of values, or a mapping"),
    ("  outlet:", "  Outlet:", 9, "has not the form"),
    ("role: write,", "role: writer,", 12, "unknown value 'writer'; did you mean 'write'"),
    ("role: write,", "", 12, "names no role"),
    ("role: write,", "rolle: write,", 12, "unknown key 'steps.draft.rolle'; did you mean 'role'"),
    ("role: write,", "role: write, shema: {a: 1},", 12, "unknown key 'steps.draft.shema'; did you mean 'schema'"),
    ("context: full, ", "", 12, "'steps.draft.context' is missing"),
    ("context: full", "context: whole", 12, "unknown value 'whole'"),
    ("returns: text", "returns: texts", 12, "did you mean 'text'"),
    ("tag: document}", "tag: document, n_items: 3}", 12, "n_items belongs to returns: list"),
    ("tag: document}", "tag: document, lowest: 3}", 12, "belong to returns: score"),
    ("tag: document}", "tag: document, form: completion, inject: x}", 12, "inject belongs to form: chat"),
    ("tag: document}", "tag: document, form: completion, tools: [{a: 1}]}", 12, "tools belong to form: chat"),
    ("tag: document}", "tag: document, schema: {a: 1}}", 12, "a schema belongs to"),
    ("tag: document}", "tag: document, max_tokens: 0}", 12, "greater than or equal to 1"),
    ("tag: document}", "tag: document, per: round}", 12, "a round returns a list"),
    ("tag: document}", 'tag: document, inject: "{{ anlge }}"}', 12, "did you mean 'angle'"),
    ("tag: ideas}", "tag: ideas, n_items: 65}", 11, "less than or equal to 64"),
    ("tag: ideas}", "tag: ideas, n_items: 0}", 11, "greater than or equal to 1"),
    ("highest: 5", "highest: 1", 13, "lowest is not below highest"),
    ("returns: score, tag: score, highest: 5", "returns: list, tag: score", 13, "a list needs n_items"),
    (
        "score: {role: judge, context: none, returns: score, tag: score, highest: 5}",
        "score: {per: round, context: none, returns: list, tag: score}",
        13,
        "'angle' is the round already",
    ),
    ("{text: draft}", "{text: drat}", 14, "emit.text: no step 'drat'; did you mean 'draft'"),
    ("{text: draft}", "{text: angle}", 14, "'angle' is a round"),
    ("{text: draft}", "{text: score}", 14, "emit.text takes text; 'score' returns score"),
    ("{text: draft}", "{user: draft}", 14, "a document emits {text}; found user"),
    ("{text: draft}", "{}", 14, "at least 1 item"),
    ("[link]", "[links]", 15, "no check 'links'; did you mean 'link'"),
    ("{score: 3}", "{draft: 3}", 15, "no step 'draft' that returns a score"),
    ("{score: 3}", "{score: 6}", 15, "6 is not within 1 to 5"),
    ("off: [link]", "of: [link]", 15, "unknown key 'checks.of'; did you mean 'off'"),
    ("checks:", "source: {path: x, columns: []}\nchecks:", 15, "at least 1 item"),
    ("checks:", "source: {path: x, sha256: abc, columns: [a]}\nchecks:", 15, "has not the form"),
    ("checks:", "source: {path: x, column: [a]}\nchecks:", 15, "did you mean 'columns'|'source.columns' is missing"),
    ("\n\n## instructions", "\n\nHello\n\n## instructions", 18, "text before the first section"),
    ("## step: draft", "## step: draught", 28, "no step 'draught' in the front matter; did you mean 'draft'"),
    ("## step: draft", "## Step: draft", 28, "'## Step: draft' is not a section; write"),
    ("## step: draft", "### step: draft", 28, "is not a section"),
    ("## instructions", "## instruction", 18, "'## instruction' is not a section"),
    ("## step: score\n", "## step: draft\n", 33, "stands here a second time"),
    ("## step: score\n{{ draft }}\nAnswer in <score>.\n", "", 13, "step 'score' has no prompt"),
    ("## step: score\n{{ draft }}\nAnswer in <score>.\n", "## step: score\n \n", 33, "is empty"),
    ("Notes by {{ assistant }}", "Notes\n{{ asistant }}", 21, "did you mean 'assistant'"),
    ("Notes by {{ assistant }}", "{{ principle.title }}", 20, "'principle' is not known here: instructions are shared"),
    ("Notes by {{ assistant }}", "{{ brief.n_words }}", 20, "'brief' is not known here: instructions are shared"),
    ("{{ n_items }} ideas", "{{ brief.axes.tone }}", 26, "'brief' is not known here: a round is asked ahead"),
    ("{{ n_items }} ideas", "{{ draft }}", 26, "'draft' is not known here: a round is asked ahead"),
    ("{{ n_items }} ideas", "{{ names.person(1) }}", 26, "'names' is not known here: a round is asked ahead"),
    ("{{ angle }}, ", "{{ score }}, ", 30, "'score' is not known here: it is answered after 'draft'"),
    ("{{ angle }}, ", "{{ draft }}, ", 30, "'draft' is not known here: it is the answer to this very prompt"),
    ("{{ angle }}, ", "{{ taken }}, ", 30, "'taken' is not known here"),
    ("{{ angle }}, ", "{{ n_items }}, ", 30, "'n_items' is not known here"),
    ("{{ angle }}, ", "{{ brief.row.x }}, ", 30, "'row' is not known here: the genre has no source"),
    ("{{ angle }}, ", "{{ brief.twin }}, ", 30, "'twin' is not known here"),
    ("{{ brief.axes.tone }}", "{{ brief.axes.tune }}", 30, "brief.axes has no 'tune'; did you mean 'tone'"),
    ("Write between <document> and </document>.", "Write.", 30, "never mentions <document>"),
    ("{{ draft }}\nAnswer", "{% for c in draft %}{% endfor %}\nAnswer", 34, "a loop runs over a list; draft is text"),
    ("{{ draft }}\nAnswer", "{{ draft\nAnswer", 35, "not a template"),
]


@pytest.mark.parametrize(("old", "new", "line", "reason"), BROKEN, ids=[f"{b[1][:40]}-{b[3][:25]}" for b in BROKEN])
def test_a_broken_file_is_refused_with_line_and_reason(
    folder: Path, old: str, new: str, line: int, reason: str
) -> None:
    with pytest.raises(GenreError, match=reason) as caught:
        loaded(folder, change(GOOD, old, new))
    assert str(caught.value).startswith(f"{folder / 'note.md'}:{line}: ")


BROKEN_CHATS = [
    ("dedup: scenario", "dedup: text", 6, "unknown value 'text'"),
    (
        "{user: reply, assistant: reply, tools: plan}",
        "{user: reply}",
        27,
        "a chat emits {messages, tools.} or {system.,",
    ),
    ("{user: reply, assistant: reply, tools: plan}", "{messages: reply}", 27, "takes messages; 'reply' returns text"),
    ("{user: reply, assistant: reply, tools: plan}", "{user: reply, assistant: reply, tools: talk}", 27, "takes json"),
    ("context: principle, returns: json", "context: full, returns: json", 32, "'principle' is not known here"),
    ("You weigh {{ principle.title }}.\n", "You weigh\n      {{ principal.title }}.\n", 25, "did you mean 'principle'"),
    ("brief.row.prompt", "brief.row.promt", 36, "did you mean 'prompt'"),
    ("{% for point in points %}", "{{ points }}{% for point in points %}", 40, "a list is not printed"),
    ("  talk:", "  brief:", 26, "means something else; rename it"),
    ("  points:", "  if:", 16, "means something else; rename it"),
    (
        "points: {role: write, context: principle, returns: list, n_items: 5}",
        "points: 3",
        16,
        "expected `key: value` pairs",
    ),
]


@pytest.mark.parametrize(("old", "new", "line", "reason"), BROKEN_CHATS, ids=[b[1][:40] for b in BROKEN_CHATS])
def test_a_broken_chat_is_refused_with_line_and_reason(
    folder: Path, old: str, new: str, line: int, reason: str
) -> None:
    with pytest.raises(GenreError, match=reason) as caught:
        loaded(folder, change(CHAT, old, new))
    assert str(caught.value).startswith(f"{folder / 'note.md'}:{line}: ")


def test_scenario_dedup_needs_angles(folder: Path) -> None:
    text = change(GOOD, "dedup: body", "dedup: scenario")
    assert loaded(folder, text).dedup == "scenario"
    without = change(
        change(text, "  angle: {per: round, context: principle, returns: list, tag: ideas}\n", ""), "{{ angle }}", ""
    )
    start, end = without.index("## step: angle"), without.index("## step: draft")
    with pytest.raises(GenreError, match=r"note\.md:6: dedup: scenario compares angles"):
        loaded(folder, without[:start] + without[end:])


def test_sections_stand_in_the_order_of_the_steps(folder: Path) -> None:
    draft, score = GOOD.index("## step: draft"), GOOD.index("## step: score")
    with pytest.raises(GenreError, match=r"note\.md:10: the sections stand in another order"):
        loaded(folder, GOOD[:draft] + GOOD[score:] + GOOD[draft:score])


def test_a_genre_of_rounds_alone_makes_no_documents(folder: Path) -> None:
    text = "---\nkey: x\nkind: item\nabout: x\nn_words: [1, 2]\ndedup: none\nsteps:\n"
    text += "  a: {per: round, context: none, returns: list}\nemit: {x: a}\n---\n## step: a\nx\n"
    with pytest.raises(GenreError, match=r"note\.md:7: every step is a round"):
        loaded(folder, text)


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"---\nkey: \xff\n---\n", 2, "not UTF-8: byte 0xff"),
        (b"---\nkey: x\n\0", 3, "NUL"),
        (b"", 1, "begins with front matter"),
        (b"---\n---\n", 2, "'key' is missing"),
        (b"---\n- a\n---\n", 2, "expected `key: value` pairs"),
        (b"---\nnull\n---\n", 2, "expected `key: value` pairs"),
        (b"x" * 500_001, 1, "at most 500,000"),
    ],
)
def test_files_that_are_no_genre(folder: Path, data: bytes, line: int, reason: str) -> None:
    path = folder / "odd.md"
    path.write_bytes(data)
    with pytest.raises(GenreError, match=reason) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_a_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(GenreError, match="cannot be read: No such file"):
        load(folder / "none.md")


def test_later_directories_override_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dirs = [tmp_path / name for name in ("built_in", "first", "second")]
    for directory in dirs:
        directory.mkdir()
    monkeypatch.setattr(genres, "BUILTIN_DIR", dirs[0])
    (dirs[0] / "preamble.md").write_text("World.")
    (dirs[0] / "README.md").write_text("Not a genre.")
    written(dirs[0], GOOD)
    written(dirs[0], change(GOOD, "key: note", "key: other"), "b.md")
    written(dirs[1], change(GOOD, "about: A note", "about: First"), "x.md")
    written(dirs[2], change(GOOD, "about: A note", "about: Second"), "y.md")
    abouts: dict[str, Any] = {key: genre.about.split()[0] for key, genre in discover(dirs[1:]).items()}
    assert abouts == {"note": "Second", "other": "A"}
    assert [genre.about.split()[0] for genre in discover([]).values()] == ["A", "A"]


def test_one_key_has_one_file_in_a_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genres, "BUILTIN_DIR", folder)
    written(folder, GOOD, "a.md")
    written(folder, GOOD, "b.md")
    with pytest.raises(GenreError, match=r"b\.md:2: the key 'note' is that of .*a\.md too"):
        discover([])
    (folder / "b.md").unlink()
    with pytest.raises(GenreError, match="not a directory"):
        discover([folder / "none"])


def test_every_built_in_genre_loads() -> None:
    assert discover([])
