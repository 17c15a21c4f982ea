"""`parley chat` for a person: a prompt, and answers as they stream. Leaving never stops an answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from parley_events.ids import NewUuid
from parley_standalone.errors import CommandError
from parley_standalone.settings import Settings
from parley_standalone.terminal import orders, past, story, threads
from parley_standalone.terminal.attach import Attached, attach, encoded
from parley_standalone.terminal.keys import Typed, listening
from parley_standalone.terminal.line import Line
from parley_standalone.terminal.native import DEFAULT_AGENT, ENDED, Frame, Json, Native, Refused, runs_of
from parley_standalone.terminal.parked import Parked, chosen, how
from parley_standalone.terminal.region import EMPTY
from parley_standalone.terminal.save import asked, save
from parley_standalone.terminal.screen import Screen
from parley_standalone.terminal.watch import Watch

HINT = "Ctrl-X cancels, Ctrl-C leaves"
_MESSAGES_LOOKED_AT = 100
_RUNS_SHOWN = 5

T = TypeVar("T")


class _Left(Exception):
    """Ctrl-C while an answer streamed: the person goes."""


class _Stopped(CommandError):
    """Ctrl-C while something else was done."""


async def chat(
    settings: Settings, new_uuid: NewUuid, agent: str | None, thread: str | None, files: list[Attached]
) -> int:
    """Talk until the person leaves; the exit status."""
    native = Native(settings, new_uuid)
    talk = Chat(native, Screen(sys.stdout), Line(settings.chat_history, list(orders.ORDERS)), files)
    try:
        await talk.begin(agent, thread)
        await talk.talk()
    except _Left:
        pass
    finally:
        await native.close()
    talk.good_bye()
    return 0


class Chat:
    """One person at one terminal. `thread_id` None: the thread is made with the first message."""

    def __init__(self, native: Native, screen: Screen, line: Line, files: list[Attached]) -> None:
        self._native, self._screen, self._line, self._files = native, screen, line, files
        self._typed = Typed()
        self._agent = DEFAULT_AGENT
        self._watching: Watch | None = None
        self._running: str | None = None
        self._goes_on = ""
        self._parked: Parked | None = None
        self._queued: list[str] = []
        """Runs that begin when the one that waits has ended, in order."""
        self.thread_id: str | None = None

    async def begin(self, agent: str | None, thread: str | None) -> None:
        """Find out with whom, and where."""
        if thread is not None:
            await self._enter(thread)
            return
        agents = await self._heed(self._native.agents())
        self._agent = await self._choose(agents) if agent is None else named(agents, agent)
        self._screen.say(f"{self._agent} · a new thread · :help says what there is", "dim")

    async def talk(self) -> None:
        """Prompt and answer, until the person leaves."""
        while True:
            text, sent = self._typed.take()
            try:
                line = await self._line.read(self._agent, text, sent=sent)
            except (KeyboardInterrupt, EOFError):
                return
            meant = orders.read(line)
            try:
                match meant:
                    case orders.Message(text):
                        await self._say(text)
                    case orders.Order(":quit"):
                        return
                    case orders.Order():
                        await self._obey(meant)
                    case orders.Unclear(why):
                        self._screen.say(why, "yellow")
                    case None:
                        pass
            except CommandError as error:
                # What was refused is told; the chat goes on.
                self._screen.say(f"✗ {error}", "red")

    def good_bye(self) -> None:
        """The line to come back with."""
        if self.thread_id is not None:
            self._screen.say(f"{self._goes_on}come back with:", "dim")
            self._screen.write(f"parley chat --thread {self.thread_id}\n")

    # ---- orders

    async def _obey(self, order: orders.Order) -> None:
        match order:
            case orders.Order(":attach", path):
                file = attach(path, self._files)
                self._files.append(file)
                self._screen.say(f"with the next message: {', '.join(other.name for other in self._files)}", "dim")
            case orders.Order(":detach"):
                self._files = []
            case orders.Order(":save", rest):
                name, path = asked(rest)
                if self.thread_id is None:
                    raise CommandError("there are no files: this thread has not begun")
                data = await self._heed(self._native.file(self.thread_id, name))
                self._screen.say(f"saved: {story.clean(str(save(data, name, path)))}", "dim")
            case orders.Order(":agent", name):
                agents = await self._heed(self._native.agents())
                self._agent = named(agents, name) if name else await self._choose(agents)
                self._new()
            case orders.Order(":threads"):
                await self._heed(threads.show(self._native, self._screen, limit=20, archived=False))
            case orders.Order(":thread", thread_id):
                await self._enter(thread_id)
            case orders.Order(":new"):
                self._new()
            case orders.Order(":open"):
                self._show_open()
            case orders.Order(":approve", rest):
                await self._answer("approve", rest)
            case orders.Order(":deny", rest):
                await self._answer("deny", rest)
            case orders.Order(":result", rest):
                await self._give(rest)
            case orders.Order(":cancel"):
                await self._heed(self._cancel())
            case _:
                rows = [((name, "bold"), (what, "")) for name, what in orders.help_lines()]
                self._screen.table(("", ""), rows, gives=1, wraps=True)

    def _new(self) -> None:
        self.thread_id, self._parked, self._queued = None, None, []
        self._screen.say(f"{self._agent} · a new thread", "dim")

    async def _choose(self, agents: list[Json]) -> str:
        ids = [str(agent["id"]) for agent in agents]
        if not ids:
            raise CommandError("this workspace has no agents")
        first = DEFAULT_AGENT if DEFAULT_AGENT in ids else ids[0]
        if len(ids) == 1:
            return first
        rows = [
            ((str(number), "bold cyan"), (story.clean(agent["id"]), "bold"), (story.short(told(agent), 200), "dim"))
            for number, agent in enumerate(agents, 1)
        ]
        self._screen.table(("", "", ""), rows, gives=2)
        while True:
            try:
                answer = await self._line.choose(f"which one? ({first})", first, *self._typed.take())
            except (KeyboardInterrupt, EOFError):
                raise _Left from None
            if answer.isdecimal() and 1 <= int(answer) <= len(ids):
                return ids[int(answer) - 1]
            if answer in ids:
                return answer
            self._screen.say(f"a number from 1 to {len(ids)}, or an id, is wanted", "yellow")

    async def _cancel(self) -> None:
        stopped = [] if self.thread_id is None else await self._native.cancel_thread(self.thread_id)
        self._parked, self._queued = None, []
        self._screen.say(f"{len(stopped)} cancelled" if stopped else "nothing runs in this thread", "dim")

    # ---- what an answer waits for

    def _show_open(self) -> None:
        """What waits, and how it is answered."""
        if self._parked is None or not self._parked.open:
            self._screen.say("nothing waits in this thread", "dim")
            return
        rows = [
            ((number, "bold magenta"), (what, ""), (orders, "dim")) for number, what, orders in how(self._parked.open)
        ]
        self._screen.table(("", "", ""), rows, gives=1)

    async def _answer(self, decision: str, rest: str) -> None:
        """Answer an approval, and see the run go on."""
        parked = self._waiting()
        asked, comment = chosen(parked.open, story.ApprovalAsked, rest, f":{decision}")
        try:
            await self._heed(self._native.answer(asked.id, decision, comment))
        except Refused as refused:
            self._too_late(refused)
        await self._resume(parked)

    async def _give(self, rest: str) -> None:
        """Give the result of a tool, and see the run go on when it was the last one."""
        parked = self._waiting()
        handed, text = chosen(parked.open, story.HandedOver, rest, ":result")
        # A result may be a number itself: alone, it is no number of what waits.
        text = text or rest if sum(isinstance(one, story.HandedOver) for one in parked.open) == 1 else text
        if not text:
            raise CommandError(":result needs TEXT")
        told: Json = {}
        try:
            told = await self._heed(self._native.result(handed.run_id, handed.id, text))
        except Refused as refused:
            self._too_late(refused)
        if told.get("pending"):
            self._parked = parked.without(handed)
            self._show_open()
        else:
            await self._resume(parked)

    def _too_late(self, refused: Refused) -> None:
        """Somebody else answered, or nobody in time: said, and what came of it is seen next. Others are raised."""
        if refused.code != "not_open":
            raise refused
        self._screen.say(f"✗ {refused}", "red")

    def _waiting(self) -> Parked:
        if self._parked is None:
            raise CommandError("nothing in this thread waits for an answer")
        return self._parked

    async def _resume(self, parked: Parked) -> None:
        """See a run that waited go on, and then those that were queued behind it."""
        self._screen.rows([EMPTY])
        await self._watch(self._native.follow_run(parked.run_id, parked.last), parked.run_id, parked)
        await self._follow_queued()

    async def _follow_queued(self) -> None:
        """Runs of the thread in their order, until one waits for somebody."""
        while self._queued and self._parked is None:
            run_id = self._queued.pop(0)
            await self._watch(self._native.follow_run(run_id), run_id, question=True)

    # ---- threads

    async def _enter(self, thread_id: str) -> None:
        """Go on in a thread: its last messages, and what still runs in it to its end."""
        view = await self._heed(self._native.thread(thread_id))
        self._parked, self._queued = None, []
        self.thread_id, self._agent = str(view["id"]), str(view["agent_id"] or DEFAULT_AGENT)
        self._screen.say(
            " · ".join(part for part in (self._agent, story.short(view["title"] or "", 50)) if part), "dim"
        )
        messages = await self._heed(self._native.newest_messages(self.thread_id, _MESSAGES_LOOKED_AT))
        runs = [await self._heed(self._native.run(run_id)) for run_id in runs_of(messages)[-_RUNS_SHOWN:]]
        if len(runs_of(messages)) > len(runs) or view["message_count"] > len(messages):
            self._screen.say("… earlier messages are not shown", "dim")
        for run in runs:
            if run["status"] in ENDED:
                facts = await self._heed(self._native.facts(run["id"]))
                self._screen.rows([*past.rows(self._screen, facts, messages, self._screen.columns), EMPTY])
        self._queued = [str(run["id"]) for run in runs if run["status"] not in ENDED]
        await self._follow_queued()

    # ---- answers

    async def _say(self, text: str) -> None:
        attachments = encoded(self._files)
        if self.thread_id is None:
            made = await self._heed(self._native.new_thread(self._agent, story.short(text, 60)))
            self.thread_id = str(made["id"])
        self._screen.rows([EMPTY])
        frames = self._native.post(self.thread_id, text, attachments, started=self._started, sent=self._sending)
        await self._watch(frames, None)

    async def _watch(
        self,
        frames: AsyncIterator[Frame],
        run_id: str | None,
        parked: Parked | None = None,
        *,
        question: bool = False,
    ) -> None:
        """Show a run, until it ends or waits for somebody, while keys are listened to. Raises _Left on Ctrl-C. `run_id`
        None: `_started` will tell; while another run waits for an approval it is only queued."""
        self._running = run_id
        before = self._parked
        behind = run_id is None and before is not None
        open_ = () if parked is None else parked.open
        watch = self._watching = Watch(self._screen, asyncio.get_running_loop().time, HINT, open_)
        self._native.trouble = watch.trouble
        try:
            await self._heed(watch.run(frames, question=question, leaves=True, behind=behind))
            self._note(watch, before if behind else None)
        except _Stopped:
            self._screen.rows([EMPTY])
            self._goes_on = "the answer goes on; "
            raise _Left from None
        finally:
            self._native.trouble = lambda _: None
            self._watching = self._running = None
        self._screen.rows([EMPTY])

    def _note(self, watch: Watch, before: Parked | None) -> None:
        """Keep in mind what the run waits for, and say how that is answered."""
        run_id = self._running
        if before is not None and watch.queued and watch.ended is None and not watch.waits and run_id is not None:
            self._queued.append(run_id)
            self._screen.say("  queued: what waits is answered first", "dim")
            self._show_open()
        elif watch.waits and watch.ended is None and run_id is not None:
            self._parked = Parked(run_id, watch.last, tuple(watch.parked.values()))
            self._show_open()
        else:
            self._parked = None

    def _started(self, run_id: str) -> None:
        # It was accepted: whatever becomes of the answer, its files are sent.
        self._running, self._files = run_id, []

    async def _heed(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something while keys are listened to: what is typed ahead is kept, Ctrl-C raises _Stopped."""
        doing = asyncio.ensure_future(work)
        cancelling: list[asyncio.Task[None]] = []
        stopped = False

        def cancel() -> None:
            if self._watching is not None and self._running is not None and not cancelling:
                self._watching.cancelling()
                cancelling.append(asyncio.ensure_future(self._cancel_quietly(self._running)))

        def stop() -> None:
            nonlocal stopped
            stopped = True
            doing.cancel()

        try:
            with listening(sys.stdin.fileno(), self._typed, cancel, stop):
                return await doing
        except asyncio.CancelledError:
            if not stopped:
                raise
            raise _Stopped("stopped") from None
        finally:
            for task in cancelling:
                task.cancel()

    def _sending(self, done: int, total: int) -> None:
        if self._watching is not None:
            self._watching.sending(done, total)

    async def _cancel_quietly(self, run_id: str) -> None:
        # It may have ended meanwhile; how it ended is shown in any case.
        with suppress(CommandError):
            await self._native.cancel(run_id)


def named(agents: list[Json], name: str) -> str:
    """The id of the agent with this id or UUID. Raises CommandError."""
    for agent in agents:
        if name in (agent["id"], agent.get("uuid")):
            return str(agent["id"])
    known = ", ".join(story.clean(str(agent["id"])) for agent in agents)
    raise CommandError(f"there is no agent {name!r}; there are: {known}")


def told(agent: Json) -> str:
    """An agent in a few words."""
    return " — ".join(str(part) for part in (agent.get("name"), agent.get("description")) if part)
