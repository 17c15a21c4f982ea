"""What keeps a part from running, as one line for the person at the screen."""

from __future__ import annotations


class PartError(Exception):
    """A part cannot be had or started; the message is one line that says what to do."""
