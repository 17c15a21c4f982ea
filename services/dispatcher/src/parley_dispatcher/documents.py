"""Documents that messages name, with their contents, for what a model is shown. Above it: `runner`; below it: history.

A document never changes, but it may be removed: what is kept here counts until the workspace has changed, and is asked
for again then. Bounded in characters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from parley_dispatcher.history import History
from parley_events.ids import workspace_stream
from parley_events.positions import StreamPosition
from parley_events.reads import DocumentView

MOST_CHARS = 16_000_000
"""What is kept, in characters of contents."""


class Documents:
    """Gives documents of workspaces by their ids."""

    def __init__(self, history: History, most_chars: int = MOST_CHARS) -> None:
        self._history, self._most = history, most_chars
        self._known: OrderedDict[tuple[str, str], tuple[int, DocumentView]] = OrderedDict()
        self._chars = 0

    async def named(self, workspace_id: str, seq: int, ids: Iterable[str]) -> dict[str, DocumentView]:
        """Those of the ids that there are, as of the workspace's fact `seq`. Raises HistoryUnavailable."""
        found: dict[str, DocumentView] = {}
        for name in dict.fromkeys(ids):
            known = self._known.get((workspace_id, name))
            if known is not None and known[0] >= seq:
                self._known.move_to_end((workspace_id, name))
                found[name] = known[1]
                continue
            position = StreamPosition(workspace_stream(workspace_id), seq) if seq else None
            view = await self._history.document(workspace_id, name, position)
            self._keep((workspace_id, name), seq, view)
            if view is not None:
                found[name] = view
        return found

    def _keep(self, place: tuple[str, str], seq: int, view: DocumentView | None) -> None:
        before = self._known.pop(place, None)
        if before is not None:
            self._chars -= before[1].characters
        if view is not None:
            self._known[place] = (seq, view)
            self._chars += view.characters
        while self._chars > self._most:
            _, (_, oldest) = self._known.popitem(last=False)
            self._chars -= oldest.characters
