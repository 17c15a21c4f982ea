"""Several kinds of faults in one round, one as soon as the one before has struck: much broken in a short time."""

from __future__ import annotations

from tests.faults import outside
from tests.faults.boundaries import Placed
from tests.faults.stage import Blow, Round
from tests.faults.workload import tool, whole


async def mixed(going: Round) -> None:
    """A stale owner with an intent in hand, one that dies after an effect, one that dies before its commit, a projector
    that dies before COMMIT, a gateway that dies before it answers; records that nobody can read among it all."""
    await going.begin(crowd=4, bystanders=2)
    line = tool("append_line", file="effects.txt", line=going.work.number())
    await going.strike(Blow("append.after", "stop", "tool.called", "append_line"), f"/text now\n{line}\n/text done")
    await going.strike(Blow("tool.after", "kill", "ledger__pay"))
    talk = await going.work.open()
    await outside.put_poison(going.cluster, talk.thread_id)
    for kind, boundary, passes in (
        ("history", "fold.before_commit", ""),
        ("gateway", "answer.before", "message.posted"),
    ):
        fault = Placed(
            id=going.work.number(), boundary=boundary, action="kill", kind=passes or "*", stream=talk.thread_id
        )
        await going.cluster.control.place(fault, kind)
        going.work.saying(talk, whole(f"{going.name} {kind}"))
        await going.struck(fault, f"kill at {boundary}")
    echoes = "\n".join(tool("echo", n=number) for number in range(12))
    await going.strike(Blow("append.before", "stop", "model.returned"), f"/text said \n{echoes}\n/text done")
    await going.strike(Blow("commit.before", "kill"))
