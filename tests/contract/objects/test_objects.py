"""The object store: one suite for all its adapters; S3 as moto's server speaks it, over HTTP."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from parley_events.errors import ObjectMissing, ObjectsUnavailable
from parley_events.objects import MAX_OBJECT_BYTES, ObjectStore, open_objects

WORKSPACE = str(uuid.UUID(int=1))
OTHER = str(uuid.UUID(int=2))


BUCKET = "parley-tests"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    address = f"http://127.0.0.1:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{address}/{BUCKET}", method="PUT"), timeout=10).close()
    yield address
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of that S3; the environment says how to get in, as an operator's would."""
    for name, value in (
        ("AWS_ENDPOINT_URL", s3_server),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ):
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=["file", "memory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return open_objects(f"s3://{BUCKET}/{uuid.uuid4()}/deep")
    return open_objects("memory:" if request.param == "memory" else f"file:{tmp_path}/with%20space")


async def test_what_was_put_is_there_under_its_hash_and_again_is_no_harm(objects: ObjectStore) -> None:
    for data in (b"", b"hello", bytes(range(256)) * 4096):
        sha256 = await objects.put(WORKSPACE, data)
        assert await objects.put(WORKSPACE, data) == sha256
        assert await objects.get(WORKSPACE, sha256) == data


async def test_another_workspace_does_not_find_it(objects: ObjectStore) -> None:
    sha256 = await objects.put(WORKSPACE, b"secret")
    with pytest.raises(ObjectMissing):
        await objects.get(OTHER, sha256)
    with pytest.raises(ObjectMissing):
        await objects.get(WORKSPACE, "0" * 64)


@pytest.mark.parametrize("name", ["../" + "0" * 61, "", "A" * 64, "0" * 63 + "/"])
async def test_a_name_cannot_lead_anywhere_else(objects: ObjectStore, name: str) -> None:
    with pytest.raises(ObjectMissing):
        await objects.get(WORKSPACE, name)
    with pytest.raises(ObjectMissing):
        await objects.put("../" + WORKSPACE[3:], b"x")


async def test_what_is_too_large_is_refused(objects: ObjectStore) -> None:
    with pytest.raises(ValueError, match="the most"):
        await objects.put(WORKSPACE, b"x" * (MAX_OBJECT_BYTES + 1))


async def test_many_at_once_come_back_as_they_went_in(objects: ObjectStore) -> None:
    data = [os.urandom(size) for size in (1, 300_000, 6_000_000, 25 * 1024 * 1024)]
    hashes = await asyncio.gather(*(objects.put(WORKSPACE, one) for one in data))
    assert await asyncio.gather(*(objects.get(WORKSPACE, sha256) for sha256 in hashes)) == data


async def test_an_s3_that_cannot_be_reached_or_has_no_such_bucket_says_so(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = open_objects("s3://no-such-bucket/x")
    with pytest.raises(ObjectsUnavailable):
        await nowhere.put(WORKSPACE, b"x")
    with pytest.raises(ObjectsUnavailable, match="no such bucket"):
        await nowhere.get(WORKSPACE, "0" * 64)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = open_objects(f"s3://{BUCKET}/x")
    with pytest.raises(ObjectsUnavailable):
        await away.put(WORKSPACE, b"x")
    with pytest.raises(ObjectsUnavailable):
        await away.get(WORKSPACE, "0" * 64)


async def test_a_folder_that_we_make_is_closed_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        await open_objects(f"file:{tmp_path}/store").put(WORKSPACE, b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    (file,) = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_bytes_that_were_changed_on_disk_are_not_given_out(tmp_path: Path) -> None:
    objects = open_objects(f"file:{tmp_path}")
    sha256 = await objects.put(WORKSPACE, b"true")
    (tmp_path / WORKSPACE / sha256[:2] / sha256).write_bytes(b"false")
    with pytest.raises(ObjectMissing, match="other bytes"):
        await objects.get(WORKSPACE, sha256)


async def test_a_folder_that_is_gone_says_so(tmp_path: Path) -> None:
    objects = open_objects(f"file:{tmp_path}/store")
    await objects.put(WORKSPACE, b"y")
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").write_text("a file in its place")
    with pytest.raises(ObjectsUnavailable):
        await objects.put(WORKSPACE, b"x")


@pytest.mark.parametrize("address", ["", "http://x", "s3:", "file:", "memory"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="PARLEY_OBJECTS"):
        open_objects(address)
