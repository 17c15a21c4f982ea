"""How a command is refused, and who may see a thread. Below `decide` and `answers`."""

from __future__ import annotations

from parley_dispatcher.state import ThreadState
from parley_events.codec import Command


class Refused(Exception):
    """The command is refused; `code` is one of `facts.REJECTION_CODES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def visible(state: ThreadState, command: Command) -> None:
    """Refuse unless the thread exists and the principal may see it; a foreign one looks like none at all."""
    principal = command.body.principal
    mine = state.user_id is None or state.user_id == principal.user_id or principal.admin
    if not mine or not _there(state, command):
        raise Refused("not_found", "there is no such thread")


def of_workspace(state: ThreadState, command: Command) -> None:
    """Refuse unless the thread exists, in the principal's workspace: whoever may approve there need not own it."""
    if not _there(state, command):
        raise Refused("not_found", "there is no such thread")


def _there(state: ThreadState, command: Command) -> bool:
    return state.exists and not state.deleted and state.workspace_id == command.workspace_id
