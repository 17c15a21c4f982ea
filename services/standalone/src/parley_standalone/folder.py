"""The folder in which all state of one Parley lies (`DATA`): its lock, its version, its secrets.

lock          held while a Parley runs on the folder; the pid of the holder
version       the layout's version: newer code migrates, older code refuses
secrets.json  passwords, the internal token, the ready-made keys (mode 600)
log/ postgres/             what `make up` keeps
kafka/ cluster-postgres/   what `make cluster` keeps: another log, so another database; the keys are the same
objects/                   files and large contents, of both (modes 700 and 600)
effects/ logs/             what tools write, what processes log
ready.json    while it runs: where it is and how to get in (mode 600)
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from parley_events.keys import make_key
from parley_standalone.errors import CommandError

VERSION = 1
FIRST_WORKSPACE = "default"
MIGRATIONS: dict[int, Callable[[Path], None]] = {}
"""Version → the step that makes a folder of that version into one of the next."""
_STATE = (
    *("log", "postgres", "postgres.json", "kafka", "cluster-postgres", "cluster-postgres.json"),
    *("objects", "effects", "pids", "secrets.json"),
)
_OURS = (*_STATE, "ready.json", "version", "lock")
_LOG_NAME = re.compile(r"(parley|postgres|cluster|kafka|cluster-postgres|(gateway|dispatcher|history)-\d+)\.(log|out)")


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is made once per folder and given out again at every start."""

    workspace: str
    workspace_id: str
    user: str
    api_key: str
    api_key_id: str
    admin_key: str
    admin_key_id: str
    internal_token: str
    postgres_owner: str
    postgres_reader: str
    postgres_projector: str


def _new_secrets() -> Secrets:
    workspace_id = str(uuid.uuid4())  # noqa: TID251 - made once, when the folder is
    return Secrets(
        workspace=FIRST_WORKSPACE,
        workspace_id=workspace_id,
        user="owner",
        api_key=make_key(workspace_id, secrets.token_bytes(32)),
        api_key_id=str(uuid.uuid4()),  # noqa: TID251
        admin_key=make_key(workspace_id, secrets.token_bytes(32)),
        admin_key_id=str(uuid.uuid4()),  # noqa: TID251
        internal_token=secrets.token_urlsafe(32),
        postgres_owner=secrets.token_urlsafe(24),
        postgres_reader=secrets.token_urlsafe(24),
        postgres_projector=secrets.token_urlsafe(24),
    )


def write_private(path: Path, text: str) -> None:
    """Write a file whole, readable by its owner alone: beside its place, then renamed."""
    making = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        making.rename(path)
    except BaseException:
        making.unlink(missing_ok=True)
        raise


class Folder:
    """A DATA folder that this process holds. `open` takes it, `close` lets go."""

    def __init__(self, path: Path, handle: int, kept: Secrets) -> None:
        self.path, self._handle, self.secrets = path, handle, kept

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Take the folder, made if it is missing. Raises CommandError when it is running, or newer than this code."""
        handle = _lock(path)
        try:
            _check_version(path)
            return cls(path, handle, _secrets(path))
        except BaseException:
            os.close(handle)
            raise

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def close(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.close(self._handle)


def is_held(path: Path) -> bool:
    """Whether a Parley runs on the folder. Raises CommandError when that cannot be seen."""
    try:
        with (path / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise CommandError(f"{path} cannot be looked into: {error.strerror}") from None
    return False


def delete(path: Path) -> list[str]:
    """Delete what Parley keeps in the folder, and the folder if nothing else is in it; the names of what is left.
    Raises CommandError while a Parley runs on it, and when it is no folder of Parley's."""
    if not (path / "version").exists():
        raise CommandError(f"{path} is no folder of Parley's (it has no `version`): nothing was deleted")
    handle = _lock(path)
    try:
        _delete_logs(path / "logs")
        for name in _OURS:
            place = path / name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
        left = sorted(entry.name for entry in path.iterdir())
        if not left:
            path.rmdir()
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be deleted: {error.strerror}") from None
    finally:
        os.close(handle)
    return left


def _delete_logs(logs: Path) -> None:
    """Others may put what they like beside our logs: a script the screen of its own run, say."""
    if not logs.is_dir():
        return
    for log in list(logs.iterdir()):
        if _LOG_NAME.fullmatch(log.name):
            log.unlink()
    with suppress(OSError):
        logs.rmdir()


def _lock(path: Path) -> int:
    """The handle that holds the folder's lock; CommandError names who holds it already."""
    try:
        if not path.exists():
            path.mkdir(parents=True, mode=0o700)
            if os.geteuid() == 0:
                # The database's user must be able to pass through; what lies here cannot be listed or read by others.
                path.chmod(0o711)
        handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CommandError(f"{path} cannot be used: {error.strerror}; choose another folder with DATA=") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise CommandError(
            f"{path} is in use: a Parley runs on it as process {pid}; stop that one, or name another folder with DATA="
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def _check_version(path: Path) -> None:
    file = path / "version"
    try:
        version = int(file.read_text())
    except FileNotFoundError:
        # `delete` takes these names for Parley's own, so what somebody else called so must not get among them.
        foreign = sorted(name for name in _STATE if _holds_something(path / name))
        if foreign:
            raise CommandError(
                f"{path} holds {', '.join(foreign)}, which Parley did not make: name another folder with DATA="
            ) from None
        write_private(file, f"{VERSION}\n")
        return
    except ValueError:
        raise CommandError(f"{file} does not hold a version; is {path} a folder of Parley's?") from None
    if version > VERSION:
        raise CommandError(
            f"{path} was written by a newer Parley (version {version}; this one knows {VERSION}): use that one"
        )
    while version < VERSION:
        if version not in MIGRATIONS:
            raise CommandError(f"{path} has version {version}, which this Parley cannot migrate (it has {VERSION})")
        MIGRATIONS[version](path)
        version += 1
        write_private(file, f"{version}\n")


def _holds_something(place: Path) -> bool:
    return any(place.iterdir()) if place.is_dir() else place.exists()


def read_secrets(path: Path) -> Secrets:
    """The secrets of a folder that another process may hold. Raises CommandError."""
    try:
        return Secrets(**json.loads((path / "secrets.json").read_text()))
    except (OSError, ValueError, TypeError):
        raise CommandError(f"{path / 'secrets.json'} cannot be read") from None


def _secrets(path: Path) -> Secrets:
    file = path / "secrets.json"
    try:
        return Secrets(**json.loads(file.read_text()))
    except FileNotFoundError:
        made = _new_secrets()
        write_private(file, json.dumps(asdict(made), indent=1))
        return made
    except (ValueError, TypeError):
        raise CommandError(f"{file} cannot be read; `make reset` begins anew (and deletes what is there)") from None
