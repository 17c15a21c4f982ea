"""Gateways and their clients over recorded stories, on a loop that stands still: hubs, feeds, channels and streams are
the real ones; when each reads, answers or takes anything is the script's to say. Below: `gateways`, `clients`,
`many_follower`, and what they stand on: `recorded`, `readings`, `shelf`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from parley_gateway.feed.rotation import RETRY_MS
from tests.support.still import StillLoop
from tests.unit.gateway.feed.clients import WHO, Client, Follower, Link
from tests.unit.gateway.feed.gateways import Gateway
from tests.unit.gateway.feed.many_follower import ManyFollower, Wish
from tests.unit.gateway.feed.readings import FAILURES, Past
from tests.unit.gateway.feed.recorded import part_of, recorded
from tests.unit.gateway.feed.shelf import Shelf
from tests.unit.gateway.feed.spoken import Words
from tests.unit.gateway.feed.stories import Story


class Stage:
    """Everything: what was written, history, gateways, clients, and what the script may do with them. The first story
    is what `ways` follow; the others are of threads beside it."""

    def __init__(
        self, chance: random.Random, stories: Sequence[Story], ways: list[tuple[Words, str]], wishes: list[Wish]
    ) -> None:
        self.loop = StillLoop()
        self.chance, self.stories, self.story = chance, stories, stories[0]
        self.partition, self.many = part_of(self.story.thread), bool(wishes)
        self.shelf = Shelf(held=chance.random() < 0.3)
        self.topics = recorded(chance, stories, self.shelf)
        self.past = Past(self.topics, stories, chance.choice([1, 3, 500]))
        self.followers = [Follower(self, words, run) for words, run in ways]
        self.many_followers = [ManyFollower(self, wish) for wish in wishes]
        self.clients: list[Client] = [*self.followers, *self.many_followers]
        self.gone: list[Link] = []
        self.gateways = [Gateway(self, chance) for _ in range(2)]

    # ---- what the script says: each takes two numbers

    def do(self, deed: int, a: int, b: int) -> None:
        """The script's next line."""
        DEEDS[deed % len(DEEDS)](self, a, b)

    def nothing(self, a: int, b: int) -> None:
        pass

    def write(self, a: int, b: int) -> None:
        self.topics.write(1 + a % 4)

    def flow(self, a: int, b: int) -> None:
        """Records are written and read at once, everywhere; at times the pieces before the facts, or after them."""
        self.topics.write(1 + a % 3)
        for events, pieces in (((1, 1),), ((0, 1), (1, 0)), ((1, 0), (0, 1)))[b % 3]:
            for gateway in self.gateways:
                gateway.release(events << 20, pieces << 20, self.topics.used)
            self.settle(a, b)

    def events(self, a: int, b: int) -> None:
        self.gateways[a % 2].release(1 + b % 5, 0, self._some(a // 2))

    def pieces(self, a: int, b: int) -> None:
        self.gateways[a % 2].release(0, 1 + b % 5, self._some(a // 2))

    def all_of_one(self, a: int, b: int) -> None:
        self.gateways[a % 2].release(1 << 20, 1 << 20, self._some(b))

    def _some(self, a: int) -> list[int]:
        """One of the partitions."""
        return [self.topics.used[a % len(self.topics.used)]]

    def connect(self, a: int, b: int) -> None:
        client, gateway = self.clients[a % len(self.clients)], self.gateways[0 if b % 4 else 1]
        client.look()
        if client.link is None and not client.finished and gateway.takes:
            client.come(gateway)

    def everyone(self, a: int, b: int) -> None:
        for client in range(len(self.clients)):
            self.connect(client, a)

    def leave(self, a: int, b: int) -> None:
        self.clients[a % len(self.clients)].go(b % 7)

    def hold(self, a: int, b: int) -> None:
        """A client takes nothing for a while."""
        link = self.clients[a % len(self.clients)].link
        if link is not None:
            link.open.clear()
            link.paused = True

    def take(self, a: int, b: int) -> None:
        for client in self.clients if a % 2 else [self.clients[b % len(self.clients)]]:
            if client.link is not None:
                client.link.open.set()

    def history_waits(self, a: int, b: int) -> None:
        self.past.held = True

    def history_answers(self, a: int, b: int) -> None:
        self.past.let_go()

    def history_fails(self, a: int, b: int) -> None:
        self.past.fails = [FAILURES[a % len(FAILURES)]()]

    def history_folds(self, a: int, b: int) -> None:
        self.past.fold(self._some(b)[0], 1 + a % 9)

    def shelf_waits(self, a: int, b: int) -> None:
        self.shelf.held = True

    def shelf_answers(self, a: int, b: int) -> None:
        """One of those who wait for contents has an answer; whoever asks afterwards has one at once, perhaps."""
        self.shelf.answer(a)
        self.shelf.held = self.shelf.held and b % 3 > 0

    def shelf_fails(self, a: int, b: int) -> None:
        self.shelf.away = True

    def shelf_is_back(self, a: int, b: int) -> None:
        self.shelf.away = False

    def rotate(self, a: int, b: int) -> None:
        """A stream is ended early, wherever it is, and told when to come back."""
        client = self.clients[a % len(self.clients)]
        client.look()
        if client.link is not None and client.link.stream is not None:
            client.link.stream.rotate(RETRY_MS[0] + b)

    def drain(self, a: int, b: int) -> None:
        """A gateway is told to stop: its streams end at once, or in their turn."""
        self.loop.call_soon(self.gateways[a % 2].drain, (0.0, 4.0)[b % 2])
        self.loop.turn()

    def restart(self, a: int, b: int) -> None:
        """A gateway goes, cleanly or not, and another comes in its place."""
        gateway = self.gateways[a % 2]
        if b % 2:
            gateway.hub.drain()
            self.loop.turn(b % 5)
        self.replace(a % 2, b % 5)

    def replace(self, place: int, cut: int) -> None:
        """A gateway is gone, with all its connections, and another stands in its place."""
        gateway = self.gateways[place]
        gateway.stop()
        for client in self.clients:
            client.look()
            if client.link is not None and client.link.gateway is gateway:
                assert client.link.task is not None
                client.link.task.cancel()
                client.go(cut)
        self.gateways[place] = Gateway(self, self.chance)

    def revoke(self, a: int, b: int) -> None:
        self.gateways[a % 2].hub.close_owned_by(WHO.key_id)

    def some_time(self, a: int, b: int) -> None:
        self.loop.pass_time((0.01, 1.0, 6.0, 16.0, 31.0)[a % 5])

    def turn(self, a: int, b: int) -> None:
        self.loop.turn(1 + a % 4)

    def settle(self, a: int, b: int) -> None:
        self.loop.settle()
        for gateway in self.gateways:
            gateway.look()

    # ---- the end

    def finish(self) -> None:
        """Let everything be written, read and answered, and every client come back until it has all."""
        self.past.let_go()
        self.past.fails = []
        self.shelf.open()
        self.topics.write(1 << 30)
        for place, gateway in enumerate(self.gateways):
            if gateway.hub.draining:
                self.replace(place, 0)
        for rounds in range(40):
            for gateway in self.gateways:
                gateway.release(1 << 20, 1 << 20, self.topics.used)
            self.loop.settle()
            for place, client in enumerate(self.clients):
                client.look()
                if client.link is not None:
                    client.link.open.set()
                elif not client.finished:
                    client.come(self.gateways[(place + rounds) % 2])
            self.loop.settle()
            self.loop.pass_time(1.0)
            for client in self.clients:
                client.look()
            if all(client.finished or (client.endless and client.whole) for client in self.clients):
                break
        else:
            waits = [(client.name, client.frames[-1:]) for client in self.clients if not client.finished]
            raise AssertionError(f"these never came to the end: {waits}")
        assert not any(client.link is not None and client.link.rotated for client in self.clients), "one was not ended"
        self.loop.pass_time(3.0)
        for gateway in self.gateways:
            gateway.look(whole=True)

    def close(self) -> None:
        """All clients leave; nothing of them may be left."""
        for client in self.clients:
            client.go(0)
        self.loop.pass_time(40.0)
        for link in self.gone:
            assert link.task is not None and link.task.done(), "a stream goes on without its client"
        for gateway in self.gateways:
            gateway.dismiss()
            assert gateway.hub.listening == 0 and not gateway.hub._muted and len(gateway.channels) == 0
            assert gateway.hub.counts.streams == 0 and len(gateway.many_channels) == 0

    def end(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.settle()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


DEEDS: tuple[Callable[[Stage, int, int], None], ...] = (
    Stage.nothing,
    *(Stage.write,) * 3,
    *(Stage.flow,) * 10,
    *(Stage.events,) * 4,
    *(Stage.pieces,) * 4,
    *(Stage.all_of_one,) * 3,
    *(Stage.connect,) * 6,
    *(Stage.everyone,) * 4,
    *(Stage.leave,) * 4,
    *(Stage.hold,) * 5,
    *(Stage.take,) * 3,
    Stage.history_waits,
    *(Stage.history_answers,) * 3,
    Stage.history_fails,
    Stage.history_folds,
    *(Stage.shelf_waits,) * 2,
    *(Stage.shelf_answers,) * 4,
    Stage.shelf_fails,
    *(Stage.shelf_is_back,) * 2,
    *(Stage.rotate,) * 4,
    *(Stage.drain,) * 2,
    Stage.restart,
    Stage.revoke,
    *(Stage.some_time,) * 2,
    *(Stage.turn,) * 3,
    *(Stage.settle,) * 5,
)
"""What the script may say, as often as it is to be said."""
