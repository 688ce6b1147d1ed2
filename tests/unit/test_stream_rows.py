from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sdf.stream.rows import stack_of
from tests.corpora import make_corpus

ROOT = Path(__file__).parents[2]
TABLE = pa.table({"text": ["a", None, "c", "d"], "messages": [[{"role": "user"}], [], None, [{"role": "system"}]]})


@pytest.mark.parametrize("numbers", [[2, 0, 3, 1], [3, 1], [1], [2, 2, 0]])
@pytest.mark.parametrize("columns", [["text"], ["text", "messages"]])
def test_a_stack_gives_rows_in_the_order_they_are_wanted(numbers: list[int], columns: list[str]) -> None:
    table = TABLE.select(columns)
    stack = stack_of(table, np.array(numbers))
    expected = table.to_pylist()
    assert [stack.pop() for _ in numbers] == [expected[number] for number in numbers]
    assert not stack


def test_pandas_is_not_imported_to_read_rows(tmp_path: Path) -> None:
    """pyarrow imports it, half a second long, to look at numpy's arrays; the first row must not wait for that."""
    run_dir = make_corpus(tmp_path)
    script = """
import sys
from sdf.stream import Corpus
corpus = Corpus(sys.argv[1], version=1, where={"n_tokens": range(1, 10**9), "model": ["offline-grammar", "fake", "m"]})
list(corpus.documents())
rows = Corpus(sys.argv[1], version=1).documents(rank=1, world_size=3)
next(rows)
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, run_dir.root], check=True, cwd=ROOT)
