"""The `parley` command. `up` and `cluster` start a Parley; the others talk to a running one over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, NoReturn

import typer
import uvloop

from parley_standalone.client import Admin, running
from parley_standalone.errors import CommandError
from parley_standalone.folder import delete, is_held
from parley_standalone.settings import Settings, SettingsError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
workspaces = typer.Typer(no_args_is_help=True, help="Workspaces.")
keys = typer.Typer(no_args_is_help=True, help="Keys: made, listed, revoked. A key is shown once; its hash is kept.")
app.add_typer(workspaces, name="workspaces")
app.add_typer(keys, name="keys")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Workspace = Annotated[str | None, typer.Option(help="The workspace's id; without it the one of the key in use.")]


def _fail(message: str) -> NoReturn:
    print(f"parley: {message}", file=sys.stderr)
    raise typer.Exit(1)


def _settings() -> Settings:
    try:
        return Settings.from_env()
    except SettingsError as error:
        _fail(str(error))


def _run(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a long-lived command. What it makes, others cannot read."""
    os.umask(0o077)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(work)
    except CommandError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        status = 130
    raise typer.Exit(status)


@app.command()
def up() -> None:
    """Everything in one process: no Kafka, no Docker, no account. PORT=, DATA=, AGENTS=, READY= set it up."""
    from parley_standalone.up import up as run_up

    _run(run_up(_settings()))


@app.command()
def cluster() -> None:
    """As in production, on one machine. GATEWAYS=, DISPATCHERS=, HISTORIES= scale it, RESTART=1 keeps it whole."""
    from parley_standalone.cluster import cluster as run_cluster

    settings = _settings()
    _install_jars(settings)
    _run(run_cluster(settings))


@app.command()
def seed() -> None:
    """Put the first workspace, its keys and the agents of AGENTS on the Kafka of a Parley that others started."""
    from parley_standalone.seed_kafka import seed_kafka

    _run(seed_kafka(_settings()))


@app.command()
def jars() -> None:
    """Fetch Apache Kafka's jars with Maven, once, and check them."""
    _install_jars(_settings())


@app.command()
def reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete the folder DATA with everything in it, after asking. Refused while a Parley runs on it."""
    data = _settings().data
    try:
        if is_held(data):
            _fail(f"a Parley runs on {data}: stop it first; nothing was deleted")
        if not data.exists():
            print(f"{data} is not there: nothing to delete")
            return
        if not yes and not typer.confirm(f"Delete everything that Parley keeps in {data}?"):
            print("nothing was deleted")
            return
        left = delete(data)
    except CommandError as error:
        _fail(str(error))
    print(f"{data} is deleted" if not left else f"{data} is emptied; left, because Parley did not make it: {left}")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Where the running Parley is, and its processes."""
    try:
        ready = running(_settings().data)
    except CommandError as error:
        _fail(str(error))
    shown = {name: value for name, value in ready.items() if name not in ("api_key", "admin_key", "postgres")}
    if as_json:
        print(json.dumps(shown))
        return
    for name, value in shown.items():
        print(f"{name:13} {value}")


@workspaces.command("create")
def create_workspace(name: str, as_json: AsJson = False) -> None:
    """Make a workspace; it gets the agents and teams of the file."""
    made = _call("POST", "/workspaces", {"name": name})
    print(json.dumps(made) if as_json else f"workspace {made['name']}: {made['id']}")


@keys.command("create")
def create_key(
    workspace: Workspace = None,
    user: Annotated[str, typer.Option(help="Whose key it is.")] = "owner",
    scopes: Annotated[str, typer.Option(help="Separated by commas.")] = "*",
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown now and never again."""
    body: dict[str, Any] = {"user": user, "scopes": [scope.strip() for scope in scopes.split(",") if scope.strip()]}
    if workspace is not None:
        body["workspace"] = workspace
    made = _call("POST", "/keys", body)
    print(json.dumps(made) if as_json else f"{made['key']}\n(id {made['id']}; it is not shown again)")


@keys.command("list")
def list_keys(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """The keys of a workspace, without the keys themselves."""
    found = _call("GET", "/keys", None, workspace)["items"]
    if as_json:
        print(json.dumps(found))
        return
    for key in found:
        print(f"{key['id']}  {key['user']:20} {','.join(key['scopes']):20} {key['created_at']}")


@keys.command("revoke")
def revoke_key(key_id: str, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Let a key in no more, within a second everywhere."""
    _call("DELETE", f"/keys/{key_id}", None, workspace)
    print(json.dumps({"id": key_id, "revoked": True}) if as_json else f"{key_id} is revoked")


def _install_jars(settings: Settings) -> None:
    from parley_standalone.parts.errors import PartError
    from parley_standalone.parts.kafka import install_jars

    try:
        install_jars(settings.env)
    except PartError as error:
        _fail(str(error))


def _call(method: str, path: str, body: dict[str, Any] | None = None, workspace: str | None = None) -> Any:
    try:
        return Admin(_settings()).call(method, path, body, **({"workspace": workspace} if workspace else {}))
    except CommandError as error:
        _fail(str(error))


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
