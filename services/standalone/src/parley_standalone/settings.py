"""What `parley up` and `parley cluster` can be told. The only module of this package that reads the environment.

The handles for people and scripts have short names (`PORT`, `DATA`, `AGENTS`, `READY`, `GATEWAYS`, `DISPATCHERS`,
`HISTORIES`, `RESTART`); each is also `PARLEY_<NAME>`. All other `PARLEY_…` variables go to the services as they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SHIPPED_AGENTS = Path(__file__).parent / "agents.yaml"


class SettingsError(Exception):
    """A setting cannot be read; the message is one line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """See the module. `port` 0: any free one. `restart`: start parts that died again; not said: `up` does, `cluster`
    does not. `env` is the whole environment, for child processes."""

    port: int = 8080
    data: Path = Path(".parley")
    agents: Path = SHIPPED_AGENTS
    ready: Path | None = None
    gateways: int = 1
    dispatchers: int = 1
    histories: int = 1
    restart: bool | None = None
    url: str | None = None
    key: str | None = field(default=None, repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """The settings that the environment asks for. Raises SettingsError."""
        given = dict(os.environ if env is None else env)

        def text(name: str) -> str | None:
            return given.get(name) or given.get(f"PARLEY_{name}") or None

        def number(name: str, fallback: int, least: int, most: int) -> int:
            raw = text(name)
            if raw is None:
                return fallback
            if not raw.isdecimal() or not least <= int(raw) <= most:
                raise SettingsError(f"{name}={raw!r}: a whole number from {least} to {most} is wanted")
            return int(raw)

        agents, ready = text("AGENTS"), text("READY")
        return cls(
            port=number("PORT", 8080, 0, 65535),
            data=Path(text("DATA") or ".parley").absolute(),
            agents=Path(agents).absolute() if agents else SHIPPED_AGENTS,
            ready=Path(ready).absolute() if ready else None,
            gateways=number("GATEWAYS", 1, 1, 32),
            dispatchers=number("DISPATCHERS", 1, 1, 32),
            histories=number("HISTORIES", 1, 1, 32),
            restart=None if text("RESTART") is None else text("RESTART") in ("1", "true", "yes"),
            url=given.get("PARLEY_URL"),
            key=given.get("PARLEY_KEY"),
            env=given,
        )

    def for_services(self, **more: str) -> dict[str, str]:
        """The environment of a service: what was given, without the short handles, and what is set for it."""
        short = {"PORT", "DATA", "AGENTS", "READY", "GATEWAYS", "DISPATCHERS", "HISTORIES", "RESTART"}
        kept = {
            name: value
            for name, value in self.env.items()
            if name not in short and name not in {f"PARLEY_{s}" for s in short} | {"PARLEY_KEY", "PARLEY_URL"}
        }
        return kept | more
