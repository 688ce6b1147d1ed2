"""Files of others are judged by their footer, before a page is read."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdf.errors import DamagedError
from sdf.parquet import open_parquet


def written(table: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def refusal(data: bytes) -> str:
    with pytest.raises(DamagedError) as caught:
        open_parquet(io.BytesIO(data), "seeds.parquet")
    assert str(caught.value).startswith("seeds.parquet: ")
    return str(caught.value)


def test_opens_a_plain_file_by_handle_and_by_path(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "tags": [["x"], []], "nested": [{"y": 1}, {"y": 2}]})
    assert open_parquet(io.BytesIO(written(table)), "x").read().equals(table)
    path = tmp_path / "x.parquet"
    path.write_bytes(written(table))
    with open_parquet(path, "x") as opened:
        assert opened.metadata.num_rows == 2


class Opaque(pa.ExtensionType):
    """An extension type that this process does not know when it reads it back."""

    def __init__(self) -> None:
        super().__init__(pa.string(), "somebody.opaque")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"payload"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Opaque:
        return cls()


OPAQUE = pa.ExtensionArray.from_storage(Opaque(), pa.array(["a"]))
NESTED = pa.StructArray.from_arrays([OPAQUE], ["inner"])


@pytest.mark.parametrize(
    "column",
    [OPAQUE, NESTED, pa.ListArray.from_arrays([0, 1], NESTED), pa.array([b"x" * 16], pa.uuid())],
    ids=["flat", "struct", "list", "registered"],
)
def test_extension_types_are_refused_however_deep(column: Any) -> None:
    said = refusal(written(pa.table({"fine": ["a"], "seeds": column})))
    assert "column 'seeds' has an extension type" in said


def test_a_bomb_is_refused_by_its_declared_size(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = written(pa.table({"text": ["x" * 30_000_000]}), compression="zstd", use_dictionary=False)
    assert len(bomb) < 10_000
    assert open_parquet(io.BytesIO(bomb), "x").metadata.num_rows == 1
    monkeypatch.setattr("sdf.parquet.SMALL_GROUP_BYTES", 20_000_000)
    assert "row group 0 declares 30," in refusal(bomb)
    text = written(pa.table({"text": ["one text after another"] * 1_500_000}), compression="none", use_dictionary=False)
    assert open_parquet(io.BytesIO(text), "x").metadata.num_rows == 1_500_000
    monkeypatch.setattr("sdf.parquet.MAX_GROUP_BYTES", 25_000_000)
    assert "row group 0 declares" in refusal(text)


def test_what_is_no_parquet_file() -> None:
    whole = written(pa.table({"text": ["a"]}))
    for data in (b"", b"PAR1", whole[:-1], whole[-20:], whole[:-8] + whole[-4:], b"x" * 1000):
        assert "not a readable Parquet file" in refusal(data)


def test_random_damage_never_escapes_as_a_foreign_error() -> None:
    whole = written(pa.table({"text": ["a" * 50] * 20, "tags": [["x"]] * 20}))
    draw = random.Random(7)
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            open_parquet(io.BytesIO(damaged), "x")
        except DamagedError:
            continue
