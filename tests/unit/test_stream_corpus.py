"""What a corpus pins, how it is followed while it grows, and what is said about what cannot be read."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from streams import Growing, complete, documents

from sdf.errors import DamagedError, StreamError, StreamStalled
from sdf.stream import Corpus, Follow

ROOT = Path(__file__).parents[2]


def ids(rows: Any) -> list[str]:
    return [row["id"] for row in rows]


def never(_: float) -> None:
    raise AssertionError("there was nothing to wait for")


class Clock:
    """Where waiting makes the corpus grow: one act for each sleep."""

    def __init__(self, *acts: Any) -> None:
        self.acts, self.slept = list(acts), 0.0

    def __call__(self, seconds: float) -> None:
        self.slept += seconds
        if self.acts:
            self.acts.pop(0)()


def test_a_growing_corpus_is_pinned_or_followed(tmp_path: Path) -> None:
    made = Growing(tmp_path)
    made.grow(documents(30))
    with pytest.raises(StreamError, match=r"still growing \(manifest 1 .*version=1.*follow=Follow"):
        Corpus(tmp_path)
    made.grow(documents(30, 30), "complete")
    assert len(ids(Corpus(tmp_path, version=1).documents())) == 30
    assert Corpus(tmp_path).version == 2
    for absent in (0, 7):
        with pytest.raises(StreamError, match=f"has no manifest {absent}"):
            Corpus(tmp_path, version=absent)


def test_following_reads_each_row_once_in_the_order_of_the_manifests(tmp_path: Path) -> None:
    made = Growing(tmp_path)
    made.grow(documents(30))
    steps = [
        lambda: made.grow(documents(15, 30)),
        lambda: made.grow([]),
        lambda: made.grow(documents(9, 45), "complete"),
    ]
    clock = Clock(*steps)
    found = ids(Corpus(tmp_path, follow=Follow(60, poll=1, sleep=clock)).documents())
    assert clock.slept == 3
    assert [sorted(part) for part in (found[:30], found[30:45], found[45:])] == [
        ids(documents(30)), ids(documents(15, 30)), ids(documents(9, 45)),
    ]  # fmt: skip
    # Whoever comes later, or resumes, adopts the same manifests: all are there now, and the order is the same.
    follow = Follow(0, sleep=never)
    assert ids(Corpus(tmp_path, follow=follow).documents()) == found
    reader = Corpus(tmp_path, follow=follow).documents(1, 2)
    for _ in range(20):
        next(reader)
    assert reader.state_dict()["spot"]["version"] == 2
    later = Corpus(tmp_path, follow=follow).documents()
    later.load_state_dict(json.loads(json.dumps(reader.state_dict())))
    assert ids(later) == found[40:]


def test_following_ends_by_name_when_nothing_comes(tmp_path: Path) -> None:
    Growing(tmp_path).grow(documents(30))
    clock = Clock()
    reader = Corpus(tmp_path, follow=Follow(12, poll=5, sleep=clock)).documents()
    for _ in range(30):
        next(reader)
    with pytest.raises(StreamStalled, match="no manifest 2 after 15 s, and the corpus is not complete"):
        next(reader)
    assert clock.slept == 15
    # What was read is in the state, and the run goes on from it once the corpus has grown.
    made = Growing(tmp_path / "again")
    made.grow(documents(30))
    made.grow(documents(5, 30), "complete")
    state = reader.state_dict()
    resumed = Corpus(tmp_path / "again", follow=Follow(0, sleep=never)).documents()
    resumed.load_state_dict(state)
    assert sorted(ids(resumed)) == ids(documents(5, 30))


def test_following_waits_for_a_corpus_that_has_not_begun(tmp_path: Path) -> None:
    def begin() -> None:
        Growing(tmp_path / "later").grow(documents(30), "complete")

    clock = Clock(lambda: None, begin)
    corpus = Corpus(tmp_path / "later", follow=Follow(timeout=60, sleep=clock))
    assert len(ids(corpus.documents())) == 30
    assert clock.slept == 10
    with pytest.raises(StreamStalled, match="never: no manifest 1 after 10 s"):
        Corpus(tmp_path / "never", follow=Follow(timeout=10, sleep=Clock()))
    (tmp_path / "web.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(StreamError, match="follow belong to a corpus with manifests"):
        Corpus(tmp_path, follow=Follow(timeout=10, sleep=never))


def test_following_ends_at_the_size_asked_for(tmp_path: Path) -> None:
    made = Growing(tmp_path)
    made.grow(documents(30))
    made.grow(documents(30, 30))
    wanted = sum(row["n_tokens"] for row in documents(40))
    found = ids(Corpus(tmp_path, follow=Follow(0, sleep=never), max_tokens=wanted).documents())
    assert sorted(found) == ids(documents(40))


def test_an_empty_place_or_an_empty_corpus(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"neither a corpus \(no manifests/\), nor a tokens export"):
        Corpus(tmp_path / "nothing")
    complete(tmp_path / "docs", documents(3))
    with pytest.raises(StreamError, match="no rows of chats/train; it has documents/train"):
        Corpus(tmp_path / "docs", "chats")
    Growing(tmp_path / "none").grow([], "complete")
    with pytest.raises(StreamError, match=r"it is empty: run `sdf run` to its end"):
        Corpus(tmp_path / "none")
    with pytest.raises(StreamError, match="no config 'docs'; known: documents"):
        Corpus(tmp_path / "docs", "docs")


def test_what_lies_beside_data_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(StreamError, match="neither a corpus"):
        Corpus(tmp_path)
    assert Corpus(tmp_path / "tokenizer.json").n_rows == 1, "what is named is read"
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(StreamError, match=r"an export; give one of its directories, as in .*/documents/train"):
        Corpus(tmp_path)
    (tmp_path / "web.jsonl.gz").write_bytes(b"")
    with pytest.raises(StreamError, match=r"gz files; give .parquet files or uncompressed .jsonl"):
        Corpus(tmp_path / "web.jsonl.gz")


def test_a_damaged_or_newer_manifest(tmp_path: Path) -> None:
    complete(tmp_path, documents(3))
    path = tmp_path / "manifests/000001.json"
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    with pytest.raises(DamagedError, match=r"000001\.json: torn or edited"):
        Corpus(tmp_path)
    path.write_bytes(data.replace(b'"format": 1', b'"format": 9'))
    with pytest.raises(DamagedError, match="format 9 was written by a newer sdf"):
        Corpus(tmp_path)


def test_the_same_rows_elsewhere_are_the_same_corpus(tmp_path: Path) -> None:
    complete(tmp_path / "a", documents(50))
    (tmp_path / "a").rename(tmp_path / "b")
    reader = Corpus(tmp_path / "b").documents()
    next(reader)
    (tmp_path / "b").rename(tmp_path / "c")
    moved = Corpus(tmp_path / "c").documents()
    moved.load_state_dict(reader.state_dict())
    assert len(ids(moved)) == 49
    complete(tmp_path / "other", documents(50, 1))
    with pytest.raises(StreamError, match="another corpus: sha256 was"):
        Corpus(tmp_path / "other").documents().load_state_dict(reader.state_dict())


def test_a_corpus_travels_as_its_settings(tmp_path: Path) -> None:
    corpus = Corpus(complete(tmp_path, documents(50)), where={"genre": "letter"})
    expected = ids(corpus.documents())
    data = pickle.dumps(corpus)
    assert len(data) < 5_000
    assert ids(pickle.loads(data).documents()) == expected


BLOCKED = [
    "pydantic",
    "ray",
    "torch",
    "anthropic",
    "typer",
    "yaml",
    "jinja2",
    "fsspec",
    "tiktoken",
    "tokenizers",
    "rich",
]

IMPORTS = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(name + " is blocked", name=name)
sys.meta_path.insert(0, Blocked())
from sdf.stream import Corpus, Follow, Mix, ShardCache
print(sum(1 for _ in Corpus(sys.argv[1]).documents()))
ours = sorted(name for name in sys.modules if name.startswith("sdf.") and not name.startswith("sdf.stream"))
assert ours == ["sdf.errors", "sdf.manifest"], ours
try:
    from sdf.stream import TokenStream
except ModuleNotFoundError as error:
    assert "pip install 'sdf[train]'" in str(error), error
else:
    raise AssertionError("torch is blocked")
"""


def test_a_training_job_needs_pyarrow_and_numpy_alone(tmp_path: Path) -> None:
    complete(tmp_path, documents(30))
    command = [sys.executable, "-c", IMPORTS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, "30\n"), done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    import sdf.stream

    with pytest.raises(AttributeError, match="no attribute 'Corpsu'"):
        sdf.stream.Corpsu  # noqa: B018
