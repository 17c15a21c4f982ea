"""How the services of one Parley find each other: the environment that each is given, read as the service reads it."""

from __future__ import annotations

from dataclasses import dataclass

import parley_dispatcher.settings
import parley_gateway.settings
import parley_history.settings
from parley_history.settings import PROJECTOR_ROLE, READER_ROLE
from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder
from parley_standalone.parts.postgres import Postgres
from parley_standalone.settings import Settings

_DRAIN_S = "2"
"""Here nobody takes over what a stopped dispatcher had under way, so nobody gains by a long good-bye."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The settings of the three services, and the environments that say them."""

    history: parley_history.settings.Settings
    dispatcher: parley_dispatcher.settings.Settings
    gateway: parley_gateway.settings.Settings
    environments: dict[str, dict[str, str]]


def service_settings(settings: Settings, folder: Folder, postgres: Postgres, **more: str) -> ServiceSettings:
    """What the services are told: what was given, and where everything is. Raises CommandError when a variable that was
    given cannot be read."""
    kept = folder.secrets
    common = settings.for_services(
        PARLEY_DATA=str(folder.path),
        PARLEY_INTERNAL_TOKEN=kept.internal_token,
        PARLEY_WORKSPACE_ID=kept.workspace_id,
        PARLEY_HOST="127.0.0.1",
        PARLEY_PORT="0",
        PARLEY_DRAIN_S=settings.env.get("PARLEY_DRAIN_S") or _DRAIN_S,
        # Whoever starts Parley wrote the file that names the commands.
        PARLEY_MCP_COMMANDS=settings.env.get("PARLEY_MCP_COMMANDS") or "1",
        **more,
    )
    # Only history touches the database, so only history can.
    history = common | {
        "PARLEY_POSTGRES": postgres.dsn(),
        "PARLEY_POSTGRES_PROJECTOR": postgres.dsn(PROJECTOR_ROLE, kept.postgres_projector),
        "PARLEY_POSTGRES_READER": postgres.dsn(READER_ROLE, kept.postgres_reader),
    }
    try:
        return ServiceSettings(
            parley_history.settings.from_env(history),
            parley_dispatcher.settings.Settings.from_env(common),
            parley_gateway.settings.Settings.from_env(common),
            {"history": history, "dispatcher": common, "gateway": common},
        )
    except (ValueError, parley_history.settings.SettingsError) as error:
        raise CommandError(str(error)) from None
