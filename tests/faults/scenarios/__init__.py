"""What is broken, when, and what is expected: `SCENARIOS`, a literal table.

Whether it came so is the checker's to say: every promise holds in all that was observed. The sentence in the table says
what that is in this case. The modules have the acts:

    strikes   dispatchers that die or stall at the boundaries of what they journal
    owners    zombies, late batches, two owners, claims, members that come and go, offsets deleted
    network   the broker, lost answers, latency, connections that break or swallow everything
    stores    history and PostgreSQL
    edges     gateways, models, tools, cancels, poison
    parked    runs that wait for people and clients
    mixed     several at once: the short set
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from parley_dispatcher.tools import TOOLS
from parley_events.facts import FACTS
from tests.faults.boundaries import Action
from tests.faults.scenarios import edges, mixed, network, owners, parked, stores, strikes
from tests.faults.stage import Round


@dataclass(frozen=True, slots=True)
class Scenario:
    """`fault`: what is broken; `when`; `expected`; `act`: how it is done while work goes on."""

    name: str
    fault: str
    when: str
    expected: str
    act: Callable[[Round], Awaitable[None]]


def _boundaries(action: Action, size: int = 5) -> tuple[Scenario, ...]:
    blows = strikes.blows(action)
    word = {"kill": "SIGKILL", "stop": "SIGSTOP, then SIGCONT once another has taken over"}[action]
    groups = [blows[start : start + size] for start in range(0, len(blows), size)]
    return tuple(
        Scenario(
            f"{action} {number}",
            f"{word} of the dispatcher that has the thread",
            "; ".join(blow.name.removeprefix(f"{action} at ") for blow in group),
            "another takes over; no turn and no effect is repeated; nobody sees what the stale one writes",
            partial(strikes.strikes, group),
        )
        for number, group in enumerate(groups, start=1)
    )


_TAKES_OVER = "another takes over; every run ends once, and each effect happens once"

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "mixed",
            "owners, a projector and a gateway die or stall, unreadable records come",
            "one right after the other",
            "everything heals; every promise holds",
            mixed.mixed,
        ),
        Scenario(
            "one by one",
            "SIGKILL and SIGSTOP of the owner of a run, ten in turn",
            "while its model speaks, each once all is well again",
            "another owner goes on within 15 s",
            strikes.one_by_one,
        ),
        *_boundaries("kill"),
        *_boundaries("stop"),
        Scenario(
            "kill claiming",
            "SIGKILL of who takes over",
            "before and after its claim",
            _TAKES_OVER,
            partial(strikes.claiming, "kill"),
        ),
        Scenario(
            "stop claiming",
            "SIGSTOP of who takes over",
            "before and after its claim",
            _TAKES_OVER,
            partial(strikes.claiming, "stop"),
        ),
        Scenario(
            "kill all",
            "SIGKILL of all dispatchers at once",
            "in the middle of tool calls",
            _TAKES_OVER,
            strikes.kill_all,
        ),
        Scenario("rolling", "SIGTERM of each dispatcher in turn", "under load", "every run ends once", strikes.rolling),
        Scenario(
            "zombie",
            "SIGSTOP, then SIGCONT",
            "before a model's turn is recorded",
            "nobody sees what it writes then",
            owners.zombie,
        ),
        Scenario(
            "unread intent",
            "SIGSTOP, then SIGCONT",
            "between an intent and its read-back",
            "the tool is called once, by the successor",
            owners.unread,
        ),
        Scenario(
            "after the effect",
            "SIGKILL",
            "between an effect and its result on record, for tools of each kind",
            "unknown, or called again with the same key where that does nothing more",
            owners.after_the_effect,
        ),
        Scenario(
            "late batch",
            "records under an old epoch arrive",
            "after the run's end",
            "nobody sees them",
            owners.late_batch,
        ),
        Scenario(
            "two owners",
            "a dispatcher of another group claims all",
            "for eight seconds",
            "one outcome per command, each effect once",
            owners.two_groups,
        ),
        Scenario(
            "foreign claims",
            "claims by somebody who does nothing",
            "under load, twice each",
            "the owners claim again",
            owners.foreign_claims,
        ),
        Scenario(
            "storm",
            "members of the group come and go, 8 times",
            "under load",
            "runs that stay are not disturbed",
            owners.storm,
        ),
        Scenario(
            "offsets deleted",
            "the group's offsets are deleted",
            "while all dispatchers are down",
            "every command is recognised",
            owners.offsets_deleted,
        ),
        Scenario(
            "broker killed",
            "SIGKILL of the broker, and a restart",
            "under load",
            "everything goes on",
            network.broker_killed,
        ),
        Scenario(
            "answers lost",
            "produce responses are lost",
            "until every producer is replaced",
            "what is sent twice is seen once",
            network.lost_answers,
        ),
        Scenario(
            "latency",
            "150 ms between dispatchers and broker",
            "for eight seconds",
            "slower, and nothing else",
            network.latency,
        ),
        Scenario("cut", "connections to the broker break", "six times", "everything goes on", network.cut),
        Scenario(
            "cut off",
            "one dispatcher cannot reach the broker",
            "until another has taken over",
            _TAKES_OVER,
            network.swallowed,
        ),
        Scenario(
            "projector before",
            "SIGKILL of a history",
            "before COMMIT",
            "the other folds the same again",
            partial(stores.projector, "fold.before_commit", "kill"),
        ),
        Scenario(
            "projector after",
            "SIGKILL of a history",
            "after COMMIT",
            "nothing is folded twice",
            partial(stores.projector, "fold.after_commit", "kill"),
        ),
        Scenario(
            "two projectors",
            "SIGSTOP of a history with a batch in hand",
            "until the other has gone further",
            "positions never go back",
            stores.two_projectors,
        ),
        Scenario(
            "history behind",
            "the views stand still, a dispatcher dies",
            "for 60 seconds",
            "takeovers do not wait for them",
            partial(stores.history_behind, 60.0),
        ),
        Scenario(
            "history away",
            "SIGSTOP of both histories, a dispatcher dies",
            "for 12 seconds",
            "taken over once it answers",
            stores.history_away,
        ),
        Scenario(
            "postgres",
            "SIGKILL of PostgreSQL, and a restart",
            "for three seconds, under load",
            "runs go on, views catch up",
            stores.postgres,
        ),
        Scenario(
            "gateway",
            "SIGKILL of a gateway",
            "before it sends; before it answers",
            "a retry meets the same run; followers go on elsewhere",
            edges.answer_lost,
        ),
        Scenario(
            "model errors",
            "429, 529, 500, 400, cut, stall, one id twice",
            "and the owner dies or stalls between attempts",
            "tried again, or a clear failure",
            edges.model_errors,
        ),
        Scenario(
            "tools fail",
            "time-outs, errors and HTTP 500 after the effect",
            "and the owner dies during a call",
            "unknown where nobody knows; never a second call",
            edges.tools_fail,
        ),
        Scenario(
            "cancels",
            "the owner dies or stalls",
            "while a run is being cancelled",
            "no effect starts after it; the thread goes on",
            edges.cancelled,
        ),
        Scenario(
            "unreadable",
            "seven kinds of unreadable records",
            "in the midst of commands",
            "in parley.rejected once each",
            edges.unreadable,
        ),
    )
}
"""Every scenario, by its name."""

if "command.tried" in FACTS:
    # A command that was begun before is begun alone, and twice is enough.
    SCENARIOS["poison"] = Scenario(
        "poison",
        "a command kills whoever decides it",
        "each time",
        "set aside after the third, once, and told to who asked; the thread goes on",
        edges.poisoned,
    )
if "publish" in TOOLS:
    # Runs can be parked.
    SCENARIOS |= {
        scenario.name: scenario
        for scenario in (
            Scenario(
                "parked",
                "the owner dies or stalls; all dispatchers die",
                "as a run asks, parks and is answered; while it waits",
                "each answer counts once; what was approved is done once",
                parked.answered,
            ),
            Scenario(
                "expired",
                "SIGKILL of the owner",
                "as an approval or a call of the client expires",
                "it expires once, and the run goes on",
                parked.expired,
            ),
            Scenario(
                "stopped while parked",
                "SIGKILL of the owner",
                "as a parked run is cancelled, a thread is, or a message goes on without the client",
                "the run ends once; no call is left open",
                parked.stopped,
            ),
        )
    }

SHORT = ("mixed", "two projectors", "late batch")
"""What is tried at every `make test`."""
