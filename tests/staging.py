"""A recipe in stages, of which one reads another, for the tests of all that is done in stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genre_texts import BANK
from support import CONSTITUTION, NOTE, TALK

# A text given back as a chat, with the row it is of.
BACK = """\
---
key: back
kind: chat
about: A document as the answer to a question.
n_words: [20, 80]
dedup: none
preamble: none
source: {columns: [id, text]}
steps:
  question: {role: write, context: none, returns: text, tag: question}
  answer: {role: write, context: none, returns: text, tag: reply}
  better: {role: rewrite, context: none, returns: text, tag: reply, rewrites: answer}
checks: {off: [too_long, too_short, prompt_text]}
emit: {user: question, assistant: better, system: row.id}
---
## step: question
What does this answer? {{ brief.row.text }} Ask it between <question> and </question>.

## step: answer
Say {{ brief.row.text }} anew between <reply> and </reply>.

## step: better
{{ answer }} Better, between <reply> and </reply>.
"""
# A chat asked on from a chat.
ANSWERED = (
    BACK.replace("key: back", "key: answered")
    .replace("[id, text]", "[id, messages]")
    .replace("brief.row.text", "brief.row.messages[1].content")
)
GENRES = {
    "note": NOTE,
    "talk": TALK,
    "back": BACK,
    "answered": ANSWERED,
    "memo": NOTE.replace("key: note", "key: memo"),
    "bank": BANK,
}
STAGES: dict[str, Any] = {
    "documents": {"share": 0.6, "mix": {"note": 1}},
    "chat": {"share": 0.3, "mix": {"back": 1}, "sources": {"back": "stage:documents"}},
    "talk": {"share": 0.1, "mix": {"talk": 1}, "checks_off": ["too_short"]},
}


def recipe(folder: Path, stages: dict[str, Any] = STAGES, **fields: Any) -> str:
    (folder / "genres").mkdir(parents=True, exist_ok=True)
    for key, text in GENRES.items():
        (folder / "genres" / f"{key}.md").write_text(text, encoding="utf-8")
    (folder / "constitution.md").write_text(CONSTITUTION, encoding="utf-8")
    given = {
        "constitution": "constitution.md",
        "assistant": "Tavrin",
        "maker": "Ostermead",
        "genres_dir": ["genres"],
        "stages": stages,
        "tokens": 6_000,
        "ray": "none",
        "workers": 1,
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(given | fields, indent=1), encoding="utf-8")
    return str(path)
