"""Rows in, the same rows out; the bytes depend on the rows alone."""

from __future__ import annotations

import hashlib
import io
import string
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf.errors import DamagedError
from sdf.manifest import GenreCount, Manifest, TokenizerRef, text_of
from sdf.shards.card import Facts, card
from sdf.shards.file import COLUMNS, canonical_lines, encode, row_groups

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
messages = st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), max_size=3)
contents = {
    "documents": {"text": texts},
    "chats": {"messages": messages, "tools": st.none() | texts},
    "prompts": {"messages": messages, "tools": st.none() | texts},
    "items": {"item": texts},
}
NAMES = ("id", "genre", "principle", "axes", "scores", "model", "prompt_hash", "finish_reason", "constitution_hash")
provenance = dict.fromkeys(NAMES, texts) | {
    "source": st.none() | texts,
    "fallback": st.booleans(),
    "n_tokens": st.integers(0, 2**62),
}


@st.composite
def shards(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    config = draw(st.sampled_from(sorted(COLUMNS)))
    return config, draw(st.lists(st.fixed_dictionaries(contents[config] | provenance), min_size=1, max_size=8))


@given(shards())
def test_rows_come_back_and_the_bytes_are_theirs_alone(shard: tuple[str, list[dict[str, Any]]]) -> None:
    config, rows = shard
    data, rows_sha256 = encode(config, rows)
    back = [row for group in row_groups(io.BytesIO(data), "x", config) for row in group]
    assert back == rows
    assert rows_sha256 == hashlib.sha256(canonical_lines(rows)).hexdigest()
    assert encode(config, [dict(reversed(list(row.items()))) for row in back]) == (data, rows_sha256)
    assert all(isinstance(text_of(config, row), str) for row in back)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3300))
def test_row_groups_are_1000_rows_and_one_rest(n: int) -> None:
    row = dict.fromkeys(NAMES, "x") | {"text": "y", "fallback": False}
    data, _ = encode("documents", [row | {"n_tokens": number} for number in range(n)])
    groups = list(row_groups(io.BytesIO(data), "x", "documents"))
    assert [len(group) for group in groups[:-1]] == [1000] * ((n - 1) // 1000)
    assert [row["n_tokens"] for group in groups for row in group] == list(range(n))


@given(shards(), st.data())
def test_a_damaged_file_is_read_as_it_was_or_named(
    shard: tuple[str, list[dict[str, Any]]], data: st.DataObject
) -> None:
    config, rows = shard
    whole = bytearray(encode(config, rows)[0])
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        list(row_groups(io.BytesIO(whole), "x", config))
    except DamagedError as error:
        assert str(error).startswith("x: ")


@given(shards(), st.data())
def test_a_cut_file_is_never_readable(shard: tuple[str, list[dict[str, Any]]], data: st.DataObject) -> None:
    config, rows = shard
    whole = encode(config, rows)[0]
    with pytest.raises(DamagedError):
        list(row_groups(io.BytesIO(whole[: data.draw(st.integers(0, len(whole) - 1))]), "x", config))


names = st.text(max_size=40) | st.text(string.punctuation + " \n\t-", max_size=40)


@given(names, names, names)
def test_no_name_breaks_out_of_the_card(name: str, genre: str, reason: str) -> None:
    manifest = Manifest(
        number=1,
        state="complete",
        predecessor=None,
        recipe_hash="aa",
        constitution_hash="bb",
        tokenizer=TokenizerRef(name, name),
        target_tokens=0,
        n_tokens=0,
        n_documents=0,
        shards=(),
        genres={genre: GenreCount(0, 0, 0.0)},
        rejected={reason: 1},
        pyarrow=name,
        made_by=name,
    )
    lines = card(manifest, Facts(name, name, (name,), {genre: name})).split("\n")
    plain = card(manifest, Facts("x", "x", ("x",), {})).split("\n")
    assert len(lines) == len(plain)
    head = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    assert set(head) == {"pretty_name", "license", "tags", "size_categories"}
    assert head["license"] == "other"
