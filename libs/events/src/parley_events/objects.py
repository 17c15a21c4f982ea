"""The object store: bytes under their SHA-256, per workspace. Attachments, artifacts and large contents lie there, and
records refer to them. The only module that imports obstore.

`file:<folder>` (the default, below DATA), `s3://bucket/prefix` (credentials, region and endpoint from the usual `AWS_*`
variables, which the library reads), or `memory:` for tests. An object is written before the record that names it, never
changed, and read only with the workspace that it was put under: a hash that was guessed leads nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, MemoryStore, S3Store

from parley_events.errors import ObjectMissing, ObjectsUnavailable
from parley_events.ids import is_sha256, is_uuid

if TYPE_CHECKING:
    from obstore.store import RetryConfig

MAX_OBJECT_BYTES = 64 * 1024 * 1024
"""The largest object. Whoever puts bounds its own input more tightly, with its own words."""
_LIMIT_S = 60.0
_SLOW_BYTES = 256 * 1024
"""What has more is hashed on a thread: 25 MiB take a tenth of a second, and hashlib lets others go on meanwhile."""
_RETRY: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}


Store = LocalStore | S3Store | MemoryStore


class Objects(Protocol):
    """Bytes under their hash."""

    async def put(self, workspace_id: str, data: bytes) -> str:
        """Keep the bytes and give their SHA-256 (hex). Again is no harm. Raises ObjectsUnavailable."""
        ...

    async def get(self, workspace_id: str, sha256: str) -> bytes:
        """The bytes. Raises ObjectMissing when there are none, or not these; ObjectsUnavailable."""
        ...


class ObjectStore:
    """`Objects` in a folder, in an S3-compatible store, or in memory; `open_store` is called at the first use. Files in
    `folder` are made readable by their owner alone."""

    def __init__(self, open_store: Callable[[], Store], folder: Path | None = None) -> None:
        self._open, self._folder = open_store, folder
        self._opened: Store | None = None

    @property
    def _store(self) -> Store:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    async def put(self, workspace_id: str, data: bytes) -> str:
        if len(data) > MAX_OBJECT_BYTES:
            raise ValueError(f"an object of {len(data)} bytes; {MAX_OBJECT_BYTES} are the most")
        sha256 = await _hash_of(data)
        path = _path(workspace_id, sha256)
        try:
            async with asyncio.timeout(_LIMIT_S):
                await obstore.put_async(self._store, path, data)
            if self._folder is not None:
                os.chmod(self._folder / path, 0o600)
        except (BaseError, OSError, TimeoutError) as error:
            raise ObjectsUnavailable(f"an object could not be written: {type(error).__name__}") from error
        return sha256

    async def get(self, workspace_id: str, sha256: str) -> bytes:
        path = _path(workspace_id, sha256)
        try:
            async with asyncio.timeout(_LIMIT_S):
                found = await obstore.get_async(self._store, path)
                data = bytes(await found.bytes_async())
        except (NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error):  # a wrong address, and no word about the object
                raise ObjectsUnavailable("the object store has no such bucket") from None
            raise ObjectMissing(f"there is no object {sha256}") from None
        except (BaseError, OSError, TimeoutError) as error:
            raise ObjectsUnavailable(f"an object could not be read: {type(error).__name__}") from error
        if await _hash_of(data) != sha256:
            raise ObjectMissing(f"the object {sha256} holds other bytes")
        return data


def open_objects(address: str, data: Path | None = None) -> ObjectStore:
    """The store at an address (see the module), or below `data` where no address is given. ValueError says what is
    wrong with the address."""
    parts = urlsplit(address)
    below = data.absolute() / "objects" if data is not None and not address else None
    if below is not None or (parts.scheme == "file" and parts.path):
        folder = below or Path(unquote(parts.path))
        return ObjectStore(lambda: _open_folder(folder), folder)
    if parts.scheme == "s3" and parts.netloc:
        prefix = parts.path.strip("/")
        return ObjectStore(lambda: S3Store(parts.netloc, prefix=prefix or None, retry_config=_RETRY))
    if address == "memory:":
        return ObjectStore(MemoryStore)
    raise ValueError(f"PARLEY_OBJECTS={address!r} is neither file:<folder> nor s3://bucket/prefix")


async def _hash_of(data: bytes) -> str:
    if len(data) <= _SLOW_BYTES:
        return hashlib.sha256(data).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())


def _open_folder(folder: Path) -> LocalStore:
    """A folder that we make is closed to others; one that is there keeps the mode that its owner gave it."""
    with contextlib.suppress(OSError):  # the first use of the store says what is wrong with it
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return LocalStore(folder, mkdir=True)


def _path(workspace_id: str, sha256: str) -> str:
    """Where it lies. Both parts are checked: neither can lead out of the workspace's folder."""
    if not is_uuid(workspace_id) or not is_sha256(sha256):
        raise ObjectMissing("not the name of an object")
    return f"{workspace_id}/{sha256[:2]}/{sha256}"
