"""Manages the rooms of one worker: loads shared texts, writes them to their notes, and unloads idle ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realtime.auth.permissions import Permission, can, check, sees
from realtime.core.close_codes import CloseCode
from realtime.core.turns import Turns
from realtime.errors import BusUnavailable, NoteNotFound, RealtimeError, Unavailable
from realtime.rooms.journal import Journal
from realtime.rooms.peer import Peer
from realtime.rooms.relay import Relay, RelayKind, RelayMessage
from realtime.rooms.room import Room
from realtime.rooms.scheduler import Scheduler
from realtime.rooms.text_edit import RoomEdit

if TYPE_CHECKING:
    from realtime.auth.permissions import NoteAccess, Principal
    from realtime.core.fair_queue import FairPool
    from realtime.core.transport import MessageSink
    from realtime.eventlog.bus import Bus
    from realtime.metrics import Metrics
    from realtime.rooms.projector import Projector
    from realtime.store.bson_mapping import Record
    from realtime.store.database import Store
    from realtime.store.texts import Row

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
TICKS_PER_SECOND = 10
COMPARE_INTERVAL_SECONDS = 5.0
"""Interval at which rooms are compared with the journal even if no loss was detected."""
RECOVERY_INTERVAL_SECONDS = 5.0
RECOVERY_PAGE_SIZE = 1000
MAX_CONCURRENT_TASKS = 16
MAX_CLOSES_PER_SECOND = 2000


@dataclass(frozen=True, slots=True)
class RoomOptions:
    """Limits and callbacks for the clients of rooms.

    Attributes:
        queue_bytes: The number of bytes that may be queued for one client.
        stall_seconds: The time without progress after which a client that does not read is disconnected.
        idle_seconds: The time for which an empty room is kept.
        is_outdated: Returns whether a principal's session has ended or its administrator role has changed.
    """

    queue_bytes: int
    stall_seconds: float
    idle_seconds: float
    is_outdated: Callable[[Principal], bool] = lambda _: False


class Rooms:
    """Manages all rooms of one worker."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        projector: Projector,
        pool: FairPool,
        metrics: Metrics,
        options: RoomOptions,
    ) -> None:
        self._texts = store.texts
        self._notes = store.notes
        self._projector = projector
        self._metrics = metrics
        self._options = options
        self._rooms: dict[int, Room] = {}
        self._journal: Journal[Room] = Journal(store.texts, self._on_commit)
        self._relay = Relay(bus, self)
        self._comparison_due = True
        self._compared_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._rooms_with_task: set[int] = set()
        self._task_limit = asyncio.Semaphore(MAX_CONCURRENT_TASKS)
        self.turns = Turns()
        self._scheduler = Scheduler(self.turns, pool)
        self._draining = False
        self.tasks = {
            "journal updates": self._journal.run,
            "send to other workers": self._relay.run_publish,
            "receive from other workers": self._relay.run_receive,
            "recover texts": self._recover_unfinished,
        }

    @property
    def background_tasks(self) -> frozenset[asyncio.Task[None]]:
        """The running tasks of rooms, such as projections, compactions and access checks."""
        return frozenset(self._tasks)

    def create_peer(self, sink: MessageSink, principal: Principal, caller: str, *, writes: bool = True) -> Peer:
        """Return a client that can join a room.

        Args:
            sink: The connection that messages are sent to.
            principal: The authenticated caller.
            caller: The user or network that limits are counted for.
            writes: Whether the client may write, if ``principal`` may.
        """
        writes = writes and principal.writes
        budget, stall = self._options.queue_bytes, self._options.stall_seconds
        peer = Peer(sink, principal, caller=caller, writes=writes, budget=budget, stall=stall)
        if self._draining:
            peer.close(CloseCode.DRAIN)
        return peer

    async def check_visible(self, id: int, principal: Principal) -> None:
        """Raise :class:`NoteNotFound` unless the caller can see a note, or :class:`Unavailable` if that is unknown."""
        if principal.keys is not None or id not in self._rooms:
            await self._read_access(id, principal)

    async def join(self, id: int, peer: Peer, created: str | None = None) -> Room:
        """Add a client to the room of a note.

        Args:
            id: The note's id.
            peer: The client.
            created: The expected ``created_date`` of the note, if the client sent one.

        Raises:
            NoteNotFound: The note does not exist, is not visible, or has a different ``created_date``.
            Unavailable: The database is unavailable.
        """
        if peer.principal.keys is not None:
            await self._read_access(id, peer.principal)  # first: unauthorized callers must not cause loading
        async with self._hold(id) as room:
            if created not in (None, room.created_date):
                raise NoteNotFound
            await self._authorize(room, peer)
            await room.join(peer)
        if self._draining:
            peer.close(CloseCode.DRAIN)
        elif self._options.is_outdated(peer.principal):  # ended before it joined: close_peers missed it
            peer.close(CloseCode.NOT_SIGNED_IN)
        return room

    async def _authorize(self, room: Room, peer: Peer) -> None:
        """Set whether a client may write. Raise :class:`NoteNotFound` unless it may read."""
        if peer.principal.keys is None:
            return
        checks = None
        while checks != room.access_checks:  # repeat if rights changed while they were read
            checks = room.access_checks
            note_access = await self._read_access(room.id, peer.principal)
        peer.has_write_access = can(peer.principal, note_access.access, Permission.WRITE)

    async def _read_access(self, id: int, principal: Principal) -> NoteAccess:
        """Return the access rights of a note, or raise :class:`NoteNotFound` if the caller cannot see it."""
        note_access = await self._notes.note_access(id)
        if note_access is None or not note_access.live:
            raise NoteNotFound
        check(principal, note_access)
        return note_access

    def access_changed(self, id: int, version: int) -> None:
        """Recheck the clients of a note whose access rights changed at this version."""
        room = self._rooms.get(id)
        if room is not None and version > room.access_version:
            room.access_version = version
            self._spawn(self.recheck_access(id))

    async def recheck_access(self, id: int) -> None:
        """Disconnect clients that can no longer read a note, and reject updates from those that can no longer write."""
        room = self._rooms.get(id)
        if room is None:
            return
        room.access_checks += 1
        try:
            note_access = await self._notes.note_access(id)
        except Unavailable:
            note_access = None
        room.access_checks += 1
        for peer in [peer for peer in room.participants.peers if peer.principal.keys is not None]:
            if note_access is None:  # clients are checked again when they reconnect
                peer.close(CloseCode.RESUME)
            elif not note_access.live:
                peer.close(CloseCode.NOTE_GONE)
            elif not sees(peer.principal, note_access):
                peer.close(CloseCode.PERMISSION_GONE)
            else:
                peer.has_write_access = can(peer.principal, note_access.access, Permission.WRITE)

    @asynccontextmanager
    async def _hold(self, id: int) -> AsyncIterator[Room]:
        """Yield the room of a note, loaded, and keep it until the block ends."""
        room: Room | None = None
        while room is None or room.closed:  # it can be closed while loading
            room = self._rooms.get(id)
            if room is None or room.closed:
                room = self._rooms[id] = self._create_room(id)
            room.hold_count += 1
            try:
                await room.wait_until_loaded()
            except RealtimeError:
                self._close_room(room, CloseCode.RESUME)
                raise
            finally:
                room.hold_count -= 1
        room.hold_count += 1
        try:
            yield room
        finally:
            room.hold_count -= 1
            room.last_used = time.monotonic()

    def _create_room(self, id: int) -> Room:
        return Room(id, self._texts, self._journal, self._relay, self._scheduler, self._projector)

    def _close_room(self, room: Room, code: CloseCode) -> None:
        room.close(code)
        self._projector.forget(room)
        if self._rooms.get(room.id) is room:
            del self._rooms[room.id]

    def note_deleted(self, id: int, version: int) -> None:
        """Disconnect the clients of a note that was deleted at this version, unless it has been restored since."""
        room = self._rooms.get(id)
        if room is None or room.version >= version:
            return
        if not room.loaded:
            self._close_room(room, CloseCode.RESUME)  # clients that are waiting to join load it again
        elif id in self._rooms_with_task:
            self._comparison_due = True
        else:
            self._start(room, room.catch_up())

    def is_open(self, id: int) -> bool:
        """Return whether this worker has the room of a note."""
        return id in self._rooms

    @asynccontextmanager
    async def edit(self, record: Record) -> AsyncIterator[RoomEdit]:
        """Begin an edit of a note's shared text, once the text includes every change in this record of the note.

        Only one edit of a text is in progress at a time.

        Raises:
            NoteNotFound: The note was deleted.
            Unavailable: The text cannot be loaded or journaled.
        """
        async with self._hold(record.note.id) as room, room.write_lock:
            edit = RoomEdit(room, self._projector, *await room.durable_base(record))
            yield edit
            if room.closed and edit.committed is not None:  # a new room may have loaded the text without the edit
                row = edit.committed
                self.receive_relayed(RelayMessage(RelayKind.UPDATES, row.note, row.id, row.updates))

    def _on_commit(self, rows: Sequence[tuple[Room, Row]], success: bool) -> None:
        for room, row in rows:
            if not success:
                self._close_room(room, CloseCode.RESUME)
            elif not room.closed:
                room.on_commit(row)
            else:  # a new room may have replaced it, without this row
                message = RelayMessage(RelayKind.UPDATES, row.note, row.id, row.updates, row.authors)
                self._relay.enqueue(message)
                self.receive_relayed(message)

    def receive_relayed(self, message: RelayMessage) -> None:
        """Process a message from another worker."""
        room = self._rooms.get(message.note)
        if message.kind is RelayKind.QUERY_AWARENESS:
            no_states = RelayMessage(RelayKind.AWARENESS, message.note, message.row)
            self._relay.enqueue(no_states if room is None else room.participants.answer_query(message))
        elif room is not None:
            room.receive_relayed(message)

    def relay_interrupted(self) -> None:
        """Compare the rooms with the journal soon: messages from other workers may be missing."""
        self._comparison_due = True

    async def run(self) -> None:
        """Write texts to their notes, and compact and unload them, until cancelled."""
        ticks = 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for room in list(self._rooms.values()):
                if self._projector.is_due(room, now) and room.loaded:
                    self._start(room, self._projector.project(room))
                elif room.needs_compaction():
                    self._start(room, self._compact(room))
            ticks += 1
            if ticks % TICKS_PER_SECOND == 0:
                self._check_rooms(now)

    def _check_rooms(self, now: float) -> None:
        for room in list(self._rooms.values()):
            room.participants.expire()
            room.clear_caches()
            for peer in list(room.participants.peers):
                peer.check_stall()
            used = (
                room.participants.peers
                or room.hold_count
                or self._projector.is_scheduled(room)
                or room.id in self._rooms_with_task
                or room.has_unwritten_updates
            )
            idle = not used and now - room.last_used > self._options.idle_seconds and not room.needs_compaction()
            if idle or room.closed:
                self._close_room(room, CloseCode.RESUME)
        if self._rooms and (
            self._comparison_due or not self._relay.healthy or now - self._compared_at > COMPARE_INTERVAL_SECONDS
        ):
            self._comparison_due = False
            self._compared_at = now
            self._spawn(self._compare_with_journal())
        self._metrics.rooms.set(len(self._rooms))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                async with self._task_limit:
                    await work
            except (Unavailable, BusUnavailable) as error:
                self._comparison_due = True
                log.warning(
                    "shared texts could not be saved, compacted, or compared with the journal",
                    extra={"error": error.detail},
                )

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _start(self, room: Room, work: Coroutine[Any, Any, None]) -> None:
        """Start a task for a room, unless the room already has one."""
        if room.id in self._rooms_with_task:
            work.close()
            return
        self._rooms_with_task.add(room.id)

        async def once() -> None:
            try:
                await work
            except NoteNotFound:
                self._close_room(room, CloseCode.NOTE_GONE)
            finally:
                self._rooms_with_task.discard(room.id)

        self._spawn(once())

    async def _compact(self, room: Room) -> None:
        # Before compaction: if this worker is killed, the remaining rows mark the text as unfinished.
        if self._projector.is_scheduled(room):
            await self._projector.project(room)
        await room.compact()

    async def _compare_with_journal(self) -> None:
        """Compare the rooms with the journal, as messages from other workers may have been lost."""
        rooms = {id: room for id, room in self._rooms.items() if room.loaded}
        live, generations, rows = await self._texts.journaled(rooms)
        for id, room in rooms.items():
            if id not in live or room.applied_rows.is_behind(generations.get(id, 0), rows.get(id, set())):
                self._start(room, room.catch_up())

    async def _recover_unfinished(self) -> None:
        """Load texts that a terminated worker left unfinished: their journal rows do not change between two reads."""
        after = 0  # paginate, because some texts stay unfinished, such as those of notes in the trash
        while True:
            before = await self._texts.unfinished(after, RECOVERY_PAGE_SIZE)
            await asyncio.sleep(RECOVERY_INTERVAL_SECONDS)
            unfinished = await self._texts.unfinished(after, RECOVERY_PAGE_SIZE)
            after = max(unfinished) if len(unfinished) == RECOVERY_PAGE_SIZE else 0
            for id in [id for id, last in unfinished.items() if before.get(id) == last and id not in self._rooms]:
                try:
                    async with self._hold(id):
                        pass  # a loaded text is projected and compacted like any other
                except NoteNotFound:
                    continue  # in the trash, or purged
                except RealtimeError as error:
                    log.warning("an unfinished text could not be recovered", extra={"note": id, "error": error.detail})

    def peers(self) -> list[Peer]:
        """Return the clients of all rooms."""
        return [peer for room in self._rooms.values() for peer in room.participants.peers]

    def sessions(self) -> set[str]:
        """Return the sessions of all clients."""
        return {peer.principal.session for peer in self.peers() if peer.principal.session is not None}

    def close_peers(self, matches: Callable[[Principal], bool], code: CloseCode) -> None:
        """Close the connections whose principal matches."""
        for peer in self.peers():
            if matches(peer.principal):
                peer.close(code)

    async def drain(self, seconds: float) -> None:
        """Disconnect all clients gradually, within this number of seconds."""
        self._draining = True
        peers = self.peers()
        delay = min(seconds / max(1, len(peers)), 1 / MAX_CLOSES_PER_SECOND)
        for number, peer in enumerate(peers):
            peer.close(CloseCode.DRAIN)
            if number % 20 == 19:
                await asyncio.sleep(20 * delay)

    async def aclose(self) -> None:
        """Write the latest changes to the notes, for up to 2 seconds, and cancel the remaining tasks."""
        for room in list(self._rooms.values()):
            if self._projector.is_scheduled(room) and room.loaded:
                self._start(room, self._projector.project(room))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)
        for task in self._tasks:
            task.cancel()
