"""What a training job imports: shards as a deterministic, elastic, resumable stream.

    Corpus(url).documents(...)      rows as plain dicts
    TokenStream(corpus, ...)        packed batches, a torch IterableDataset; torch is imported when it is asked for
    Mix({...}, weights={...})       several corpora by weights in tokens

Of the project it sees `sdf.manifest` and `sdf.errors` alone, and it needs pyarrow and numpy, nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdf.stream.cache import ShardCache
from sdf.stream.corpus import Corpus, Follow

if TYPE_CHECKING:
    from sdf.stream.batches import Batch
    from sdf.stream.loader import TokenStream
    from sdf.stream.mix import Mix

__all__ = ["Batch", "Corpus", "Follow", "Mix", "ShardCache", "TokenStream"]

_LAZY = {"Batch": "batches", "TokenStream": "loader", "Mix": "mix"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
