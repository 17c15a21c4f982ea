"""`parley seed`: the first workspace, its two keys, the agents of the file, for a Parley that others started.

What `up` and `cluster` do at their start, for containers or a cluster of your own, with keys from the environment.

Running it again changes nothing but what changed in the file. A key that is new in the environment joins the ones that
are there; the old one is in until it is revoked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from parley_dispatcher.tools import TOOLS
from parley_events.clock import system_clock
from parley_events.errors import EventsError
from parley_events.ids import derived_uuid, is_uuid, random_uuid
from parley_events.keys import key_hash, key_workspace
from parley_events.log.open import open_log
from parley_gateway.settings import Settings as GatewaySettings
from parley_standalone.agents_file import read_agents_file
from parley_standalone.errors import CommandError
from parley_standalone.folder import FIRST_WORKSPACE
from parley_standalone.seed import seed, seed_commands
from parley_standalone.settings import Settings


@dataclass(frozen=True, slots=True)
class GivenKeys:
    """What a Parley begins with, as the environment says it. A key's id follows from the key."""

    workspace_id: str
    api_key: str = field(repr=False)
    admin_key: str = field(repr=False)
    workspace: str = FIRST_WORKSPACE
    user: str = "owner"

    @property
    def api_key_id(self) -> str:
        return derived_uuid("seeded key", self.workspace_id, key_hash(self.api_key))

    @property
    def admin_key_id(self) -> str:
        return derived_uuid("seeded key", self.workspace_id, key_hash(self.admin_key))


def given_keys(settings: Settings, workspace_id: str) -> GivenKeys:
    """The keys that the environment gives. Raises CommandError with the name of what is missing or wrong, never with
    a key."""
    if not is_uuid(workspace_id):
        raise CommandError("PARLEY_WORKSPACE_ID is not a UUID: it names the workspace that is to be made")
    keys = {"PARLEY_API_KEY": settings.api_key, "PARLEY_KEY": settings.key}
    for name, key in keys.items():
        if key is None or key_workspace(key) != workspace_id:
            raise CommandError(
                f"{name} is no key of the workspace {workspace_id}: pk_<its 32 hex digits>_<43 characters> is wanted"
            )
    if settings.api_key == settings.key:
        raise CommandError("PARLEY_API_KEY and PARLEY_KEY are the same: one is to chat with, the other administers")
    return GivenKeys(workspace_id, settings.api_key or "", settings.key or "")


async def seed_kafka(settings: Settings) -> int:
    """Do it, on the Kafka at `PARLEY_KAFKA`; the exit status. Raises CommandError. A dispatcher must run there."""
    try:
        service = GatewaySettings.from_env(settings.env)
    except ValueError as error:
        raise CommandError(str(error)) from None
    kept = given_keys(settings, service.workspace_id)
    file = read_agents_file(settings.agents, TOOLS)
    try:
        log = await open_log("kafka", service.kafka, Path(), service.partitions, "parley-seed")
    except EventsError as error:
        raise CommandError(f"Kafka at {service.kafka}: {error}") from None
    try:
        seeded = await seed(log, seed_commands(kept, file, system_clock(), random_uuid))
    finally:
        await log.close()
    for notice in (*file.notices, *seeded.notices):
        print(f"note: {notice}")
    print(f"workspace {kept.workspace_id}: {len(file.agents)} agents, {len(file.teams)} teams")
    return 0
