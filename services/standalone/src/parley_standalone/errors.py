"""What stops the `parley` command, as one line for the person at the screen; exit status 1."""

from __future__ import annotations


class CommandError(Exception):
    """The message is one line that says what happened and what to do."""
