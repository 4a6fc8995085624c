"""Who is looking at which note, on all workers. Nothing is stored: it is told again, or forgotten."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel, JsonValue, ValidationError

from realtime.errors import BusUnavailable
from realtime.events import PresenceShown, encode
from realtime.frames import Frame

if TYPE_CHECKING:
    from realtime.client import Client
    from realtime.hub import Hub

log = logging.getLogger(__name__)

State = dict[str, JsonValue]

FLUSH_INTERVAL = 0.1
TELL_INTERVAL = 10.0
FORGET_AFTER = 3 * TELL_INTERVAL
MAX_NOTES = 32
MAX_STATE = 4096
SHOWN = 100


class Told(BaseModel):
    """What one worker tells the others: all who look at a note through it."""

    worker: str
    note: int
    people: list[State]


class Presence:
    """The states that clients set, here and on the other workers, shown to those who look at the same note."""

    def __init__(self, hub: Hub, tell: Callable[[bytes], Awaitable[None]]) -> None:
        self._hub = hub
        self._tell = tell
        self._worker = secrets.token_hex(6)
        self._here: dict[int, dict[Client, State]] = {}
        self._elsewhere: dict[int, dict[str, tuple[float, list[State]]]] = {}
        self._changed: set[int] = set()

    def look(self, client: Client, note: int, state: State | None) -> None:
        """Notes what a client shows on a note, with accounts under its user's name; ``None`` when it looks away.

        Raises ``ValueError`` if it is too much.
        """
        if state is None:
            self._drop(client, note)
            return
        if client.viewer.shown_as is not None:
            state = {**state, "name": client.viewer.shown_as}
        if len(json.dumps(state)) > MAX_STATE:
            raise ValueError(f"state: must be at most {MAX_STATE} bytes")
        here = self._here.setdefault(note, {})
        if client not in here and sum(client in clients for clients in self._here.values()) >= MAX_NOTES:
            raise ValueError(f"id: presence on more than {MAX_NOTES} notes")
        here[client] = state
        self._changed.add(note)

    def check(self, note: int) -> None:
        """Forgets who looked at a note and may not see it any more."""
        for client in [client for client in self._here.get(note, ()) if not client.sees(note)]:
            self._drop(client, note)

    def leave(self, client: Client) -> None:
        """Forgets a client."""
        for note in [note for note, clients in self._here.items() if client in clients]:
            self._drop(client, note)

    def _drop(self, client: Client, note: int) -> None:
        if self._here.get(note, {}).pop(client, None) is not None:
            self._changed.add(note)

    def people(self, note: int) -> list[State]:
        """The states on a note, of all workers, the first of them if they are many."""
        people = list(self._here.get(note, {}).values())
        for _, states in self._elsewhere.get(note, {}).values():
            people += states
        return people[:SHOWN]

    def frame(self, note: int) -> Frame:
        """What is shown of a note."""
        return Frame(encode(PresenceShown(id=note, people=self.people(note))), key=("presence", note))

    def heard(self, data: bytes) -> None:
        """Takes over what another worker told."""
        try:
            told = Told.model_validate_json(data)
        except ValidationError:
            log.warning("unreadable presence", exc_info=True)
            return
        if told.worker == self._worker:
            return
        workers = self._elsewhere.setdefault(told.note, {})
        before = workers.get(told.worker, (0, []))[1]
        if told.people:
            workers[told.worker] = (asyncio.get_running_loop().time() + FORGET_AFTER, told.people)
        else:
            workers.pop(told.worker, None)
            if not workers:
                del self._elsewhere[told.note]
        if before != told.people:
            self._show(told.note)

    def _show(self, note: int) -> None:
        self._hub.tell(note, self.frame(note), self._here.get(note, ()))

    async def run(self) -> None:
        """Tells the others what changed here, and now and then everything, for ever."""
        loop = asyncio.get_running_loop()
        tell_all = loop.time() + TELL_INTERVAL
        while True:
            await asyncio.sleep(FLUSH_INTERVAL)
            if loop.time() > tell_all:
                tell_all = loop.time() + TELL_INTERVAL
                self._forget(loop.time())
                await self._tell_others(set(self._here))
            changed, self._changed = self._changed, set()
            for note in changed:
                self._show(note)
            await self._tell_others(changed)

    async def aclose(self) -> None:
        """Tells the others that nobody looks through this worker any more."""
        notes = set(self._here)
        self._here.clear()
        await self._tell_others(notes)

    async def _tell_others(self, notes: set[int]) -> None:
        for note in notes:
            people = list(self._here.get(note, {}).values())[:SHOWN]
            if not people:
                self._here.pop(note, None)
            try:
                await self._tell(Told(worker=self._worker, note=note, people=people).model_dump_json().encode())
            except BusUnavailable:
                return  # told again within TELL_INTERVAL

    def _forget(self, now: float) -> None:
        for note in list(self._elsewhere):
            workers = self._elsewhere[note]
            for worker in [worker for worker, (until, _) in workers.items() if until < now]:
                del workers[worker]
                self._changed.add(note)
            if not workers:
                del self._elsewhere[note]
