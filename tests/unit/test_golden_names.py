"""Names that every ledger rests on, as they were when the first of them was written: another one breaks them all.

A change here needs a decision (docs/decisions) that says why what was paid for is worth paying for again.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import GENRES, make_job

from sdf.job import Job
from sdf.plan import Plan
from sdf.prompts import Composer

HASHES = {
    "note": "492e80eea6e2ad4f77daab38082cf0a5",
    "letter": "1b18983cad72fb6d183bdd4f982c5ccb",
    "help": "dfd93b3bb85aaecaa52072162cda9d8c",
    "question": "a3ac722cf34012d7af2e07fea740e16c",
    "talk": "70e46ff387df457eb1f67b57c9cf06d9",
    "quiz": "094b002ee31efbe8a423a383655815a0",
}
BRIEFS = {
    "note": [
        "e291200e2f9168c2696a5483d84017c4",
        "a16a428d53e67fc04c5f4a992cf2ae97",
        "42359e9900f285fd49e6405d507b4c57",
        "7c554546d723fd07cb01ba49c4f8a99b",
    ],
    "letter": [
        "2fc39f6706080d6cffabd5e79f28efca",
        "aff6cdc5492bf1584afb2e9535a9a275",
        "f3599683a56c30c536158db6640436f2",
        "9609ebb62ea6a5d7ffa71c0651284129",
    ],
    "help": [
        "fd9c230a34a36dac734c7f450071fcf3",
        "62e4c0176fdf8dc7d3aacf795c5e1b6c",
        "83d490353f1dba2b016a9f13669d54b2",
        "05213b3d422f0b7c14300a1f6fec16d2",
    ],
    "question": [
        "a2dc6fbd751e3611e04c64f9d5cc0466",
        "5183016d195f14967ae8933d4afee5f0",
        "1d31b34909ce34ee35ae3586ab45937a",
        "8f6e540bb94cdcd9310f2504cddf291b",
    ],
    "talk": [
        "267cd32ae361ce26d4e534ec5585e390",
        "154cabad0b6b117b39ca4b1b13bf616a",
        "535371b03a1157ecaa595a4b2ca78a16",
        "52867eddbc323c69b5c5423c0631f4fa",
    ],
    "quiz": [
        "1344a0bbe6f9354c73a8a185dcfa70b5",
        "08d4b5e9200de20c15690011edb82159",
        "519f415124db0ac37a87cedc86809f41",
        "739c52851c932c94af71be25048521b4",
    ],
}
REQUESTS = {
    ("note", "draft"): "92399746933dc52693bf4d2b161ca395",
    ("note", "polish"): "b4474d99d5bcc3c5c3191054f27d5ed5",
    ("note", "verdict"): "bdf805910e2ccddc77e5613fa6b0e8eb",
    ("letter", "body"): "2988865e368c828752a0d73d613c51e5",
    ("help", "scene"): "650db5889dd65bf3e87fe91eda469dbf",
    ("help", "facts"): "06ba3f6d95a5af36f1c743366bcbabed",
    ("help", "kit"): "b1a07c981c73a5e8c87ceec715840570",
    ("help", "rules"): "cf3a619ac3b8fb89038b5e155b03b13f",
    ("question", "ask"): "cef497216b118c0b6ba167310551ecd7",
    ("talk", "turns"): "b529852d908fd483307974ba09110d35",
    ("quiz", "task"): "d092f7142eecc4f8b4aa0976b267a745",
    ("quiz", "rubric"): "0e0f24314b7ab65ebfba561876957928",
    ("quiz", "level"): "ef9d217a3d86a28cf13fa4ae9018fc3d",
}
ANSWERS = {
    **{"draft": "x", "polish": "p", "scene": {"task": "k"}, "facts": ["f"]},
    **{"kit": {}, "rules": "r", "question": "q", "task": "t"},
}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    # Without the preamble, whose prose may change.
    note = GENRES["note"].replace("dedup: body", "dedup: body\npreamble: none")
    return make_job(tmp_path_factory.mktemp("job"), {**GENRES, "note": note})


def test_every_genre_has_the_hash_it_had(job: Job) -> None:
    assert {genre.key: genre.hash for genre in job.genres} == HASHES


@pytest.mark.parametrize("key", GENRES)
def test_every_brief_has_the_name_it_had(job: Job, key: str) -> None:
    assert [Plan(job).brief(key, index).id for index in range(4)] == BRIEFS[key]


@pytest.mark.parametrize(("key", "step"), REQUESTS)
def test_every_request_has_the_key_it_had(job: Job, key: str, step: str) -> None:
    genre = next(each for each in job.genres if each.key == key)
    asked = next(each for each in genre.steps if each.name == step)
    request = Composer(job).brief_request(genre, asked, Plan(job).brief(key, 3), "an idea", ANSWERS, 0)
    assert request.key() == REQUESTS[key, step]


def test_a_recipe_that_says_nothing_new_has_the_hash_it_had(tmp_path: Path) -> None:
    """What came later counts where it is said."""
    said = {"worry": "It may flatter.", "ablate": ["polish"], "principles": ["saying-what-is-so"]}
    note = GENRES["note"].replace("tag: document}\n  verdict", "tag: document, rewrites: draft}\n  verdict")
    plain = make_job(tmp_path, {"note": note}).identity()
    assert not set(said) & set(plain)
    for name, value in said.items():
        assert make_job(tmp_path, {"note": note}, **{name: value}).hash != make_job(tmp_path, {"note": note}).hash
