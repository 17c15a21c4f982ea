"""What `parley up` and `parley cluster` can be told. The only module of this package that reads the environment.

The handles for people and scripts have short names (`PORT`, `DATA`, `AGENTS`, `READY`, `GATEWAYS`, `DISPATCHERS`,
`HISTORIES`, `RESTART`); each is also `PARLEY_<NAME>`. All other `PARLEY_…` variables go to the services as they are.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SHIPPED_AGENTS = Path(__file__).parent / "agents.yaml"
HANDLES = ("PORT", "DATA", "AGENTS", "READY", "GATEWAYS", "DISPATCHERS", "HISTORIES", "RESTART")
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class SettingsError(Exception):
    """A setting cannot be read; the message is one line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """See the module. `port` 0: any free one. `restart`: start parts that died again; not said: `up` does, `cluster`
    does not. `url` and `key`: another Parley than the one of `data`, for the commands that talk to a running one.
    `chat_history`: where what was typed in chats is kept, None: nowhere. `api_key`: the key to chat with that `seed`
    makes known. `log_level`: what goes to the log files. `env` is the whole environment, for child processes."""

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
    chat_history: Path | None = Path("~/.local/state/parley/chat-history")
    api_key: str | None = field(default=None, repr=False)
    log_level: str = "INFO"
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

        def yes_or_no(name: str) -> bool | None:
            raw = text(name)
            if raw is not None and raw.lower() not in _YES + _NO:
                raise SettingsError(f"{name}={raw!r}: 1 or 0 is wanted")
            return None if raw is None else raw.lower() in _YES

        agents, ready = text("AGENTS"), text("READY")
        log_level = (given.get("PARLEY_LOG_LEVEL") or "INFO").upper()
        if log_level not in logging.getLevelNamesMapping():
            raise SettingsError(f"PARLEY_LOG_LEVEL={log_level!r}: DEBUG, INFO, WARNING or ERROR is wanted")
        return cls(
            port=number("PORT", 8080, 0, 65535),
            data=Path(text("DATA") or ".parley").absolute(),
            agents=Path(agents).absolute() if agents else SHIPPED_AGENTS,
            ready=Path(ready).absolute() if ready else None,
            gateways=number("GATEWAYS", 1, 1, 32),
            dispatchers=number("DISPATCHERS", 1, 1, 32),
            histories=number("HISTORIES", 1, 1, 32),
            restart=yes_or_no("RESTART"),
            url=given.get("PARLEY_URL") or None,
            key=given.get("PARLEY_KEY") or None,
            chat_history=_chat_history(given),
            api_key=given.get("PARLEY_API_KEY") or None,
            log_level=log_level,
            env=given,
        )

    def for_services(self, **more: str) -> dict[str, str]:
        """The environment of a service: what was given, without the short handles, and what is set for it."""
        ours = {*HANDLES, *(f"PARLEY_{name}" for name in HANDLES), "PARLEY_URL"}
        ours |= {"PARLEY_KEY", "PARLEY_API_KEY", "PARLEY_CHAT_HISTORY"}
        kept = {name: value for name, value in self.env.items() if name not in ours}
        return kept | {"PARLEY_LOG_LEVEL": self.log_level} | more


def _chat_history(given: Mapping[str, str]) -> Path | None:
    said = given.get("PARLEY_CHAT_HISTORY")
    if said == "none":
        return None
    try:
        return Path(said or "~/.local/state/parley/chat-history").expanduser().absolute()
    except RuntimeError:
        # Whoever has no home has no history.
        return None
