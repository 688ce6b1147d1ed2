"""Where a key is read from, and what is never shown or waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdf.errors import RecipeError
from sdf.providers.keys import key_of


@pytest.mark.parametrize("key", ["sk-ant-api03-CANARY", "CANARY==", "a.b:c/d+e"])
def test_a_key_alone_is_the_key(key: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{key}\n")
    found = key_of("p", str(tmp_path / "key"), "KEY")
    assert found is not None and found.reveal() == key


@pytest.mark.parametrize("place", ["file", "environment"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ANTHROPIC_API_KEY=CANARY", "holds NAME=KEY; .*after the `=`"),
        ("export KEY=CANARY", "holds NAME=KEY"),
        ("KEY=CANARY\nOTHER=CANARY", "holds NAME=KEY"),
        ('KEY="CANARY"', "holds NAME=KEY"),
        ('"CANARY"', "leave the quotes out"),
        ("'CANARY'", "leave the quotes out"),
        ("Bearer CANARY", "more than one word"),
    ],
)
def test_what_stands_around_a_key_is_refused_and_not_shown(
    content: str, words: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(content)
    monkeypatch.setenv("VARIABLE", content)
    with pytest.raises(RecipeError, match=words) as caught:
        key_of("p", str(tmp_path / "key") if place == "file" else "", "VARIABLE")
    assert "CANARY" not in str(caught.value) and ("key_file" if place == "file" else "VARIABLE") in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
def test_only_a_regular_file_is_read(kind: str, tmp_path: Path) -> None:
    path = {"pipe": tmp_path / "pipe", "device": Path("/dev/zero"), "directory": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(RecipeError, match="is no regular file; name a file that holds the key"):
        key_of("p", str(path), "KEY")


@pytest.mark.parametrize("path", ["~nobody_of_this_name/key", "a\0b"])
def test_a_path_that_is_none_is_an_error_of_the_recipe(path: str) -> None:
    with pytest.raises(RecipeError, match="is no path; name a file that holds the key"):
        key_of("p", path, "KEY")


def test_a_link_to_a_file_is_followed_as_mounted_secrets_are(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("CANARY")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    found = key_of("p", str(tmp_path / "link"), "KEY")
    assert found is not None and found.reveal() == "CANARY"
