"""What a fresh Parley begins with: its first workspace, the two ready-made keys, the agents, skills and teams of the
file.

They are facts like any other: this publishes commands straight to the log, as a trusted producer, and waits for their
outcomes. At a later start the same commands change nothing, but for what changed in the file.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from parley_events import commands as c
from parley_events.body import McpServer, Principal, Shape
from parley_events.codec import EVENTS_TOPIC, Command, decode_fact, encode_command, head_of
from parley_events.errors import LogError, Undecodable
from parley_events.facts import CommandRejected, CommandRepeated
from parley_events.ids import NewUuid, derived_uuid, workspace_stream
from parley_events.keys import key_hash
from parley_events.log import Log
from parley_events.partition import partition_of
from parley_standalone.agents_file import AgentsFile, digest_of
from parley_standalone.errors import CommandError

_LIMIT_S = 60.0


class _Settings(Shape):
    context: str | None
    structures: tuple[str, ...]
    mcp_servers: tuple[McpServer, ...]
    connectors: tuple[str, ...]


class Kept(Protocol):
    """What is made once per Parley and is the same at every start."""

    @property
    def workspace(self) -> str: ...
    @property
    def workspace_id(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def api_key(self) -> str: ...
    @property
    def api_key_id(self) -> str: ...
    @property
    def admin_key(self) -> str: ...
    @property
    def admin_key_id(self) -> str: ...


def seed_commands(kept: Kept, file: AgentsFile, now_ms: int, new_uuid: NewUuid) -> list[Command]:
    """The commands, in order. Those that make something once have ids that are the same at every start."""
    principal = Principal(user_id=kept.user, admin=True)
    once: list[tuple[str, c.CommandBody]] = [
        (
            "workspace",
            c.CreateWorkspace(principal=principal, workspace_id=kept.workspace_id, name=kept.workspace),
        ),
        (
            kept.api_key_id,
            c.CreateKey(
                principal=principal,
                key_id=kept.api_key_id,
                key_hash=key_hash(kept.api_key),
                user_id=kept.user,
                scopes=("*",),
            ),
        ),
        (
            kept.admin_key_id,
            c.CreateKey(
                principal=principal,
                key_id=kept.admin_key_id,
                key_hash=key_hash(kept.admin_key),
                user_id=kept.user,
                scopes=("*", "admin"),
            ),
        ),
    ]
    settings = _Settings(
        context=file.context,
        structures=file.structures,
        mcp_servers=file.mcp_servers,
        connectors=file.connectors,
    )
    every: list[c.CommandBody] = [
        c.ChangeWorkspace(
            principal=principal,
            context=settings.context,
            structures=settings.structures,
            mcp_servers=settings.mcp_servers,
            connectors=settings.connectors,
            digest=digest_of(settings),
        ),
        *(c.PutAgent(principal=principal, spec=spec, digest=digest_of(spec)) for spec in file.agents),
        *(c.PutTeam(principal=principal, spec=spec, digest=digest_of(spec)) for spec in file.teams),
        *(c.PutSkill(principal=principal, **skill.model_dump(), digest=digest_of(skill)) for skill in file.skills),
    ]
    named = [(derived_uuid("seed", kept.workspace_id, name), body) for name, body in once]
    named += [(new_uuid(), body) for body in every]
    return [
        Command(
            id=command_id,
            stream=workspace_stream(kept.workspace_id),
            workspace_id=kept.workspace_id,
            time_ms=now_ms,
            body=body,
            source="/parley/standalone",
        )
        for command_id, body in named
    ]


@dataclass(frozen=True, slots=True)
class Seeded:
    """What became of the file's declarations. `deleted`: agents that were deleted over the API, and stay so while the
    file says the same of them. `notices`: lines about them, and about what cannot be without them."""

    deleted: frozenset[str]
    notices: tuple[str, ...]


async def seed(log: Log, commands: list[Command]) -> Seeded:
    """Publish the commands and wait for every outcome. Raises CommandError when one is refused or none comes."""
    stream = commands[0].stream
    deleted: set[str] = set()
    notices: list[str] = []
    partition = partition_of(stream.encode(), log.partitions)
    waiting = {command.id: command for command in commands}
    try:
        async with asyncio.timeout(_LIMIT_S):
            tail = await log.tail(EVENTS_TOPIC, {partition: (await log.ends(EVENTS_TOPIC))[partition]})
            producer = await log.producer()
            try:
                for command in commands:
                    producer.send(encode_command(command, log.partitions))
                while waiting:
                    for record in await tail.batch():
                        try:
                            head = head_of(record)
                        except Undecodable:
                            continue
                        command_of = waiting.pop(head.causation_id or "", None)
                        # These two alone are read: other outcomes may leave their contents to the object store.
                        if command_of is None or head.type not in (CommandRejected.type, CommandRepeated.type):
                            continue
                        body = decode_fact(record).body
                        if isinstance(body, CommandRejected) and body.code == "unknown_agent":
                            notices.append(f"{command_of.type}: {body.message}; it was deleted over the API")
                        elif isinstance(body, CommandRejected) and body.code != "exists":
                            raise CommandError(f"{command_of.type} was refused: {body.message}")
                        elif isinstance(body, CommandRepeated) and body.first.get("deleted"):
                            name, is_agent = _declared(command_of)
                            notices.append(f"{name}: was deleted over the API, and stays so until the file changes it")
                            deleted |= {name} if is_agent else set()
            finally:
                await producer.close(2.0)
                await tail.close()
    except TimeoutError:
        raise CommandError("the dispatcher did not take up the first commands within a minute; see its log") from None
    except LogError as error:
        raise CommandError(f"the log: {error}") from None
    return Seeded(frozenset(deleted), tuple(notices))


def _declared(command: Command) -> tuple[str, bool]:
    """The id of the agent or team that a command declares, and whether it is an agent."""
    body = command.body
    if isinstance(body, c.PutTeam):
        return body.spec.team_id, False
    return (body.spec.agent_id, True) if isinstance(body, c.PutAgent) else (command.type, False)
