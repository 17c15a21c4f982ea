"""Large contents on their way to the object store and back (`large` has the pure part, `objects` the store).

A writer calls `keep` before it encodes, so that an object is stored before the record that refers to it is written; a
reader calls `whole` for a record that refers to objects. What is known to be stored is remembered, bounded: deciding a
command copies its text to a fact in one step, and must not wait for a store there.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

from parley_events.body import Body
from parley_events.errors import ObjectMissing, Undecodable
from parley_events.large import large_fields, made_whole, references_of
from parley_events.log.port import Incoming

if TYPE_CHECKING:
    from parley_events.objects import Objects

MOST_CONTENT_BYTES = 64 * 1024 * 1024
"""A larger field is not stored; its record then is too large."""
_MOST_REMEMBERED = 10_000


class Contents:
    """Puts and fetches the large contents of records."""

    def __init__(self, objects: Objects, remembered: int = _MOST_REMEMBERED) -> None:
        self._objects, self._most = objects, remembered
        self._stored: OrderedDict[tuple[str, str], None] = OrderedDict()

    def stored(self, workspace_id: str, sha256: str) -> bool:
        """Whether the workspace's object was put or fetched here, lately."""
        return (workspace_id, sha256) in self._stored

    async def keep(self, workspace_id: str, body: Body) -> None:
        """Store the body's large contents; nothing to do for nearly every one. Raises ObjectsUnavailable."""
        for data in large_fields(body, body.model_dump_json().encode()).values():
            if len(data) <= MOST_CONTENT_BYTES and not self.stored(workspace_id, hashlib.sha256(data).hexdigest()):
                self._note(workspace_id, await self._objects.put(workspace_id, data))

    async def whole(self, record: Incoming) -> Incoming:
        """The record with its body whole; the very same one when nothing is missing in it.

        Raises ObjectMissing, ObjectsUnavailable, or Undecodable when its headers or its body cannot be read.
        """
        references = references_of(record)
        if not references:
            return record
        try:
            workspace_id = (record.header("ce_workspaceid") or b"").decode()
        except UnicodeDecodeError:
            raise Undecodable("ce_workspaceid is not UTF-8") from None
        found: dict[str, bytes] = {}
        for reference in references:
            if reference.size > MOST_CONTENT_BYTES:
                raise ObjectMissing(f"the object {reference.sha256} would have {reference.size} bytes")
            if reference.sha256 not in found:
                data = await self._objects.get(workspace_id, reference.sha256)
                if len(data) != reference.size:
                    raise ObjectMissing(f"the object {reference.sha256} has {len(data)} bytes, not {reference.size}")
                found[reference.sha256] = data
                self._note(workspace_id, reference.sha256)
        return made_whole(record, references, found)

    def _note(self, workspace_id: str, sha256: str) -> None:
        self._stored[workspace_id, sha256] = None
        self._stored.move_to_end((workspace_id, sha256))
        if len(self._stored) > self._most:
            self._stored.popitem(last=False)
