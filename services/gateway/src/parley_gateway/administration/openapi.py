"""The operations of administration, for their OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from parley_gateway.administration import shapes, wire
from parley_gateway.administration.rejected import Redrive
from parley_gateway.administration.routes import BASE
from parley_gateway.administration.skips import Skip
from parley_gateway.openapi.operation import GONE, LIMIT, PAGE, Answer, Contract, Operation, Parameter

ID = "6d1f1c0a-4b7e-5a55-9a53-0f5f5e1f7c11"
WORKSPACE = "11111111-2222-4333-8444-555555555555"
AT = "2026-04-20T14:30:00Z"
KEY = {
    "id": ID,
    "workspace": "default",
    "workspace_id": WORKSPACE,
    "user": "ann",
    "scopes": ["chat", "read"],
    "rate_limit": "60/minute",
    "created_at": AT,
}
AGENT = {
    "id": "editor",
    "uuid": "5b0c2e6e-52a0-5c1c-8f0f-0d6c5ad1f0aa",
    "name": "Editor",
    "description": "Finds the word.",
    "roles": [],
    "model": "scripted",
    "system_prompt": "You edit texts.",
    "temperature": 0.7,
    "tools": ["clock"],
    "limits": {"steps": 50, "seconds": 3600, "max_tokens": 8192},
    "version": 2,
}
TEAM = {
    "id": "board",
    "uuid": "7e1d8f1c-0f3a-5f5e-9d57-3a1a9f8c2b10",
    "name": "Board",
    "members": ["assistant", "researcher"],
    "mode": "brainstorm",
    "lead": "assistant",
    "version": 1,
}
REJECTED = {
    "id": "3-41",
    "reason": "undecodable",
    "message": "the body is not JSON",
    "rejected_at": AT,
    "type": "message.post",
    "stream": "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f",
    "workspace_id": WORKSPACE,
    "command_id": ID,
    "source": "crm",
    "redrive_of": None,
    "size": 12,
}
_WORKSPACE = Parameter("workspace", str, "Another workspace, by its id: for the first workspace's admin keys.")
_LATER = "It is on the log, and not decided yet."
_OPERATORS = "`base_url` and `api_key` can be set by the first workspace's admin keys alone."


def _declared(
    name: str, form: Any, told: Any, page: Any, versions: Any, asked: dict[str, Any], example: dict[str, Any]
) -> tuple[Operation, ...]:
    """Agents or teams: they are served alike. `name` in the singular, `form` what is sent, the others what is told."""
    one, many = f"{BASE}/{name}s/{{{name}_id}}", f"{BASE}/{name}s"
    big = name.capitalize()
    later = Answer(_LATER, shapes.Accepted, {"id": example["id"]})
    paged = {"next_cursor": None, "total": 1}
    return (
        Operation(
            f"list{big}s",
            "GET",
            many,
            f"{name}s",
            f"The {name}s of the workspace, by their ids.",
            {200: Answer("A page.", page, {"items": [example], **paged})},
            parameters=PAGE,
        ),
        Operation(
            f"create{big}",
            "POST",
            many,
            f"{name}s",
            f"Declare {'an' if name == 'agent' else 'a'} {name}, under the rules of `agents.yaml`.",
            {201: Answer(f"The {name}.", told, example), 202: later},
            more=_OPERATORS if name == "agent" else "",
            request=form,
            example=asked,
            errors=("exists", "too_many", "unknown_agent", "invalid", "conflict"),
        ),
        Operation(
            f"get{big}",
            "GET",
            one,
            f"{name}s",
            f"The {name}, as it is or as it was.",
            {200: Answer(f"The {name}.", told, example)},
            parameters=(Parameter("version", Annotated[int, Field(ge=1, le=2**31 - 1)], "A version of it."),),
            errors=("invalid_request",),
        ),
        Operation(
            f"update{big}",
            "PATCH",
            one,
            f"{name}s",
            "Change some fields; of `limits` only what is named is replaced."
            if name == "agent"
            else "Change some fields.",
            {200: Answer(f"The {name}, in its new version.", told, example), 202: later},
            more=_OPERATORS if name == "agent" else "",
            request=wire.Given,
            example={"name": example["name"]},
            optional=True,
            errors=("conflict", "unknown_agent", "invalid"),
        ),
        Operation(
            f"delete{big}",
            "DELETE",
            one,
            f"{name}s",
            f"Delete the {name}.",
            {**GONE, 202: later},
            errors=("in_use", "conflict"),
        ),
        Operation(
            f"list{big}Versions",
            "GET",
            f"{one}/versions",
            f"{name}s",
            f"All versions of the {name}, newest first.",
            {200: Answer("A page.", versions, {"items": [{**example, "created_at": AT}], **paged})},
            parameters=PAGE,
        ),
    )


_WORKSPACES = (
    Operation(
        "createWorkspace",
        "POST",
        f"{BASE}/workspaces",
        "workspaces",
        "Make a workspace, with the agents and teams of `agents.yaml`.",
        {
            status: Answer(what, shapes.Workspace, {"id": WORKSPACE, "name": "acme"})
            for status, what in ((201, "The workspace."), (202, _LATER))
        },
        more="For the first workspace's admin keys.",
        request=wire.NewWorkspace,
        example={"name": "acme"},
        errors=("exists", "too_many"),
    ),
)
_KEYS = (
    Operation(
        "createKey",
        "POST",
        f"{BASE}/keys",
        "keys",
        "Make a key for a user.",
        {
            status: Answer(what, shapes.MadeKey, {**KEY, "key": "prl_..."})
            for status, what in ((201, "The key, shown this once."), (202, _LATER))
        },
        request=wire.NewKey,
        example={"user": "ann", "scopes": ["chat", "read"], "rate_limit": "60/minute"},
        errors=("bad_scope", "bad_rate_limit", "bad_workspace", "unsupported", "not_found", "too_many", "exists"),
    ),
    Operation(
        "listKeys",
        "GET",
        f"{BASE}/keys",
        "keys",
        "The keys of the workspace, without their secrets.",
        {200: Answer("The keys.", shapes.Keys, {"items": [{**KEY, "revoked": False}]})},
        parameters=(_WORKSPACE,),
        errors=("bad_workspace", "not_found"),
    ),
    Operation(
        "rotateKey",
        "POST",
        f"{BASE}/keys/{{key_id}}/rotate",
        "keys",
        "Give a key a new secret; the old one ends within a second.",
        {
            status: Answer(what, shapes.RotatedKey, {"id": ID, "key": "prl_..."})
            for status, what in ((200, "The new secret, shown this once."), (202, _LATER))
        },
        request=wire.Nothing,
        optional=True,
        parameters=(_WORKSPACE,),
        errors=("bad_workspace", "unsupported"),
    ),
    Operation(
        "revokeKey",
        "DELETE",
        f"{BASE}/keys/{{key_id}}",
        "keys",
        "Revoke a key: it ends within a second, everywhere.",
        {**GONE, 202: Answer(_LATER, shapes.Accepted, {"id": ID})},
        parameters=(_WORKSPACE,),
        errors=("bad_workspace",),
    ),
)
_REJECTED = (
    Operation(
        "listRejected",
        "GET",
        f"{BASE}/rejected",
        "rejected",
        "Commands that were set aside, newest first.",
        {200: Answer("The newest.", shapes.RejectedList, {"items": [REJECTED], "total": 1})},
        parameters=(LIMIT,),
    ),
    Operation(
        "getRejected",
        "GET",
        f"{BASE}/rejected/{{rejected_id}}",
        "rejected",
        "One of them, with its bytes made visible.",
        {
            200: Answer(
                "The command.",
                shapes.WholeRejected,
                {**REJECTED, "headers": [["ce_type", "message.post"]], "body": "no JSON", "cut": False},
            )
        },
    ),
    Operation(
        "redrive",
        "POST",
        f"{BASE}/rejected/{{rejected_id}}/redrive",
        "rejected",
        "Send one again, corrected or not, as a new command.",
        {
            200: Answer(
                "What came of it.",
                shapes.Redriven,
                {
                    "id": ID,
                    "redrive_of": "3-41",
                    "type": "message.post",
                    "outcome": "message.posted",
                    "position": "t@2",
                },
            ),
            202: Answer(
                _LATER,
                shapes.Redriven,
                {"id": ID, "redrive_of": "3-41", "type": "message.post", "outcome": None, "position": None},
            ),
        },
        request=Redrive,
        example={"body": {"text": "Hello"}},
        optional=True,
        errors=(
            "cannot_redrive",
            "invalid",
            "unknown_agent",
            "exists",
            "conflict",
            "in_use",
            "too_many",
            "deleted",
            "session_expired",
            "not_open",
            "unsupported",
        ),
    ),
)
_RECORD = {
    "id": "3-1041",
    "partition": 3,
    "offset": 1041,
    "fault": "a record cannot be folded: offset 1041: run.completed: the body is not what it should be",
    "type": "run.completed",
    "stream": "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f",
    "seq": "7",
    "workspace_id": WORKSPACE,
    "size": 212,
}
_SKIPPED = {**_RECORD, "reason": "written by a build that was taken back", "skipped_by": "ann", "skipped_at": AT}
_SKIPS = (
    Operation(
        "listStopped",
        "GET",
        f"{BASE}/history/stopped",
        "history",
        "Partitions of the view that stand still, where and why.",
        {
            200: Answer(
                "All of them.", shapes.StoppedList, {"items": [{**_RECORD, "skippable": True, "stopped_at": AT}]}
            )
        },
        more="For the first workspace's admin keys.",
    ),
    Operation(
        "skipRecord",
        "POST",
        f"{BASE}/history/stopped/{{record_id}}/skip",
        "history",
        "Have the view skip the record at which a partition stands still.",
        {200: Answer("It is skipped; within a second or two the partition goes on.", shapes.Skipped, _SKIPPED)},
        more="For the first workspace's admin keys. The record is kept, with who, when and why.",
        request=Skip,
        example={"reason": "written by a build that was taken back"},
        errors=("skipped_before",),
    ),
    Operation(
        "listSkipped",
        "GET",
        f"{BASE}/history/skipped",
        "history",
        "What was skipped, by whom and why, newest first.",
        {200: Answer("The newest.", shapes.SkippedList, {"items": [_SKIPPED], "total": 1})},
        parameters=(LIMIT,),
        more="For the first workspace's admin keys.",
    ),
)

CONTRACT = Contract(
    "administration",
    "Parley: administration",
    "Workspaces, keys, agents, teams, commands that were set aside, and where history stands still: for keys with the "
    "scope `admin`. Agents and "
    "teams may be read with any key.",
    False,
    (
        *_WORKSPACES,
        *_KEYS,
        *_declared(
            "agent",
            wire.NewAgent,
            shapes.Agent,
            shapes.Agents,
            shapes.AgentVersions,
            {"id": "editor", "name": "Editor", "model": "scripted", "system_prompt": "You edit texts."},
            AGENT,
        ),
        *_declared(
            "team",
            wire.NewTeam,
            shapes.Team,
            shapes.Teams,
            shapes.TeamVersions,
            {"id": "board", "name": "Board", "members": ["assistant", "researcher"], "lead": "assistant"},
            TEAM,
        ),
        *_REJECTED,
        *_SKIPS,
    ),
)
"""All of it, for the document."""
