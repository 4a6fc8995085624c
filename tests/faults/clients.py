"""Clients of all kinds that reconnect to any server, and the delay after which they receive acknowledged writes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from realtime.rooms import crdt
from realtime.rooms.lib0 import Reader
from tests.faults.ledger import Ledger
from tests.faults.testbed import Where
from tests.support.harness import UNIT, Json, Replica, rest_client
from tests.support.room_client import Text, Wire

LOOK = 0.02
PATIENCE = 60.0
"""The timeout of an operation in seconds."""


class Feed(Replica):
    """A client of `/ws`."""

    def __init__(self, where: Where) -> None:
        super().__init__(where(), type(self).__name__.lower())
        self._where = where
        self.backwards = 0
        """The number of events with a lower version than the replica."""

    async def _stay(self) -> None:
        self.url = self._where()
        with contextlib.suppress(TimeoutError):
            await super()._stay()

    async def _apply(self, frame: Json) -> None:
        if "version" in frame:
            self.backwards += frame["version"] < self.versions.get(frame["id"], 0)
        await super()._apply(frame)
        self.frames.clear()


class Events(Feed):
    """A client of `/events`."""

    async def _stay(self) -> None:
        self.url = self._where()
        with contextlib.suppress(TimeoutError):
            if self.cursor is None:
                await self._snapshot()
            headers = {"Last-Event-ID": self.cursor or ""}
            async with rest_client(self.url) as rest, rest.stream("GET", "/events", headers=headers) as answer:
                if answer.status_code != 200:
                    return
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        await self._apply(json.loads(line[6:]))


class Poll(Feed):
    """A client of `/changes`."""

    async def _stay(self) -> None:
        self.url = self._where()
        with contextlib.suppress(TimeoutError):
            if self.cursor is None:
                await self._snapshot()
            async with rest_client(self.url) as rest:
                self._live.set()  # no event after its cursor is missed
                while True:
                    answer = await rest.get("/changes", params={"since": self.cursor, "timeout": 5})
                    if answer.status_code != 200:
                        return
                    told = answer.json()
                    for frame in told["changes"]:
                        await self._apply(frame)
                    self.cursor = told["cursor"]
                    if told["reset"]:
                        self.resets += 1
                        await self._snapshot()


KINDS = (Feed, Events, Poll)


class Typed(Text):
    """A text that tracks which of its updates are durable because the server sent them back."""

    def __init__(self) -> None:
        super().__init__()
        self.typed = 0
        self.safe = 0
        self._marks: dict[bytes, int] = {}
        self._had = 0

    def edit(self, wanted: str) -> bytes:
        """Change the text, and return the message for the server."""
        message = super().edit(wanted)
        self.typed += 1
        self._marks[self.written[-1]] = self.typed
        return message

    def take(self, message: bytes) -> bytes | None:
        """Apply a message of the server, and return the response, if any."""
        synced = self.synced
        answer = super().take(message)
        if answer is not None:  # everything that the server lacks is sent as one update
            payload = _payload(answer)
            if payload == crdt.EMPTY_UPDATE:
                self._had = self.typed
            else:
                self._marks[payload] = self.typed
        elif self.synced > synced:  # everything that the server had at that time is durable
            self.safe = max(self.safe, self._had)
        elif message[:1] == b"\0" and (mark := self._marks.pop(_payload(message), None)):
            self.safe = max(self.safe, mark)
        return answer


def _payload(message: bytes) -> bytes:
    reader = Reader(message)
    reader.number(3)
    reader.number(2)
    return reader.array()


class Typist(Wire):
    """Types tokens into the text of a note, each after the previous one is durable."""

    def __init__(self, where: Where, note: int, ledger: Ledger) -> None:
        self.typed = Typed()
        super().__init__(where(), note, self.typed)
        self._where = where
        self.note = note
        self._ledger = ledger

    async def _stay(self) -> None:
        self.url = f"{self._where().replace('http', 'ws', 1)}/sync/{self.note}"
        with contextlib.suppress(TimeoutError):
            await super()._stay()

    async def type(self, stop: asyncio.Event, pause: float) -> None:
        """Type until the event is set, with a pause after each token."""
        while not stop.is_set():
            await self.word()
            await asyncio.sleep(pause)

    async def word(self) -> None:
        """Type a token, and wait until it is durable."""
        token = self._ledger.token("c")
        self._ledger.unknown.add(token)
        await self.append(f"{token};")
        await self.safe()
        self._ledger.acknowledge(token)

    async def safe(self) -> None:
        """Wait until everything that was typed is durable."""
        async with asyncio.timeout(PATIENCE * UNIT):
            while self.typed.safe < self.typed.typed:
                await asyncio.sleep(0.005)


class Watch:
    """Measures the time until each client has an acknowledged write."""

    def __init__(self, replicas: Sequence[Feed]) -> None:
        self.seconds: list[float] = []
        self.deleted: set[int] = set()
        self._waiting: list[tuple[Feed, deque[tuple[float, int, int]]]] = [(one, deque()) for one in replicas]

    def acknowledged(self, note: int, version: int) -> None:
        """Record that a version of a note was acknowledged now."""
        at = time.monotonic(), note, version
        for _, waiting in self._waiting:
            waiting.append(at)

    def look(self) -> None:
        """Record the time for all clients that have received acknowledged versions."""
        now = time.monotonic()
        for replica, waiting in self._waiting:
            while waiting and self._has(replica, *waiting[0][1:]):
                self.seconds.append(now - waiting.popleft()[0])

    def _has(self, replica: Feed, note: int, version: int) -> bool:
        # A client that starts over does not receive the versions of deleted notes.
        return replica.versions.get(note, 0) >= version or (note in self.deleted and note not in replica.notes)

    @property
    def waiting(self) -> int:
        """The number of acknowledged versions that some clients have not received."""
        return sum(len(waiting) for _, waiting in self._waiting)

    def has_all_until(self, moment: float) -> bool:
        """Return whether all clients have the versions that were acknowledged before a time."""
        self.look()
        return all(not waiting or waiting[0][0] > moment for _, waiting in self._waiting)

    @property
    def lag(self) -> float:
        """Return the age in seconds of the oldest version that some clients have not received."""
        now = time.monotonic()
        return max((now - waiting[0][0] for _, waiting in self._waiting if waiting), default=0.0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Check the clients periodically while the block runs."""

        async def run() -> None:
            while True:
                self.look()
                await asyncio.sleep(LOOK)

        task = asyncio.create_task(run())
        try:
            yield
        finally:
            task.cancel()


@asynccontextmanager
async def audience(where: Where, many: int) -> AsyncIterator[list[Feed]]:
    """Run a number of clients of each kind that follows the feed."""
    async with AsyncExitStack() as stack:
        clients = [kind(where) for kind in KINDS for _ in range(many)]
        yield [await stack.enter_async_context(client) for client in clients]
