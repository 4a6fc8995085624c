"""Clients of every kind that come back wherever a server is, and how far behind the acknowledgements they are."""

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
from tests.faults.stand import Where
from tests.harness import UNIT, Json, Replica, rest_client
from tests.rooms.client import Text, Wire

LOOK = 0.02
PATIENCE = 60.0
"""Seconds that an operation may take."""


class Feed(Replica):
    """Follows `/ws`."""

    def __init__(self, where: Where) -> None:
        super().__init__(where(), type(self).__name__.lower())
        self._where = where
        self.backwards = 0
        """Events older than what it had."""

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
    """Follows `/events`."""

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
    """Follows `/changes`."""

    async def _stay(self) -> None:
        self.url = self._where()
        with contextlib.suppress(TimeoutError):
            if self.cursor is None:
                await self._snapshot()
            async with rest_client(self.url) as rest:
                self._live.set()  # nothing after its cursor is missed
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
    """A text that knows how much of what was typed is safe: it, or an update that holds it, came back."""

    def __init__(self) -> None:
        super().__init__()
        self.typed = 0
        self.safe = 0
        self._marks: dict[bytes, int] = {}
        self._had = 0

    def edit(self, wanted: str) -> bytes:
        """Makes another text of it; returns the message for the server."""
        message = super().edit(wanted)
        self.typed += 1
        self._marks[self.written[-1]] = self.typed
        return message

    def take(self, message: bytes) -> bytes | None:
        """Takes a message of the server, and returns the answer to it, if any."""
        synced = self.synced
        answer = super().take(message)
        if answer is not None:  # what the server lacks goes to it as one update
            payload = _payload(answer)
            if payload == crdt.EMPTY_UPDATE:
                self._had = self.typed
            else:
                self._marks[payload] = self.typed
        elif self.synced > synced:  # what the server had then is durable now
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
    """Types tokens into the text of a note, each once the one before is safe."""

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
        """Types, with a pause after each token, until it is to stop."""
        while not stop.is_set():
            await self.word()
            await asyncio.sleep(pause)

    async def word(self) -> None:
        """Types a token, and waits until it is safe."""
        token = self._ledger.token("c")
        self._ledger.unknown.add(token)
        await self.append(f"{token};")
        await self.safe()
        self._ledger.acknowledge(token)

    async def safe(self) -> None:
        """Waits until all that was typed is."""
        async with asyncio.timeout(PATIENCE * UNIT):
            while self.typed.safe < self.typed.typed:
                await asyncio.sleep(0.005)


class Watch:
    """Measures how long each client takes to have what was acknowledged."""

    def __init__(self, replicas: Sequence[Feed]) -> None:
        self.seconds: list[float] = []
        self.deleted: set[int] = set()
        self._waiting: list[tuple[Feed, deque[tuple[float, int, int]]]] = [(one, deque()) for one in replicas]

    def acknowledged(self, note: int, version: int) -> None:
        """A version of a note was acknowledged now."""
        at = time.monotonic(), note, version
        for _, waiting in self._waiting:
            waiting.append(at)

    def look(self) -> None:
        """Takes the time of all that have come."""
        now = time.monotonic()
        for replica, waiting in self._waiting:
            while waiting and self._has(replica, *waiting[0][1:]):
                self.seconds.append(now - waiting.popleft()[0])

    def _has(self, replica: Feed, note: int, version: int) -> bool:
        # Who starts over does not hear of the versions of what is gone.
        return replica.versions.get(note, 0) >= version or (note in self.deleted and note not in replica.notes)

    @property
    def waiting(self) -> int:
        """How much has not come to all."""
        return sum(len(waiting) for _, waiting in self._waiting)

    def has_all_until(self, moment: float) -> bool:
        """Whether all have what was acknowledged before a moment."""
        self.look()
        return all(not waiting or waiting[0][0] > moment for _, waiting in self._waiting)

    @property
    def lag(self) -> float:
        """For how many seconds the oldest of it waits."""
        now = time.monotonic()
        return max((now - waiting[0][0] for _, waiting in self._waiting if waiting), default=0.0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks from time to time, while the block lasts."""

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
    """So many clients of each kind that follows the feed."""
    async with AsyncExitStack() as stack:
        clients = [kind(where) for kind in KINDS for _ in range(many)]
        yield [await stack.enter_async_context(client) for client in clients]
