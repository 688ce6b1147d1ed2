"""What is put around documents: beginning and end tokens, tags; and which tokenizer a stream stands for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sdf.errors import StreamError, TokenizerError
from sdf.stream.chats import template_of
from sdf.stream.corpus import Corpus
from sdf.stream.encoders import Encoder
from sdf.stream.lengths import basis_of
from sdf.stream.tokens_format import TOKEN, Ids

Token = int | str | None


class Frame(NamedTuple):
    """Tokens around every document of a corpus: `head` (a beginning token, a tag) is never learnt, `tail` is."""

    head: Ids
    tail: Ids

    @property
    def n_tokens(self) -> int:
        return len(self.head) + len(self.tail)


def frame_of(corpus: Corpus, encoder: Encoder | None, *, bos: Token, eos: Token, tag: str | None) -> Frame:
    """StreamError for a corpus that is not trained on; TokenizerError for tokens that the tokenizer does not have."""
    if corpus.config not in ("documents", "chats"):
        raise StreamError(f"{corpus.place}: {corpus.config} are not trained on; give documents or chats")
    if encoder is None and not corpus.is_tokens:
        raise TokenizerError(f"{corpus.place}: holds texts; give tokenizer=, or `sdf export --to tokens` it first")
    if encoder is not None and corpus.config == "chats" and not corpus.is_tokens:
        template_of(encoder)
    head, tail = (
        ([], [])
        if corpus.config == "chats"
        else (_special(bos, "bos", corpus, encoder), _special(eos, "eos", corpus, encoder))
    )
    if tag:
        if encoder is None:
            raise TokenizerError(f"{corpus.place}: a tag needs tokenizer=, the one that the export was made with")
        head = head + encoder.encode([tag])[0].tolist()
    return Frame(np.array(head, TOKEN), np.array(tail, TOKEN))


def tokenizer_hash(corpora: Iterable[Corpus], encoder: Encoder | None) -> str:
    """The one tokenizer of all; with chats to render, their template too. TokenizerError when there are several."""
    corpora = list(corpora)
    hashes = {corpus.index.tokenizer_hash: str(corpus.place) for corpus in corpora if corpus.index is not None}
    if encoder is not None:
        hashes.setdefault(encoder.hash, encoder.name)
    if len(hashes) > 1:
        told = "; ".join(f"{name}: sha256 {hash[:12]}" for hash, name in hashes.items())
        raise TokenizerError(
            f"different tokenizers in one stream ({told}); give the one of the exports, or export again"
        )
    hash = next(iter(hashes))
    has_chats = any(corpus.config == "chats" and not corpus.is_tokens for corpus in corpora)
    return basis_of(hash, template_of(encoder)) if has_chats and encoder else hash


def _special(given: Token, what: str, corpus: Corpus, encoder: Encoder | None) -> list[int]:
    if encoder is not None:
        found = encoder.token(given, what)
    elif given == "tokenizer" and corpus.index is not None and corpus.index.eos is not None:
        found = corpus.index.eos
    elif given is None or isinstance(given, int):
        found = given
    else:
        reason = "names no end token" if given == "tokenizer" else f"names no token {given!r}"
        raise TokenizerError(
            f"{corpus.place}: the export {reason}; give {what}= its id, or None, or the tokenizer of the export"
        )
    if found is not None and found < 0:
        raise TokenizerError(f"{what}={found}: ids are numbers from 0; None for no token")
    return [] if found is None else [found]
