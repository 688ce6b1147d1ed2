"""Rows as plain dicts: dealt to ranks, resumed under any other number of them, chosen by column, from any files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streams import Growing, and_no_text, complete, document, documents

from sdf.errors import DamagedError, Missing, StreamError
from sdf.stream import Corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(complete(tmp_path_factory.mktemp("corpus"), documents(103)))


def ids(rows: Any) -> list[str]:
    return [row["id"] for row in rows]


def dealt(corpus: Corpus, world_size: int, state: dict[str, Any] | None = None, **options: Any) -> list[str]:
    """What all ranks read, step by step, rank by rank."""
    readers = [corpus.documents(rank, world_size, window_rows=30, **options) for rank in range(world_size)]
    for reader in readers:
        if state is not None:
            reader.load_state_dict(json.loads(json.dumps(state)))
    steps = itertools.zip_longest(*readers)
    return [row["id"] for step in steps for row in step if row is not None]


def test_every_row_once_with_its_columns(corpus: Corpus) -> None:
    rows = list(corpus.documents())
    assert sorted(rows, key=lambda row: row["id"]) == documents(103)
    assert ids(rows) != ids(documents(103))
    assert list(next(iter(corpus.documents(columns=["text", "id"])))) == ["text", "id"]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 64])
def test_ranks_partition_one_order(corpus: Corpus, world_size: int) -> None:
    order = dealt(corpus, 1)
    assert dealt(corpus, world_size, tail="keep") == order
    assert dealt(corpus, world_size) == order[: 103 // world_size * world_size]


def test_ranks_get_equally_many_whatever_is_filtered(tmp_path: Path) -> None:
    corpus = Corpus(complete(tmp_path, documents(50)), where={"genre": "essay"})
    counts = {sum(1 for _ in corpus.documents(rank, 3, window_rows=5)) for rank in range(3)}
    assert counts == {17 // 3}


@pytest.mark.parametrize(("before", "after"), [(1, 3), (4, 1), (3, 8), (8, 2), (5, 5)])
def test_a_state_of_any_rank_goes_on_under_any_other_number(corpus: Corpus, before: int, after: int) -> None:
    order = dealt(corpus, 1)
    for n_steps in range(0, 103 // before, 5):
        states: list[dict[str, Any]] = []
        for rank in range(before):
            reader = corpus.documents(rank, before, window_rows=30)
            for _ in range(n_steps):
                next(reader)
            states.append(reader.state_dict())
        resumed = {tuple(dealt(corpus, after, state, tail="keep")) for state in states}
        assert resumed == {tuple(order[n_steps * before :])}


def test_epochs_and_seeds_are_other_orders_of_the_same_rows(corpus: Corpus) -> None:
    orders = [ids(corpus.documents(seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert len({tuple(sorted(order)) for order in orders}) == 1
    assert ids(corpus.documents(shuffle=False)) == ids(documents(103))


def test_rows_are_chosen_by_column(corpus: Corpus) -> None:
    def found(**where: Any) -> list[str]:
        return sorted(ids(Corpus(corpus.url, where=where).documents()))

    expected = [row for row in documents(103) if row["genre"] in ("letter", "story") and 10 <= row["n_tokens"] < 40]
    assert found(genre=["letter", "story"], n_tokens=range(10, 40)) == ids(expected)
    assert found(fallback=True) == []
    with pytest.raises(StreamError, match=r"no column 'gnere'; did you mean 'genre'"):
        found(gnere="letter")
    with pytest.raises(StreamError, match=r"'n_tokens' .*cannot be compared with .'many'"):
        found(n_tokens="many")


def test_a_smaller_size_is_a_prefix_of_a_larger(corpus: Corpus) -> None:
    sizes = [ids(Corpus(corpus.url, max_tokens=size).documents(shuffle=False)) for size in (100, 1000, 1e9)]
    within = [list(itertools.accumulate(row["n_tokens"] for row in documents(103))), [100, 1000, 1e9]]
    assert [len(each) for each in sizes] == [sum(total <= size for total in within[0]) for size in within[1]]
    for smaller, larger in itertools.pairwise(sizes):
        assert larger[: len(smaller)] == smaller
    with pytest.raises(StreamError, match="its first document is longer than max_tokens=1"):
        Corpus(corpus.url, max_tokens=1)


def test_parquet_and_json_lines_of_others(tmp_path: Path) -> None:
    rows = [{"content": f"Text {number}\n", "site": f"s{number % 2}"} for number in range(2500)]
    (tmp_path / "web").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:1300]), tmp_path / "web/a.parquet", row_group_size=700)
    pq.write_table(pa.Table.from_pylist(rows[1300:]), tmp_path / "web/b.parquet", row_group_size=700)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "lines.jsonl").write_text(lines.removesuffix("\n"))
    for url in (tmp_path / "web", f"{tmp_path}/web/*.parquet", tmp_path / "lines.jsonl"):
        found = Corpus(url, where={"site": "s1"})
        assert sorted(row["content"] for row in found.documents()) == sorted(row["content"] for row in rows[1::2])
        assert list(Corpus(url).documents(shuffle=False)) == rows
    state = Corpus(tmp_path / "web").documents().state_dict()
    with pytest.raises(StreamError, match="another corpus: sha256 was"):
        Corpus(tmp_path / "lines.jsonl").documents().load_state_dict(state)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(DamagedError, match=r"x\.jsonl:2: not a line of JSON"):
        list(Corpus(tmp_path).documents())
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n[1]\n')
    with pytest.raises(DamagedError, match=r"x\.jsonl:2: expected a JSON object"):
        list(Corpus(tmp_path).documents())


def test_numbers_that_no_column_holds_are_named_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a", "n": 1}\n{"text": "b", "n": ' + "9" * 30 + "}\n")
    with pytest.raises(DamagedError, match=r"x\.jsonl:1: values of unlike kinds in a column"):
        list(Corpus(tmp_path).documents())


def test_text_that_is_none_is_named_with_its_row_group(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": and_no_text("fine")}), tmp_path / "x.parquet", row_group_size=1)
    for options in ({}, {"where": {"text": "fine"}}):
        with pytest.raises(DamagedError, match=r"x\.parquet: row group 1: a text that is not UTF-8"):
            list(Corpus(tmp_path, **options).documents())


def test_a_missing_or_damaged_shard_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    made = Growing(tmp_path, rows_per_shard=20)
    manifest = made.grow(documents(60), "complete")
    paths = [tmp_path / shard.path for shard in manifest.shards]
    data = bytearray(paths[1].read_bytes())
    data[200] ^= 1
    paths[1].write_bytes(data)
    paths[2].unlink()
    corpus = Corpus(tmp_path)
    assert [problem.split(": ")[0] for problem in corpus.verify()] == [str(paths[1]), str(paths[2])]
    with pytest.raises(DamagedError, match=rf"{paths[1].name}: row group 0 cannot be decoded"):
        list(Corpus(tmp_path, skip=[manifest.shards[2].path]).documents())
    with pytest.raises(Missing, match=rf"{paths[2].name}: this shard is missing"):
        list(Corpus(tmp_path, skip=[manifest.shards[1].path]).documents())
    left = Corpus(tmp_path, skip=[shard.path for shard in manifest.shards[1:]])
    assert sorted(ids(left.documents())) == ids(documents(20))
    with pytest.raises(StreamError, match="skip='nothing' is none of its files; it has 3, such as"):
        Corpus(tmp_path, skip=["nothing"])


def test_a_state_of_another_seed_order_or_kind_is_refused(corpus: Corpus) -> None:
    state = corpus.documents(seed=0).state_dict()
    with pytest.raises(StreamError, match="another order: seed was 0, is 1"):
        corpus.documents(seed=1).load_state_dict(state)
    with pytest.raises(StreamError, match="not a state of documents"):
        corpus.documents().load_state_dict({"step": 3})
    with pytest.raises(StreamError, match="a state of tokens, not of documents"):
        corpus.documents().load_state_dict(state | {"kind": "tokens"})
    with pytest.raises(StreamError, match="the state has format 2"):
        corpus.documents().load_state_dict(state | {"format": 2})
    with pytest.raises(StreamError, match="rank 2 of world_size 2"):
        corpus.documents(2, 2)


def test_long_texts_and_nulls_come_through(tmp_path: Path) -> None:
    long = [document(number, "ü" * 2_000 + str(number)) for number in range(300)]
    corpus = Corpus(complete(tmp_path, long, rows_per_shard=300))
    assert sorted(corpus.documents(), key=lambda row: row["id"]) == long
    pq.write_table(pa.table({"text": ["a" * 600_000, None, "é"]}), tmp_path / "x.parquet")
    found = Corpus(tmp_path / "x.parquet").documents(shuffle=False)
    assert [row["text"] for row in found] == ["a" * 600_000, None, "é"]
