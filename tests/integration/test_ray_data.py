"""A corpus, read by the real Ray Data in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sdf.shards import write_shard
from tests.corpora import documents, make_corpus
from tests.integration.ray_nodes import environment

ROOT = Path(__file__).parents[2]

# The manifest's own list: a directory may hold shards that were replaced, or that a killed run left.
READ = """
import logging, os, sys
import ray
from sdf.manifest import Manifest, newest
from tests.corpora import chats, documents

root = sys.argv[1]
ray.init(num_cpus=2, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
ray.data.DataContext.get_current().enable_progress_bars = False
path = os.path.join(root, "manifests", newest(os.listdir(os.path.join(root, "manifests"))))
manifest = Manifest.from_json(open(path, "rb").read(), source=path)

def read(config, split):
    shards = [s for s in manifest.shards if (s.config, s.split) == (config, split)]
    found = ray.data.read_parquet([os.path.join(root, s.path) for s in shards])
    return sorted(found.take_all(), key=lambda row: row["id"])

assert read("documents", "train") == documents(25)
found = read("chats", "train")
assert [dict(row, messages=list(row["messages"])) for row in found] == chats(6)
print("equal")
os._exit(0)
"""


@pytest.mark.slow
def test_documents_and_chats_are_read_as_they_were_written(tmp_path: Path) -> None:
    run_dir = make_corpus(tmp_path / "corpus")
    write_shard(run_dir, "documents", "train", 3, documents(5))
    env = environment() | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", READ, run_dir.root]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("equal")
