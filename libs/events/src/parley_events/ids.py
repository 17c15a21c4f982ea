"""Ids: how each is made, and what can be read off it.

A run, message or approval id begins with its thread's id, so whoever holds one knows the stream and with it
the partition (DESIGN §2). Ids that follow from a command are derived from the command's id, so that a retry of
it, or a gateway that gave up waiting for the outcome, names the same things.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable

NewUuid = Callable[[], str]
"""A source of random UUIDs, as text; an argument wherever ids are minted."""

PARLEY = uuid.UUID("5c8a1e4e-9f0b-5d6c-8a57-7061726c6579")
"""The namespace of every uuid5 that Parley makes."""

_THREAD_ID_LENGTH = 36
_SHA256 = re.compile(r"[0-9a-f]{64}")


def random_uuid() -> str:
    """A random UUID (version 4), as text."""
    return str(uuid.uuid4())


def derived_uuid(*parts: str) -> str:
    """A uuid5 of the parts; the same parts always give the same one, and no two lists of parts are alike."""
    return str(uuid.uuid5(PARLEY, json.dumps(parts)))


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID in its usual lower-case form of 36 characters."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def is_sha256(text: str) -> bool:
    """Whether the text is a SHA-256 in lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def workspace_stream(workspace_id: str) -> str:
    """The stream (and record key) of a workspace; that of a thread is its id itself."""
    return f"ws:{workspace_id}"


def thread_of(some_id: str) -> str | None:
    """The thread's id at the head of a run, message or approval id; None when it does not begin with one."""
    head = some_id[:_THREAD_ID_LENGTH]
    if not is_uuid(head) or (len(some_id) > _THREAD_ID_LENGTH and some_id[_THREAD_ID_LENGTH] != "."):
        return None
    return head


def _tail(command_id: str) -> str:
    return hashlib.sha256(command_id.encode()).hexdigest()[:16]


def run_id(thread_id: str, command_id: str) -> str:
    """The id of the run that a `message.post` command starts."""
    return f"{thread_id}.r{_tail(command_id)}"


def child_run_id(thread_id: str, effect_key: str) -> str:
    """The id of the run that a call of `ask_agent` starts: one per call, however often it is tried."""
    return f"{thread_id}.r{_tail('child:' + effect_key)}"


def member_run_id(run: str, round: int, member: int) -> str:
    """The id of the run in which a member of a team speaks, in that round of the play of `run`."""
    thread_id = run[:_THREAD_ID_LENGTH]
    return f"{thread_id}.r{_tail(f'member:{run}:{round}:{member}')}"


def question_id(thread_id: str, command_id: str) -> str:
    """The id of the message that a `message.post` command posts."""
    return f"{thread_id}.m{_tail(command_id)}"


def answer_id(run: str) -> str:
    """The id of the one assistant message of a run; known as soon as the run is."""
    return f"{run[:_THREAD_ID_LENGTH]}.a{run[_THREAD_ID_LENGTH + 2 :]}"


def fact_message_id(thread_id: str, seq: int) -> str:
    """The id of a message that is a tool call or a tool result: named by its fact's seq."""
    return f"{thread_id}.t{seq}"


def approval_id(thread_id: str, seq: int) -> str:
    """The id of an approval: named by the seq of its `approval.requested`."""
    return f"{thread_id}.p{seq}"


def moved_id(some_id: str, thread_id: str, down: int) -> str:
    """An id of one thread as one of another that took its facts over, their seqs `down` lower. It meets none that the
    other thread makes for itself, whatever ids commands have: what is named by a command is named anew."""
    kind, rest = some_id[_THREAD_ID_LENGTH + 1 : _THREAD_ID_LENGTH + 2], some_id[_THREAD_ID_LENGTH + 2 :]
    if kind in ("t", "p") and rest.removeprefix("-").isdecimal():
        return f"{thread_id}.{kind}{int(rest) - down}"
    return f"{thread_id}.{kind}{_tail(f'{thread_id}:{rest}')}"


def agent_uuid(workspace_id: str, agent_id: str) -> str:
    """The UUID of an agent or team, for contracts that know only UUIDs."""
    return derived_uuid("agent", workspace_id, agent_id)
