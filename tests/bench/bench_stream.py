"""Reading a corpus for training, beside what else reads it: `python tests/bench/bench_stream.py --venv DIR ...`.

One corpus of 500 MB of text (zstd Parquet, made once by our own writer from offline documents whose paragraphs change
places) is read by each reader in a process of its own: MB of text a CPU-second and a second of wall, peak memory,
seconds to the first sample after resuming at one half, samples lost and repeated, tokens a second packed. Ratios are to
the raw scan of the same run. A reader whose package no given environment has is named and left out: MosaicML streaming
and `datasets` 5 cannot share one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import secrets
import statistics
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdf import api, tokens
from sdf.shards import publish, read_manifest, read_shard, write_shard
from sdf.storage import RunDir
from tests.bench.stream_peers import PACKERS, READERS, raw

PEERS = Path(__file__).with_name("stream_peers.py")
BASE_TOKENS = 12_000_000
SHARD_BYTES = 10_000_000


@dataclass
class Bench:
    """Where things lie, and with which interpreters; the first that has a package is used for it."""

    folders: dict[str, Path]
    pythons: list[str]
    repeat: int
    like: str = ""
    n_rows: int = 0
    text_mb: float = 0.0

    def chosen(self, known: dict[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in known.items() if re.search(self.like, name)}

    def python(self, needs: tuple[str, ...]) -> str | None:
        script = "import importlib.util, sys; sys.exit(any(importlib.util.find_spec(n) is None for n in sys.argv[1:]))"
        for python in self.pythons:
            if subprocess.run([python, "-c", script, *needs], check=False, capture_output=True).returncode == 0:
                return python
        print(f"SKIPPED: {', '.join(needs)} is in none of the environments: {', '.join(self.pythons)}", flush=True)
        return None

    def call(self, python: str, act: str, name: str = "", at: Path | None = None) -> dict[str, Any] | None:
        command = [python, "-W", "ignore", str(PEERS), act, "--name", name, "--rows", str(self.n_rows)]
        command += ["--folders", json.dumps({each: str(path) for each, path in self.folders.items()})]
        mark = secrets.token_hex(8)
        env = os.environ | {
            "SDF_BENCH": mark,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
        }
        process = subprocess.Popen([*command, "--at", str(at)], env=env, stdout=-1, stderr=-1, text=True)
        peak = _Peak(mark)
        out, errors = process.communicate()
        peak.stop()
        if process.returncode:
            print(f"FAILED: {name} {act}: {errors.strip().splitlines()[-1:] or process.returncode}", flush=True)
            return None
        found = json.loads(out.strip().splitlines()[-1])
        return found | {"peak_mb": max(found.get("peak_kb", 0) / 1e3, peak.mb)}


class _Peak:
    """The most that all processes with a mark held together (PSS), looked at five times a second."""

    def __init__(self, mark: str) -> None:
        self.mb = 0.0
        self._mark, self._done = f"SDF_BENCH={mark}".encode(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self.mb = max(self.mb, sum(map(self._pss_mb, filter(self._is_marked, Path("/proc").iterdir()))))

    def _is_marked(self, process: Path) -> bool:
        try:
            return process.name.isdecimal() and self._mark in (process / "environ").read_bytes()
        except OSError:
            return False

    def _pss_mb(self, process: Path) -> float:
        try:
            text = (process / "smaps_rollup").read_text()
        except OSError:
            return 0.0
        return int(text.partition("\nPss:")[2].split()[0]) / 1e3


def make_corpus(folder: Path, text_mb: int) -> Path:
    """Documents of one offline run, again and again with their paragraphs in other orders, until they are `text_mb`."""
    base, out = RunDir(folder / "base"), RunDir(folder / f"corpus-{text_mb}")
    if read_manifest(out) is not None:
        return Path(out.root)
    if read_manifest(base) is None:
        api.run("quickstart", base.root, tokens=BASE_TOKENS, ray="none")
    manifest = read_manifest(base)
    assert manifest is not None
    rows = [row for shard in manifest.shards for group in read_shard(base, shard) for row in group]
    draw = random.Random(0)
    shards, held, held_bytes, written = [], [], 0, 0
    for number in range(sys.maxsize):
        row = rows[number % len(rows)]
        paragraphs = row["text"].split("\n\n")
        draw.shuffle(paragraphs)
        held.append({**row, "text": "\n\n".join(paragraphs), "id": f"{number:032x}"})
        held_bytes += len(row["text"].encode())
        if held_bytes >= SHARD_BYTES:
            shards.append(write_shard(out, "documents", "train", len(shards), _counted(held)))
            written, held, held_bytes = written + held_bytes, [], 0
        if written >= text_mb * 1e6:
            break
    counts = {"n_tokens": sum(each.n_tokens for each in shards), "n_documents": sum(each.n_rows for each in shards)}
    publish(
        out, replace(manifest, number=1, predecessor=None, state="complete", shards=tuple(shards), genres={}, **counts)
    )
    return Path(out.root)


def _counted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    counts = tokens.load("o200k_base").count([row["text"] for row in rows], num_threads=os.cpu_count() or 1)
    return [{**row, "n_tokens": count} for row, count in zip(rows, counts, strict=True)]


def text_table(bench: Bench) -> None:
    print(f"\n{'reader':36} {'MB/CPU-s':>9} {'ratio':>6} {'MB/s':>7} {'peak MB':>8}")
    reference = 0.0
    for name, reader in bench.chosen(READERS).items():
        python = bench.python(reader.needs)
        found = [bench.call(python, "scan", name) for _ in range(bench.repeat)] if python else []
        whole = [each for each in found if each]
        if not whole:
            continue
        per_cpu = bench.text_mb / statistics.median(each["cpu"] for each in whole)
        reference = per_cpu if name == "raw scan" else reference
        wall = bench.text_mb / statistics.median(each["wall"] for each in whole)
        peak = statistics.median(each["peak_mb"] for each in whole)
        ratio = f"{per_cpu / reference:6.2f}" if reference else "     -"
        print(f"{name:36} {per_cpu:9.0f} {ratio} {wall:7.0f} {peak:8.0f}", flush=True)


def resume_table(bench: Bench) -> None:
    print(f"\n{'resuming at one half':36} {'seconds':>9} {'lost':>7} {'repeated':>9}   of {bench.n_rows:,}")
    for name, reader in bench.chosen(READERS).items():
        python = bench.python(reader.needs)
        at = bench.folders["work"] / "state.pickle"
        if python is None or name.startswith("raw"):
            continue
        first = bench.call(python, "first", name, at)
        if first and "cannot" in first:
            print(f"{name:36} cannot: {first['cannot']}", flush=True)
        elif first is not None and (found := bench.call(python, "second", name, at)):
            print(f"{name:36} {found['seconds']:9.3f} {found['lost']:7,} {found['repeated']:9,}", flush=True)


def packed_table(bench: Bench) -> None:
    print(f"\n{'packed':36} {'Mtokens/CPU-s':>13} {'Mtokens/s':>10} {'peak MB':>8}")
    for name, (needs, reads, _) in bench.chosen(PACKERS).items():
        python = bench.python(needs)
        if python is None or any(each not in bench.folders for each in reads):
            print(f"SKIPPED: {name} has nothing to read", flush=True)
            continue
        found = [bench.call(python, "pack", name) for _ in range(bench.repeat)]
        if whole := [each for each in found if each]:
            cpu, wall = (
                statistics.median(each["found"] / each[kind] / 1e6 for each in whole) for kind in ("cpu", "wall")
            )
            print(
                f"{name:36} {cpu:13.1f} {wall:10.1f} {statistics.median(each['peak_mb'] for each in whole):8.0f}",
                flush=True,
            )


def exports(bench: Bench, folder: Path) -> None:
    """The same corpus in the formats that need one of their own, made once, each by its own writer."""
    corpus = bench.folders["corpus"]
    sizes = {"corpus": _size_mb(corpus / "data")}
    for name, needs in (("mds", ("streaming",)), ("tokens", ("torch",))):
        out = folder / f"{corpus.name}-{name}"
        python = bench.python(needs)
        if python is None:
            continue
        command = [python, "-W", "ignore", "-m", "sdf.cli", "export", str(corpus), "--to", name, "--out", str(out)]
        command += ["--tokenizer", "o200k_base"] if name == "tokens" else []
        done = out.exists() or subprocess.run(command, check=False).returncode == 0
        if done:
            bench.folders[name] = out
            sizes[name] = _size_mb(out)
    for name in ("litdata", "litdata_tokens"):
        out = folder / f"{corpus.name}-{name}"
        python = bench.python(("litdata",))
        if not python or (name == "litdata_tokens" and "tokens" not in bench.folders):
            continue
        if (out / "index.json").exists() or bench.call(python, name, name, out) is not None:
            bench.folders[name] = out
            sizes[name] = _size_mb(out)
    print(
        "on disk: "
        + ", ".join(f"{name} {size:,.0f} MB ({size / sizes['corpus']:.1f} x)" for name, size in sizes.items())
    )


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where the corpus and its exports are kept (5 GB)")
    parser.add_argument("--venv", type=Path, action="append", default=[], help="an environment with peers; repeatable")
    parser.add_argument("--text-mb", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=["text", "resume", "packed"], action="append")
    parser.add_argument("--like", default="", help="a pattern of the readers' names; all of them otherwise")
    given = parser.parse_args()
    corpus = make_corpus(given.work, given.text_mb)
    pythons = [str(venv / "bin/python") for venv in given.venv] or [sys.executable]
    bench = Bench({"corpus": corpus, "work": given.work}, pythons, given.repeat, given.like)
    manifest = read_manifest(RunDir(corpus))
    assert manifest is not None
    bench.n_rows = manifest.n_documents
    bench.text_mb = sum(len(row["text"].encode()) for row in raw(corpus, ["text"], None)[0]) / 1e6
    print(f"{bench.text_mb:,.0f} MB of text, {bench.n_rows:,} rows, {len(manifest.shards)} shards")
    exports(bench, given.work)
    for name, table in (("text", text_table), ("resume", resume_table), ("packed", packed_table)):
        if not given.only or name in given.only:
            table(bench)


if __name__ == "__main__":
    main()
