"""The first commands: the same ids at every start, refusals in one line, and never a wait without end."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from parley_dispatcher.tools import TOOLS
from parley_events.body import AgentSpec
from parley_events.codec import COMMANDS_TOPIC, Command, Fact, decode_command, encode_fact
from parley_events.commands import PutAgent, PutTeam
from parley_events.facts import UNNUMBERED, AgentChanged, CommandRejected, CommandRepeated, FactBody
from parley_events.keys import key_hash
from parley_events.large import LARGE_BYTES
from parley_events.log.embedded import EmbeddedLog
from parley_events.partition import partition_of
from parley_standalone import seed as seeding
from parley_standalone.agents_file import AgentsFile, read_agents_file
from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder, Secrets
from parley_standalone.seed import seed, seed_commands
from parley_standalone.settings import SHIPPED_AGENTS
from parley_standalone.skills_folder import Skill

NOW = 1_800_000_000_000


@pytest.fixture
def kept(tmp_path: Path) -> Secrets:
    folder = Folder.open(tmp_path / "data")
    folder.close()
    return folder.secrets


@pytest.fixture
def file() -> AgentsFile:
    return read_agents_file(SHIPPED_AGENTS, TOOLS)


def commands_of(kept: Secrets, file: AgentsFile) -> list[Command]:
    return seed_commands(kept, file, NOW, lambda: str(uuid.uuid4()))


def test_workspace_keys_agents_and_team_are_asked_for_in_order(kept: Secrets, file: AgentsFile) -> None:
    types = [command.type for command in commands_of(kept, file)]
    assert types == [
        "workspace.create",
        *["key.create"] * 2,
        "workspace.change",
        *["agent.put"] * len(file.agents),
        "team.put",
    ]
    assert {command.stream for command in commands_of(kept, file)} == {f"ws:{kept.workspace_id}"}


def test_what_is_made_once_has_the_same_id_at_every_start_and_what_may_change_a_new_one(
    kept: Secrets, file: AgentsFile
) -> None:
    first, second = commands_of(kept, file), commands_of(kept, file)
    same = [one.type for one, two in zip(first, second, strict=True) if one.id == two.id]
    assert same == ["workspace.create", "key.create", "key.create"]
    assert [one.body for one in first] == [two.body for two in second]
    assert len({command.id for command in first + second}) == len(first) + len(second) - 3


def test_keys_go_to_the_log_as_hashes_and_only_the_admin_key_administers(kept: Secrets, file: AgentsFile) -> None:
    text = json.dumps([command.body.model_dump(mode="json") for command in commands_of(kept, file)])
    keys = [c.body.model_dump() for c in commands_of(kept, file) if c.type == "key.create"]
    assert [(key["key_hash"], set(key["scopes"]), key["user_id"]) for key in keys] == [
        (key_hash(kept.api_key), {"*"}, kept.user),
        (key_hash(kept.admin_key), {"*", "admin"}, kept.user),
    ]
    for secret in (kept.api_key, kept.admin_key, kept.internal_token, kept.postgres_owner):
        assert secret not in text


def test_a_changed_agent_has_another_digest_and_the_others_keep_theirs(kept: Secrets, file: AgentsFile) -> None:
    changed = replace(file, agents=(file.agents[0].model_copy(update={"system_prompt": "Be brief."}), *file.agents[1:]))
    before = [c.body.model_dump() for c in commands_of(kept, file) if c.type == "agent.put"]
    after = [c.body.model_dump() for c in commands_of(kept, changed) if c.type == "agent.put"]
    differing = [
        one["spec"]["agent_id"] for one, two in zip(before, after, strict=True) if one["digest"] != two["digest"]
    ]
    assert differing == [file.agents[0].agent_id]


def test_skills_are_asked_for_after_their_agents_and_only_a_changed_one_has_another_digest(
    kept: Secrets, file: AgentsFile
) -> None:
    def skills(body: str) -> tuple[list[str], list[str | None]]:
        given = tuple(
            Skill(agent_id="assistant", slug=slug, name=slug, description="", body=text)
            for slug, text in (("tea", "Boil."), ("boat", body))
        )
        commands = commands_of(kept, replace(file, skills=given))
        assert [command.type for command in commands][-2:] == ["skill.put", "skill.put"]
        bodies = [command.body.model_dump() for command in commands[-2:]]
        return [body["slug"] for body in bodies], [body["digest"] for body in bodies]

    slugs, before = skills("Fold.")
    assert slugs == ["tea", "boat"]
    assert skills("Fold.")[1] == before
    after = skills("Fold it.")[1]
    assert after[0] == before[0] and after[1] != before[1]


@asynccontextmanager
async def dispatcher(answer: Callable[[Command], FactBody | None]) -> AsyncIterator[EmbeddedLog]:
    """A log with somebody on it who gives each command that outcome."""
    log = await EmbeddedLog.open(None, 4)

    async def work() -> None:
        tail = await log.tail(COMMANDS_TOPIC, dict.fromkeys(range(4), 0))
        producer = await log.producer()
        while True:
            for record in await tail.batch():
                command = decode_command(record)
                body = answer(command)
                if body is not None:
                    partition = partition_of(command.stream.encode(), 4)
                    fact = Fact(
                        type=body.type,
                        stream=command.stream,
                        seq=None if body.type in UNNUMBERED else 1,
                        epoch=0,
                        workspace_id=command.workspace_id,
                        time_ms=NOW,
                        body=body,
                        causation_id=command.id,
                    )
                    producer.send(encode_fact(fact, partition, lambda *_: True))

    task = asyncio.create_task(work())
    try:
        yield log
    finally:
        task.cancel()
        [ended] = await asyncio.gather(task, return_exceptions=True)
        await log.close()
    assert isinstance(ended, asyncio.CancelledError), ended


def repeated(command: Command) -> FactBody:
    return CommandRepeated(command_type=command.type, outcome_type="x", outcome_seq=1, outcome_time_ms=NOW, first={})


async def test_it_is_done_once_every_command_has_its_outcome(kept: Secrets, file: AgentsFile) -> None:
    answered: list[str] = []

    def answer(command: Command) -> FactBody:
        answered.append(command.id)
        return repeated(command)

    commands = commands_of(kept, file)
    async with dispatcher(answer) as log:
        await seed(log, commands)
    assert answered == [command.id for command in commands]


async def test_an_outcome_that_leaves_its_contents_to_the_object_store_is_one_too(
    kept: Secrets, file: AgentsFile
) -> None:
    spec = AgentSpec(agent_id="a", name="A", system_prompt="x" * LARGE_BYTES)
    async with dispatcher(lambda _: AgentChanged(agent_version=1, spec=spec)) as log:
        await seed(log, commands_of(kept, file))


async def test_what_is_there_already_is_no_refusal_but_any_other_is_one_line(kept: Secrets, file: AgentsFile) -> None:
    def refused(code: str) -> Callable[[Command], FactBody]:
        return lambda command: CommandRejected(command_type=command.type, code=code, message="The sentence.")

    async with dispatcher(refused("exists")) as log:
        await seed(log, commands_of(kept, file))
    async with dispatcher(refused("bad_request")) as log:
        with pytest.raises(CommandError, match=r"^workspace\.create was refused: The sentence\.$"):
            await seed(log, commands_of(kept, file))


async def test_a_dispatcher_that_says_nothing_is_not_waited_for_without_end(
    kept: Secrets, file: AgentsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "_LIMIT_S", 0.2)
    async with dispatcher(lambda _: None) as log:
        with pytest.raises(CommandError, match="did not take up the first commands"):
            await seed(log, commands_of(kept, file))


async def test_what_was_deleted_over_the_api_is_not_waited_for_and_what_needs_it_is_a_note(
    kept: Secrets, file: AgentsFile
) -> None:
    """The file is as it was: the start goes on, and says what stays away."""
    gone = file.agents[0].agent_id

    def answer(command: Command) -> FactBody:
        if isinstance(command.body, PutAgent) and command.body.spec.agent_id == gone:
            body = repeated(command)
            return body.model_copy(update={"first": {"deleted": True}})
        if isinstance(command.body, PutTeam):
            return CommandRejected(
                command_type=command.type, code="unknown_agent", message=f"there is no agent {gone!r}"
            )
        return repeated(command)

    async with dispatcher(answer) as log:
        seeded = await seed(log, commands_of(kept, file))
    assert seeded.deleted == {gone}
    [about_agent, about_team] = seeded.notices
    assert about_agent.startswith(f"{gone}: was deleted over the API")
    assert about_team == f"team.put: there is no agent {gone!r}; it was deleted over the API"
