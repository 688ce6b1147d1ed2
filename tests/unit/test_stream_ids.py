"""Token ids: counted once and remembered, the same from texts as from an export, and damage named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streams import END, Growing, and_no_text, byte_tokenizer, complete, documents

from sdf import tokens
from sdf.errors import DamagedError, StreamError, TokenizerError
from sdf.stream import Corpus
from sdf.stream.encoders import MAX_SPACES, Encoder, encoder_of
from sdf.stream.ids import StoredIds, TextIds
from sdf.stream.lengths import LengthStore, default_directory
from sdf.stream.tokens_format import TokenIndex, write_index, write_shard


class Counting:
    """An encoder that knows how many texts it encoded."""

    def __init__(self, encoder: Encoder) -> None:
        self.n_texts = 0
        self._encode = encoder.encode
        encoder.encode = self.encode

    def encode(self, texts: Any) -> Any:
        self.n_texts += len(texts)
        return self._encode(texts)


def export(directory: Path, bodies: list[bytes], per_shard: int = 7, **changes: Any) -> TokenIndex:
    directory.mkdir(exist_ok=True)
    parts = [bodies[start : start + per_shard] for start in range(0, len(bodies), per_shard)]
    ids = [[np.frombuffer(body, np.uint8).astype("u4") for body in part] for part in parts]
    shards = tuple(write_shard(directory, number, each) for number, each in enumerate(ids))
    values: dict[str, Any] = {
        "tokenizer": "bytes",
        "tokenizer_hash": encoder_of(byte_tokenizer()).hash,
        "eos": END,
        "source": "ab" * 32,
        "config": "documents",
        "split": "train",
        "n_documents": len(bodies),
        "n_tokens": sum(map(len, bodies)),
    }
    index = TokenIndex(**values | changes, shards=shards)
    write_index(directory, index)
    return index


def test_texts_and_their_export_are_the_same_ids(tmp_path: Path) -> None:
    corpus = Corpus(complete(tmp_path / "corpus", documents(45)))
    export(tmp_path / "tokens", [row["text"].encode() for row in documents(45)])
    texts = TextIds(corpus, encoder_of(byte_tokenizer()), 100, None)
    stored = StoredIds(Corpus(tmp_path / "tokens"))
    rows = np.array([44, 3, 20, 0, 19])
    assert texts.lengths(1, rows).tolist() == stored.lengths(0, rows).tolist()
    assert texts.lengths(1, rows).tolist() == [len(documents(45)[row]["text"]) for row in rows]
    both = texts.encoded(1, rows.tolist()), stored.encoded(0, rows.tolist())
    for row in rows.tolist():
        assert both[0][row][0].tolist() == both[1][row][0].tolist() == list(documents(45)[row]["text"].encode())


def test_a_corpus_that_counted_with_the_same_tokenizer_is_not_counted_again(tmp_path: Path) -> None:
    encoder = encoder_of(byte_tokenizer())
    counting = Counting(encoder)
    ids = TextIds(Corpus(complete(tmp_path, documents(45))), encoder, 100, None)
    assert ids.lengths(1, np.arange(45)).sum() == sum(row["n_tokens"] for row in documents(45))
    assert counting.n_texts == 0
    ids.encoded(1, [3, 4])
    assert counting.n_texts == 2


def test_counts_are_remembered_for_others_and_never_believed_when_damaged(tmp_path: Path) -> None:
    Growing(tmp_path / "corpus").grow(documents(45), "complete")

    def counted() -> tuple[int, list[int]]:
        encoder = encoder_of(byte_tokenizer())
        counting = Counting(encoder)
        ids = TextIds(Corpus(tmp_path / "corpus"), encoder, 100, tmp_path / "kept")
        return counting.n_texts, [*ids.lengths(1, np.arange(45)).tolist(), counting.n_texts]

    expected = [len(row["text"]) for row in documents(45)]
    assert counted()[1] == [*expected, 45]
    assert counted()[1] == [*expected, 0]
    files = sorted(path for path in (tmp_path / "kept").rglob("*") if path.is_file())
    assert len(files) == 3
    for path, data in ((files[0], b""), (files[1], files[1].read_bytes()[:-1] + b"\x07")):
        path.write_bytes(data)
    # Of shards of 20, 20 and 5 documents two are damaged.
    assert counted()[1][-1] in (40, 25)
    assert counted()[1] == [*expected, 0]


def test_a_directory_that_cannot_be_written_keeps_nothing_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = LengthStore(tmp_path / "file", "basis")
    store.keep("ab" * 32, 0, np.arange(3))
    assert store.find("ab" * 32, 0, 3) is None


def test_the_default_directory_is_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDF_STREAM_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(default_directory()) == "/x/sdf-stream"
    monkeypatch.setenv("SDF_STREAM_DIR", "/y")
    assert str(default_directory()) == "/y"


def test_counts_that_are_not_those_of_the_tokenizer_are_named(tmp_path: Path) -> None:
    rows = [row | {"n_tokens": row["n_tokens"] + (number == 30)} for number, row in enumerate(documents(45))]
    ids = TextIds(Corpus(complete(tmp_path, rows)), encoder_of(byte_tokenizer()), 100, None)
    ids.lengths(1, np.arange(45))
    with pytest.raises(DamagedError, match=r"row 10: bytes makes \d+ tokens of it, and \d+ were counted"):
        ids.encoded(1, list(range(45)))


def test_only_a_window_is_held(tmp_path: Path) -> None:
    Growing(tmp_path, rows_per_shard=1000).grow(documents(6000), "complete")
    encoder = encoder_of(byte_tokenizer())
    counting = Counting(encoder)
    ids = TextIds(Corpus(tmp_path), encoder, 1000, None)
    for row in range(0, 6000, 1000):
        ids.encoded(1, [row])
        ids.encoded(1, [row])
    assert counting.n_texts == 6
    ids.encoded(1, [0])
    assert counting.n_texts == 7


def test_a_column_that_is_no_text(tmp_path: Path) -> None:
    corpus = Corpus(complete(tmp_path, documents(5)), text="n_tokens")
    with pytest.raises(StreamError, match=r"row 0: column 'n_tokens' holds int, no text"):
        TextIds(corpus, encoder_of(byte_tokenizer()), 100, None).lengths(1, np.arange(5))
    corpus = Corpus(tmp_path, text="txet")
    with pytest.raises(StreamError, match="no column 'txet'; did you mean 'text'"):
        TextIds(corpus, encoder_of(byte_tokenizer()), 100, None).encoded(1, [0])


@pytest.mark.parametrize("n_bytes", [10, 2_000_000])
def test_a_text_that_is_none_is_named_with_its_row_group(tmp_path: Path, n_bytes: int) -> None:
    pq.write_table(pa.table({"text": and_no_text("x" * n_bytes)}), tmp_path / "x.parquet")
    ids = TextIds(Corpus(tmp_path), encoder_of(byte_tokenizer()), 100, None)
    for read in (lambda: ids.lengths(0, np.arange(2)), lambda: ids.encoded(0, [1])):
        with pytest.raises(DamagedError, match=r"x\.parquet: row group 0: a text that is not UTF-8"):
            read()


def test_a_tiktoken_encoding_is_known_by_what_decides_its_ids() -> None:
    ours = tokens.load("o200k_base")
    encoder = encoder_of(ours._encoding)
    assert encoder.vocabulary == ours.hash
    assert encoder.hash != encoder_of(byte_tokenizer()).hash != encoder_of(byte_tokenizer(1)).hash
    strange = "a" + " " * (MAX_SPACES + 5) + "<|endoftext|>ü"
    assert len(encoder.encode([strange])[0]) == ours.count([strange])[0]


def test_tokens_are_named_by_text_or_id() -> None:
    encoder = encoder_of(byte_tokenizer())
    assert [encoder.token(given, "eos") for given in ("tokenizer", "<|endoftext|>", 7, None)] == [END, END, 7, None]
    with pytest.raises(TokenizerError, match=r"bytes: has no token '</s>'; give eos="):
        encoder.token("</s>", "eos")
    with pytest.raises(TokenizerError, match=r"tokenizer=int: give a path of a tokenizer\.json"):
        encoder_of(3)


def test_a_tokenizer_json_takes_its_end_token_from_the_settings_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("tokenizers")
    made = library.Tokenizer(library.models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    made.add_special_tokens(["</s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TokenizerError, match=r"tokenizer.json: names no end token; .* of a token, such as '</s>', or"):
        encoder_of("tokenizer.json").token("tokenizer", "eos")
    for eos in ("</s>", {"content": "</s>"}):
        Path("tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
        assert encoder_of("tokenizer.json").token("tokenizer", "eos") == 1
    Path("tokenizer_config.json").write_text("{")
    assert encoder_of("tokenizer.json").eos is None


def test_an_unfinished_torn_or_newer_export(tmp_path: Path) -> None:
    export(tmp_path, [b"abc", b"de"])
    path = tmp_path / "tokens.json"
    data = path.read_bytes()
    assert Corpus(tmp_path).is_tokens
    for damaged in (
        data[:-30],
        data.replace(b'"eos": 256', b'"eos": 255'),
        b"[]",
        b"{}",
        data.replace(b"00000.t", b"../00.t"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"tokens\.json: torn or edited index"):
            Corpus(tmp_path)
    path.write_bytes(json.dumps(json.loads(data) | {"format": 2}).encode())
    with pytest.raises(DamagedError, match="format 2 was written by a newer sdf"):
        Corpus(tmp_path)
    path.unlink()
    with pytest.raises(StreamError, match="nor a tokens export"):
        Corpus(tmp_path)


def test_files_of_an_export_that_do_not_belong(tmp_path: Path) -> None:
    export(tmp_path, [b"abc", b"de"])
    tokens_file, offsets_file = tmp_path / "00000.tokens.u32", tmp_path / "00000.offsets.u64"
    whole = tokens_file.read_bytes()
    tokens_file.write_bytes(whole[:-4])
    with pytest.raises(DamagedError, match=r"00000\.tokens\.u32: 16 bytes, the manifest says 20"):
        StoredIds(Corpus(tmp_path)).lengths(0, np.arange(2))
    tokens_file.write_bytes(whole)
    offsets_file.write_bytes(np.array([0, 9, 5], "<u8").tobytes())
    with pytest.raises(DamagedError, match=r"offsets\.u64: its offsets do not rise from 0 to 5"):
        StoredIds(Corpus(tmp_path)).lengths(0, np.arange(2))
    with pytest.raises(StreamError, match="holds documents/train, not chats/train"):
        Corpus(tmp_path, "chats")
    with pytest.raises(StreamError, match="no columns to choose by"):
        Corpus(tmp_path, where={"genre": "x"})
    with pytest.raises(StreamError, match="holds token ids, no texts"):
        Corpus(tmp_path).documents()


def test_a_size_of_an_export_is_a_prefix(tmp_path: Path) -> None:
    export(tmp_path, [b"abc", b"de", b"fghi"])
    assert Corpus(tmp_path, max_tokens=8).n_rows == 2
    assert Corpus(tmp_path, max_tokens=9).n_rows == 3
