"""What `bench_stream.py` measures, one reader each; run by it in processes of their own.

A reader yields rows as dicts with the asked columns, in the way its own documentation shows first. `state` and `resume`
are its own means to go on in the middle, where it has any.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import pickle
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 0
BUFFER = 10_000
SEQ_LEN = 4_096
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Reader:
    """`rows(folder, columns, state)` reads, from `state` when given; `state()` may be called between rows."""

    needs: tuple[str, ...]
    rows: Callable[[Path, list[str], Any], tuple[Rows, Callable[[], Any] | None]]
    reads: str = "corpus"


def shard_paths(folder: Path) -> list[str]:
    from sdf.manifest import Manifest

    path = max((folder / "manifests").iterdir())
    return [str(folder / shard.path) for shard in Manifest.from_json(path.read_bytes(), source=str(path)).shards]


def parquet_groups(folder: Path, columns: list[str]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    for path in shard_paths(folder):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=columns, use_threads=False)


def raw(folder: Path, columns: list[str], _: Any) -> tuple[Rows, None]:
    """Row groups to Python values, nothing else."""

    def rows() -> Rows:
        for table in parquet_groups(folder, columns):
            names, values = table.column_names, [column.to_pylist() for column in table.columns]
            for row in zip(*values, strict=True):
                yield dict(zip(names, row, strict=True))

    return rows(), None


def arrow(folder: Path, columns: list[str], _: Any) -> tuple[Rows, None]:
    """Row groups to Arrow memory, never to Python: what decoding alone costs."""

    def rows() -> Rows:
        n = 0
        for table in parquet_groups(folder, columns):
            n += table.num_rows
        yield {"n": n}

    return rows(), None


def sdf_stream(folder: Path, columns: list[str], state: Any) -> tuple[Rows, Callable[[], Any]]:
    from sdf.stream import Corpus

    documents = Corpus(str(folder)).documents(seed=SEED, columns=columns)
    if state is not None:
        documents.load_state_dict(state)
    return iter(documents), documents.state_dict


def hf(folder: Path, columns: list[str], state: Any, *, shuffled: bool) -> tuple[Rows, Callable[[], Any]]:
    import datasets

    datasets.disable_progress_bars()
    found = datasets.load_dataset("parquet", data_files=shard_paths(folder), split="train", streaming=True)
    found = found.select_columns(columns)
    if shuffled:
        found = found.shuffle(seed=SEED, buffer_size=BUFFER)
    if state is not None:
        found.load_state_dict(state)
    return iter(found), found.state_dict


def mosaic(folder: Path, columns: list[str], state: Any) -> tuple[Rows, Callable[[], Any]]:
    import streaming

    streaming.base.util.clean_stale_shared_memory()
    found = streaming.StreamingDataset(
        local=str(folder / "documents/train"), shuffle=True, shuffle_seed=SEED, batch_size=1, num_canonical_nodes=1
    )
    if state is not None:
        found.load_state_dict(state)
    seen = [0]

    def rows() -> Rows:
        for row in found:
            seen[0] += 1
            yield row

    return rows(), lambda: found.state_dict(seen[0], True)


def litdata(folder: Path, columns: list[str], state: Any) -> tuple[Rows, Callable[[], Any]]:
    from litdata import StreamingDataLoader, StreamingDataset

    found = StreamingDataset(str(folder), shuffle=True, seed=SEED)
    loader = StreamingDataLoader(found, batch_size=1, num_workers=0, collate_fn=lambda rows: rows[0])
    if state is not None:
        loader.load_state_dict(state)
    return iter(loader), loader.state_dict


def ray_data(folder: Path, columns: list[str], _: Any, *, shuffled: bool) -> tuple[Rows, None]:
    import logging

    import ray

    ray.init(num_cpus=2, logging_level=logging.ERROR, log_to_driver=False, object_store_memory=500 * 1024**2)
    ray.data.DataContext.get_current().enable_progress_bars = False
    found = ray.data.read_parquet(shard_paths(folder), columns=columns)

    def rows() -> Rows:
        for batch in found.iter_batches(
            batch_size=256, batch_format="pyarrow", local_shuffle_buffer_size=BUFFER if shuffled else None
        ):
            yield from batch.to_pylist()

    return rows(), None


def torch_buffer(folder: Path, columns: list[str], _: Any) -> tuple[Rows, None]:
    """What a careful afternoon writes: an IterableDataset over row groups, with a shuffle buffer."""
    from torch.utils.data import DataLoader, IterableDataset

    class Buffered(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Rows:
            draw = random.Random(SEED)
            held: list[dict[str, Any]] = []
            for row in raw(folder, columns, None)[0]:
                if len(held) < BUFFER:
                    held.append(row)
                    continue
                place = draw.randrange(BUFFER)
                held[place], row = row, held[place]
                yield row
            draw.shuffle(held)
            yield from held

    return iter(DataLoader(Buffered(), batch_size=None)), None


READERS = {
    "raw scan, Arrow only": Reader((), arrow),
    "raw scan": Reader((), raw),
    "sdf.stream shuffled": Reader(("sdf.stream",), sdf_stream),
    "datasets": Reader(("datasets",), lambda *given: hf(*given, shuffled=False)),
    "datasets shuffled": Reader(("datasets",), lambda *given: hf(*given, shuffled=True)),
    "torch, shuffle buffer": Reader(("torch",), torch_buffer),
    "litdata shuffled": Reader(("litdata",), litdata, "litdata"),
    "Ray Data": Reader(("ray",), lambda *given: ray_data(*given, shuffled=False)),
    "Ray Data shuffled": Reader(("ray",), lambda *given: ray_data(*given, shuffled=True)),
    "MosaicML shuffled": Reader(("streaming",), mosaic, "mds"),
}


def packed_live(folders: dict[str, Path]) -> Iterator[int]:
    from sdf import tokens
    from sdf.stream import Corpus, TokenStream

    encoding = tokens.load("o200k_base").encoding
    corpus = Corpus(str(folders["corpus"]))
    stream = TokenStream(corpus, tokenizer=encoding, seq_len=SEQ_LEN, global_batch=8, seed=SEED, index_dir=None)
    for batch in stream:
        yield batch["input_ids"].numel()


def packed_stored(folders: dict[str, Path]) -> Iterator[int]:
    from sdf.stream import Corpus, TokenStream

    stream = TokenStream(Corpus(str(folders["tokens"] / "documents/train")), seq_len=SEQ_LEN, global_batch=8, seed=SEED)
    for batch in stream:
        yield batch["input_ids"].numel()


def tiktoken_alone(folders: dict[str, Path]) -> Iterator[int]:
    from sdf import tokens

    encode = tokens.load("o200k_base").encoding.encode_ordinary
    for row in raw(folders["corpus"], ["text"], None)[0]:
        yield len(encode(row["text"]))


def memmap_alone(folders: dict[str, Path]) -> Iterator[int]:
    """Blocks of 8 x `SEQ_LEN` ids copied to int64 tensors in file order, no documents and no labels."""
    import numpy as np
    import torch

    for path in sorted((folders["tokens"] / "documents/train").glob("*.u32")):
        ids = np.memmap(path, dtype="<u4", mode="r")
        for start in range(0, len(ids) - 8 * SEQ_LEN, 8 * SEQ_LEN):
            yield torch.from_numpy(ids[start : start + 8 * SEQ_LEN].astype(np.int64)).numel()


def litdata_tokens(folders: dict[str, Path]) -> Iterator[int]:
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    found = StreamingDataset(str(folders["litdata_tokens"]), item_loader=TokensLoader(SEQ_LEN), shuffle=True, seed=SEED)
    for batch in StreamingDataLoader(found, batch_size=8, num_workers=0):
        yield batch.numel()


PACKERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[dict[str, Path]], Iterator[int]]]] = {
    "tiktoken alone": ((), ("corpus",), tiktoken_alone),
    "sdf.stream, tokenised while reading": (("torch",), ("corpus",), packed_live),
    "memory map alone": (("torch",), ("tokens",), memmap_alone),
    "sdf.stream, stored ids": (("torch",), ("tokens",), packed_stored),
    "litdata TokensLoader shuffled": (("litdata",), ("litdata_tokens",), litdata_tokens),
}


def cpu_seconds() -> float:
    """Of this process and all that carry its mark in their environment (Ray's daemons are nobody's children)."""
    mark = f"SDF_BENCH={os.environ['SDF_BENCH']}".encode()
    ticks = 0
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdecimal() and mark in (each / "environ").read_bytes():
                ticks += sum(map(int, (each / "stat").read_text().rpartition(")")[2].split()[11:15]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def measured(act: Callable[[], Any]) -> dict[str, Any]:
    cpu, wall = cpu_seconds(), time.perf_counter()
    found = act()
    return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu, "found": found, "peak_kb": _peak_kb()}


def _peak_kb() -> int:
    # Not ru_maxrss, which begins with what the process held before it became this program.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def scan(reader: Reader, folders: dict[str, Path]) -> dict[str, Any]:
    """Every row once. Imports and opening (Ray's start among it) come before the clock."""
    imported(reader.needs)
    rows, _ = reader.rows(folders[reader.reads], ["text"], None)
    return measured(lambda: sum(1 for _ in rows))


def imported(packages: tuple[str, ...]) -> None:
    for package in ("pyarrow.parquet", *packages):
        importlib.import_module(package)


def first_half(reader: Reader, folders: dict[str, Path], n_rows: int, at: Path) -> dict[str, Any]:
    rows, state = reader.rows(folders[reader.reads], ["id", "text"], None)
    seen = [next(rows)["id"] for _ in range(n_rows // 2)]
    if state is None:
        return {"cannot": "it has no state"}
    at.write_bytes(pickle.dumps((seen, state())))
    return {}


def second_half(reader: Reader, folders: dict[str, Path], n_rows: int, at: Path) -> dict[str, Any]:
    seen, state = pickle.loads(at.read_bytes())
    imported(reader.needs)
    start = time.perf_counter()
    rows, _ = reader.rows(folders[reader.reads], ["id", "text"], state)
    first = next(rows)["id"]
    seconds = time.perf_counter() - start
    rest = [first, *(row["id"] for row in rows)]
    both = set(seen) | set(rest)
    return {"seconds": seconds, "lost": n_rows - len(both), "repeated": len(seen) + len(rest) - len(both)}


def pack(name: str, folders: dict[str, Path]) -> dict[str, Any]:
    imported(PACKERS[name][0])
    return measured(lambda: sum(PACKERS[name][2](folders)))


def make_litdata(folders: dict[str, Path], out: Path) -> dict[str, Any]:
    from litdata import optimize

    groups = [(path, ["id", "text"]) for path in shard_paths(folders["corpus"])]
    optimize(_litdata_rows, groups, str(out), chunk_bytes="64MB", num_workers=1, verbose=False)
    return {}


def _litdata_rows(group: tuple[str, list[str]]) -> Rows:
    import pyarrow.parquet as pq

    yield from pq.read_table(group[0], columns=group[1]).to_pylist()


def make_litdata_tokens(folders: dict[str, Path], out: Path) -> dict[str, Any]:
    from litdata import TokensLoader, optimize

    paths = [str(path) for path in sorted((folders["tokens"] / "documents/train").glob("*.tokens.u32"))]
    optimize(
        _litdata_ids,
        paths,
        str(out),
        chunk_size=SEQ_LEN * 4_096,
        num_workers=1,
        item_loader=TokensLoader(),
        verbose=False,
    )
    return {}


def _litdata_ids(path: str) -> Iterator[Any]:
    import numpy as np
    import torch

    offsets = np.fromfile(path.replace("tokens.u32", "offsets.u64"), dtype="<u8").astype(int)
    ids = np.memmap(path, dtype="<u4", mode="r")
    for start, stop in itertools.pairwise(offsets):
        yield torch.from_numpy(ids[start:stop].astype(np.int32))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("act", choices=["scan", "first", "second", "pack", "litdata", "litdata_tokens"])
    parser.add_argument("--name", default="")
    parser.add_argument("--folders", type=json.loads)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--at", type=Path)
    given = parser.parse_args()
    folders = {name: Path(path) for name, path in given.folders.items()}
    acts: dict[str, Callable[[], dict[str, Any]]] = {
        "scan": lambda: scan(READERS[given.name], folders),
        "first": lambda: first_half(READERS[given.name], folders, given.rows, given.at),
        "second": lambda: second_half(READERS[given.name], folders, given.rows, given.at),
        "pack": lambda: pack(given.name, folders),
        "litdata": lambda: make_litdata(folders, given.at),
        "litdata_tokens": lambda: make_litdata_tokens(folders, given.at),
    }
    found = acts[given.act]()
    print(f"\n{json.dumps(found)}", flush=True)
    # Ray and the loaders' threads are not waited for: what is measured is done.
    os._exit(0)


if __name__ == "__main__":
    main()
