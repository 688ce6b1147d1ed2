from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import fsspec
import pytest

from sdf.errors import Missing, SdfError, StorageError, StorageFull, Superseded
from sdf.storage import RunDir, check_epoch, current_epoch, open_epoch

N_RACERS = 8


@pytest.fixture(params=["local", "memory"])
def run_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunDir]:
    if request.param == "local":
        yield RunDir(tmp_path / "run")
        return
    yield RunDir("memory://bucket/run")
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


# What every place promises.


def test_what_is_written_is_read(run_dir: RunDir) -> None:
    run_dir.write("data/a.bin", b"old")
    run_dir.write("data/a.bin", b"new\x00bytes")
    assert run_dir.read("data/a.bin") == b"new\x00bytes"
    assert run_dir.size("data/a.bin") == 9
    with run_dir.open("data/a.bin") as file:
        file.seek(4)
        assert file.read() == b"bytes"


def test_a_reader_in_the_midst_of_a_file_keeps_its_bytes(run_dir: RunDir) -> None:
    run_dir.write("a", b"old bytes")
    with run_dir.open("a") as file:
        run_dir.write("a", b"new bytes")
        assert file.read() == b"old bytes"
    assert run_dir.read("a") == b"new bytes"


def test_an_empty_file_is_a_file(run_dir: RunDir) -> None:
    run_dir.write("empty", b"")
    assert run_dir.put_if_absent("also", b"")
    assert run_dir.files() == [("also", 0), ("empty", 0)]
    assert run_dir.read("empty") == b""


def test_the_first_put_stays(run_dir: RunDir) -> None:
    assert run_dir.put_if_absent("manifests/000001.json", b"first")
    assert not run_dir.put_if_absent("manifests/000001.json", b"second")
    assert run_dir.read("manifests/000001.json") == b"first"


def test_files_are_listed_below_a_directory_with_sizes(run_dir: RunDir) -> None:
    for path, n_bytes in (("ledger/000002/b", 2), ("ledger/000001/deep/a", 3), ("ledger2", 1), ("ledger/x", 0)):
        run_dir.write(path, b"." * n_bytes)
    assert run_dir.files("ledger") == [("ledger/000001/deep/a", 3), ("ledger/000002/b", 2), ("ledger/x", 0)]
    assert run_dir.files() == [*run_dir.files("ledger"), ("ledger2", 1)]
    assert run_dir.files("ledger/0") == run_dir.files("nowhere") == run_dir.files("ledger2") == []
    assert run_dir.children("ledger") == ["000001", "000002", "x"]
    assert run_dir.children() == ["ledger", "ledger2"]
    assert run_dir.children("nowhere") == run_dir.children("ledger2") == []


def test_a_file_exists_and_a_directory_does_not(run_dir: RunDir) -> None:
    run_dir.write("a/b", b"x")
    assert run_dir.exists("a/b")
    assert not run_dir.exists("a")
    assert not run_dir.exists("a/b/c")


def test_deleting_twice_is_fine(run_dir: RunDir) -> None:
    run_dir.write("a", b"x")
    run_dir.delete("a")
    run_dir.delete("a")
    assert run_dir.files() == []


@pytest.mark.parametrize("act", [RunDir.read, RunDir.size, RunDir.open])
def test_a_missing_file_is_named(run_dir: RunDir, act: object) -> None:
    assert callable(act)
    with pytest.raises(Missing, match=r"run/recipe\.json"):
        act(run_dir, "recipe.json")


def test_a_usable_directory_is_left_as_it_was(run_dir: RunDir) -> None:
    run_dir.check_usable()
    run_dir.check_usable()
    assert run_dir.files() == run_dir.leftovers() == []


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "./a", "a\\..\\b", "a\0b", "a/.0.aside"]
)
def test_no_path_leads_out_or_looks_unfinished(run_dir: RunDir, path: str) -> None:
    for act in (run_dir.read, run_dir.exists, run_dir.size, run_dir.open):
        with pytest.raises(StorageError):
            act(path)
    with pytest.raises(StorageError):
        run_dir.write(path, b"x")
    with pytest.raises(StorageError):
        run_dir.put_if_absent(path, b"x")


def test_it_pickles_small_and_equal(run_dir: RunDir) -> None:
    run_dir.write("a", b"x")
    pickled = pickle.dumps(run_dir)
    assert len(pickled) < 250
    assert pickle.loads(pickled) == run_dir
    assert pickle.loads(pickled).read("a") == b"x"
    assert len({run_dir, pickle.loads(pickled)}) == 1


def test_paths_have_their_names() -> None:
    assert RunDir.part(3, "w1-000007") == "ledger/000003/w1-000007.answers.parquet"
    assert RunDir.sidecar(3, "w1-000007") == "ledger/000003/w1-000007.sidecar.parquet"
    assert RunDir.prefix("ab") == "ledger/prefixes/ab.txt"
    assert RunDir.manifest(42) == "manifests/000042.json"
    assert RunDir.shard("chats", "train", 7, "0123abcd") == "data/chats/train-00007-0123abcd.parquet"
    assert RunDir.lease(3) == f"{RunDir.ledger_dir(3)}/EPOCH"
    assert (RunDir.recipe, RunDir.card) == ("recipe.json", "README.md")


# Roots.


def test_a_root_does_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunDir("run").root == RunDir(tmp_path / "run").root == RunDir(f"file://{tmp_path}/run").root
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunDir("~/run/") == RunDir("run")
    assert RunDir("s3://bucket/run/").root == "s3://bucket/run"


def test_a_root_without_a_name_is_refused() -> None:
    with pytest.raises(StorageError, match="name a directory"):
        RunDir(" ")


def test_an_unknown_protocol_names_its_neighbour() -> None:
    with pytest.raises(StorageError, match="did you mean memory://"):
        RunDir("memry://bucket/run").check_usable()


def test_a_store_that_overwrites_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(memory, "pipe_file", lambda self, path, value, mode="": self.open(path, "wb", data=value))
    with pytest.raises(StorageError, match="overwrites where it was told to create"):
        RunDir("memory://careless/run").check_usable()
    assert RunDir("memory://careless/run").leftovers() == []


def test_a_lost_race_is_known_by_the_file_whatever_the_store_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer_412(self: fsspec.AbstractFileSystem, path: str, value: bytes, mode: str = "") -> None:
        if mode == "create":
            raise OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold")
        self.open(path, "wb", data=value)

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", answer_412)
    run_dir = RunDir("memory://bucket/strict")
    run_dir.write("there", b"x")
    assert not run_dir.put_if_absent("there", b"y")
    with pytest.raises(StorageError, match="strict/not-there: At least one of the pre-conditions"):
        run_dir.put_if_absent("not-there", b"y")


def test_what_a_plug_in_raises_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentialsError(Exception):
        pass

    def refuse(*_: object, **__: object) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", refuse)
    with pytest.raises(StorageError, match=r"memory://bucket/run/a: NoCredentialsError: Unable to locate"):
        RunDir("memory://bucket/run").read("a")


# Local disks that cannot be used.


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    for root in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(StorageError, match=r"run.*a file lies where a directory should be"):
            RunDir(root).check_usable()
    assert (tmp_path / "run").read_text() == "a file"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where even root creates nothing")
def test_a_place_where_nothing_can_be_created_is_named() -> None:
    with pytest.raises(StorageError, match="/proc/sdf-run"):
        RunDir("/proc/sdf-run").check_usable()


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageError, match="mounted read-only; choose another"):
        RunDir(small_disk / "run").check_usable()


def test_a_full_disk_keeps_what_is_committed(small_disk: Path) -> None:
    run_dir = RunDir(small_disk / "run")
    run_dir.write("kept", b"k" * 20_000)
    for write in (run_dir.write, run_dir.put_if_absent):
        with pytest.raises(StorageFull, match=r"run/(kept|new).*free space and run the same command"):
            write("kept" if write == run_dir.write else "new", b"x" * 100_000)
    assert run_dir.read("kept") == b"k" * 20_000
    assert run_dir.files() == [("kept", 20_000)]
    assert run_dir.leftovers() == []
    run_dir.write("new", b"it goes on")
    assert run_dir.read("new") == b"it goes on"


def limited_write(root: Path) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        RunDir(root).write("kept", b"x" * 5000)
    except SdfError as error:
        return str(error)
    return "no error"


def test_a_write_cut_short_leaves_the_old_bytes(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.write("kept", b"old")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert f"{tmp_path}/kept: File too large" in pool.submit(limited_write, tmp_path).result()
    assert run_dir.read("kept") == b"old"
    assert run_dir.leftovers() == []


def test_nothing_is_deleted_through_a_link_that_leads_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("p")
    run_dir = RunDir(tmp_path / "run")
    run_dir.check_usable()
    (tmp_path / "run" / "data").symlink_to(outside)
    (tmp_path / "run" / "link").symlink_to(outside / "precious")
    with pytest.raises(StorageError, match="leads out"):
        run_dir.delete("data/precious")
    run_dir.delete("link")
    assert (outside / "precious").read_text() == "p"
    assert not (tmp_path / "run" / "link").is_symlink()


def test_a_directory_is_not_deleted(tmp_path: Path) -> None:
    RunDir(tmp_path).write("a/b", b"x")
    with pytest.raises(StorageError, match="/a: "):
        RunDir(tmp_path).delete("a")
    assert RunDir(tmp_path).exists("a/b")


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "big-disk")
    run_dir = RunDir(tmp_path / "run")
    run_dir.write("a/b", b"x")
    run_dir.delete("a/b")
    assert run_dir.files() == []


def test_files_get_the_rights_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        RunDir(tmp_path).write("a", b"x")
        RunDir(tmp_path).put_if_absent("b", b"x")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o640]


@pytest.mark.parametrize("act", [RunDir.write, RunDir.put_if_absent])
def test_bytes_are_synced_before_they_appear_and_their_directories_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[RunDir, str, bytes], object]
) -> None:
    synced: list[tuple[str, bool]] = []
    target = tmp_path / "run" / "deep" / "file"

    def record(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append(
            (str(Path(f"/proc/self/fd/{descriptor}").readlink()) if kind == "directory" else kind, target.exists())
        )

    monkeypatch.setattr(os, "fsync", record)
    act(RunDir(tmp_path / "run"), "deep/file", b"x")
    assert synced == [
        (str(tmp_path), False),
        (str(tmp_path / "run"), False),
        ("file", False),
        (str(tmp_path / "run" / "deep"), True),
    ]


def test_a_disk_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match="no hard links"):
        RunDir(tmp_path).check_usable()
    assert RunDir(tmp_path).leftovers() == []


def test_a_link_whose_reply_was_lost_still_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_and_lose_the_reply(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", link_and_lose_the_reply)
    assert RunDir(tmp_path).put_if_absent("a", b"ours")


# Processes that die, and processes that race.

# Forks once per system call of an act and kills the fork just before that call; stops when one lives to the end.
KILL_AT_EVERY_CALL = """
import os, signal, sys
from sdf.storage import RunDir
root, act, path = sys.argv[1:]
calls, last = 0, None
def step(event, *_):
    global calls
    if last is not None and event in {"open", "fsync", "os.mkdir", "os.rename", "os.link", "os.remove"}:
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
fsync = os.fsync
os.fsync = lambda descriptor: (step("fsync"), fsync(descriptor))[1]
sys.addaudithook(step)
for last in range(1, 100):
    child = os.fork()
    if not child:
        getattr(RunDir(f"{root}/{last:03d}"), act)(path, b"new" * 1000)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
print(last)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("act", "old"), [("write", b"old"), ("write", None), ("put_if_absent", None)])
def test_a_kill_at_any_call_leaves_old_or_new(tmp_path: Path, act: str, old: bytes | None) -> None:
    for number in range(1, 100):
        if old:
            RunDir(tmp_path / f"{number:03d}").write("deep/file", old)
    script = [sys.executable, "-c", KILL_AT_EVERY_CALL, str(tmp_path), act, "deep/file"]
    last = int(subprocess.run(script, check=True, capture_output=True, text=True).stdout)
    assert 6 <= last < 99
    seen: list[bytes | None] = []
    for number in range(1, last + 1):
        run_dir = RunDir(tmp_path / f"{number:03d}")
        seen.append(run_dir.read("deep/file") if run_dir.exists("deep/file") else None)
        assert [path for path, _ in run_dir.files()] == (["deep/file"] if seen[-1] is not None else [])
    n_old = seen.index(b"new" * 1000)
    assert seen == [old] * n_old + [b"new" * 1000] * (last - n_old)
    left = [(run_dir, path) for n in range(1, last) for run_dir in [RunDir(tmp_path / f"{n:03d}")]
            for path, _ in run_dir.leftovers()]  # fmt: skip
    assert left
    for run_dir, path in left:
        run_dir.delete(path)
        assert run_dir.leftovers() == []


starting_line: Barrier


def line_up(barrier: Barrier) -> None:
    global starting_line
    starting_line = barrier


def race(act: object, *arguments: object) -> list[list[int]]:
    """Runs `act(racer, *arguments)` in N_RACERS processes that start together."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(N_RACERS, context, line_up, (context.Barrier(N_RACERS),)) as pool:
        assert callable(act)
        futures = [pool.submit(act, racer, *arguments) for racer in range(N_RACERS)]
        return [future.result() for future in futures]


def put_many(racer: int, run_dir: RunDir, n_files: int) -> list[int]:
    starting_line.wait()
    won: list[int] = []
    for number in range(n_files):
        if run_dir.put_if_absent(RunDir.manifest(number), bytes([racer]) * 50_000):
            won.append(number)
        # Whoever lost sees the winner's file whole at once.
        assert len(set(run_dir.read(RunDir.manifest(number)))) == 1
        assert run_dir.size(RunDir.manifest(number)) == 50_000
    return won


def test_of_racing_processes_exactly_one_puts(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    won = race(put_many, run_dir, 20)
    assert sorted(number for numbers in won for number in numbers) == list(range(20))
    for racer, numbers in enumerate(won):
        for number in numbers:
            assert run_dir.read(RunDir.manifest(number)) == bytes([racer]) * 50_000
    assert [size for _, size in run_dir.files()] == [50_000] * 20
    assert run_dir.leftovers() == []


def open_many(racer: int, run_dir: RunDir, n_epochs: int) -> list[int]:
    starting_line.wait()
    return [open_epoch(run_dir) for _ in range(n_epochs)]


def test_of_racing_processes_no_two_open_the_same_epoch(tmp_path: Path) -> None:
    opened = race(open_many, RunDir(tmp_path), 5)
    assert sorted(epoch for epochs in opened for epoch in epochs) == list(range(1, N_RACERS * 5 + 1))
    assert all(epochs == sorted(epochs) for epochs in opened)


# Epochs.


def test_epochs_rise_by_one(run_dir: RunDir) -> None:
    assert current_epoch(run_dir) == 0
    run_dir.write(RunDir.prefix("ab"), b"a prefix is no epoch")
    assert [open_epoch(run_dir) for _ in range(3)] == [1, 2, 3]
    assert current_epoch(run_dir) == 3


def test_an_epoch_is_fenced_once_the_next_is_open(run_dir: RunDir) -> None:
    epoch = open_epoch(run_dir)
    check_epoch(run_dir, epoch)
    open_epoch(run_dir)
    with pytest.raises(Superseded, match="epoch 2 follows 1"):
        check_epoch(run_dir, epoch)


def test_an_epoch_whose_opening_was_killed_is_opened_by_the_next(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    open_epoch(run_dir)
    (tmp_path / "ledger" / "000002").mkdir()
    assert current_epoch(run_dir) == 1
    assert open_epoch(run_dir) == 2
