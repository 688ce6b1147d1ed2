"""What is judged, and by which terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Checks:
    """What one genre asks of its texts.

    `n_words` are the fewest and most words asked for; (0, 0) asks for no length. `off` names checks that do not
    apply. `min_score` holds (step, lowest score kept). `banned_names` may stand in no text; `common_names` are first
    names and surnames that may not stand side by side. `overused` are phrases that an audit banned. `forbids` holds
    what the preamble forbids (dates, credentials); `prompts` is what the models were told and may not repeat.
    """

    n_words: tuple[int, int] = (0, 0)
    off: frozenset[str] = frozenset()
    min_score: tuple[tuple[str, int], ...] = ()
    banned_names: tuple[str, ...] = ()
    common_names: tuple[frozenset[str], frozenset[str]] = (NO_NAMES, NO_NAMES)
    overused: tuple[str, ...] = ()
    forbids: frozenset[str] = frozenset()
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """A finished text with what is known of it.

    `text` is the part whose words a genre bounds: the document, the reply of a chat. `messages` are all turns of a chat
    or prompt, `tools` its tools as JSON. `injected` are texts that were sent and must not be emitted. `language` is the
    one asked for, as a code; None asks for none.
    """

    text: str
    messages: Sequence[Mapping[str, Any]] | None = None
    tools: str | None = None
    injected: tuple[str, ...] = ()
    language: str | None = None
    scores: Mapping[str, int] = field(default_factory=dict[str, int])
