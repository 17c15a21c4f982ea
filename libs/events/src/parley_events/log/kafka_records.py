"""Batches that aiokafka cannot read: a header whose name is not UTF-8.

Any producer can write one. aiokafka raises UnicodeDecodeError at each poll (its Python code calls the batch corrupt),
for ever, and nothing behind it in the partition can be read. Once that was seen (`forgive`), batches are read for a
while by aiokafka's slower Python code, which here takes such a name with its bytes spelled out; the record then goes
the way of all others.
"""

from __future__ import annotations

import time
from typing import Any

import aiokafka.consumer.fetcher as fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

_FORGIVING_S = 60.0
_MAGIC = 16
_until = 0.0


class _Spelled(bytearray):
    """Bytes whose parts decode whatever they are."""

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return _Spelled(found) if isinstance(place, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return bytes(self).decode(encoding, "backslashreplace")


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]
    def _maybe_uncompress(self) -> None:
        if not self._decompressed:
            super()._maybe_uncompress()
            self._buffer: bytearray = _Spelled(self._buffer)


class _Records(_MemoryRecordsPy):  # type: ignore[misc]
    def next_batch(self, *limits: int) -> Any:
        part = self._next_slice
        if part is None or len(part) <= _MAGIC or part[_MAGIC] < 2:
            return super().next_batch(*limits)
        self._cache_next()
        return _Batch(part)


def _records(data: bytes) -> Any:
    return _Records(data) if time.monotonic() < _until else MemoryRecords(data)


def forgive() -> None:
    """Read batches forgivingly for a while, in the whole process."""
    global _until
    _until = time.monotonic() + _FORGIVING_S
    fetcher.MemoryRecords = _records
