"""The manifest: canonical bytes in, the same manifest out, and a named error for everything else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdf.errors import DamagedError
from sdf.manifest import GenreCount, Manifest, Shard, TokenizerRef, newest, number_of, text_of

ROOT = Path(__file__).parents[2]


def shard(number: int = 0, config: str = "documents", split: str = "train") -> Shard:
    sha256 = f"{number:08x}" + "ab" * 28
    path = f"data/{config}/{split}-{number:05d}-{sha256[:8]}.parquet"
    return Shard(config, split, number, path, 10, 100, 5000, sha256, "cd" * 32)


def manifest(*shards: Shard) -> Manifest:
    return Manifest(
        number=1,
        state="growing",
        predecessor=None,
        recipe_hash="aa",
        constitution_hash="bb",
        tokenizer=TokenizerRef("o200k_base", "cc"),
        target_tokens=1000,
        n_tokens=sum(each.n_tokens for each in shards),
        n_documents=sum(each.n_rows for each in shards),
        shards=shards,
        genres={"zeta": GenreCount(100, 10, 0.5), "alpha": GenreCount(0, 0, 2)},
        rejected={"too_short": 3, "duplicate": 1},
        pyarrow="26.0.1",
        made_by="sdf 0.1.0",
    )


def edited(**changes: Any) -> bytes:
    """A manifest whose checksum was made to fit after the edit: its content alone must give it away."""
    values = json.loads(manifest(shard(0), shard(1)).to_json())
    values.pop("checksum")
    for name, value in changes.items():
        values[name] = value
    return _sealed(values)


def edited_shard(**changes: Any) -> bytes:
    values = json.loads(manifest(shard(0)).to_json())
    values.pop("checksum")
    values["shards"][0] |= changes
    return _sealed(values)


def _sealed(values: dict[str, Any]) -> bytes:
    def text(fields: dict[str, Any]) -> bytes:
        return (json.dumps(fields, indent=1) + "\n").encode()

    return text(values | {"checksum": hashlib.sha256(text(values)).hexdigest()})


def refusal(data: bytes) -> str:
    with pytest.raises(DamagedError) as caught:
        Manifest.from_json(data, source="run/manifests/000001.json")
    assert str(caught.value).startswith("run/manifests/000001.json: ")
    return str(caught.value)


def test_round_trip() -> None:
    whole = manifest(shard(0), shard(1), shard(0, "chats"), shard(0, "chats", "validation"))
    assert Manifest.from_json(whole.to_json(), source="x") == whole


def test_bytes_do_not_depend_on_the_order_of_mappings() -> None:
    whole = manifest(shard(0))
    turned = replace(whole, rejected=dict(reversed(list(whole.rejected.items()))))
    assert turned.to_json() == whole.to_json()


def test_every_torn_manifest_is_named_with_the_way_out() -> None:
    data = manifest(shard(0)).to_json()
    for length in range(0, len(data), 7):
        assert "torn or edited manifest" in refusal(data[:length])
    assert "run the same command again" in refusal(data[:-1])


def test_an_edit_that_is_still_a_consistent_manifest_is_noticed() -> None:
    data = manifest(shard(0)).to_json()
    assert "not the ones that were written" in refusal(data.replace(b'"target_tokens": 1000', b'"target_tokens": 2000'))
    assert "not the ones that were written" in refusal(json.dumps(json.loads(data)).encode())
    assert Manifest.from_json(edited(target_tokens=2000), source="x").target_tokens == 2000


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "data/documents/../../../etc/passwd",
        "data/documents/train-00000-000000ab.parquet/../../x",
        "data/../train-00000-00000000.parquet",
        "s3://bucket/data/documents/train-00000-00000000.parquet",
        "data/documents/train-00000-00000000.parquet\n",
        "data/documents/train-*-00000000.parquet",
        "data\\documents\\train-00000-00000000.parquet",
    ],
)
def test_hostile_paths_are_refused(path: str) -> None:
    assert "is not the path of a shard" in refusal(edited_shard(path=path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"number": True}, "number cannot be True"),
        ({"n_tokens": -1}, "n_tokens cannot be -1"),
        ({"n_tokens": 201}, "its shards hold 200"),
        ({"state": "done"}, "state cannot be 'done'"),
        ({"predecessor": "12"}, "predecessor cannot be '12'"),
        ({"shards": {}}, "shards cannot be {}"),
        ({"shards": [7]}, "a shard is not an object"),
        ({"rejected": {"x": "many"}}, "rejected cannot be"),
        ({"genres": {"x": {"n_tokens": 1, "n_documents": 1, "share": float("inf")}}}, "share cannot be inf"),
        ({"n_token": 5}, "unknown key 'n_token'; meant 'n_tokens'?"),
        ({"format": 0}, "format is 0, not 1"),
    ],
)
def test_values_that_a_manifest_cannot_hold(changes: dict[str, Any], said: str) -> None:
    values = json.loads(manifest(shard(0), shard(1)).to_json()) | changes
    assert said in refusal(json.dumps(values).encode())


def test_a_missing_key_is_named() -> None:
    values = json.loads(manifest().to_json())
    del values["tokenizer"]
    assert "lacks 'tokenizer'" in refusal(json.dumps(values).encode())


def test_an_unknown_config_is_no_path_of_a_shard() -> None:
    sha256 = "00000000" + "ab" * 28
    changes = {"path": "data/secrets/train-00000-00000000.parquet", "config": "secrets", "sha256": sha256}
    assert "is not the path of a shard" in refusal(edited_shard(**changes))


def test_a_shard_whose_name_disagrees_with_its_fields() -> None:
    for changes in ({"split": "validation"}, {"number": 3}, {"sha256": "f" * 64}, {"config": "chats"}):
        assert "its name disagrees" in refusal(edited_shard(**changes))


def test_shards_are_numbered_from_zero_without_gaps_or_repeats() -> None:
    assert "the next number is 0" in refusal(manifest(shard(1)).to_json())
    assert "the next number is 1" in refusal(manifest(shard(0), shard(0)).to_json())


def test_a_newer_format_says_to_upgrade() -> None:
    said = refusal(edited(format=2, something_new=1))
    assert "format 2 was written by a newer sdf" in said
    assert "Upgrade sdf" in said


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"[" * 100_000, b"9" * 10_000, b"\xff\xfe", b'{"format": "1"}'])
def test_what_is_no_manifest_at_all(data: bytes) -> None:
    assert "torn or edited manifest" in refusal(data)


def test_newest_goes_by_number_and_passes_other_files_over() -> None:
    names = ["manifests/000009.json", "manifests/000010.json", "manifests/1000000.json", "manifests/x.json", "notes"]
    assert newest(names) == "manifests/1000000.json"
    assert newest(["notes.json", "manifests/000010.json.tmp"]) is None
    assert number_of("000042.json") == 42


def test_text_of_a_row() -> None:
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    assert text_of("documents", {"text": "A page."}) == "A page."
    assert text_of("chats", {"messages": messages}) == "Why?\nBecause."
    assert text_of("prompts", {"messages": messages[:1]}) == "Why?"
    assert text_of("items", {"item": '{"a":1}'}) == '{"a":1}'


def test_imports_the_standard_library_and_errors_alone() -> None:
    script = "import sys; import sdf.manifest; print(sorted(n for n in sys.modules if n.split('.')[0] not in known))"
    script = f"known = set(__import__('sys').stdlib_module_names) | {{'__main__'}}; {script}"
    printed = subprocess.run([sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "['sdf', 'sdf.errors', 'sdf.manifest']"
