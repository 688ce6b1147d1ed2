from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdf.errors import Missing, SdfError, StorageError
from sdf.stream.places import BACKOFF, Place, shown, without_secrets
from tests.fake_s3 import FakeS3, serving

KEYS = "AKIDCANARY:S3CR3T%2FCANARY@"


@pytest.fixture(scope="module")
def served() -> Iterator[FakeS3]:
    with serving(FakeS3({"run/manifests/000001.json": b"{}", "run/manifests/000002.json": b"[]"})) as store:
        yield store


@pytest.fixture
def store(served: FakeS3) -> FakeS3:
    served.fault = lambda method, key: None
    return served


def test_a_store_and_a_directory_are_read_alike(store: FakeS3, tmp_path: Path) -> None:
    for key, data in store.objects.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(data)
    for url in (store.url("run", KEYS), str(tmp_path / "run"), f"file://{tmp_path}/run"):
        place = Place(url)
        assert place.names("manifests") == ["000001.json", "000002.json"]
        assert place.names("data") == []
        assert place.read("manifests/000002.json") == b"[]"
        with pytest.raises(Missing, match="data/none"):
            place.read("data/none")


def test_trouble_that_passes_is_waited_for(store: FakeS3) -> None:
    waits: list[float] = []
    troubles = [OSError("AWS Error NETWORK_CONNECTION"), OSError("AWS Error SLOW_DOWN"), None]

    def act(filesystem: object, at: str) -> str:
        if trouble := troubles.pop(0):
            raise trouble
        return at

    assert Place(store.url("run"), waits.append).steadily("x", act) == "corpora/run/x"
    assert waits == list(BACKOFF[:2])


def test_trouble_that_stays_is_an_error_that_names_the_file(store: FakeS3) -> None:
    waits: list[float] = []

    def act(filesystem: object, at: str) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION")

    with pytest.raises(StorageError, match=r"s3://corpora/run/data/x: cannot be read \(AWS Error NETWORK"):
        Place(store.url("run", KEYS), waits.append).steadily("data/x", act)
    assert waits == list(BACKOFF)


def test_what_no_second_try_mends_is_not_tried_again(store: FakeS3) -> None:
    waits: list[float] = []
    store.fault = lambda method, key: "403"
    with pytest.raises(StorageError, match="ACCESS_DENIED") as caught:
        Place(store.url("run", KEYS), waits.append).read("manifests/000001.json")
    assert waits == []
    assert_no_secret(caught.value)


@pytest.mark.parametrize("url", [f"s4://{KEYS}bucket/run", f"https://{KEYS}host/run?token=S3CR3T"])
def test_an_unknown_kind_of_storage_is_named(url: str) -> None:
    with pytest.raises(StorageError, match=r"did you mean s3://|known: s3") as caught:
        Place(url).read("x")
    assert_no_secret(caught.value)


def test_credentials_are_blotted_out_wherever_they_stand() -> None:
    url = f"s3://{KEYS}bucket/run?secret_key=T0KEN%20CANARY&region=us-east-1"
    assert shown(url) == "s3://bucket/run"
    said = without_secrets(f"{url}: AKIDCANARY S3CR3T/CANARY S3CR3T%2FCANARY T0KEN CANARY in us-east-1", url)
    assert said == "s3://bucket/run: *** *** *** *** in us-east-1"
    assert "CANARY" not in repr(Place(url)) + str(Place(url))


def assert_no_secret(error: SdfError) -> None:
    chain: BaseException | None = error
    while chain is not None:
        assert "AKID" not in repr(chain)
        assert "S3CR3T" not in repr(chain)
        chain = None if chain.__suppress_context__ else chain.__cause__ or chain.__context__


def test_a_name_and_what_holds_it() -> None:
    place = Place(f"s3://{KEYS}bucket/web/*.parquet?region=us-east-1")
    assert (place.name, place.parent.url) == ("*.parquet", f"s3://{KEYS}bucket/web?region=us-east-1")
    assert (Place("web/part-?.parquet").name, Place("web/part-?.parquet").parent.url) == ("part-?.parquet", "web")
    assert (Place("/a.jsonl").parent.url, Place("a.jsonl").parent.url) == ("/", ".")
