"""The shared text of one note in one worker, and the clients that edit it.

An update from a client is validated and applied in memory at once. It is sent to other clients only after the journal
has stored it, so no client sees changes that can still be lost. If the journal cannot store an update, the whole room
is closed: its clients reconnect and send the missing changes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from realtime.core.close_codes import CloseCode
from realtime.core.frames import FrameBatch
from realtime.core.turns import SLICE_SECONDS
from realtime.errors import DocumentBroken, MalformedUpdate, NoteNotFound, Unavailable
from realtime.notes.models import iso
from realtime.rooms import crdt, loader, protocol, yjs_update
from realtime.rooms.applied_rows import AppliedRows
from realtime.rooms.contributors import Contributors, TextSnapshot
from realtime.rooms.crdt import TextDocument
from realtime.rooms.drafts import Drafts
from realtime.rooms.loader import SizeQuota
from realtime.rooms.participants import Participants
from realtime.rooms.peer import Peer, PeerRefused
from realtime.rooms.relay import RelayKind, RelayMessage
from realtime.store.texts import Row

if TYPE_CHECKING:
    from realtime.rooms.drafts import DraftBase
    from realtime.rooms.journal import Journal
    from realtime.rooms.projector import Projector
    from realtime.rooms.relay import Relay
    from realtime.rooms.scheduler import Scheduler
    from realtime.store.bson_mapping import Record
    from realtime.store.texts import TextStore

log = logging.getLogger(__name__)

SPLIT_UPDATE_BYTES = 4 * 1024
"""Size above which an update may be split into chunks."""
MAX_YJS_CLIENTS = 50_000
"""Maximum number of Yjs clients that may write to a text. Each browser session is a client."""
MAX_PENDING_PIECES = 1000
"""Number of pieces and deletions with missing dependencies above which no more are accepted."""
MAX_PENDING_UPDATE_BYTES = 64 * 1024
"""Maximum size of an update with missing dependencies."""
MAX_PENDING_SEARCH_SECONDS = 0.02
"""Maximum time to place all pending pieces together with a new update, which happens in one step."""
RECOUNT_SECONDS = 0.2
"""Processing time charged for counting the pieces of a text."""
AWARENESS_TIMEOUT_SECONDS = 0.2
"""Maximum time that a new room waits for the awareness states of other workers."""
CACHED_TEXT_SECONDS = 5.0
"""Time without changes after which the cached text is freed."""
COMPACT_IDLE_SECONDS = 2.0
"""Time without changes after which journal rows are compacted."""


class _CachedDiff(NamedTuple):
    """The changes that are missing in a state vector, at one revision of the document."""

    vector: bytes
    revision: int
    changes: bytes


class _PieceCount(NamedTuple):
    """The last exact number of pieces, and the revision of the document that was counted."""

    pieces: int = 0
    revision: int = -1


class Room:
    """Holds the shared text of one note in one worker, and its participants."""

    def __init__(
        self,
        id: int,
        texts: TextStore,
        journal: Journal[Room],
        relay: Relay,
        scheduler: Scheduler,
        projector: Projector,
    ) -> None:
        self.id = id
        self._projector = projector
        self.participants = Participants(id, relay)
        self.write_lock = asyncio.Lock()
        self.hold_count = 0
        self.contributors = Contributors()
        self.version = 0
        self.created_date = ""
        self.last_used = time.monotonic()
        self.closed = False
        self.read_seconds = 0.0
        self.access_version = 0
        self.access_checks = 0
        self._texts = texts
        self._journal = journal
        self._relay = relay
        self._scheduler = scheduler
        self._turns = scheduler.turns
        self._cached_diff = _CachedDiff(crdt.EMPTY_STATE_VECTOR, -1, b"")
        self._slow = False
        self._last_count = _PieceCount()
        self._document = TextDocument()
        self.drafts = Drafts(id, scheduler)
        self._lineage = ""
        self.applied_rows = AppliedRows()
        self._quota = SizeQuota(self._document)
        self._last_commit: asyncio.Future[bool] | None = None
        self._loading: asyncio.Future[None] | None = None
        self._deferred: list[RelayMessage] = []
        self._catching_up = asyncio.Lock()
        self._query_id = ""
        self._expected_responses: int | None = None
        self._responses = 0
        self._awareness_ready = asyncio.Event()

    async def wait_until_loaded(self) -> None:
        """Wait until the text is loaded. Raises :class:`NoteNotFound` or :class:`Unavailable`."""
        loaded = self._loading or self._start_loading(self._load())
        if not loaded.done() or loaded.exception() is not None:
            await asyncio.shield(loaded)

    def _start_loading(self, loading: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        self._loading = loaded = asyncio.ensure_future(loading)
        loaded.add_done_callback(lambda done: done.cancelled() or done.exception())  # mark the exception as retrieved
        return loaded

    def _query_awareness(self) -> None:
        """Request the awareness states and their owners from the other workers, unless that was done already."""
        if self._query_id:
            return
        self._query_id = secrets.token_hex(6)
        self._expected_responses = self._relay.other_workers
        if self._expected_responses == 0:
            self._awareness_ready.set()
        else:
            self._relay.enqueue(RelayMessage(RelayKind.QUERY_AWARENESS, self.id, self._query_id))

    async def _wait_for_awareness(self) -> None:
        """Wait for the other workers' states, so that clients cannot claim other callers' awareness clients."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AWARENESS_TIMEOUT_SECONDS):
                await self._awareness_ready.wait()
        self._awareness_ready.set()

    async def _load(self) -> None:
        self._query_awareness()
        while True:
            stored = await self._texts.read(self.id)
            if stored is None:
                raise NoteNotFound
            if stored.lineage is not None:
                break
            await self._texts.begin(self.id, stored.note.version, crdt.genesis(stored.note.content))
        updates = [*filter(None, [stored.snapshot]), *(update for row in stored.rows for update in row.updates)]
        document = await loader.load(updates, stored.pieces, self._scheduler, self.id)
        await self._wait_for_awareness()
        self._document = document
        self._quota = SizeQuota(self._document, sum(map(len, updates)))
        self._last_count = _PieceCount()
        self.drafts.rotate_client_id()  # edits drafted under the old id may be missing
        self._lineage, self.version = stored.lineage, stored.note.version
        self.created_date = iso(stored.note.created_date)
        self.applied_rows = AppliedRows(stored.generation, (row.id for row in stored.rows), stored.edited)
        if str(self._document) != stored.note.content:  # a worker terminated before it updated the note
            self._projector.schedule(self, remote=True)
            self.contributors.add(name for row in stored.rows for name in row.authors)
        deferred, self._deferred = self._deferred, []
        for message in deferred:
            self._apply_relayed(message)

    def _reload(self, error: DocumentBroken) -> None:
        """Reload the text after an update left it in an unknown state."""
        log.warning("a text is corrupt and is loaded again", extra={"note": self.id, "error": error.detail})

        async def reload() -> None:
            try:
                await self.wait_until_durable()
                await self._load()
            except BaseException:
                self.close(CloseCode.RESUME)
                raise

        self._start_loading(reload())

    async def catch_up(self) -> None:
        """Apply and broadcast missing journal rows. Raises :class:`NoteNotFound` or :class:`Unavailable`."""
        await self.wait_until_loaded()
        async with self._catching_up:
            stored = await self._texts.read(
                self.id, known=self.applied_rows.known, generation=self.applied_rows.generation
            )
            if stored is None:
                raise NoteNotFound
            if stored.lineage != self._lineage:
                raise Unavailable("the text was replaced")
            if not await self.wait_until_durable():  # only durable changes are broadcast below
                raise Unavailable
            before = self._document.state
            if stored.snapshot is not None:
                self._apply_row(Row("", self.id, [stored.snapshot]))
                self.applied_rows.generation = stored.generation
            for row in stored.rows:
                self._apply_row(row)
            self.applied_rows.add(stored.edited or "", complete=False)
            self.version = max(self.version, stored.note.version)
            if stored.snapshot is not None or stored.rows:
                self._projector.schedule(self, remote=True)
                if (missed := self._document.since(before)) != crdt.EMPTY_UPDATE:
                    self.participants.broadcast([protocol.update(missed)])

    def _apply_row(self, row: Row) -> bool:
        """Apply a row from the journal, and return whether all of it could be applied.

        If that breaks the text, close the room: clients reconnect to a new one.
        """
        try:
            complete = sum(loader.apply_journaled(self._document, update) for update in row.updates) == len(row.updates)
        except DocumentBroken as error:
            log.warning("a text is corrupt; its room is closed", extra={"note": self.id, "error": error.detail})
            self.close(CloseCode.RESUME)
            raise Unavailable from None
        self._quota.add(sum(map(len, row.updates)))
        self.contributors.add(row.authors)
        self._mark_applied(row.id, complete=complete and row.id != "")  # compaction would lose skipped updates
        return complete

    def _mark_applied(self, row: str, *, complete: bool = True) -> None:
        self.applied_rows.add(row, complete=complete)
        self.last_used = time.monotonic()

    async def join(self, peer: Peer) -> None:
        """Add a client and send it the current states. Raises the errors of :meth:`wait_until_loaded`."""
        await self.wait_until_loaded()
        self.participants.peers.add(peer)
        self.last_used = time.monotonic()
        peer.send(FrameBatch([protocol.state(self._document.state), *self.participants.awareness_messages()]))
        if self.closed:  # closed since the client was authorized
            peer.close(CloseCode.RESUME)

    def leave(self, peer: Peer) -> None:
        """Remove a client and its awareness states."""
        self.last_used = time.monotonic()
        self.participants.remove(peer)

    def receive(self, peer: Peer, data: bytes) -> Coroutine[Any, Any, None] | None:
        """Process a message from a client, or return a coroutine to await before its next message.

        Raises :class:`MalformedUpdate`, or :class:`PeerRefused` if the client has to be disconnected.
        """
        kind, payload = protocol.decode(data)
        if not self.loaded:
            return self._process(peer, kind, payload)
        if kind is protocol.SyncKind.AWARENESS:
            self.participants.set_states(peer, payload)
            return None
        is_small_write = (
            kind is protocol.SyncKind.UPDATE
            and peer.may_write
            and len(payload) <= SPLIT_UPDATE_BYTES
            and payload != crdt.EMPTY_UPDATE
        )
        if (
            not is_small_write
            or self._slow
            or self._needs_chunks(payload)
            or self._must_have_dependencies(payload)
            or self._journal.overloaded
            or not self._quota.surely_fits(len(payload))
        ):
            return self._process(peer, kind, payload)
        self._apply_timed(peer, payload, skip_known=False)
        return None

    async def _process(self, peer: Peer, kind: protocol.SyncKind, payload: bytes) -> None:
        await self.wait_until_loaded()
        if kind is protocol.SyncKind.STATE:
            await self._send_missing(peer, payload)
        elif kind in (protocol.SyncKind.MISSING, protocol.SyncKind.UPDATE) and payload != crdt.EMPTY_UPDATE:
            await self._receive_update(peer, payload, from_sync=kind is protocol.SyncKind.MISSING)
        elif kind is protocol.SyncKind.AWARENESS:
            self.participants.set_states(peer, payload)
        elif kind is protocol.SyncKind.QUERY_AWARENESS:
            states = FrameBatch(self.participants.awareness_messages())
            peer.charge_states(len(states.framed))
            peer.send(states)

    async def _send_missing(self, peer: Peer, vector: bytes) -> None:
        """Send the changes missing in a state vector. Raises :class:`MalformedUpdate` or :class:`PeerRefused`."""
        peer.check_diff_budget()
        diff = None
        while diff is None:
            document = self._document
            # Stock clients often have all changes. Their vector, which may be large, is then not decoded.
            trimmed = None
            if vector != document.state:
                trimmed = await loader.trim_vector(vector, document, self._scheduler, peer.caller)
            async with self._turns.turn(peer.caller):
                if peer.closing.done():
                    return
                if self.loaded and self._document is document:
                    diff = self._diff(document.state if trimmed is None else trimmed)
            await self.wait_until_loaded()
        peer.charge_diff(len(diff))
        reply = FrameBatch([protocol.missing(diff)])
        if await self.wait_until_durable():
            peer.send(reply, is_reply=True)

    def _diff(self, vector: bytes) -> bytes:
        """Return the changes that are missing in a trimmed state vector. The latest result is cached."""
        revision = self._document.revision
        if (vector, revision) != self._cached_diff[:2]:
            self._cached_diff = _CachedDiff(vector, revision, self._document.changes_after(vector))
        return self._cached_diff.changes

    def clear_caches(self) -> None:
        """Free the cached diff, which can be large, and the text if it did not change lately."""
        if time.monotonic() - self.last_used > CACHED_TEXT_SECONDS:
            self._document.clear_cached_text()
        self._cached_diff = _CachedDiff(crdt.EMPTY_STATE_VECTOR, -1, b"")

    async def _receive_update(self, peer: Peer, update: bytes, *, from_sync: bool) -> None:
        if not peer.may_write:
            if not from_sync or update[0]:  # a reply without pieces only repeats known deletions
                peer.notify_read_only()
            return
        may_split = len(update) > SPLIT_UPDATE_BYTES or self._needs_chunks(update)
        apply = self._apply_in_chunks if may_split else self._apply_update
        queued = await apply(peer, update, skip_known=from_sync)
        if not queued and await self.wait_until_durable():  # without a broadcast of the update, confirm it
            peer.send(FrameBatch([protocol.update(update)]))

    async def _apply_in_chunks(self, peer: Peer, update: bytes, *, skip_known: bool) -> bool:
        """Apply an update like :meth:`_apply_update`, in several turns if it may take a long time.

        To place a piece of the update, Yrs may have to visit all pieces of the text and of the update.
        """
        if self._document.piece_count > loader.MAX_PIECES and yjs_update.count_pieces(update):
            await self._check_piece_limit(peer)
        summary, chunks = await loader.split_update(update, self._document, self._scheduler, peer.caller)
        if len(chunks) == 1:
            await self.wait_until_loaded()
            return await self._apply_update(peer, update, skip_known=skip_known)
        if not self._document.has_dependencies_of(summary):
            raise PeerRefused(CloseCode.RESUME)
        size, in_turn = 0, self._needs_chunks(update)
        for chunk in chunks:
            await self.wait_until_loaded()
            if await self._apply_update(peer, chunk, skip_known=True, in_turn=in_turn):
                size += len(chunk)
            if size > SPLIT_UPDATE_BYTES:
                size = 0
                peer.charge_update()
                await self.wait_until_durable()
        return False  # the other clients received the chunks, and the sender needs a confirmation

    async def _check_piece_limit(self, peer: Peer) -> None:
        """Raise :class:`PeerRefused` if the text has too many pieces to add more, after an exact count if needed."""
        revision = self._last_count.revision
        if revision != self._document.revision:
            self._scheduler.charge(peer.caller, self.id, RECOUNT_SECONDS)
            async with self._turns.turn(peer.caller):
                full_update, revision = self._document.since(), self._document.revision
            await self._recount(full_update, revision, peer.caller)
            await self.wait_until_loaded()
        if self._document.piece_count > loader.MAX_PIECES:
            peer.reject_too_large()

    async def _recount(self, full_update: bytes, revision: int, caller: str | None) -> None:
        await loader.recount(self._document, full_update, self._scheduler, self.id, caller)
        self._last_count = _PieceCount(self._document.piece_count, revision)

    def _needs_chunks(self, update: bytes) -> bool:
        """Return whether an update may be slow to apply, or the text may have too many pieces to accept it."""
        pieces = yjs_update.count_pieces(update)
        return (
            (pieces > 1 and loader.search_seconds(self._document, pieces) > SLICE_SECONDS)
            or (pieces > 0 and self._document.piece_count > loader.MAX_PIECES)
            or loader.deletion_seconds(self._document, update) > SLICE_SECONDS
        )

    def _must_have_dependencies(self, update: bytes) -> bool:
        """Return whether an update is accepted only if the text has everything that it depends on."""
        pending = self._document.pending_count
        return (
            pending > MAX_PENDING_PIECES
            or len(update) > MAX_PENDING_UPDATE_BYTES
            or loader.search_seconds(self._document, pending + yjs_update.count_pieces(update))
            > MAX_PENDING_SEARCH_SECONDS
        )

    async def _apply_update(self, peer: Peer, update: bytes, *, skip_known: bool, in_turn: bool = False) -> bool:
        """Apply an update and queue it for the journal. Raises the errors of :meth:`receive`.

        Args:
            peer: The client that sent it.
            update: The update.
            skip_known: Whether to ignore an update without new changes.
            in_turn: Whether to wait for a turn even if the text's updates are fast.

        Returns:
            Whether the update was queued.
        """
        peer.require_write_access()  # it may have been lost while waiting, or between chunks
        if self._must_have_dependencies(update) and not self._document.has_dependencies_of(update):
            raise PeerRefused(CloseCode.RESUME)  # the client has to send the earlier changes first
        if not self._quota.surely_fits(len(update)):
            async with self._turns.turn(peer.caller):
                full_update = self._document.since()
            if not await self._quota.fits(full_update, update, self._scheduler, peer.caller):
                peer.reject_too_large()
            await self.wait_until_loaded()  # the text may have broken while waiting
        if in_turn or self._slow:
            async with self._turns.turn(peer.caller):
                peer.require_write_access()
                queued = self._apply_timed(peer, update, skip_known=skip_known, in_turn=in_turn)
        else:
            queued = self._apply_timed(peer, update, skip_known=skip_known)
        if self._journal.overloaded:
            await self.wait_until_durable()
        return queued

    def _apply_timed(self, peer: Peer, update: bytes, *, skip_known: bool, in_turn: bool = False) -> bool:
        """Apply an update and charge for the processing time. If it was long, later updates are applied in turns.

        Raises :class:`PeerRefused` if earlier updates used up the caller's budget. The time is known only afterwards.
        """
        self._scheduler.check_allowance(peer.caller, self.id)
        started = time.thread_time()  # excludes the time of other processes
        queued = self._apply_and_queue(peer, update, skip_known=skip_known)
        seconds = time.thread_time() - started
        self._slow = self._scheduler.charge_update(peer.caller, self.id, seconds, in_turn=in_turn)
        return queued

    def _apply_and_queue(self, peer: Peer, update: bytes, *, skip_known: bool) -> bool:
        """Apply an update and queue it for the journal, as :meth:`_apply_update` does.

        If it cannot be queued, the room is closed: later changes that depend on it would be journaled without it.
        """
        clients = yjs_update.count_clients(update)
        if self._document.client_count + clients > MAX_YJS_CLIENTS and self._document.count_new_clients(update):
            peer.reject_too_large()
        revision = self._document.revision
        try:
            if skip_known and not self._document.apply_if_new(update):
                return False
            if not skip_known:
                self._document.apply(update)
            self._quota.add(len(update))
            name = self.participants.name_of(peer)
            self.contributors.add([name] if name is not None else ())
            self._last_commit = self._journal.write(self, update, name)
        except DocumentBroken as error:
            self._reload(error)
            raise MalformedUpdate("cannot be applied to the text") from None
        except BaseException as error:
            if self._document.revision != revision:
                log.warning(
                    "an update was not journaled; its room is closed", extra={"note": self.id, "error": repr(error)}
                )
                self.close(CloseCode.RESUME)
            raise
        return True

    async def wait_until_durable(self) -> bool:
        """Wait until all changes applied so far are in the journal. Return false if that failed."""
        commit = self._last_commit
        # The room is closed if an earlier commit failed.
        return (commit is None or await asyncio.shield(commit)) and not self.closed

    @property
    def has_unwritten_updates(self) -> bool:
        """Whether the journal has not stored all updates yet."""
        return self._last_commit is not None and not self._last_commit.done()

    def on_commit(self, row: Row) -> None:
        """Send a journaled row to all clients, including its sender, and to the other workers."""
        self._mark_applied(row.id)
        self._projector.schedule(self)
        self.participants.broadcast([protocol.update(update) for update in row.updates])
        self._relay.enqueue(RelayMessage(RelayKind.UPDATES, self.id, row.id, row.updates, row.authors))

    def close(self, code: CloseCode) -> None:
        """Close all connections. The room must not be used afterwards."""
        self.closed = True
        for peer in list(self.participants.peers):
            peer.close(code)

    def receive_relayed(self, message: RelayMessage) -> None:
        """Process a message from another worker about this room."""
        if message.kind is RelayKind.AWARENESS:
            self.participants.receive_relayed(message)
            self._responses += message.row == self._query_id
            if self._responses == self._expected_responses:
                self._awareness_ready.set()
        elif self._loading is None or not self._loading.done():
            self._deferred.append(message)
        else:
            self._apply_relayed(message)

    def _apply_relayed(self, message: RelayMessage) -> None:
        if message.kind is RelayKind.UPDATES and not self.applied_rows.contains(message.row):
            with contextlib.suppress(Unavailable):
                self._apply_row(Row(message.row, message.note, message.updates, message.names))
            self._projector.schedule(self, remote=True)
            self.participants.broadcast([protocol.update(update) for update in message.updates])
        elif message.kind is RelayKind.COMPACTED:
            self.applied_rows.mark_compacted(message.names, message.generation)

    async def snapshot(self, record: Record) -> TextSnapshot:
        """Return the text once it is durable and includes every change in this record of the note.

        Raises :class:`NoteNotFound` or :class:`Unavailable`.
        """
        await self._ensure_includes(record)
        started = time.thread_time()
        is_cached = self._document.has_cached_text
        snapshot = self.contributors.snapshot(str(self._document))
        if not is_cached:
            self.read_seconds = time.thread_time() - started
        if not await self.wait_until_durable():
            raise Unavailable
        return snapshot

    async def durable_base(self, record: Record) -> tuple[TextSnapshot, DraftBase]:
        """Return the text like :meth:`snapshot`, also as the base of an edit. Raises the errors of :meth:`snapshot`."""
        await self.drafts.check_copy()
        await self._ensure_includes(record)
        base = self.drafts.base(self._document)
        snapshot = self.contributors.snapshot(base.text)
        if not await self.wait_until_durable():
            raise Unavailable
        return snapshot, base

    async def _ensure_includes(self, record: Record) -> None:
        """Load the changes that this record of the note includes and the text of the room does not."""
        await self.wait_until_loaded()
        if record.note.version > self.version or not self.applied_rows.contains(record.edited):
            await self.catch_up()

    def mark_stored(self, version: int, change_count: int) -> None:
        """Record that a version of the note has the first ``change_count`` changes, and names their authors."""
        self.version = max(self.version, version)
        self.contributors.mark_attributed(change_count)
        if change_count != self.contributors.change_count:
            self._projector.schedule(self)

    def apply_committed(self, row: Row, base: DraftBase, text: str) -> None:
        """Apply a draft, which turned ``base`` into ``text``, after its commit. Send it to clients and workers."""
        with contextlib.suppress(Unavailable):
            if not self._apply_row(row):
                self.drafts.rotate_client_id()  # the copy has a change that the document does not have
            elif self._document is base.document and self._document.revision == base.revision + 1:
                self._document.cache_text(text)
        self.participants.broadcast([protocol.update(update) for update in row.updates])
        self._relay.enqueue(RelayMessage(RelayKind.UPDATES, self.id, row.id, row.updates))

    @property
    def loaded(self) -> bool:
        """Whether the text is loaded."""
        return self._loading is not None and self._loading.done() and self._loading.exception() is None

    def needs_compaction(self) -> bool:
        """Return whether rows should be compacted: there are too many, or the text has not changed recently."""
        idle = time.monotonic() - self.last_used > COMPACT_IDLE_SECONDS and not self._projector.is_scheduled(self)
        return self.loaded and ((idle and bool(self.applied_rows.compactable)) or self.applied_rows.has_too_many_rows)

    async def compact(self) -> None:
        """Compact the rows into the snapshot. Raises :class:`Unavailable`."""
        await self.wait_until_loaded()
        full_update, generation = self._document.since(), self.applied_rows.generation
        rows = set(self.applied_rows.compactable)
        is_complete = not self._document.has_pending
        if not await self.wait_until_durable():
            return
        if self._document.piece_count > self._last_count.pieces * 1.2 + loader.RECOUNT_PIECES:
            await self._recount(full_update, self._document.revision, None)
        pieces = self._document.piece_count if is_complete else None
        if await self._texts.compact(self._lineage, generation, full_update, rows, pieces):
            self.applied_rows.mark_compacted(rows, generation + 1)
            self._quota.size = len(full_update)
            self._relay.enqueue(
                RelayMessage(RelayKind.COMPACTED, self.id, names=sorted(rows), generation=generation + 1)
            )
        else:
            await self.catch_up()
