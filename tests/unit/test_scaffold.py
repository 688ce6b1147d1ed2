"""A new genre file loads as it is, plays as it is, and is never written over another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import CONSTITUTION, documents, make
from typer.testing import CliRunner

from sdf import api
from sdf.cli import app
from sdf.errors import GenreError
from sdf.genres.scaffold import KINDS, scaffold
from sdf.ledger import read_ledger
from sdf.storage import RunDir


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_makes_a_corpus_as_it_is_written(tmp_path: Path, kind: str) -> None:
    genre = scaffold("my_genre", kind, tmp_path / "mine")
    assert (genre.key, genre.kind, genre.path) == ("my_genre", kind, str(tmp_path / "mine" / "my_genre.md"))
    (tmp_path / "constitution.md").write_text(CONSTITUTION)
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Why is row {n} so?"}) + "\n" for n in range(5))
    )
    recipe = {
        **{"constitution": "constitution.md", "assistant": "A", "maker": "M", "genres_dir": ["mine"]},
        **{"mix": {"my_genre": 1}, "tokens": 2_000, "ray": "none", "workers": 1},
        **({"sources": {"my_genre": "rows.jsonl"}} if kind == "prompt" else {}),
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    make(str(tmp_path / "recipe.yaml"), tmp_path / "out")
    assert sum(len(rows) for rows in documents(tmp_path / "out").values()) >= 3
    reasons = {each.reason for each in read_ledger(RunDir(tmp_path / "out")).receipts}
    assert not reasons & {"failed", "not_emitted"} and not any("unparsable" in str(each) for each in reasons)


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    before = Path(scaffold("mine", "chat", tmp_path).path).read_bytes()
    with pytest.raises(GenreError, match=r"mine\.md: is there already"):
        scaffold("mine", "item", tmp_path)
    assert (tmp_path / "mine.md").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "kind", "reason"),
    [
        ("My Genre", "chat", "'My Genre' is no key: small letters"),
        ("../x", "chat", "is no key"),
        ("mine", "chats", "unknown kind 'chats'; did you mean 'chat'"),
        ("blog_post", "document", r"'blog_post' is the key of .*blog_post\.md; choose another"),
    ],
)
def test_what_is_no_new_genre_is_said(tmp_path: Path, key: str, kind: str, reason: str) -> None:
    with pytest.raises(GenreError, match=reason):
        api.new_genre(key, kind=kind, directory=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_says_where_it_is_and_what_to_do_next(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["genres", "new", "reader_letter", "--dir", str(tmp_path / "g")])
    assert made.exit_code == 0 and "reader_letter.md: kind document, steps angle, draft" in made.stdout
    assert CliRunner().invoke(app, ["genres", "check", str(tmp_path / "g" / "reader_letter.md")]).exit_code == 0
    again = CliRunner().invoke(app, ["genres", "new", "reader_letter", "--dir", str(tmp_path / "g")])
    assert again.exit_code == 2
