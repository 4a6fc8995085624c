"""Presence: the people who are viewing each note, on all workers.

Presence is not stored. Each worker repeats its entries, and entries that are not repeated expire. A client that sets a
state on a note receives the list of people who are viewing it, and every change to that list from then on.
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
from realtime.core.index import Index
from realtime.core.token_bucket import TokenBucket
from realtime.errors import BusUnavailable, TooManyRequests
from realtime.feed.codec import encode
from realtime.feed.messages import PresenceChanged, PresenceShown

if TYPE_CHECKING:
    from realtime.feed.hub import Hub
    from realtime.feed.subscriber import Subscriber

log = logging.getLogger(__name__)

State = dict[str, JsonValue]

FLUSH_INTERVAL_SECONDS = 0.1
MAX_BROADCAST_BYTES_PER_SECOND = 64 * 1024
"""Maximum rate of presence changes of one note for each client. Above it, changes are combined for longer."""
ANNOUNCE_INTERVAL_SECONDS = 10.0
EXPIRY_SECONDS = 3 * ANNOUNCE_INTERVAL_SECONDS
MAX_NOTES = 32
MAX_STATE_BYTES = 1024
MAX_PEOPLE = 100
"""Maximum number of people shown for one note. Signed-in users come first."""
MAX_CHANGES_PER_SECOND = 10
MAX_CHANGES_BURST = 100
LIST_BYTES_PER_CHANGE = 4096
"""A list sent to a new client counts as one more change against its rate limit for each of these many bytes."""


class PresenceEntry(BaseModel):
    """The state of one client on a note."""

    state: State
    user: bool
    """Whether the client is signed in."""


People = Mapping[str, PresenceEntry]


class PresenceMessage(BaseModel):
    """A message between workers: all entries of one worker for a note if ``whole`` is set, otherwise the changes."""

    worker: str
    note: int
    people: dict[str, PresenceEntry | None]
    whole: bool


class Presence:
    """Shares the states that clients of all workers set on notes.

    Args:
        hub: Delivers changes to the clients of this worker.
        publish: Sends a message to the other workers. Raises :class:`BusUnavailable`.
    """

    def __init__(self, hub: Hub, publish: Callable[[bytes], Awaitable[None]]) -> None:
        self._hub = hub
        self._publish = publish
        self._worker = secrets.token_hex(6)
        self._numbers = count(1)
        self._local: dict[int, dict[Subscriber, tuple[str, PresenceEntry]]] = {}
        self._notes: Index[Subscriber, int] = Index()
        self._remote: dict[int, dict[str, tuple[float, dict[str, PresenceEntry]]]] = {}
        self._shown: dict[int, People] = {}
        self._published: dict[int, People] = {}
        self._changed: set[int] = set()
        self._paused_until: dict[int, float] = {}
        self._rate_limits: dict[Subscriber, TokenBucket] = {}

    def set_state(self, client: Subscriber, note: int, state: State | None) -> None:
        """Set a client's state on a note; ``None`` removes it. With accounts, the user's name is added to the state.

        Raises:
            ValueError: The state is too large, or the client has states on too many notes.
            TooManyRequests: The client changes its state too often.
        """
        self._charge(client, 1)
        if state is None:
            self._drop(client, note)
            return
        if client.principal.shown_as is not None:
            state = {**state, "name": client.principal.shown_as}
        if len(json.dumps(state)) > MAX_STATE_BYTES:
            raise ValueError(f"state: must be at most {MAX_STATE_BYTES} bytes")
        clients = self._local.get(note, {})
        id, _ = clients.get(client, ("", None))
        if not id:
            if len(self._notes[client]) >= MAX_NOTES:
                raise ValueError(f"id: presence on more than {MAX_NOTES} notes")
            id = f"{self._worker}-{next(self._numbers)}"
            self._send_list(client, note)
        clients[client] = (id, PresenceEntry(state=state, user=client.principal.name is not None))
        self._local[note] = clients
        self._notes.add(client, note)
        self._changed.add(note)

    def _send_list(self, client: Subscriber, note: int) -> None:
        """Send the list of people to a client with a new state, unless it subscribes to the note and has the list."""
        if client.notes is None or note not in client.notes:
            frame = self.frame(note)
            self._charge(client, frame.size // LIST_BYTES_PER_CHANGE)
            client.offer(frame)

    def _charge(self, client: Subscriber, cost: float) -> None:
        now = asyncio.get_running_loop().time()
        bucket = self._rate_limits.get(client)
        if bucket is None:
            bucket = self._rate_limits[client] = TokenBucket(MAX_CHANGES_PER_SECOND, MAX_CHANGES_BURST, now)
        if not bucket.consume(cost, now):
            raise TooManyRequests(1.0)

    def remove_unauthorized(self, note: int) -> None:
        """Remove the states of clients that can no longer see a note."""
        for client in [client for client in self._local.get(note, ()) if not client.sees(note)]:
            self._drop(client, note)

    def leave(self, client: Subscriber) -> None:
        """Remove all states of a client."""
        self._rate_limits.pop(client, None)
        for note in list(self._notes[client]):
            self._drop(client, note)

    def _drop(self, client: Subscriber, note: int) -> None:
        self._notes.remove(client, note)
        if self._local.get(note, {}).pop(client, None) is not None:
            self._changed.add(note)

    def people(self, note: int) -> list[State]:
        """Return the states that are shown for a note."""
        return [person.state for person in self._shown.get(note, {}).values()]

    def frame(self, note: int) -> Frame:
        """Return a frame with the people who are viewing a note."""
        people = {id: person.state for id, person in self._shown.get(note, {}).items()}
        return Frame(encode(PresenceShown(id=note, people=people)), key=("presence", note))

    def receive(self, data: bytes) -> None:
        """Apply a message from another worker."""
        try:
            message = PresenceMessage.model_validate_json(data)
        except ValidationError:
            log.warning("invalid presence message", exc_info=True)
            return
        if message.worker == self._worker:
            return
        workers = self._remote.setdefault(message.note, {})
        people = {} if message.whole else dict(workers.get(message.worker, (0.0, {}))[1])
        for id, person in message.people.items():
            if person is None:
                people.pop(id, None)
            else:
                people[id] = person
        if people:
            workers[message.worker] = (asyncio.get_running_loop().time() + EXPIRY_SECONDS, people)
        else:
            workers.pop(message.worker, None)
        if not workers:
            del self._remote[message.note]
        self._changed.add(message.note)

    async def run(self) -> None:
        """Send changes to clients and to the other workers, and repeat all entries periodically, until cancelled."""
        loop = asyncio.get_running_loop()
        next_announcement = loop.time() + ANNOUNCE_INTERVAL_SECONDS
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_SECONDS)
            if loop.time() > next_announcement:
                next_announcement = loop.time() + ANNOUNCE_INTERVAL_SECONDS
                self._expire(loop.time())
                await self._publish_changes(self._published.keys() | self._local.keys(), whole=True)
            self._paused_until = {note: until for note, until in self._paused_until.items() if until > loop.time()}
            changed = self._changed - self._paused_until.keys()
            self._changed -= changed
            for note in changed:
                self._broadcast(note, loop.time())
            await self._publish_changes(changed, whole=False)

    def _broadcast(self, note: int, now: float) -> None:
        """Send the presence changes of a note to the clients that are viewing it."""
        before = self._shown.get(note, {})
        remote = [people for _, people in self._remote.get(note, {}).values()]
        after = _shown([self._local_people(note), *remote], before)
        if after:
            self._shown[note] = after
        else:
            self._shown.pop(note, None)
        frames = [_frame(note, id, person) for id, person in _changes(before, after).items()]
        if frames:
            self._hub.publish_presence(note, frames, self._local.get(note, ()))
            self._paused_until[note] = now + sum(frame.size for frame in frames) / MAX_BROADCAST_BYTES_PER_SECOND

    def _local_people(self, note: int) -> dict[str, PresenceEntry]:
        return dict(self._local.get(note, {}).values())

    async def aclose(self) -> None:
        """Remove all states of this worker from the other workers."""
        self._local.clear()
        await self._publish_changes(set(self._published), whole=True)

    async def _publish_changes(self, notes: set[int], *, whole: bool) -> None:
        for note in notes:
            before = self._published.get(note, {})
            after = _shown([self._local_people(note)], before)
            people: dict[str, PresenceEntry | None] = dict(after) if whole else _changes(before, after)
            if not after:
                self._published.pop(note, None)
                self._local.pop(note, None)
            else:
                self._published[note] = after
            if not people and not whole:
                continue
            message = PresenceMessage(worker=self._worker, note=note, people=people, whole=whole)
            try:
                await self._publish(message.model_dump_json().encode())
            except BusUnavailable:
                return  # all entries are sent again within ANNOUNCE_INTERVAL_SECONDS

    def _expire(self, now: float) -> None:
        for note in list(self._remote):
            workers = self._remote[note]
            for worker in [worker for worker, (until, _) in workers.items() if until < now]:
                del workers[worker]
                self._changed.add(note)
            if not workers:
                del self._remote[note]


def _shown(groups: Iterable[People], before: People) -> People:
    """Return the people to show. At the limit, signed-in users come first, then people who are already shown."""
    people = {id: person for group in groups for id, person in group.items()}
    if len(people) <= MAX_PEOPLE:
        return people
    first = sorted(people, key=lambda id: (not people[id].user, id not in before))
    return {id: people[id] for id in first[:MAX_PEOPLE]}


def _frame(note: int, id: str, person: PresenceEntry | None) -> Frame:
    message = PresenceChanged(id=note, person=id, state=None if person is None else person.state)
    return Frame(encode(message), key=("presence", note, id))


def _changes(before: People, after: People) -> dict[str, PresenceEntry | None]:
    """Return new and changed people, and ``None`` for each person who left."""
    changes: dict[str, PresenceEntry | None] = {id: person for id, person in after.items() if before.get(id) != person}
    return changes | dict.fromkeys(before.keys() - after.keys())
