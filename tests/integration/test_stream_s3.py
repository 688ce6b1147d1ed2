"""A corpus in an object store, streamed through the shard cache; moto plays S3, and is skipped where it is absent.

`tests/fake_s3.py` plays it with faults, in every run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from sdf.stream import Corpus, ShardCache
from tests.corpora import documents, make_corpus

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    moto = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[s3]' flask flask-cors")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a corpus of 25 documents, credentials in it."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    make_corpus(tmp_path / "corpus")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    store = fs.S3FileSystem(
        access_key="AKIDCANARY",
        secret_key="S3CR3TCANARY",
        endpoint_override=f"127.0.0.1:{port}",
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
        allow_delayed_open=True,
    )
    store.create_dir("corpora")
    fs.copy_files(str(tmp_path / "corpus"), "corpora/run", destination_filesystem=store)
    options = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    yield f"s3://AKIDCANARY:S3CR3TCANARY@corpora/run?{options}"
    server.stop()


def test_a_remote_corpus_is_the_local_one(bucket: str, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache")
    remote = Corpus(bucket, version=1, cache=cache)
    assert "CANARY" not in repr(remote)
    found = list(remote.documents(seed=3))
    assert found == list(Corpus(str(tmp_path / "corpus"), version=1).documents(seed=3))
    assert sorted(row["id"] for row in found) == [row["id"] for row in documents(25)]
    assert remote.verify() == []
    assert len([path for path in cache.root.iterdir() if path.suffix == ".parquet"]) == 3
