"""Whatever a manifest holds, its bytes bring it back; whatever bytes are not its own are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdf.errors import DamagedError
from sdf.manifest import CONFIGS, SHARD_PATH, GenreCount, Manifest, Shard, TokenizerRef, newest

counts = st.integers(0, 10**15)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
genre_counts = st.builds(GenreCount, counts, counts, st.floats(0, 1e9) | st.integers(0, 9))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    shards: list[Shard] = []
    for config, split in draw(st.lists(st.tuples(st.sampled_from(CONFIGS), st.sampled_from(["train", "validation"])))):
        number = sum((shard.config, shard.split) == (config, split) for shard in shards)
        sha256 = draw(hashes)
        path = f"data/{config}/{split}-{number:05d}-{sha256[:8]}.parquet"
        shards.append(
            Shard(config, split, number, path, draw(counts), draw(counts), draw(counts), sha256, draw(hashes))
        )
    return Manifest(
        number=draw(counts),
        state=draw(st.sampled_from(["growing", "complete"])),
        predecessor=draw(st.none() | hashes),
        recipe_hash=draw(texts),
        constitution_hash=draw(texts),
        tokenizer=TokenizerRef(draw(texts), draw(texts)),
        target_tokens=draw(counts),
        n_tokens=sum(shard.n_tokens for shard in shards),
        n_documents=sum(shard.n_rows for shard in shards),
        shards=tuple(shards),
        genres=draw(st.dictionaries(texts, genre_counts, max_size=3)),
        rejected=draw(st.dictionaries(texts, counts, max_size=3)),
        pyarrow=draw(texts),
        made_by=draw(texts),
    )


@given(manifests())
def test_bytes_bring_the_manifest_back(manifest: Manifest) -> None:
    data = manifest.to_json()
    again = Manifest.from_json(data, source="x")
    assert again == manifest
    assert (again.to_json(), again.sha256) == (data, manifest.sha256)


@given(manifests(), st.data())
def test_any_changed_byte_is_noticed(manifest: Manifest, data: st.DataObject) -> None:
    whole = bytearray(manifest.to_json())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedError):
        Manifest.from_json(bytes(whole), source="x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(manifests(), st.data())
def test_any_foreign_value_in_any_place_is_a_named_error(manifest: Manifest, data: st.DataObject) -> None:
    values: dict[str, Any] = json.loads(manifest.to_json())
    targets: list[dict[str, Any]] = [values, values["tokenizer"], *values["shards"], *values["genres"].values()]
    target = data.draw(st.sampled_from(targets))
    target[data.draw(st.sampled_from(sorted(target)) | st.text(max_size=5))] = data.draw(json_values)
    text = json.dumps(values, indent=1, ensure_ascii=True).encode() + b"\n"
    try:
        assert Manifest.from_json(text, source="x").to_json() == text
    except DamagedError as error:
        assert str(error).startswith("x: ")


@given(st.binary(max_size=200))
def test_noise_is_a_named_error(noise: bytes) -> None:
    with pytest.raises(DamagedError):
        Manifest.from_json(noise, source="x")


@given(st.text(st.sampled_from("data/ocumentsri-0.pqe\\:*\n~"), max_size=60) | st.text(max_size=60))
def test_no_path_that_leaves_the_directory_passes(path: str) -> None:
    if SHARD_PATH.fullmatch(path):
        assert ".." not in path
        assert path.startswith("data/")
        assert path.count("/") == 2


@given(st.sets(st.integers(0, 10**8), min_size=1))
def test_newest_is_the_highest_number_in_any_order(numbers: set[int]) -> None:
    assert newest(f"manifests/{number:06d}.json" for number in numbers) == f"manifests/{max(numbers):06d}.json"
