"""The people who look at each note, on all workers. Nothing is stored: it is repeated, or forgotten.

A client that begins to look at a note receives the list of people there, and from then on each change of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import count
from typing import TYPE_CHECKING

from pydantic import BaseModel, JsonValue, ValidationError

from realtime.core.frames import Frame
from realtime.core.token_bucket import TokenBucket
from realtime.errors import BusUnavailable, TooManyRequests
from realtime.feed.codec import encode
from realtime.feed.messages import PresenceChanged, PresenceShown

if TYPE_CHECKING:
    from realtime.feed.hub import Hub
    from realtime.feed.subscriber import Subscriber

log = logging.getLogger(__name__)

State = dict[str, JsonValue]

FLUSH_INTERVAL = 0.1
SPREAD_BYTES_PER_SECOND = 64 * 1024
"""Changes at one note that each client is sent. After more than that, the next ones are collected for longer."""
TELL_INTERVAL = 10.0
FORGET_AFTER = 3 * TELL_INTERVAL
MAX_NOTES = 32
MAX_STATE_BYTES = 1024
MAX_SHOWN = 100
"""People that are shown at one note, those who are signed in before all others."""
CHANGES_PER_SECOND = 10
CHANGES_BURST = 100
LARGE_BYTES = 4096
"""Bytes of a list that count as one change more, when it is sent to a client that begins to look."""


class PresenceEntry(BaseModel):
    """One client that looks at a note."""

    state: State
    user: bool
    """Whether it is signed in."""


People = Mapping[str, PresenceEntry]


class PresenceMessage(BaseModel):
    """A message between workers: the people who look at a note through one of them, or the changes among them."""

    worker: str
    note: int
    people: dict[str, PresenceEntry | None]
    whole: bool


class Presence:
    """The states that clients set, here and on the other workers, shown to those who look at the same note."""

    def __init__(self, hub: Hub, tell: Callable[[bytes], Awaitable[None]]) -> None:
        self._hub = hub
        self._tell = tell
        self._worker = secrets.token_hex(6)
        self._numbers = count(1)
        self._here: dict[int, dict[Subscriber, tuple[str, PresenceEntry]]] = {}
        self._elsewhere: dict[int, dict[str, tuple[float, dict[str, PresenceEntry]]]] = {}
        self._shown: dict[int, People] = {}
        self._told: dict[int, People] = {}
        self._changed: set[int] = set()
        self._resting: dict[int, float] = {}
        self._allowances: dict[Subscriber, TokenBucket] = {}

    def set_state(self, client: Subscriber, note: int, state: State | None) -> None:
        """Show a client's state on a note, with accounts under its user's name; ``None`` ends that.

        Raises:
            ValueError: The state is too large, or the client looks at too many notes.
            TooMany: The client changes its state too often.
        """
        self._charge(client, 1)
        if state is None:
            self._drop(client, note)
            return
        if client.principal.shown_as is not None:
            state = {**state, "name": client.principal.shown_as}
        if len(json.dumps(state)) > MAX_STATE_BYTES:
            raise ValueError(f"state: must be at most {MAX_STATE_BYTES} bytes")
        here = self._here.get(note, {})
        id, _ = here.get(client, ("", None))
        if not id:
            if sum(client in clients for clients in self._here.values()) >= MAX_NOTES:
                raise ValueError(f"id: presence on more than {MAX_NOTES} notes")
            id = f"{self._worker}-{next(self._numbers)}"
            self._begin(client, note)
        here[client] = (id, PresenceEntry(state=state, user=client.principal.name is not None))
        self._here[note] = here
        self._changed.add(note)

    def _begin(self, client: Subscriber, note: int) -> None:
        """Send the list of people to a client that begins to look, unless it has the list already."""
        if client.notes is None or note not in client.notes:
            frame = self.frame(note)
            self._charge(client, frame.size // LARGE_BYTES)
            client.offer(frame)

    def _charge(self, client: Subscriber, cost: float) -> None:
        now = asyncio.get_running_loop().time()
        allowance = self._allowances.get(client)
        if allowance is None:
            allowance = self._allowances[client] = TokenBucket(CHANGES_PER_SECOND, CHANGES_BURST, now)
        if not allowance.consume(cost, now):
            raise TooManyRequests(1.0)

    def check(self, note: int) -> None:
        """Remove the clients that look at a note and may not see it any more."""
        for client in [client for client in self._here.get(note, ()) if not client.sees(note)]:
            self._drop(client, note)

    def leave(self, client: Subscriber) -> None:
        """Remove a client."""
        self._allowances.pop(client, None)
        for note in [note for note, clients in self._here.items() if client in clients]:
            self._drop(client, note)

    def _drop(self, client: Subscriber, note: int) -> None:
        if self._here.get(note, {}).pop(client, None) is not None:
            self._changed.add(note)

    def people(self, note: int) -> list[State]:
        """Return the states that are shown at a note."""
        return [person.state for person in self._shown.get(note, {}).values()]

    def frame(self, note: int) -> Frame:
        """Return the message with the people at a note."""
        people = {id: person.state for id, person in self._shown.get(note, {}).items()}
        return Frame(encode(PresenceShown(id=note, people=people)), key=("presence", note))

    def receive(self, data: bytes) -> None:
        """Take over the people, or changes among them, that another worker sent."""
        try:
            told = PresenceMessage.model_validate_json(data)
        except ValidationError:
            log.warning("unreadable presence", exc_info=True)
            return
        if told.worker == self._worker:
            return
        workers = self._elsewhere.setdefault(told.note, {})
        people = {} if told.whole else dict(workers.get(told.worker, (0.0, {}))[1])
        for id, person in told.people.items():
            if person is None:
                people.pop(id, None)
            else:
                people[id] = person
        if people:
            workers[told.worker] = (asyncio.get_running_loop().time() + FORGET_AFTER, people)
        else:
            workers.pop(told.worker, None)
        if not workers:
            del self._elsewhere[told.note]
        self._changed.add(told.note)

    async def run(self) -> None:
        """Show the changes here and send them to the other workers; now and then send them everything."""
        loop = asyncio.get_running_loop()
        tell_all = loop.time() + TELL_INTERVAL
        while True:
            await asyncio.sleep(FLUSH_INTERVAL)
            if loop.time() > tell_all:
                tell_all = loop.time() + TELL_INTERVAL
                self._forget(loop.time())
                await self._tell_others(set(self._told), whole=True)
            self._resting = {note: until for note, until in self._resting.items() if until > loop.time()}
            changed = self._changed - self._resting.keys()
            self._changed -= changed
            for note in changed:
                self._show(note, loop.time())
            await self._tell_others(changed, whole=False)

    def _show(self, note: int, now: float) -> None:
        """Send the changes at a note to the clients that look at it."""
        before = self._shown.get(note, {})
        elsewhere = [people for _, people in self._elsewhere.get(note, {}).values()]
        after = _shown([self._people_here(note), *elsewhere], before)
        if after:
            self._shown[note] = after
        else:
            self._shown.pop(note, None)
        frames = [_frame(note, id, person) for id, person in _changes(before, after).items()]
        if frames:
            self._hub.publish_presence(note, frames, self._here.get(note, ()))
            self._resting[note] = now + sum(frame.size for frame in frames) / SPREAD_BYTES_PER_SECOND

    def _people_here(self, note: int) -> dict[str, PresenceEntry]:
        return dict(self._here.get(note, {}).values())

    async def aclose(self) -> None:
        """Tell the other workers that nobody looks at anything through this one any more."""
        self._here.clear()
        await self._tell_others(set(self._told), whole=True)

    async def _tell_others(self, notes: set[int], *, whole: bool) -> None:
        for note in notes:
            before = self._told.get(note, {})
            after = _shown([self._people_here(note)], before)
            people: dict[str, PresenceEntry | None] = dict(after) if whole else _changes(before, after)
            if not after:
                self._told.pop(note, None)
                self._here.pop(note, None)
            else:
                self._told[note] = after
            if not people and not whole:
                continue
            told = PresenceMessage(worker=self._worker, note=note, people=people, whole=whole)
            try:
                await self._tell(told.model_dump_json().encode())
            except BusUnavailable:
                return  # sent again within TELL_INTERVAL

    def _forget(self, now: float) -> None:
        for note in list(self._elsewhere):
            workers = self._elsewhere[note]
            for worker in [worker for worker, (until, _) in workers.items() if until < now]:
                del workers[worker]
                self._changed.add(note)
            if not workers:
                del self._elsewhere[note]


def _shown(groups: Iterable[People], before: People) -> People:
    """Return the people to show: users first, then those that are shown already."""
    people = {id: person for group in groups for id, person in group.items()}
    if len(people) <= MAX_SHOWN:
        return people
    first = sorted(people, key=lambda id: (not people[id].user, id not in before))
    return {id: people[id] for id in first[:MAX_SHOWN]}


def _frame(note: int, id: str, person: PresenceEntry | None) -> Frame:
    message = PresenceChanged(id=note, person=id, state=None if person is None else person.state)
    return Frame(encode(message), key=("presence", note, id))


def _changes(before: People, after: People) -> dict[str, PresenceEntry | None]:
    """Return the people that came or changed, and ``None`` for those that left."""
    changes: dict[str, PresenceEntry | None] = {id: person for id, person in after.items() if before.get(id) != person}
    return changes | dict.fromkeys(before.keys() - after.keys())
