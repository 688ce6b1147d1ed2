"""Steps that rewrite, quote and are sampled, columns from rows and templates: what may stand in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from genre_texts import TALE

from sdf.errors import GenreError
from sdf.genres import Genre, load


def loaded(folder: Path, text: str = TALE) -> Genre:
    path = folder / "tale.md"
    path.write_text(text, encoding="utf-8")
    return load(path)


def change(old: str, new: str) -> str:
    assert old in TALE
    return TALE.replace(old, new, 1)


def test_a_file_may_say_all_of_it(tmp_path: Path) -> None:
    genre = loaded(tmp_path)
    steps = {step.name: step for step in genre.steps}
    assert (steps["better"].rewrites, steps["proof"].quotes, steps["second"].sample) == ("reply", "better", 0.5)
    assert (genre.cell_size, genre.opt_in) == (3, "honeypot")
    assert genre.source is not None and (genre.source.path, genre.source.line) == (None, 10)
    assert set(genre.emit_templates) == {"system", "tools"}
    assert genre.emit_templates["tools"].line == 49
    assert {"worry", "bans"} <= genre.asks_with and "names" not in genre.asks_with
    assert steps["proof"].reads == {"better"} and "phrase" not in steps["reply"].reads


BROKEN = [
    ("rewrites: reply", "rewrites: replay", 15, "rewrites: no step 'replay'; did you mean 'reply'"),
    ("rewrites: reply", "rewrites: proof", 15, "'proof' is answered after 'better'"),
    ("rewrites: reply", "rewrites: better", 15, "'better' is this very step"),
    ("rewrites: reply", "rewrites: angle", 15, "'angle' is a round"),
    ("rewrites: reply", "rewrites: scene", 15, "'better' returns text, and 'scene', which it rewrites, json"),
    ("rewrites: reply", "rewrites: reply, sample: 0.5", 15, "a sampled step rewrites nothing"),
    ("quotes: better", "quotes: bettr", 16, "quotes: no step 'bettr'; did you mean 'better'"),
    ("quotes: better", "quotes: second", 16, "'second' is asked for a sample"),
    ("tag: score, quotes: better", "quotes: better", 16, "needs a tag to be found by"),
    ("<quote> and </quote>", "quotation marks", 40, "never mentions <quote>"),
    ("tag: reply}", "tag: reply, quotes: scene}", 14, "quotes belongs to returns: score"),
    ("tag: reply}", "tag: reply, follows: repl}", 14, "follows: no step 'repl'"),
    ("rewrites: reply", "follows: repyl", 15, "follows: no step 'repyl'; did you mean 'reply'"),
    ("tag: reply}", "tag: reply, follows: scene}", 14, "'scene' is no turn of a chat"),
    (
        "context: none, returns: text, tag: reply, rewrites: reply",
        "context: full, returns: text, tag: reply, follows: reply",
        15,
        "'better' has context full, and 'reply', which it follows, none",
    ),
    ("rewrites: reply", "follows: reply, inject: Be brief.", 15, "one system text"),
    ("rewrites: reply", "follows: reply, form: completion", 15, "follows belongs to form: chat"),
    ("tag: score, quotes: better", "tag: score, quotes: better, stop: [END]", 16, "stop belongs to returns: text"),
    ("tag: reply}", "tag: reply, stop: [a, b, c, d, e]}", 14, "at most 4"),
    ("sample: 0.5", "sample: 1.5", 17, "less than 1"),
    ("sample: 0.5", "sample: 0", 17, "greater than 0"),
    ("n_items: 4}", "n_items: 4, sample: 0.5}", 12, "a round is not sampled"),
    ("{proof: 3}", "{second: 3}", 18, "'second' is asked for a sample"),
    ("assistant: better", "assistant: second", 19, "emit.assistant: 'second' is asked for a sample"),
    ("row.prompt", "row.promt", 19, "the source declares no column 'promt'; did you mean 'prompt'"),
    ("source: {columns: [prompt, meta]}\n", "", 18, "emit.user: the genre"),
    ("tools: template}", "tools: reply}", 19, "emit.tools takes json; 'reply' returns text"),
    (
        "system: template, ",
        "",
        45,
        "no column 'system' from a `template` in the front matter; did you|no column 'system'",
    ),
    ("## emit: system\nYou help", "## emit: tools\nYou help", 48, "a second time"),
    ("## emit: system", "## emits: system", 45, "is not a section; write"),
    ("\n\n## emit: tools\n{{ row.meta | tojson }}", "", 19, "'tools' from a `template` has no text; add a section"),
    ("{{ row.meta | tojson }}", "{{ row.mata | tojson }}", 49, "row has no 'mata'; did you mean 'meta'"),
    ("{{ row.meta | tojson }}", "{{ second }}", 49, "'second' is asked for a sample"),
    ("{{ row.meta | tojson }}", "{{ taken }}", 49, "nothing here is called 'taken'"),
    ("Judge between <score>", "{{ row.prompt }} <score>", 43, "never|nothing here is called 'row'"),
    ("  scene:", "  template:", 13, "the name means something else"),
    ("  scene:", "  worry:", 13, "the name means something else"),
    ("cell_size: 3", "cell_size: 0", 8, "greater than or equal to 1"),
    ("opt_in: honeypot", "opt_in: Honey Pot", 9, "has not the form"),
    ("{{ worry }}", "{{ wory }}", 22, "did you mean 'worry'"),
]


@pytest.mark.parametrize(("old", "new", "line", "reason"), BROKEN)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, reason: str) -> None:
    with pytest.raises(GenreError) as caught:
        loaded(tmp_path, change(old, new))
    assert any(part in str(caught.value) for part in reason.split("|")), str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'tale.md'}:"), str(caught.value)
    assert int(str(caught.value).split(":")[1]) == line, str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("quotes: better", "quotes: reply"),
        ("sample: 0.5", "sample: 0.25"),
        ("size: 3", "size: 4"),
        ("rewrites: reply", "rewrites: reply, follows: reply"),
        ("tag: reply}", "tag: reply, stop: [END]}"),
    ],
)
def test_what_decides_what_is_asked_is_part_of_the_hash(tmp_path: Path, old: str, new: str) -> None:
    assert loaded(tmp_path, change(old, new)).hash != loaded(tmp_path).hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (", rewrites: reply", ""),
        ("opt_in: honeypot\n", ""),
        ("You help", "You aid"),
        ("user: row.prompt", "user: row.meta"),
    ],
)
def test_packaging_and_what_an_ablation_needs_are_not(tmp_path: Path, old: str, new: str) -> None:
    assert loaded(tmp_path, change(old, new)).hash == loaded(tmp_path).hash
