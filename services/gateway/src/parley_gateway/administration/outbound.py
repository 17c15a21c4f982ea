"""What administrators and readers of agents are answered. Pure."""

from __future__ import annotations

import unicodedata

from parley_events.body import Json
from parley_events.clock import rfc3339
from parley_events.log import Incoming
from parley_events.reads import AgentView, KeyView, TeamView


def key(view: KeyView) -> Json:
    return {
        "id": view.id,
        "workspace": view.workspace,
        "workspace_id": view.workspace_id,
        "user": view.user_id,
        "scopes": list(view.scopes),
        "rate_limit": view.rate_limit,
        "created_at": view.created_at,
        "revoked": view.revoked,
    }


SHOWN_BYTES = 64 * 1024
_SHOWN_HEADER = 1000
_SHOWN_HEADERS = 100


def rejected(name: str, record: Incoming) -> Json:
    """A command that was set aside, without its body."""

    def head(key: str) -> str | None:
        value = record.header(key)
        return None if value is None else visible(value, _SHOWN_HEADER)

    return {
        "id": name,
        "reason": head("rejected_reason"),
        "message": head("rejected_message"),
        "rejected_at": rfc3339(record.time_ms),
        "type": head("ce_type"),
        "stream": None if record.key is None else visible(record.key, _SHOWN_HEADER),
        "workspace_id": head("ce_workspaceid"),
        "command_id": head("ce_id"),
        "source": head("ce_source"),
        "redrive_of": head("ce_redriveof"),
        "size": len(record.value or b""),
    }


def rejected_bytes(record: Incoming) -> Json:
    """The bytes of such a command, as far as they are shown, with everything that a terminal would act on spelled
    out."""
    value = record.value or b""
    return {
        "headers": [
            [visible(key.encode(), _SHOWN_HEADER), visible(found, _SHOWN_HEADER)]
            for key, found in record.headers[:_SHOWN_HEADERS]
            if not key.startswith("rejected_")
        ],
        "body": visible(value, SHOWN_BYTES, keep="\n\t"),
        "cut": len(value) > SHOWN_BYTES,
    }


def visible(data: bytes, most: int, keep: str = "") -> str:
    """Bytes of anybody as text: the first `most`, with what is no UTF-8, and control and format characters, spelled
    out."""
    text = data[:most].decode("utf-8", "backslashreplace")
    return "".join(
        character
        if character in keep or not unicodedata.category(character).startswith("C")
        else character.encode("unicode_escape").decode()
        for character in text
    )


def agent(view: AgentView, whole: bool) -> Json:
    """An agent; `whole`: with what only those see who may change it, where its calls go among it."""
    spec = view.spec
    shown: Json = {
        "id": view.id,
        "uuid": view.uuid,
        "name": spec.name,
        "description": spec.description,
        "roles": list(spec.roles),
        "model": spec.model,
        "system_prompt": spec.system_prompt,
        "temperature": spec.temperature,
        "tools": list(spec.tools),
        "limits": spec.limits.model_dump(),
        "version": view.version,
    }
    return {**spec.model_dump(mode="json", exclude={"agent_id"}), **shown} if whole else shown


def team(view: TeamView, whole: bool) -> Json:
    """A team: there is nothing of it that some may not see."""
    spec = view.spec
    return {
        "id": view.id,
        "uuid": view.uuid,
        "name": spec.name,
        "members": list(spec.members),
        "mode": spec.mode,
        "lead": spec.lead,
        "version": view.version,
    }
