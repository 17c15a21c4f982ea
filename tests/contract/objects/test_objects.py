"""The object store: one suite for all its adapters."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest

from parley_events.errors import ObjectMissing, ObjectsUnavailable
from parley_events.objects import MAX_OBJECT_BYTES, ObjectStore, open_objects

WORKSPACE = str(uuid.UUID(int=1))
OTHER = str(uuid.UUID(int=2))


@pytest.fixture(params=["file", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
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
