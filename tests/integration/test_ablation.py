"""Arms of an ablation: a last rewrite is left out for nothing, an earlier one for the steps that read it alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import LETTER, documents, make, shard_hashes, write_recipe

from sdf import api
from sdf.errors import RecipeChanged, RecipeError
from sdf.ledger import read_ledger
from sdf.storage import RunDir

# A question that is rewritten, then answered; and an answer that is rewritten last.
ADVICE = """\
---
key: advice
kind: chat
about: A question and its answer, each written twice.
n_words: [40, 80]
dedup: assistant
preamble: none
redraws: 1
axes:
  mood: [calm, hurried]
steps:
  scene: {role: write, context: principle, returns: text, tag: scene}
  prompt: {role: write, context: none, returns: text, tag: prompt}
  rewrite_prompt: {role: rewrite, context: none, returns: text, tag: prompt, rewrites: prompt}
  reply: {role: write, context: full, returns: text, tag: reply}
  aside: {role: judge, context: none, returns: score, tag: score, quotes: scene}
  rewrite_reply: {role: rewrite, context: principle, returns: text, tag: reply, rewrites: reply}
emit: {user: rewrite_prompt, assistant: rewrite_reply}
---
## step: scene
A {{ brief.axes.mood }} scene between <scene> and </scene>.

## step: prompt
What is asked in {{ scene }} between <prompt> and </prompt>.

## step: rewrite_prompt
{{ prompt }} Rewritten between <prompt> and </prompt>.

## step: reply
{{ rewrite_prompt }} Reply between <reply> and </reply>.

## step: aside
{{ scene }} A proof between <quote> and </quote>, a verdict between <score> and </score>.

## step: rewrite_reply
{{ reply }} Rewritten between <reply> and </reply>.
"""
GENRES = {"advice": ADVICE, "letter": LETTER}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A recipe and its corpus, in which one answer in fifty is refused."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(folder, GENRES, tokens=8_000, provider_settings={"refuse": "0.02"})
    assert make(recipe, folder / "out").finished
    return recipe, folder / "out"


def chats(out: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in documents(out).get("chats/train", [])}


def places(out: Path) -> list[tuple[str, ...]]:
    """Genre, cell, axes, in order: all that briefs of different arms have in common."""
    return [(row["genre"], row["principle"], row["axes"]) for rows in documents(out).values() for row in rows]


def asked(out: Path) -> Counter[str]:
    """Answers that were paid for, by step; what was copied from another ledger says that it cost nothing."""
    found: Counter[str] = Counter()
    run_dir = RunDir(out)
    from sdf.ledger import read_answers

    for _, location in read_ledger(run_dir).keys:
        (entry,) = read_answers(run_dir, [location])
        if entry.answer.usage.output_tokens or entry.answer.usage.input_tokens:
            found[entry.step] += 1
    return found


def test_the_last_rewrite_is_left_out_for_nothing(whole: tuple[str, Path], tmp_path: Path) -> None:
    outcome = api.assemble(whole[1], tmp_path / "arm", ablate=("rewrite_reply",))
    assert outcome.n_requests == 0 and not RunDir(tmp_path / "arm").files("ledger")
    full, arm = chats(whole[1]), chats(tmp_path / "arm")
    both = full.keys() & arm.keys()
    assert len(both) > 20
    for id in both:
        trace = api.show(whole[1], id)
        (reply,) = [each.answer for each in trace.steps if each.step == "reply" and each.used]
        assert reply is not None
        assert arm[id]["messages"][1]["content"] in reply.text
        assert arm[id]["messages"][1] != full[id]["messages"][1]
        assert arm[id]["messages"][0] == full[id]["messages"][0]


def test_a_run_without_the_last_rewrite_asks_all_but_it_and_has_the_same_ids(
    whole: tuple[str, Path], tmp_path: Path
) -> None:
    run = make(whole[0], tmp_path / "run", ablate=("rewrite_reply",))
    assert run.finished and "rewrite_reply" not in asked(tmp_path / "run")
    api.assemble(whole[1], tmp_path / "arm", ablate=("rewrite_reply",))
    run_chats, arm = chats(tmp_path / "run"), chats(tmp_path / "arm")
    both = run_chats.keys() & arm.keys()
    assert len(both) > 20 and all(run_chats[id] == arm[id] for id in both)
    assert api.verify(tmp_path / "run", replay=True).problems == ()


def test_an_earlier_rewrite_is_a_run_that_pays_for_what_reads_it(whole: tuple[str, Path], tmp_path: Path) -> None:
    recipe, out = whole
    with pytest.raises(
        RecipeError, match=r"step 'reply' of advice .* reads it.*sdf run RECIPE --ablate rewrite_prompt"
    ):
        api.assemble(out, tmp_path / "no", ablate=("rewrite_prompt",))
    assert not (tmp_path / "no").exists()
    plan = api.plan(recipe, reuse=[out], ablate=("rewrite_prompt",))
    effects = {each.step: (each.effect, each.stands) for each in plan.steps if each.genre == "advice"}
    assert effects == {
        "rewrite_prompt": ("left out", "prompt"),
        "scene": ("as before", None),
        "prompt": ("as before", None),
        "reply": ("asked anew", None),
        "aside": ("as before", None),
        "rewrite_reply": ("asked anew", None),
    }
    due = {each.step: (each.n_free, each.n_paid) for each in plan.steps if each.genre == "advice"}
    run = make(recipe, tmp_path / "arm", ablate=("rewrite_prompt",), reuse=[out])
    paid = asked(tmp_path / "arm")
    settled = {each.index for each in read_ledger(RunDir(out)).receipts if each.genre == "advice"}
    again = {each.index for each in read_ledger(RunDir(tmp_path / "arm")).receipts if each.genre == "advice"}
    assert plan.is_exact and due["scene"][1] == due["prompt"][1] == 0 and due["rewrite_prompt"] == (0, 0)
    assert due["reply"][0] == 0 and due["reply"][1] > 0
    assert run.finished and "rewrite_prompt" not in paid
    if again <= settled:
        assert not {"scene", "prompt"} & set(paid)
    # A reply that is refused is redrawn, which no plan can know.
    assert 0 < paid["reply"] <= len(again) * 2


def test_no_arm_holds_documents_under_the_id_of_others(whole: tuple[str, Path], tmp_path: Path) -> None:
    make(whole[0], tmp_path / "arm", ablate=("rewrite_prompt",), reuse=[whole[1]])
    assert not chats(whole[1]).keys() & chats(tmp_path / "arm").keys()
    # A genre that does not have the step is as it was.
    letters = [{row["id"] for row in documents(out)["documents/train"]} for out in (whole[1], tmp_path / "arm")]
    assert letters[0] & letters[1]


def test_matching_makes_the_arms_hold_the_same_briefs(whole: tuple[str, Path], tmp_path: Path) -> None:
    recipe, out = whole
    make(recipe, tmp_path / "arm", ablate=("rewrite_prompt",), reuse=[out])
    api.assemble(tmp_path / "arm", tmp_path / "arm_matched", match=out)
    api.assemble(out, tmp_path / "full_matched", match=tmp_path / "arm_matched")
    api.assemble(out, tmp_path / "draft_matched", match=tmp_path / "arm_matched", ablate=("rewrite_reply",))
    first, second, third = (places(tmp_path / name) for name in ("arm_matched", "full_matched", "draft_matched"))
    assert len(first) > 40 and sorted(first) == sorted(second) == sorted(third)


def test_both_may_be_left_out_and_one_after_the_other(whole: tuple[str, Path], tmp_path: Path) -> None:
    recipe, out = whole
    make(recipe, tmp_path / "both", ablate=("rewrite_prompt", "rewrite_reply"), reuse=[out])
    make(recipe, tmp_path / "one", ablate=("rewrite_prompt",), reuse=[out])
    api.assemble(tmp_path / "one", tmp_path / "then", ablate=("rewrite_reply",))
    both, then = chats(tmp_path / "both"), chats(tmp_path / "then")
    common = both.keys() & then.keys()
    assert len(common) > 20 and all(both[id] == then[id] for id in common)
    for row in both.values():
        assert json.loads(row["scores"]).keys() == {"aside"}


def test_an_arm_goes_on_as_any_run_and_is_not_mixed_with_another(whole: tuple[str, Path], tmp_path: Path) -> None:
    recipe, out = whole
    make(recipe, tmp_path / "arm", ablate=("rewrite_prompt",), tokens=3_000)
    make(recipe, tmp_path / "arm", ablate=("rewrite_prompt",), tokens=8_000)
    make(recipe, tmp_path / "fresh", ablate=("rewrite_prompt",), tokens=8_000, workers=2)
    assert shard_hashes(tmp_path / "arm") == shard_hashes(tmp_path / "fresh")
    with pytest.raises(RecipeChanged, match=r"(?s)ablate: .*rewrite_prompt.*genre advice"):
        make(recipe, tmp_path / "arm")
    assert api.verify(out, replay=True).problems == ()


@pytest.mark.parametrize(
    ("ablate", "reason"),
    [
        (
            ["rewrite_repl"],
            r"recipe\.yaml:1: ablate: no step 'rewrite_repl' in the genres of the mix; did you mean 'rewr",
        ),
        (["scene"], r"recipe\.yaml:1: ablate: 'scene' \(.*advice\.md:12\) rewrites no other step, so nothing"),
    ],
)
def test_what_cannot_be_left_out_is_said_with_file_and_line(tmp_path: Path, ablate: list[str], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        make(write_recipe(tmp_path, GENRES, ablate=ablate), tmp_path / "out")
    with pytest.raises(RecipeError, match=reason.replace(r"recipe\.yaml:1", "on the command line")):
        make(write_recipe(tmp_path, GENRES), tmp_path / "out", ablate=tuple(ablate))
    assert not (tmp_path / "out").exists()
