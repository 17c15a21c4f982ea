"""How much of large request bodies may be held at once, over all requests of this gateway.

Each body is bounded by itself (`http.body_of`); this bounds them together, so that many large ones at the same time are
refused with a clear answer instead of ending the process. What fits into `FREE` is nobody's concern.
"""

from __future__ import annotations

from parley_gateway.errors import Unavailable

FREE = 256 * 1024
"""The beginning of a body, which is not counted."""


class Uploads:
    """A budget of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size = self.left = size

    @property
    def taken(self) -> int:
        """What all requests hold."""
        return self._size - self.left

    def begin(self) -> Held:
        """The part of one request; `close` it once nothing of its body is needed any more."""
        return Held(self)


class Held:
    """What one request holds of the budget."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._bytes = 0

    def grow(self, length: int) -> None:
        """The body has `length` bytes by now. Unavailable when they do not fit beside the others'; alone, any fits."""
        more = max(length - FREE, 0) - self._bytes
        if more <= 0:
            return
        if more > self._uploads.left and self._uploads.taken > self._bytes:
            raise Unavailable("too many large requests at the same time; try again", close=True)
        self._uploads.left -= more
        self._bytes += more

    def close(self) -> None:
        """Give it back."""
        self._uploads.left += self._bytes
        self._bytes = 0
