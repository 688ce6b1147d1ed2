"""The tokenizer of a training job, whichever library it comes from, behind one face.

A `tokenizer.json` (the tokenizers library), a Hugging Face tokenizer, or a tiktoken encoding. Its hash goes into states
and token exports, and covers what decides ids: vocabulary, merges, normalisation, special tokens; not the padding and
truncation that a library switches on in passing, which a copy of our own does without.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdf.errors import TokenizerError
from sdf.stream.tokens_format import TOKEN, Ids

# A run of 999,999 white-space characters overflows the stack of tiktoken's regex engine. Longer texts are searched for
# such runs, which are encoded in parts of a length that its longest tokens of spaces divide.
MAX_SPACES = 999_936
_KNOWN = "a path of a tokenizer.json, a tokenizers.Tokenizer, a Hugging Face tokenizer, or a tiktoken.Encoding"


class Encoder:
    """Texts to ids, without special tokens added and with none read in the text of a tiktoken encoding.

    `name` and `hash` say which tokenizer it is. `vocabulary` is the sha256 of a tiktoken vocabulary file, by which a
    corpus names what it counted with, else None. `chat` is the Hugging Face tokenizer that renders chats, else None.
    """

    def __init__(
        self,
        name: str,
        hash: str,
        encode: Callable[[Sequence[str]], list[Ids]],
        id_of: Callable[[str], int | None],
        *,
        eos: int | None = None,
        vocabulary: str | None = None,
        fast: Any = None,
        chat: Any = None,
        special: Sequence[str] = (),
    ) -> None:
        self.name, self.hash, self.eos, self.vocabulary = name, hash, eos, vocabulary
        self.encode, self._id_of, self.fast, self.chat = encode, id_of, fast, chat
        self.special = list(special)

    def token(self, given: int | str | None, what: str) -> int | None:
        """The id of a token named by its text, its id, or as "tokenizer" for the end token of the tokenizer itself."""
        if given is None or isinstance(given, int):
            return given
        found = self.eos if given == "tokenizer" else self._id_of(given)
        if found is None:
            reason = "names no end token" if given == "tokenizer" else f"has no token {given!r}"
            special = f", such as {', '.join(map(repr, self.special[:4]))}" if self.special else ""
            raise TokenizerError(
                f"{self.name}: {reason}; give {what}= the text of a token{special}, or its id, or None for documents "
                "without one"
            )
        return found


def encoder_of(tokenizer: Any) -> Encoder:
    """TokenizerError says what can be given when it is none of these."""
    if isinstance(tokenizer, Encoder):
        return tokenizer
    if isinstance(tokenizer, str | os.PathLike):
        return _of_file(Path(tokenizer))
    if hasattr(tokenizer, "encode_ordinary"):
        return _of_tiktoken(tokenizer)
    if hasattr(tokenizer, "apply_chat_template"):
        return _of_hugging_face(tokenizer)
    if hasattr(tokenizer, "encode_batch"):
        return _of_tokenizers(tokenizer, "tokenizers.Tokenizer")
    raise TokenizerError(f"tokenizer={type(tokenizer).__name__}: give {_KNOWN}")


def _of_file(path: Path) -> Encoder:
    from tokenizers import Tokenizer  # pyright: ignore[reportMissingImports]

    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise TokenizerError(f"{path}: no such file; give {_KNOWN}")
    try:
        loaded = Tokenizer.from_file(str(path))
    # The library raises Exception itself.
    except Exception as error:  # noqa: BLE001
        raise TokenizerError(f"{path}: not a tokenizer.json ({error}); give {_KNOWN}") from None
    name = path.name if path.name != "tokenizer.json" else path.parent.name or path.name
    return _of_tokenizers(loaded, name, _end_token_beside(path, loaded))


def _end_token_beside(path: Path, tokenizer: Any) -> int | None:
    """A tokenizer.json does not say which token ends a document; the tokenizer_config.json beside it may."""
    try:
        settings = json.loads((path.parent / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    named = settings.get("eos_token") if isinstance(settings, dict) else None
    text = named.get("content") if isinstance(named, dict) else named
    return tokenizer.token_to_id(text) if isinstance(text, str) else None


def _of_tokenizers(tokenizer: Any, name: str, eos: int | None = None, chat: Any = None) -> Encoder:
    text = tokenizer.to_str()
    decisive = {key: value for key, value in json.loads(text).items() if key not in ("padding", "truncation")}
    own = type(tokenizer).from_str(text)
    own.no_padding()
    own.no_truncation()

    def encode(texts: Sequence[str]) -> list[Ids]:
        found = own.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(each.ids, TOKEN) for each in found]

    special = [token.content for token in own.get_added_tokens_decoder().values() if token.special]
    return Encoder(name, _hash(decisive), encode, own.token_to_id, eos=eos, fast=own, chat=chat, special=special)


def _of_hugging_face(tokenizer: Any) -> Encoder:
    name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
    eos = tokenizer.eos_token_id
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None:
        return _of_tokenizers(fast, name, eos, tokenizer)

    def encode(texts: Sequence[str]) -> list[Ids]:
        found = tokenizer(list(texts), add_special_tokens=False, padding=False, truncation=False)["input_ids"]
        return [np.array(ids, TOKEN) for ids in found]

    def id_of(token: str) -> int | None:
        return tokenizer.get_vocab().get(token)

    decisive = [type(tokenizer).__name__, tokenizer.get_vocab(), repr(tokenizer.special_tokens_map)]
    return Encoder(name, _hash(decisive), encode, id_of, eos=eos, chat=tokenizer)


def _of_tiktoken(encoding: Any) -> Encoder:
    # tiktoken offers no other way to its vocabulary.
    ranks: Mapping[bytes, int] = encoding._mergeable_ranks
    special: Mapping[str, int] = encoding._special_tokens
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    vocabulary = hashlib.sha256(b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ordered))

    def encode_part(text: str) -> Ids:
        # A third faster than a list of ids made an array.
        return encoding.encode_to_numpy(text, disallowed_special=())

    def encode(texts: Sequence[str]) -> list[Ids]:
        return [
            np.concatenate([encode_part(part) for part in _parts(text)]).astype(TOKEN, copy=False) for text in texts
        ]

    decisive = [vocabulary.hexdigest(), encoding._pat_str, dict(special)]
    return Encoder(
        encoding.name,
        _hash(decisive),
        encode,
        special.get,
        eos=special.get("<|endoftext|>"),
        vocabulary=vocabulary.hexdigest(),
    )


def _parts(text: str) -> Iterator[str]:
    start = 0
    if len(text) > MAX_SPACES:
        for run in re.finditer(r"\s+", text):
            for cut in range(run.start() + MAX_SPACES, run.end(), MAX_SPACES):
                yield text[start:cut]
                start = cut
    yield text[start:]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
