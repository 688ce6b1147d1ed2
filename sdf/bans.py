"""Phrases that a corpus uses too often, as an audit wrote them: what prompts see as `bans`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdf.errors import RecipeError

# A prompt shows them all, and a template's loop runs over this many values.
MAX_BANS = 200
MAX_CHARS = 200


def read_bans(path: str) -> tuple[str, ...]:
    """The texts in `bans` of a JSON object, or of a JSON list, each once, in order. RecipeError names the file."""
    try:
        found: Any = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"bans {path}: cannot be read ({error})") from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"bans {path}: not JSON ({error}); give a file that `sdf audit` wrote") from None
    phrases = found.get("bans") if isinstance(found, dict) else found
    if not isinstance(phrases, list) or not all(isinstance(each, str) for each in phrases):
        raise RecipeError(f'bans {path}: expected {{"bans": [phrases]}}, as `sdf audit` writes it')
    kept = tuple(dict.fromkeys(" ".join(str(each).split()) for each in phrases if str(each).strip()))
    if len(kept) > MAX_BANS:
        raise RecipeError(f"bans {path}: {len(kept):,} phrases; a prompt shows at most {MAX_BANS}: keep the worst")
    longest = max(kept, key=len, default="")
    if len(longest) > MAX_CHARS:
        raise RecipeError(f"bans {path}: {longest[:60]!r}… has {len(longest):,} characters; a phrase has {MAX_CHARS}")
    return kept
