"""Counts tokens as `tiktoken` does, never from the network.

`o200k_base` ships with the package; other vocabularies come from tiktoken's own cache directory or from a
file. tiktoken's loader is not used at all: it downloads what it lacks, on every node. The price is the table
of split patterns below, which a test compares with tiktoken's.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import tiktoken

from sdf.errors import TokenizerError

DATA_DIR = Path(__file__).parent / "data"
DEFAULT = "o200k_base"

# A run of 999,999 white-space characters overflows the stack of tiktoken's regex engine. Longer ones are
# counted in parts of this length, a multiple of the longest tokens of spaces (128) and of newlines (16).
MAX_SPACES = 999_936

_R50K = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
_O200K = "|".join(
    [
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""\p{N}{1,3}""",
        r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
        r"""\s*[\r\n]+""",
        r"""\s+(?!\S)""",
        r"""\s+""",
    ]
)


class Known(NamedTuple):
    pattern: str
    sha256: str
    special: Mapping[str, int]


_END = "<|endoftext|>"
_CL100K_SPECIAL = {
    _END: 100257,
    "<|fim_prefix|>": 100258,
    "<|fim_middle|>": 100259,
    "<|fim_suffix|>": 100260,
    "<|endofprompt|>": 100276,
}


ENCODINGS = {
    "o200k_base": Known(
        _O200K,
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        {_END: 199999, "<|endofprompt|>": 200018},
    ),
    "cl100k_base": Known(_CL100K, "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7", _CL100K_SPECIAL),
    "p50k_base": Known(_R50K, "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069", {_END: 50256}),
    "r50k_base": Known(_R50K, "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930", {_END: 50256}),
}


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`name` and `hash` (sha256 of the vocabulary file) together decide every count; equal by these two.

    Pickles as a reference: the receiver loads `source` itself and fails if its vocabulary differs.
    """

    name: str
    hash: str
    source: str = field(compare=False)
    _encoding: tiktoken.Encoding = field(compare=False, repr=False)

    def count(self, texts: Sequence[str], num_threads: int = 1) -> list[int]:
        """Tokens of each text, in order. Text that looks like a special token counts as ordinary text."""
        if num_threads == 1:
            return [self._count(text) for text in texts]
        with ThreadPoolExecutor(num_threads) as pool:
            return list(pool.map(self._count, texts))

    def _count(self, text: str) -> int:
        if len(text) <= MAX_SPACES:
            return len(self._encoding.encode_ordinary(text))
        return sum(len(self._encoding.encode_ordinary(part)) for part in _parts(text))

    @property
    def encoding(self) -> tiktoken.Encoding:
        """As tiktoken would make it; of a vocabulary file it has no special tokens."""
        return self._encoding

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_same, (self.source, self.hash)


@functools.cache
def load(name_or_path: str) -> Tokenizer:
    """The tokenizer of a known encoding, or of a `.tiktoken` file; loaded once per process.

    A file splits text by the pattern of the encoding its name starts with, else by that of o200k_base.
    Raises TokenizerError for an unknown name, an absent vocabulary or a damaged one.
    """
    if name_or_path.endswith(".tiktoken") or Path(name_or_path).name != name_or_path:
        path = Path(name_or_path)
        return _tokenizer(path.name.removesuffix(".tiktoken"), name_or_path, path, _read(path))
    if name_or_path not in ENCODINGS:
        raise TokenizerError(_unknown(name_or_path))
    path = _vocabulary(name_or_path)
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != ENCODINGS[name_or_path].sha256:
        raise TokenizerError(
            f"{path}: not the vocabulary of {name_or_path} (its sha256 differs); {_way_out(name_or_path)}"
        )
    return _tokenizer(name_or_path, name_or_path, path, data)


def _load_same(source: str, sha256: str) -> Tokenizer:
    tokenizer = load(source)
    if tokenizer.hash != sha256:
        raise TokenizerError(
            f"{source}: this machine's vocabulary has sha256 {tokenizer.hash}, the sender's {sha256};"
            " give both the same file"
        )
    return tokenizer


def _tokenizer(name: str, source: str, path: Path, data: bytes) -> Tokenizer:
    pattern = next((known.pattern for key, known in ENCODINGS.items() if name.startswith(key)), _O200K)
    special = dict(ENCODINGS[name].special) if source in ENCODINGS else {}
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=_ranks(data, path), special_tokens=special)
    return Tokenizer(name, hashlib.sha256(data).hexdigest(), source, encoding)


def _vocabulary(name: str) -> Path:
    if name == DEFAULT:
        return DATA_DIR / f"{name}.tiktoken"
    url = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
    path = _cache_dir() / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    if not path.is_file():
        raise TokenizerError(
            f"the vocabulary of {name} is not in tiktoken's cache ({path.parent}) and is never downloaded;"
            f" pass the path of a {name}.tiktoken file, or use {DEFAULT}, which is built in"
        )
    return path


def _cache_dir() -> Path:
    named = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    return Path(named) if named else Path(tempfile.gettempdir()) / "data-gym-cache"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path}: cannot read the vocabulary ({error.strerror or error})") from error


def _ranks(data: bytes, path: Path) -> dict[bytes, int]:
    ranks = dict(_entry(line, path, number) for number, line in enumerate(data.splitlines(), start=1))
    # tiktoken aborts on the first text that needs a byte it lacks, and on a rank that stands twice.
    if any(bytes([byte]) not in ranks for byte in range(256)) or len(set(ranks.values())) != len(ranks):
        raise TokenizerError(f"{path}: damaged vocabulary: a byte without a token, or a rank used twice")
    return ranks


def _entry(line: bytes, path: Path, number: int) -> tuple[bytes, int]:
    try:
        token, rank = line.split()
        return base64.b64decode(token, validate=True), int(rank)
    except ValueError as error:
        raise TokenizerError(f"{path}:{number}: expected `<base64 token> <rank>`, as tiktoken writes") from error


def _parts(text: str) -> Iterator[str]:
    start = 0
    for run in re.finditer(r"\s+", text):
        for cut in range(run.start() + MAX_SPACES, run.end(), MAX_SPACES):
            yield text[start:cut]
            start = cut
    yield text[start:]


def _unknown(name: str) -> str:
    near = get_close_matches(name, ENCODINGS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown tokenizer {name!r}: {hint}known: {', '.join(ENCODINGS)}; or pass the path of a .tiktoken file"


def _way_out(name: str) -> str:
    return "reinstall sdf" if name == DEFAULT else f"replace it, or pass the path of a {name}.tiktoken file"
