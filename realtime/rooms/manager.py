"""The rooms of one worker: the live texts of notes, kept as long as somebody is at them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from realtime.auth.permissions import Permission, can, check, sees
from realtime.core.close_codes import CloseCode
from realtime.core.fair_queue import Requester
from realtime.core.token_bucket import TokenBuckets
from realtime.core.turns import Turns
from realtime.errors import BusUnavailable, NoteNotFound, RealtimeError, Unavailable
from realtime.notes.merge import merged
from realtime.rooms.contributors import TextSnapshot
from realtime.rooms.journal import Journal
from realtime.rooms.peer import TIMED_BURST, TIMED_UPDATES_PER_SECOND, Peer
from realtime.rooms.relay import Relay, RelayKind, RelayMessage
from realtime.rooms.room import Room, Scheduler

if TYPE_CHECKING:
    from realtime.auth.permissions import NoteAccess, Principal
    from realtime.core.fair_queue import FairPool
    from realtime.core.transport import MessageSink
    from realtime.eventlog.bus import Bus
    from realtime.metrics import Metrics
    from realtime.notes.models import Note, NoteChange
    from realtime.store.bson_mapping import Record
    from realtime.store.database import Store
    from realtime.store.texts import Row

log = logging.getLogger(__name__)

TICK = 0.1
EVERY_SECOND = 10
"""Ticks."""
LOOK_EVERY = 5.0
"""Seconds after which rooms are compared with the journal even if nothing seems to be missing."""
UNFINISHED_EVERY = 5.0
UNFINISHED = 1000
AT_ONCE = 16
CLOSES_PER_SECOND = 2000

Project = Callable[[int, Callable[["Record"], Awaitable[TextSnapshot]]], Awaitable[int]]
"""Brings a text into its note: the note, and how to read the text for a state of it. Returns the version."""
Compute = Callable[["Note"], Awaitable[Mapping[str, Any]]]
Commit = Callable[[Mapping[str, Any], "Row | None", Sequence[str]], Awaitable["NoteChange | None"]]


class Rooms:
    """All rooms of one worker. ``idle`` is for how many seconds an empty one is kept."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        metrics: Metrics,
        *,
        budget: int,
        stall: float,
        idle: float,
        pool: FairPool,
        ended: Callable[[Principal], bool] = lambda _: False,
    ) -> None:
        self._texts = store.texts
        self._notes = store.notes
        self._metrics = metrics
        self._budget = budget
        self._stall = stall
        self._idle = idle
        self._pool = pool
        self._ended = ended
        self._rooms: dict[int, Room] = {}
        self._journal: Journal[Room] = Journal(store.texts, self._stored)
        self._relay = Relay(bus, self._heard, self._missed)
        self._suspicious = True
        self._looked = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[int] = set()
        self._limit = asyncio.Semaphore(AT_ONCE)
        self.turns = Turns()
        self._scheduler = Scheduler(self.turns, TokenBuckets(TIMED_UPDATES_PER_SECOND, TIMED_BURST))
        self._draining = False
        self.tasks = {
            "journal updates": self._journal.run,
            "tell other workers": self._relay.send,
            "hear other workers": self._relay.listen,
            "finish texts": self._finish,
        }

    def member(self, outlet: MessageSink, principal: Principal, caller: str, *, writes: bool = True) -> Peer:
        """Return a client that may join a room, and write if it may; ``caller`` is the user or network it is of."""
        writes = writes and principal.writes
        member = Peer(outlet, principal, caller=caller, writes=writes, budget=self._budget, stall=self._stall)
        if self._draining:
            member.close(CloseCode.DRAIN)
        return member

    async def check_visible(self, id: int, principal: Principal) -> None:
        """Raise :class:`NoteNotFound` unless a viewer may see a note, :class:`Unavailable` if that is not known."""
        if principal.keys is not None or id not in self._rooms:
            await self._standing(id, principal)

    async def join(self, id: int, member: Peer, created: str | None = None) -> Room:
        """Lets a client into the room of a note, of that with this ``created_date`` only, if it tells one.

        Raises :class:`NoteNotFound`, :class:`Unavailable`.
        """
        if member.principal.keys is not None:
            await self._standing(id, member.principal)  # first, so that strangers have nothing loaded, or begun
        async with self._held(id) as room:
            if created not in (None, room.created):
                raise NoteNotFound
            await self._admit(room, member)
            await room.join(member)
        if self._draining:
            member.close(CloseCode.DRAIN)
        elif self._ended(member.principal):  # before it was in the room, where that would have closed it
            member.close(CloseCode.NOT_SIGNED_IN)
        return room

    async def _admit(self, room: Room, member: Peer) -> None:
        """Raises :class:`NoteNotFound` unless a client may read, and tells it whether it may write."""
        if member.principal.keys is None:
            return
        checks = None
        while checks != room.checks:  # a right that was taken away while it was read is not missed
            checks = room.checks
            standing = await self._standing(room.id, member.principal)
        member.writes = can(member.principal, standing.access, Permission.WRITE)

    async def _standing(self, id: int, principal: Principal) -> NoteAccess:
        standing = await self._notes.note_access(id)
        if standing is None or not standing.live:
            raise NoteNotFound
        check(principal, standing)
        return standing

    def shared(self, id: int, since: int) -> None:
        """Who may do what with a note is another since a version of it."""
        room = self._rooms.get(id)
        if room is not None and since > room.shared:
            room.shared = since
            self._spawn(self.check(id))

    async def check(self, id: int) -> None:
        """Sends away who may not read a note any more, and stops who may not write it."""
        room = self._rooms.get(id)
        if room is None:
            return
        room.checks += 1
        try:
            standing = await self._notes.note_access(id)
        except Unavailable:
            standing = None
        room.checks += 1
        for member in [member for member in room.participants.members if member.principal.keys is not None]:
            if standing is None:  # whoever comes back is checked then
                member.close(CloseCode.RESUME)
            elif not standing.live:
                member.close(CloseCode.NOTE_GONE)
            elif not sees(member.principal, standing):
                member.close(CloseCode.PERMISSION_GONE)
            else:
                member.writes = can(member.principal, standing.access, Permission.WRITE)

    @asynccontextmanager
    async def _held(self, id: int) -> AsyncIterator[Room]:
        """The room of a note, loaded, and kept until the block ends."""
        room: Room | None = None
        while room is None or room.given_up:  # it may be, while it is loaded
            room = self._rooms.get(id)
            if room is None or room.given_up:
                room = self._rooms[id] = Room(id, self._texts, self._journal, self._relay, self._scheduler)
            room.holds += 1
            try:
                await room.ready()
            except RealtimeError:
                self._drop(room, CloseCode.RESUME)
                raise
            finally:
                room.holds -= 1
        room.holds += 1
        try:
            yield room
        finally:
            room.holds -= 1
            room.last_used = time.monotonic()

    def _drop(self, room: Room, code: CloseCode) -> None:
        room.give_up(code)
        if self._rooms.get(room.id) is room:
            del self._rooms[room.id]

    def gone(self, id: int, version: int) -> None:
        """A note was deleted by this version: whoever is at it is sent away, unless it is back by now."""
        room = self._rooms.get(id)
        if room is None or room.version >= version:
            return
        if not room.loaded:
            self._drop(room, CloseCode.RESUME)  # whoever waits for it has it loaded anew
        elif id in self._busy:
            self._suspicious = True
        else:
            self._start(room, room.catch_up())

    async def write(
        self, record: Record, compute: Compute, commit: Commit, project: Project, *, live: bool
    ) -> NoteChange | None:
        """Writes to a note that has a shared text, and brings the content into that text by the smallest edit.

        ``compute`` makes the fields of the note as it is, with the content of the ``live`` text, or else of its
        version; ``commit`` stores them together with the edit and the names of those whose words they bring into the
        note, and returns ``None`` if the note has moved on. Raises what these raise.
        """
        async with self._held(record.note.id) as room, room.writing:
            base = await room.base(record)
            text, changes, people = base[0]
            note = record.note
            fields = await compute(note.model_copy(update={"content": text}) if live else note)
            content = fields.get("content", text)
            if not live and content is not text and text != note.content:
                # It was made on the version: what was typed since stays where both do not touch.
                requester = Requester(f"note {note.id}", "rooms")
                content, conflicts = await self._pool.run(requester, partial(merged, note.content, content, text))
                if conflicts:  # then at least a version has it
                    await self._project(room, project)
                    return None
            row = await room.draft(base, content)
            try:
                typed = people if text != note.content else ()
                change = await commit({**fields, "content": content}, row, typed)
            except BaseException:  # a write that is cancelled may be committed, too
                room.rotate_client_id()
                raise
            if change is not None:
                room.version = max(room.version, change.note.version)
                room.credits.mark_attributed(changes)
            if change is not None and row is not None:
                room.accept(row)
                if room.given_up:  # another may have taken its place
                    self._heard(RelayMessage(RelayKind.UPDATES, row.note, row.id, row.updates))
            return change

    def _stored(self, rows: Sequence[tuple[Room, Row]], stored: bool) -> None:
        for room, row in rows:
            if not stored:
                self._drop(room, CloseCode.RESUME)
            elif not room.given_up:
                room.stored(row)
            else:  # another may have taken its place, here, too, and does not have this
                told = RelayMessage(RelayKind.UPDATES, row.note, row.id, row.updates, row.authors)
                self._relay.enqueue(told)
                self._heard(told)

    def _heard(self, told: RelayMessage) -> None:
        room = self._rooms.get(told.note)
        if told.kind is RelayKind.QUERY_AWARENESS:
            nothing = RelayMessage(RelayKind.AWARENESS, told.note, told.row)
            self._relay.enqueue(nothing if room is None else room.participants.answer(told))
        elif room is not None:
            room.receive_relayed(told)

    def _missed(self) -> None:
        self._suspicious = True

    async def run(self, project: Project) -> None:
        """Brings texts into their notes, folds and unloads, for ever."""
        ticks = 0
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for room in list(self._rooms.values()):
                if room.due is not None and room.due <= now and room.loaded:
                    self._start(room, self._project(room, project))
                elif room.wants_compaction():
                    self._start(room, self._fold(room, project))
            ticks += 1
            if ticks % EVERY_SECOND == 0:
                self._every_second(now)

    def _every_second(self, now: float) -> None:
        for room in list(self._rooms.values()):
            room.participants.expire()
            room.forget_answer()
            for member in list(room.participants.members):
                member.check()
            used = (
                room.participants.members or room.holds or room.due is not None or room.id in self._busy or room.waits
            )
            idle = not used and now - room.last_used > self._idle and not room.wants_compaction()
            if idle or room.given_up:
                self._drop(room, CloseCode.RESUME)
        if self._rooms and (self._suspicious or not self._relay.sound or now - self._looked > LOOK_EVERY):
            self._suspicious = False
            self._looked = now
            self._spawn(self._look())
        self._metrics.rooms.set(len(self._rooms))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                async with self._limit:
                    await work
            except (Unavailable, BusUnavailable) as error:
                self._suspicious = True
                log.warning("a text could not be tidied up", extra={"error": error.detail})

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _start(self, room: Room, work: Coroutine[Any, Any, None]) -> None:
        """Starts something that a room does one at a time."""
        if room.id in self._busy:
            work.close()
            return
        self._busy.add(room.id)

        async def once() -> None:
            try:
                await work
            except NoteNotFound:
                self._drop(room, CloseCode.NOTE_GONE)
            finally:
                self._busy.discard(room.id)

        self._spawn(once())

    async def _project(self, room: Room, project: Project) -> None:
        count = 0

        async def read(record: Record) -> TextSnapshot:
            nonlocal count
            shown = await room.text(record)
            count = shown.changes
            return shown

        room.due = None
        try:
            room.version = max(room.version, await project(room.id, read))
        except Unavailable:
            room.due = time.monotonic() + 1
            raise
        room.projected(count)

    async def _fold(self, room: Room, project: Project) -> None:
        if room.due is not None:  # first, as rows tell who finishes the work that it is not done
            await self._project(room, project)
        await room.compact()

    async def _look(self) -> None:
        """Compares the rooms with what is stored: what other workers told may have been lost."""
        rooms = {id: room for id, room in self._rooms.items() if room.loaded}
        live, generations, rows = await self._texts.journaled(rooms)
        for id, room in rooms.items():
            if id not in live or room.ledger.lacks(generations.get(id, 0), rows.get(id, set())):
                self._start(room, room.catch_up())

    async def _finish(self) -> None:
        """Takes up texts that a worker left when it died, for ever: those whose rows stay the same over two passes."""
        after = 0  # of all that stays, such as what is in the trash, the next ones each time
        while True:
            before = await self._texts.unfinished(after, UNFINISHED)
            await asyncio.sleep(UNFINISHED_EVERY)
            left = await self._texts.unfinished(after, UNFINISHED)
            after = max(left) if len(left) == UNFINISHED else 0
            for id in [id for id, last in left.items() if before.get(id) == last and id not in self._rooms]:
                try:
                    async with self._held(id):
                        pass  # once it is loaded, it is brought into its note, and folded, as any other
                except NoteNotFound:
                    continue  # in the trash, or purged
                except RealtimeError as error:
                    log.warning("a text could not be finished", extra={"note": id, "error": error.detail})

    def _members(self) -> list[Peer]:
        return [member for room in self._rooms.values() for member in room.participants.members]

    def sessions(self) -> set[str]:
        """The sessions that clients come from."""
        return {member.principal.session for member in self._members() if member.principal.session is not None}

    def end(self, sessions: Collection[str], code: CloseCode) -> None:
        """Closes the clients that come from these sessions."""
        for member in self._members():
            if member.principal.session in sessions:
                member.close(code)

    async def drain(self, seconds: float) -> None:
        """Sends all clients away, a few at a time."""
        self._draining = True
        members = self._members()
        pause = min(seconds / max(1, len(members)), 1 / CLOSES_PER_SECOND)
        for number, member in enumerate(members):
            member.close(CloseCode.DRAIN)
            if number % 20 == 19:
                await asyncio.sleep(20 * pause)

    async def aclose(self, project: Project) -> None:
        """Brings what was typed last into the notes, if that can be done at once."""
        for room in list(self._rooms.values()):
            if room.due is not None and room.loaded:
                self._start(room, self._project(room, project))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)
        for task in self._tasks:
            task.cancel()
