"""What meets the outside: gateways, models, tools, cancels, records that nobody can read."""

from __future__ import annotations

from parley_events.partition import partition_of
from tests.faults import outside
from tests.faults.boundaries import Placed
from tests.faults.cluster import PARTITIONS
from tests.faults.stage import Blow, Round
from tests.faults.workload import MODEL_ERRORS, tool, unsteady_tools


async def answer_lost(going: Round) -> None:
    """A gateway dies when the command is decided and the answer is not sent: the client asks again, elsewhere."""
    await going.begin(crowd=4, bystanders=2)
    for contract in ("threads", "org_chat"):
        talk = await going.work.open(contract)
        for place, kind in (("answer.before", "message.posted"), ("send.before", "message.post")):
            fault = Placed(id=going.work.number(), boundary=place, action="kill", kind=kind, stream=talk.thread_id)
            await going.cluster.control.place(fault, "gateway")
            going.work.saying(
                talk, f"/text {contract} \n/stream 10 20\n{tool('ledger__pay', note=going.work.number())}"
            )
            await going.struck(fault, f"kill at {place}")


async def model_errors(going: Round) -> None:
    await going.begin(crowd=2, bystanders=1)
    for message in MODEL_ERRORS.values():
        talk = await going.work.open()
        going.work.saying(talk, message, "/text And after that.")
    await going.strike(Blow("append.after", "kill", "model.failed"), MODEL_ERRORS["cut"])
    await going.strike(Blow("append.after", "stop", "model.failed"), MODEL_ERRORS["429"])


async def tools_fail(going: Round) -> None:
    await going.begin(crowd=2, bystanders=1)
    for number in range(2):
        talk = await going.work.open()
        going.work.saying(talk, unsteady_tools(f"{going.name} {number}"), "/text And after that.")
    hang = "/text so\n" + tool("ledger__pay", note=f"{going.name} kill", then="late", ms=1500) + "\n/text on"
    await going.strike(Blow("append.acknowledged", "kill", "tool.called", "ledger__pay"), hang)


async def cancelled(going: Round) -> None:
    """Runs are cancelled while their owners die or stall."""
    await going.begin(crowd=2, bystanders=1)
    for action in ("kill", "stop"):
        for boundary, kind in (("append.acknowledged", "run.cancelling"), ("append.before", "run.cancelled")):
            victim = await going.work.open()
            partition = partition_of(victim.thread_id.encode(), PARTITIONS)
            fault = Placed(
                id=going.work.number(),
                boundary=boundary,
                action=action,
                kind=kind,
                stream=victim.thread_id,
            )
            await going.cluster.control.place(fault, "dispatcher")
            late = tool("ledger__pay", note=f"{going.name} {kind} {action}", then="late", ms=1500)
            message = f"/text begin \n/stream 5 20\n{late}\n{tool('ledger__book', note='x')}\n/stream 100 50"
            going.work.cancelling(victim, message, lambda seen: len(seen) > 6)
            await going.struck(fault, f"{action} at {boundary} of {kind}", victim, partition)
            going.work.saying(victim, "/text and it goes on")


async def unreadable(going: Round) -> None:
    await going.begin(crowd=3, bystanders=1)

    async def poison() -> None:
        for talk in list(going.work.talks):
            if talk.contract == "threads":
                await outside.put_poison(going.cluster, talk.thread_id)

    await going.during("records that cannot be read", "parley.commands", poison())


async def poisoned(going: Round) -> None:
    """A command that kills whoever decides it, each time."""
    await going.begin(crowd=3, bystanders=1)
    cluster, talk = going.cluster, await going.work.open()
    fault = Placed(
        id=going.work.number(),
        boundary="decide.before",
        action="kill",
        kind="message.post",
        text="#poison",
        stream=talk.thread_id,
        every=True,
    )
    await cluster.control.place(fault, "dispatcher")
    await outside.put_message(cluster, talk.thread_id, "#poison\n/text never")

    async def until_it_is_set_aside() -> None:
        try:
            for count in (1, 2, 3):
                hit = await cluster.control.hit(fault.id, 60.0, count)
                await cluster.restart(cluster.processes[hit.name])
            await outside.set_aside(cluster, talk.thread_id, "poison")
        finally:
            await cluster.control.lift(fault.id)

    await going.during("a command that kills whoever decides it", "dispatcher", until_it_is_set_aside())
    going.work.saying(talk, "/text And the thread goes on.")
