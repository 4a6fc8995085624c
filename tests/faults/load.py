"""The load of a scenario: writers over REST that record the outcome of every operation, and other clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import urlsplit

from realtime.settings import Settings
from tests.faults.clients import PATIENCE, Feed, Typist, Watch, audience
from tests.faults.ledger import Auditor, Broken, Ledger
from tests.faults.scenario import Figures, Run
from tests.faults.testbed import Where
from tests.support.harness import UNIT, Json, all_notes, eventually, note_in

LATEST = 20
"""The number of recent notes that get most of the writes, so that writes conflict."""
SLOWEST = 10
"""The rate of all writers together, in writes per second."""


class NotSent(Exception):
    """The operation was not sent, because there was no connection."""


class Caller:
    """A persistent connection for one call at a time. A new connection may go to a different server."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = None

    async def call(self, method: str, path: str, body: Any, headers: Json) -> tuple[int, Any]:
        """Send a request, and return the status and the body.

        Raises:
            NotSent: The request was not sent.
            OSError: The outcome is unknown.
        """
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            to = urlsplit(self._where())
            try:
                self._streams = await asyncio.open_connection(to.hostname, to.port)
            except OSError as error:
                raise NotSent from error
        reader, writer = self._streams
        encoded = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
        lines += [f"Content-Length: {len(encoded)}", *(f"{name}: {value}" for name, value in headers.items())]
        try:
            async with asyncio.timeout(PATIENCE * UNIT):
                writer.write("\r\n".join([*lines, "", ""]).encode() + encoded)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.partition("content-length:")[2].split()[0])
                answer = await reader.readexactly(size)
        except (asyncio.IncompleteReadError, TimeoutError) as error:
            self.close()
            raise ConnectionResetError from error
        except BaseException:
            self.close()
            raise
        if "connection: close" in head:
            self.close()
        return int(head.split()[1]), json.loads(answer)


class Writers:
    """Writers of new notes, descriptions and appended text until stopped. Half of the writes are retried with a key."""

    def __init__(self, where: Where, ledger: Ledger, random: Random, watch: Watch) -> None:
        self._where = where
        self._ledger = ledger
        self._random = random
        self._watch = watch
        self.notes: list[int] = []
        self._brief: list[int] = []
        """Notes that will be deleted and that no writer changes."""
        self._moved = asyncio.Event()
        self.stop = asyncio.Event()
        self.pause = 0.0
        self.times: list[float] | None = None
        """If it is a list, the times of acknowledged operations in seconds are added to it."""
        self.refused = 0
        self.unanswered = 0
        self.gap = 0.0
        """The longest time between two acknowledgements, in seconds."""
        self._last = time.monotonic()

    async def make(self) -> int:
        """Create a note for all writers."""
        token = self._ledger.token("d")
        caller = Caller(self._where)
        status, note = await caller.call("POST", "/notes/", note_in("shared", token), {})
        caller.close()
        assert status == 201, note
        self._acknowledge(token, note)
        return int(note["id"])

    async def write(self) -> None:
        """Run one writer."""
        caller = Caller(self._where)
        try:
            while not self.stop.is_set():
                await self._operation(caller)
                if self._random.random() < 0.02:  # on another server
                    caller.close()
                await asyncio.sleep(self.pause)
        finally:
            caller.close()

    async def _operation(self, caller: Caller) -> None:
        kind = self._random.random()
        if not self.notes or kind < 0.02:
            token = self._ledger.token("d")
            request: tuple[str, str, Any] = "POST", "/notes/", note_in("made", token)
        elif kind < 0.03 and self._brief:
            token = self._ledger.token("x")
            request = "DELETE", f"/notes/{self._brief.pop()}/", None
        else:
            note = self._random.choice(self.notes[-LATEST:] if kind < 0.8 else self.notes)
            if self._random.random() < 0.7:
                token = self._ledger.token("d")
                request = "PUT", f"/notes/{note}/", note_in("written", token)
            else:
                token = self._ledger.token("c")
                request = "POST", f"/notes/{note}/content", [{"op": "append", "text": f"{token};"}]
        again = self._random.random() < 0.5
        headers = {"Idempotency-Key": f'"{token}-{self._random.getrandbits(64)}"'} if again else {}
        await self._call(caller, token, request, headers, again=again)

    async def _call(
        self, caller: Caller, token: str, request: tuple[str, str, Any], headers: Json, *, again: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                status, answer = await caller.call(*request, headers)
            except NotSent:
                self.unanswered += 1
            except OSError:
                self.unanswered += 1
                self._ledger.unknown.add(token)
            else:
                if status in (200, 201):
                    self._acknowledge(token, answer)
                    if self.times is not None:
                        self.times.append(loop.time() - started)
                    return
                if status != 503:
                    raise Broken(f"{request} was answered with {status} {answer}")
                self.refused += 1
                self._ledger.unknown.add(token)
            if self.stop.is_set() or not again:
                return
            await asyncio.sleep(0.05)

    def _acknowledge(self, token: str, note: Json) -> None:
        id, version = note["id"], note["version"]
        if token.startswith("x"):  # the response to a deletion has the deleted note
            self._ledger.deleted.add(id)
            self._watch.deleted.add(id)
            version += 1
        else:
            self._ledger.acknowledge(token, id, version)
        if version == 1 and note["description"] == token:
            brief = note["title"] == "made" and self._random.random() < 0.5
            (self._brief if brief else self.notes).append(id)
        self._watch.acknowledged(id, version)
        now = time.monotonic()
        self.gap, self._last = max(self.gap, now - self._last), now
        self._moved.set()

    async def refusal(self) -> None:
        """Wait until another operation is rejected."""
        before = self.refused
        await eventually(lambda: self.refused > before, within=PATIENCE)

    async def more(self, writes: int) -> None:
        """Wait until a number of additional operations are acknowledged."""
        goal = len(self._ledger.ok) + writes
        async with asyncio.timeout((PATIENCE + writes / SLOWEST) * UNIT):
            while len(self._ledger.ok) < goal:
                self._moved.clear()
                await self._moved.wait()


class Crowd:
    """All load of a scenario: writers, typing clients, clients of every kind, and the checks."""

    def __init__(self, where: Where, auditor: Auditor, replicas: Sequence[Feed], random: Random) -> None:
        self._where = where
        self._auditor = auditor
        self.replicas = replicas
        self.ledger = Ledger()
        self.watch = Watch(replicas)
        self.writers = Writers(where, self.ledger, random, self.watch)
        self.typists: list[Typist] = []
        self.figures = Figures()

    async def come(self, typists: int) -> AsyncExitStack:
        """Create the first notes, and connect a number of typing clients to one of them until the stack is closed."""
        for _ in range(LATEST):
            note = await self.writers.make()
        async with AsyncExitStack() as stack:
            for _ in range(typists):
                self.typists.append(await stack.enter_async_context(Typist(self._where, note, self.ledger)))
            return stack.pop_all()

    @asynccontextmanager
    async def writing(self, writers: int, pause: float) -> AsyncIterator[None]:
        """Run the writers and the typing clients while the block runs."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(writers):
                tasks.create_task(self.writers.write())
            for typist in self.typists:
                tasks.create_task(typist.type(self.writers.stop, pause))
            try:
                yield
            finally:
                self.writers.stop.set()

    async def check(self, within: float) -> None:
        """Check MongoDB, and all clients within a number of seconds. Raise :class:`Broken` if their state is wrong."""
        figures = self.figures
        figures.acknowledged, figures.unknown = len(self.ledger.ok) + len(self.ledger.deleted), len(self.ledger.unknown)
        stored = await self._auditor.check(self.ledger, figures)

        async def behind() -> list[str]:
            self.watch.look()
            notes = await all_notes(self._where())
            if {id: note["content"] for id, note in notes.items()} != {
                id: note["content"] for id, note in stored.items() if not note["deleted"]
            }:
                return ["GET /notes/"]
            late = [replica.name for replica in self.replicas if replica.notes != notes]
            for typist in self.typists:
                text, content = str(typist.text), stored[typist.note]["content"]
                if text != content:
                    lacks = {what: sorted(a - b) for what, a, b in _apart(content, text)}
                    late.append(f"/sync/{typist.note} {lacks} {typist.codes}")
            return late

        late: list[str] = []

        async def agree() -> bool:
            nonlocal late
            late = await behind()
            return not late and not self.watch.waiting

        try:
            await eventually(agree, within)
        except AssertionError:
            figures.unconverged = len(late)
            raise Broken(f"after {within} s without what MongoDB has: {late}") from None
        figures.converged(self.watch.seconds)


def _apart(content: str, text: str) -> list[tuple[str, set[str], set[str]]]:
    one, other = set(content.split(";")), set(text.split(";"))
    return [("lacks", one, other), ("has more", other, one)]


@asynccontextmanager
async def crowd(
    run: Run,
    where: Where,
    settings: Settings,
    *,
    writers: int | None = None,
    each: int | None = None,
    typists: int | None = None,
    pause: float | None = None,
    within: float = 20.0,
    readers: Where | None = None,
) -> AsyncIterator[Crowd]:
    """Run load while the block runs, and check the result after it.

    By default there are eight writers, two typing clients, and two clients of each kind; half of that in a slice.
    Clients connect to the servers of the writers, or to ``readers``.

    Raises:
        Broken: A guarantee was broken.
    """
    half = 1 if run.thorough else 2
    # A text of only unique words makes the text index slow, so it must not grow too long in a long run.
    pause = pause or (0.25 if run.thorough else 0.05)
    writers = 8 // half if writers is None else writers
    each, typists = (2 // half if many is None else many for many in (each, typists))
    async with Auditor(settings) as auditor, audience(readers or where, each) as replicas:
        crowd = Crowd(where, auditor, replicas, run.random)
        async with crowd.watch.running(), await crowd.come(typists):
            async with crowd.writing(writers, pause):
                yield crowd
            await crowd.check(within)
