"""The `parley` command. `up` and `cluster` start a Parley; `rebuild` makes the view of one anew; `chat`, `threads`,
`tail`, `approvals`, `keys`, `workspaces`, `rejected` and `history` talk to a running one over HTTP."""

# What a command needs is imported by that command: `parley --help` loads no HTTP, no event loop and no terminal.

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer

from parley_standalone.errors import CommandError
from parley_standalone.settings import Settings, SettingsError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
workspaces = typer.Typer(no_args_is_help=True, help="Workspaces: made. Each has its own keys, agents and threads.")
keys = typer.Typer(no_args_is_help=True, help="Keys: made, listed, rotated, revoked. A key is shown once.")
app.add_typer(workspaces, name="workspaces")
agents = typer.Typer(no_args_is_help=True, help="The file that declares agents.")
approvals = typer.Typer(no_args_is_help=True, help="What people are asked before a tool is called; and answers.")
rejected = typer.Typer(no_args_is_help=True, help="Commands that were set aside: listed, shown, sent again.")
history = typer.Typer(no_args_is_help=True, help="The view: where it stands still, and what it skips.")
app.add_typer(keys, name="keys")
app.add_typer(approvals, name="approvals")
app.add_typer(rejected, name="rejected")
app.add_typer(history, name="history")
app.add_typer(agents, name="agents")

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
    import uvloop

    from parley_events.garbage import seldom_collected

    os.umask(0o077)
    try:
        with seldom_collected(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
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
    from parley_standalone.folder import delete, is_held

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
    from parley_standalone.client import running

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


@app.command()
def rebuild(
    accept: Annotated[bool, typer.Option("--accept", help="Switch also when the rebuilt view differs.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Do not ask before the view kept last time is dropped.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Go back to the view of before the last rebuild.")] = False,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, max=64, help="How many fold; one per core otherwise.")
    ] = None,
) -> None:
    """Fold the log of the running Parley into a new view beside the live one, compare the two, and switch."""
    if back and (accept or drop):
        _fail("--back goes alone")
    from parley_standalone.terminal.rebuild import rebuild as run_rebuild

    count = processes or os.cpu_count() or 1
    _run(run_rebuild(_settings(), accept=accept, drop=drop, back=back, processes=count, ask=typer.confirm))


@app.command()
def chat(
    message: Annotated[str | None, typer.Argument(help="Send this, print the answer, and end.")] = None,
    agent: Annotated[str | None, typer.Option(help="Who is to answer; asked when not given.")] = None,
    thread: Annotated[str | None, typer.Option(help="Go on in this thread.")] = None,
    attach: Annotated[list[Path] | None, typer.Option(help="A file to send along; may be given again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the frames of the answer.")] = False,
) -> None:
    """Talk to an agent. With a MESSAGE, or one piped in, the answer alone is printed; docs/chat.md shows more."""
    if agent is not None and thread is not None:
        _fail("a thread has its agent: give --agent or --thread, not both")
    from parley_events.ids import random_uuid
    from parley_standalone.terminal.attach import Attached
    from parley_standalone.terminal.attach import attach as attached

    files: list[Attached] = []
    try:
        for path in attach or ():
            files.append(attached(str(path), files))
    except CommandError as error:
        _fail(str(error))
    settings = _settings()
    if message is None and sys.stdin.isatty() and sys.stdout.isatty() and not as_json:
        from parley_standalone.terminal.chat import chat as talk

        _talk(talk(settings, random_uuid, agent, thread, files))
    from parley_standalone.terminal.once import once, piped

    try:
        said = piped(sys.stdin) if message is None else message
        if thread is None and (said is None or not said.strip()):
            _fail("there is nothing to send: give a MESSAGE, or pipe one in")
    except CommandError as error:
        _fail(str(error))
    _talk(once(settings, random_uuid, said, agent, thread, files, as_json=as_json))


@app.command()
def threads(
    archived: Annotated[bool, typer.Option("--archived", help="The archived ones instead.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Your threads, the most recent first."""
    from parley_events.ids import random_uuid
    from parley_standalone.terminal.threads import threads as list_threads

    _talk(list_threads(_settings(), random_uuid, limit=limit, archived=archived, as_json=as_json))


class Beginning(StrEnum):
    """Where `parley tail` begins."""

    start = "start"
    now = "now"


@app.command()
def tail(
    thread: Annotated[str | None, typer.Option(help="The facts of this thread alone.")] = None,
    run: Annotated[str | None, typer.Option(help="The facts of this run, to its end.")] = None,
    begin: Annotated[
        Beginning | None, typer.Option("--from", help="Else a run begins at its start, the rest now.")
    ] = None,
    after: Annotated[str | None, typer.Option(help="Go on after this cursor, which Ctrl-C told.")] = None,
    as_json: AsJson = False,
) -> None:
    """Facts as they come, of all threads, until Ctrl-C."""
    if thread is not None and run is not None:
        _fail("give --thread or --run, not both")
    if begin is Beginning.start and thread is None and run is None:
        _fail("all threads can be followed from now on only, or --after a cursor: name a --thread or a --run")
    if begin is not None and after is not None:
        _fail("give --from or --after, not both")
    from parley_events.ids import random_uuid
    from parley_standalone.terminal.tail import tail as follow

    start = begin is Beginning.start or (begin is None and run is not None)
    _talk(follow(_settings(), random_uuid, thread=thread, run=run, start=start, after=after, as_json=as_json))


class Status(StrEnum):
    """How an approval stands."""

    open = "open"
    approved = "approved"
    denied = "denied"
    expired = "expired"
    closed = "closed"
    all = "all"


Comment = Annotated[str, typer.Option(help="A word to it; after a denial the model reads it.")]


@approvals.command("list")
def list_approvals(
    status: Annotated[Status, typer.Option(help="Those that stand so.")] = Status.open,
    thread: Annotated[str | None, typer.Option(help="Those of this thread alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What is to be approved in the workspace, the newest first."""
    from parley_events.ids import random_uuid
    from parley_standalone.terminal.approvals import listed

    wanted = None if status is Status.all else status.value
    _talk(listed(_settings(), random_uuid, status=wanted, thread=thread, limit=limit, as_json=as_json))


@approvals.command("show")
def show_approval(approval_id: str, as_json: AsJson = False) -> None:
    """One approval, whole: what is to be called, with what, and who may say yes."""
    from parley_events.ids import random_uuid
    from parley_standalone.terminal.approvals import shown

    _talk(shown(_settings(), random_uuid, approval_id, as_json=as_json))


@approvals.command("approve")
def approve(
    approval_id: str,
    comment: Comment = "",
    arguments: Annotated[str | None, typer.Option(help="A JSON object in place of the arguments.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let the tool be called."""
    _answer(approval_id, "approve", comment, arguments, as_json)


@approvals.command("deny")
def deny(approval_id: str, comment: Comment = "", as_json: AsJson = False) -> None:
    """Do not let the tool be called; the run goes on, and the model is told."""
    _answer(approval_id, "deny", comment, None, as_json)


def _answer(approval_id: str, decision: str, comment: str, arguments: str | None, as_json: bool) -> NoReturn:
    from parley_events.ids import random_uuid
    from parley_standalone.terminal.approvals import answered

    _talk(answered(_settings(), random_uuid, approval_id, decision, comment, arguments, as_json=as_json))


@workspaces.command("create")
def create_workspace(name: str, as_json: AsJson = False) -> None:
    """Make a workspace; it gets the agents and teams of the file."""
    made = _call("POST", "/workspaces", {"name": name})
    print(json.dumps(made) if as_json else f"workspace {made['name']}: {made['id']}")


@keys.command("create")
def create_key(
    workspace: Workspace = None,
    user: Annotated[str, typer.Option(help="Whose key it is.")] = "owner",
    scopes: Annotated[str, typer.Option(help="Separated by commas: chat, read, admin …; * is all but admin.")] = "*",
    rate_limit: Annotated[
        str | None, typer.Option(help="How often it may ask: 10/second, 60/minute, 1000/hour.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown now and never again."""
    body: dict[str, Any] = {"user": user, "scopes": [scope.strip() for scope in scopes.split(",") if scope.strip()]}
    if rate_limit is not None:
        body["rate_limit"] = rate_limit
    if workspace is not None:
        body["workspace"] = workspace
    made = _call("POST", "/keys", body)
    print(json.dumps(made) if as_json else f"{made['key']}\n(id {made['id']}; it is not shown again)")


@agents.command("schema")
def show_schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of its page.")] = False,
) -> None:
    """The JSON schema of agents.yaml, for editors that check as one types."""
    from parley_standalone.agents_schema import schema, tables

    print(tables() if markdown else json.dumps(schema(), indent=2, ensure_ascii=False), end="" if markdown else "\n")


@keys.command("list")
def list_keys(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """The keys of a workspace, without the keys themselves."""
    found = _call("GET", "/keys", None, workspace)["items"]
    if as_json:
        print(json.dumps(found))
        return
    for key in found:
        rate = key["rate_limit"] or ""
        print(f"{key['id']}  {key['user']:20} {','.join(key['scopes']):20} {rate:12} {key['created_at']}")


@keys.command("rotate")
def rotate_key(key_id: str, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Give a key another secret. The old one is let in no more, within a second everywhere."""
    made = _call("POST", f"/keys/{quote(key_id, safe='')}/rotate", None, workspace)
    print(json.dumps(made) if as_json else f"{made['key']}\n(id {made['id']}; it is not shown again)")


@keys.command("revoke")
def revoke_key(key_id: str, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Let a key in no more, within a second everywhere."""
    _call("DELETE", f"/keys/{quote(key_id, safe='')}", None, workspace)
    print(json.dumps({"id": key_id, "revoked": True}) if as_json else f"{key_id} is revoked")


@rejected.command("list")
def list_rejected(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, at most.")] = 50, as_json: AsJson = False
) -> None:
    """Commands that could not be decoded, placed or survived, the newest first."""
    found = _call("GET", "/rejected", None, limit=str(limit))["items"]
    if as_json:
        print(json.dumps(found))
        return
    for item in found:
        print(f"{item['id']:12} {item['rejected_at']}  {item['reason']:16} {item['type'] or '?':20} {item['message']}")


@rejected.command("show")
def show_rejected(rejected_id: str, as_json: AsJson = False) -> None:
    """One of them, with its headers and its body; what a terminal would act on is spelled out."""
    found = _call("GET", f"/rejected/{rejected_id}")
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        if name not in ("headers", "body", "cut"):
            print(f"{name:13} {value}")
    print("headers")
    for name, value in found["headers"]:
        print(f"  {name}: {value}")
    print("body" + (" (its beginning)" if found["cut"] else ""))
    print(found["body"])


@rejected.command("redrive")
def redrive(
    rejected_id: str,
    body: Annotated[Path | None, typer.Option(help="A file with a corrected body, as JSON.")] = None,
    type: Annotated[str | None, typer.Option(help="The command's type, where the record does not say it.")] = None,
    stream: Annotated[str | None, typer.Option(help="Its thread's id, or ws:<id>, likewise.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send it again, as a new command that names the old one. What cannot be read needs a corrected --body."""
    asked: dict[str, Any] = {}
    if body is not None:
        try:
            asked["body"] = json.loads(body.read_bytes())
        except OSError as error:
            _fail(f"{body} cannot be read: {error.strerror}")
        except ValueError:
            _fail(f"{body} is not JSON")
    asked |= {name: value for name, value in (("type", type), ("stream", stream)) if value is not None}
    told = _call("POST", f"/rejected/{rejected_id}/redrive", asked)
    if as_json:
        print(json.dumps(told))
    else:
        print(f"{told['redrive_of']} was sent again as {told['id']}: {told['outcome'] or 'not decided yet'}")


@history.command("stopped")
def list_stopped(as_json: AsJson = False) -> None:
    """Partitions of the view that stand still, where and why."""
    found = _call("GET", "/history/stopped")["items"]
    if as_json:
        print(json.dumps(found))
        return
    for item in found:
        what = "" if item["skippable"] else "  (nothing to skip)"
        print(f"{item['id']:12} {item['stopped_at']}  {item['type'] or '?':20} {item['fault']}{what}")


@history.command("skip")
def skip_record(
    record_id: str,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the record.")],
    as_json: AsJson = False,
) -> None:
    """Fold on beyond a record, <partition>-<offset>. What it said will be missing; this cannot be taken back."""
    told = _call("POST", f"/history/stopped/{quote(record_id, safe='')}/skip", {"reason": reason})
    print(json.dumps(told) if as_json else f"{told['id']} is skipped: the partition goes on within a second or two")


@history.command("skipped")
def list_skipped(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, at most.")] = 50, as_json: AsJson = False
) -> None:
    """Records that were skipped, by whom and why, the newest first."""
    found = _call("GET", "/history/skipped", None, limit=str(limit))["items"]
    if as_json:
        print(json.dumps(found))
        return
    for item in found:
        print(
            f"{item['id']:12} {item['skipped_at']}  {item['skipped_by']:20} {item['type'] or '?':20} {item['reason']}"
        )


def _talk(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command that talks to a running Parley."""
    try:
        status = asyncio.run(work)
    except CommandError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # Whoever read has seen enough. Nothing may be flushed to it at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    raise typer.Exit(status)


def _install_jars(settings: Settings) -> None:
    from parley_standalone.parts.errors import PartError
    from parley_standalone.parts.kafka import install_jars

    try:
        install_jars(settings.env)
    except PartError as error:
        _fail(str(error))


def _call(
    method: str, path: str, body: dict[str, Any] | None = None, workspace: str | None = None, **query: str
) -> Any:
    from parley_standalone.client import Admin

    try:
        query |= {"workspace": workspace} if workspace else {}
        return Admin(_settings()).call(method, path, body, **query)
    except CommandError as error:
        _fail(str(error))


def main() -> None:
    """The console script."""
    app(prog_name="parley")


if __name__ == "__main__":
    main()
