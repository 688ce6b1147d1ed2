from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sdf.errors import DamagedError, Missing, SdfError, StorageError
from sdf.manifest import Shard
from sdf.stream.cache import PART, SHARD, ShardCache
from tests.fake_s3 import FakeS3, serving

SIZE = 20_000


@pytest.fixture(scope="module")
def served() -> Iterator[FakeS3]:
    with serving(FakeS3()) as store:
        yield store


@pytest.fixture
def store(served: FakeS3, monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDCANARY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3CR3TCANARY")
    served.objects.clear()
    served.requests.clear()
    served.fault = lambda method, key: None
    return served


def shard_of(number: int, store: FakeS3 | None = None, size: int = SIZE) -> Shard:
    """A shard of random bytes, which lies in the store under `run/`."""
    data = random.Random(number).randbytes(size)
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"data/documents/train-{number:05d}-{sha256[:8]}.parquet"
    if store is not None:
        store.objects[f"run/{path}"] = data
    return Shard("documents", "train", number, path, 1, 1, size, sha256, "0" * 64)


def files(cache: ShardCache) -> list[str]:
    return sorted(path.name for path in cache.root.iterdir() if not path.name.startswith("lock-"))


def stored_bytes(cache: ShardCache) -> int:
    return sum((cache.root / name).stat().st_size for name in files(cache))


def test_a_local_shard_is_read_in_place(tmp_path: Path) -> None:
    store = FakeS3()
    shard = shard_of(0, store)
    target = tmp_path / "corpus" / shard.path
    target.parent.mkdir(parents=True)
    target.write_bytes(store.objects[f"run/{shard.path}"])
    cache = ShardCache(tmp_path / "cache")
    for url in (str(tmp_path / "corpus"), f"file://{tmp_path}/corpus"):
        assert os.fspath(cache.path(url, shard, verify=True)) == str(target)
    assert not (tmp_path / "cache").exists()

    target.write_bytes(target.read_bytes()[:-1] + b"?")
    cache.path(str(tmp_path / "corpus"), shard)
    with pytest.raises(DamagedError, match=rf"{shard.path}: altered"):
        cache.path(str(tmp_path / "corpus"), shard, verify=True)
    target.write_bytes(b"short")
    with pytest.raises(DamagedError, match=rf"{shard.path}: 5 bytes, the manifest says 20,000"):
        cache.path(str(tmp_path / "corpus"), shard)
    target.unlink()
    with pytest.raises(Missing, match=shard.path):
        cache.path(str(tmp_path / "corpus"), shard)


def test_a_remote_shard_is_fetched_once(store: FakeS3, tmp_path: Path) -> None:
    shard = shard_of(0, store)
    cache = ShardCache(tmp_path)
    first = cache.path(store.url("run"), shard)
    assert Path(first).read_bytes() == store.objects[f"run/{shard.path}"]
    assert os.fspath(ShardCache(tmp_path).path(store.url("run"), shard)) == os.fspath(first)
    assert store.n_fetches(f"run/{shard.path}") == 1
    assert files(cache) == [shard.sha256 + SHARD]


def test_processes_of_one_node_fetch_a_shard_once(store: FakeS3, tmp_path: Path) -> None:
    shards = [shard_of(number, store) for number in range(4)]
    cache = ShardCache(tmp_path)
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        found = pool.starmap(_read, [(cache, store.url("run"), shard) for shard in shards * 4], chunksize=1)
    assert found == [shard.sha256 for shard in shards * 4]
    assert [store.n_fetches(f"run/{shard.path}") for shard in shards] == [1] * 4


def test_a_fork_fetches_with_a_file_system_of_its_own(store: FakeS3, tmp_path: Path) -> None:
    first, second = shard_of(0, store), shard_of(1, store)
    script = f"""
import multiprocessing
from sdf.stream.cache import ShardCache
from tests.unit import test_stream_cache as t
cache = ShardCache({str(tmp_path)!r})
url, first, second = {store.url("run")!r}, {first!r}, {second!r}
assert t._read(cache, url, first) == first.sha256
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.starmap(t._read, [(cache, url, second)] * 2) == [second.sha256] * 2
"""
    script = "from sdf.manifest import Shard\n" + script
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=Path(__file__).parents[2])


def _read(cache: ShardCache, url: str, shard: Shard) -> str:
    return hashlib.sha256(Path(cache.path(url, shard)).read_bytes()).hexdigest()


def test_threads_of_one_process_fetch_a_shard_once(store: FakeS3, tmp_path: Path) -> None:
    shard = shard_of(0, store)
    cache = ShardCache(tmp_path)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(_read(cache, store.url("run"), shard))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [shard.sha256] * 8
    assert store.n_fetches(f"run/{shard.path}") == 1


def test_the_least_recently_used_goes_and_the_limit_holds(store: FakeS3, tmp_path: Path) -> None:
    shards = [shard_of(number, store) for number in range(6)]
    cache = ShardCache(tmp_path, limit_bytes=3 * SIZE)
    for shard in shards[:3]:
        cache.path(store.url("run"), shard)
    cache.path(store.url("run"), shards[0])
    cache.path(store.url("run"), shards[3])
    assert files(cache) == sorted(shards[number].sha256 + SHARD for number in (0, 2, 3))
    for shard in shards * 2:
        cache.path(store.url("run"), shard)
        assert stored_bytes(cache) <= 3 * SIZE


@pytest.mark.parametrize("is_there_already", [False, True])
def test_a_file_in_use_is_never_deleted(store: FakeS3, tmp_path: Path, is_there_already: bool) -> None:
    shards = [shard_of(number, store) for number in range(6)]
    cache = ShardCache(tmp_path, limit_bytes=2 * SIZE)
    if is_there_already:
        cache.path(store.url("run"), shards[0])
    held = cache.path(store.url("run"), shards[0])
    for shard in shards[1:]:
        ShardCache(tmp_path, limit_bytes=2 * SIZE).path(store.url("run"), shard)
    assert Path(held).exists()
    held.close()
    cache.path(store.url("run"), shards[1])
    cache.path(store.url("run"), shards[2])
    assert not Path(held).exists()


def test_more_in_use_than_the_limit_is_an_error_with_the_number_to_give(store: FakeS3, tmp_path: Path) -> None:
    first, second = shard_of(0, store), shard_of(1, store)
    cache = ShardCache(tmp_path, limit_bytes=SIZE + 1)
    with (
        cache.path(store.url("run"), first),
        pytest.raises(StorageError, match=rf"{second.path}: no room .* give at least {2 * SIZE:,}"),
    ):
        cache.path(store.url("run"), second)
    cache.path(store.url("run"), second)
    with pytest.raises(StorageError, match="0 bytes are in use"):
        ShardCache(tmp_path / "other", limit_bytes=10).path(store.url("run"), first)


def test_a_torn_reply_is_fetched_again_and_an_altered_shard_is_named(store: FakeS3, tmp_path: Path) -> None:
    shard = shard_of(0, store)
    faults = ["flipped"]
    store.fault = lambda method, key: faults.pop() if method == "GET" and faults else None
    cache = ShardCache(tmp_path)
    assert _read(cache, store.url("run"), shard) == shard.sha256
    assert not faults

    store.fault = lambda method, key: "flipped" if method == "GET" else None
    with pytest.raises(DamagedError, match=rf"s3://corpora/run/{shard.path}: altered: .* {shard.sha256}"):
        ShardCache(tmp_path / "other").path(store.url("run"), shard)
    longer = shard_of(1, store, SIZE + 100)
    with pytest.raises(DamagedError, match="the manifest says 20,000"):
        cache.path(store.url("run"), replace(longer, size_bytes=SIZE))
    assert files(cache) == [shard.sha256 + SHARD]
    assert files(ShardCache(tmp_path / "other")) == []


def test_a_server_that_stumbles_is_asked_again(store: FakeS3, tmp_path: Path) -> None:
    shard = shard_of(0, store)
    faults = ["500", "torn"]
    store.fault = lambda method, key: faults.pop() if method == "GET" and faults else None
    assert _read(ShardCache(tmp_path), store.url("run"), shard) == shard.sha256


def test_errors_name_the_shard_and_never_the_credentials(store: FakeS3, tmp_path: Path) -> None:
    shard = shard_of(0)
    url = store.url("run", "AKIDCANARY:S3CR3TCANARY@")
    cache = ShardCache(tmp_path)
    with pytest.raises(Missing, match=rf"s3://corpora/run/{shard.path}") as missing:
        cache.path(url, shard)
    store.fault = lambda method, key: "403"
    with pytest.raises(StorageError, match=rf"s3://corpora/run/{shard.path}.*ACCESS_DENIED") as denied:
        cache.path(url, shard)
    for caught in (missing, denied):
        assert "CANARY" not in str(caught.value)
    assert files(cache) == []


def test_a_cached_file_that_a_power_cut_left_short_is_fetched_again(store: FakeS3, tmp_path: Path) -> None:
    shard = shard_of(0, store)
    cache = ShardCache(tmp_path)
    path = Path(cache.path(store.url("run"), shard))
    path.write_bytes(b"")
    assert _read(cache, store.url("run"), shard) == shard.sha256
    path.write_bytes(b"0" * SIZE)
    assert _read(cache, store.url("run"), shard) != shard.sha256
    with cache.path(store.url("run"), shard, verify=True) as held:
        assert hashlib.sha256(Path(held).read_bytes()).hexdigest() == shard.sha256


def test_what_a_killed_fetch_left_is_reaped_by_the_next_opener(store: FakeS3, tmp_path: Path) -> None:
    shard, other = shard_of(0, store), shard_of(1, store)
    begun = threading.Event()
    resumed = threading.Event()

    def fault(method: str, key: str) -> None:
        if method == "GET" and key.endswith(shard.path):
            begun.set()
            resumed.wait(60)

    store.fault = fault
    script = f"from sdf.stream.cache import *; ShardCache({str(tmp_path)!r}).path({store.url('run')!r}, {shard!r})"
    fetching = subprocess.Popen([sys.executable, "-c", script])
    assert begun.wait(60)
    # While it fetches, its file is nobody else's to delete.
    cache = ShardCache(tmp_path)
    cache.path(store.url("run"), other)
    assert files(cache) == sorted([shard.sha256 + PART, other.sha256 + SHARD])
    fetching.send_signal(signal.SIGKILL)
    fetching.wait()
    resumed.set()
    ShardCache(tmp_path).path(store.url("run"), other)
    assert files(cache) == [other.sha256 + SHARD]
    assert _read(cache, store.url("run"), shard) == shard.sha256


def test_a_fetch_that_hangs_is_not_waited_for_without_end(store: FakeS3, tmp_path: Path) -> None:
    shard = shard_of(0, store)
    slept: list[float] = []
    cache = ShardCache(tmp_path, patience=1.0, sleep=slept.append)
    cache._open()
    with (
        cache._locked(cache._slot(shard.sha256), "held"),
        pytest.raises(StorageError, match=rf"{shard.path}: another process has been fetching it for 1 s"),
    ):
        cache.path(store.url("run"), shard)
    assert sum(slept) == pytest.approx(1.0)


def test_two_users_of_a_host_do_not_meet(store: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = shard_of(0, store)
    cache = ShardCache(tmp_path)
    cache.path(store.url("run"), shard)
    assert cache.root.name == f"sdf-shards-{os.geteuid()}"
    assert cache.root.stat().st_mode & 0o777 == 0o700
    assert (cache.root / (shard.sha256 + SHARD)).stat().st_mode & 0o077 == 0
    theirs = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: theirs)
    assert ShardCache(tmp_path).root != tmp_path / f"sdf-shards-{theirs - 1}"
    # A directory of ours under their name: planted, so refused.
    (tmp_path / f"sdf-shards-{theirs}").mkdir(mode=0o700)
    with pytest.raises(StorageError, match="this user alone"):
        ShardCache(tmp_path).path(store.url("run"), shard)


@pytest.mark.parametrize(
    "plant", [lambda at: at.mkdir(mode=0o777) or at.chmod(0o777), lambda at: at.symlink_to("/tmp")]
)
def test_a_directory_that_others_can_enter_is_refused(
    store: FakeS3, tmp_path: Path, plant: Callable[[Path], object]
) -> None:
    plant(ShardCache(tmp_path).root)
    with pytest.raises(StorageError, match="delete it, or give the cache another directory"):
        ShardCache(tmp_path).path(store.url("run"), shard_of(0, store))


def test_a_full_or_unusable_disk_is_named(store: FakeS3, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="give the cache another directory"):
        ShardCache(tmp_path / "file").path(store.url("run"), shard_of(0, store))
    if Path("/dev/full").exists():
        with pytest.raises(SdfError, match="no space left"):
            from sdf.stream.cache import _write

            descriptor = os.open("/dev/full", os.O_WRONLY)
            try:
                _write(descriptor, memoryview(b"x" * 10), 0)
            finally:
                os.close(descriptor)


def test_it_pickles_as_its_settings(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, limit_bytes=5)
    again = pickle.loads(pickle.dumps(cache))
    assert (again, again.root) == (cache, cache.root)
