from __future__ import annotations

import tempfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf.errors import StorageError
from sdf.storage import RunDir

PATHS = st.sampled_from(["a", "b/a", "b/c/d", "b/c/e", "data/x-1.parquet", "data.json"])
ACTS = st.tuples(st.sampled_from(["write", "put", "delete"]), PATHS, st.binary(max_size=20))


@pytest.mark.parametrize("place", ["local", "memory"])
@settings(max_examples=25, deadline=None)
@given(acts=st.lists(ACTS, max_size=12))
def test_a_run_dir_is_a_dict_of_bytes(place: str, acts: list[tuple[str, str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        fsspec.filesystem("memory").store.clear()
        run_dir = RunDir(directory if place == "local" else "memory://bucket/run")
        expected: dict[str, bytes] = {}
        for act, path, data in acts:
            if act == "write":
                run_dir.write(path, data)
                expected[path] = data
            elif act == "put":
                assert run_dir.put_if_absent(path, data) == (path not in expected)
                expected.setdefault(path, data)
            else:
                run_dir.delete(path)
                expected.pop(path, None)
        assert run_dir.files() == sorted((path, len(data)) for path, data in expected.items())
        assert run_dir.files("b") == [found for found in run_dir.files() if found[0].startswith("b/")]
        assert {path: run_dir.read(path) for path in expected} == expected
        assert all(run_dir.exists(path) and run_dir.size(path) == len(data) for path, data in expected.items())
        assert run_dir.leftovers() == []


@given(path=st.one_of(st.text(max_size=20), st.text(alphabet="./\\a\0", max_size=12)))
def test_a_path_is_refused_or_lies_inside(path: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            RunDir(directory).exists(path)
        except StorageError:
            return
        inside = Path(directory, path).resolve()
        assert inside.is_relative_to(Path(directory).resolve())
        assert inside != Path(directory).resolve()
