"""How the services of one Parley find each other: the environment that all of them are given."""

from __future__ import annotations

from parley_standalone.folder import Folder
from parley_standalone.parts.postgres import Postgres

PROJECTOR_ROLE = "parley_projector"
READER_ROLE = "parley_reader"


def service_environment(folder: Folder, postgres: Postgres) -> dict[str, str]:
    """The variables that do not depend on which service it is."""
    kept = folder.secrets
    return {
        "PARLEY_DATA": str(folder.path),
        "PARLEY_POSTGRES": postgres.dsn(),
        "PARLEY_POSTGRES_PROJECTOR": postgres.dsn(PROJECTOR_ROLE, kept.postgres_projector),
        "PARLEY_POSTGRES_READER": postgres.dsn(READER_ROLE, kept.postgres_reader),
        "PARLEY_INTERNAL_TOKEN": kept.internal_token,
        "PARLEY_WORKSPACE_ID": kept.workspace_id,
        "PARLEY_HOST": "127.0.0.1",
    }
