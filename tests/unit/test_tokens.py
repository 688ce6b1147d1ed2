from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path

import pytest
import tiktoken
import tiktoken_ext.openai_public as public

from sdf import tokens
from sdf.errors import TokenizerError

VOCABULARY = tokens.DATA_DIR / "o200k_base.tiktoken"
O200K = tokens.load("o200k_base")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tiktoken.Encoding:
    """tiktoken's own o200k_base, built by its own code from a filled cache."""
    cache = tmp_path_factory.mktemp("cache")
    fill_cache(cache, "o200k_base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        return tiktoken.Encoding(**public.o200k_base())


def fill_cache(cache: Path, name: str) -> Path:
    url = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
    return Path(shutil.copy(VOCABULARY, cache / hashlib.sha1(url.encode()).hexdigest()))


def test_counts_are_those_of_tiktoken(bare: tiktoken.Encoding) -> None:
    texts = [
        "",
        " ",
        "A keeper's log.\n\n  1913",
        "未雨绸缪",
        "Zażółć gęślą jaźń",
        "a" * 5000,
        "e\u0301 😀 \ud800",
    ]
    assert O200K.count(texts) == [len(bare.encode_ordinary(text)) for text in texts]


def test_special_tokens_are_ordinary_text(bare: tiktoken.Encoding) -> None:
    assert O200K.count(["<|endoftext|>"]) == [len(bare.encode_ordinary("<|endoftext|>"))]
    assert O200K.count(["<|endoftext|>"])[0] > 1


def test_threads_keep_order() -> None:
    texts = ["word " * n for n in range(40)]
    assert O200K.count(texts, num_threads=3) == O200K.count(texts)


def test_the_longest_run_tiktoken_can_take_counts_as_tiktoken_counts_it(bare: tiktoken.Encoding) -> None:
    text = "x" + " " * 999_990 + "y"
    assert O200K.count([text]) == [len(bare.encode_ordinary(text))]


@pytest.mark.parametrize("space", [" ", "\n", "\t ", "\u00a0"])
def test_a_run_that_would_overflow_tiktoken_is_counted(space: str) -> None:
    run = (space * 2_500_000)[:2_500_000]
    counted = O200K.count(["a" + run + "b"])[0]
    once = O200K.count([(space * 250_000)[:250_000]])[0]
    assert counted == pytest.approx(10 * once, rel=0.001)


def test_the_hash_is_the_sha256_of_the_file() -> None:
    assert O200K.name == "o200k_base"
    assert O200K.hash == hashlib.sha256(VOCABULARY.read_bytes()).hexdigest()


def test_the_notice_lies_beside_the_vocabulary() -> None:
    notice = VOCABULARY.with_suffix(".NOTICE").read_text()
    assert O200K.hash in notice
    assert "Copyright (c) 2022 OpenAI" in notice


@pytest.mark.parametrize("name", sorted(tokens.ENCODINGS))
def test_patterns_and_hashes_are_those_of_tiktoken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected: list[str] = []
    monkeypatch.setattr(public, "load_tiktoken_bpe", lambda url, expected_hash: expected.append(expected_hash))
    theirs = getattr(public, name)()
    assert tokens.ENCODINGS[name].pattern == theirs["pat_str"]
    assert tokens.ENCODINGS[name].special == theirs["special_tokens"]
    assert [tokens.ENCODINGS[name].sha256] == expected


def test_loading_twice_gives_one_tokenizer() -> None:
    assert tokens.load("o200k_base") is O200K


def test_a_pickled_tokenizer_counts_the_same() -> None:
    data = pickle.dumps(O200K)
    assert len(data) < 500
    copy = pickle.loads(data)
    assert copy == O200K
    assert copy.count(["the same words"]) == O200K.count(["the same words"])


def test_a_pickled_tokenizer_refuses_another_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "mine.tiktoken"
    shutil.copy(VOCABULARY, path)
    data = pickle.dumps(tokens.load(str(path)))
    path.write_bytes(b"".join(VOCABULARY.read_bytes().splitlines(keepends=True)[:1000]))
    tokens.load.cache_clear()
    with pytest.raises(TokenizerError, match="give both the same file"):
        pickle.loads(data)


def test_a_file_splits_by_the_encoding_its_name_starts_with(tmp_path: Path, bare: tiktoken.Encoding) -> None:
    paths = [tmp_path / "r50k_base_mine.tiktoken", tmp_path / "house.tiktoken"]
    for path in paths:
        shutil.copy(VOCABULARY, path)
    r50k, house = (tokens.load(str(path)) for path in paths)
    assert (r50k.name, house.name) == ("r50k_base_mine", "house")
    assert house.count(["it'S 12345"]) == [len(bare.encode_ordinary("it'S 12345"))]
    assert r50k.count(["it'S 12345"]) != house.count(["it'S 12345"])


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(TokenizerError, match="did you mean 'o200k_base'"):
        tokens.load("o200k")


def test_an_absent_vocabulary_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(TokenizerError, match=r"never downloaded; pass the path of a cl100k_base\.tiktoken file"):
        tokens.load("cl100k_base")


def test_a_cached_vocabulary_of_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_cache(tmp_path, "cl100k_base")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(TokenizerError, match="not the vocabulary of cl100k_base"):
        tokens.load("cl100k_base")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"IQ== 0\nnot base64! 1\n", r"bad\.tiktoken:2: expected"),
        (b"IQ== zero\n", r"bad\.tiktoken:1: expected"),
        (b"IQ== 0\n", "a byte without a token"),
        (b"", "a byte without a token"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.tiktoken"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        tokens.load(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"none\.tiktoken: cannot read the vocabulary"):
        tokens.load(str(tmp_path / "none.tiktoken"))
