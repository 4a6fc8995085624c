"""A room: the live text of one note, and who is at it.

What a client sends is applied here at once, which shows whether it can be, and leaves the room only when the journal
has it: nobody sees what might still be lost. If the journal cannot take it, the room is given up as a whole; its
clients come back, and bring again what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from realtime.core.close_codes import CloseCode
from realtime.core.frames import FrameBatch
from realtime.core.turns import SLICE_SECONDS
from realtime.errors import DocumentBroken, MalformedUpdate, NoteNotFound, Unavailable
from realtime.notes.models import iso
from realtime.rooms import crdt, loader, peer, protocol, yjs_update
from realtime.rooms.applied_rows import AppliedRows
from realtime.rooms.contributors import Contributors, TextSnapshot
from realtime.rooms.crdt import TextDocument
from realtime.rooms.loader import SizeQuota
from realtime.rooms.participants import Participants
from realtime.rooms.peer import Peer, PeerRefused
from realtime.rooms.relay import RelayKind, RelayMessage
from realtime.store.texts import Row, new_row

if TYPE_CHECKING:
    from realtime.core.token_bucket import TokenBuckets
    from realtime.core.turns import Turns
    from realtime.rooms.journal import Journal
    from realtime.rooms.relay import Relay
    from realtime.store.bson_mapping import Record
    from realtime.store.texts import TextStore

log = logging.getLogger(__name__)

LARGE = 4 * 1024
"""Bytes of an update from which on it is read in a thread."""
SLOW_SECONDS = 0.01
"""Time for an update after which the next ones of the text are applied in turns."""
PROJECT_AFTER = (0.6, 0.8)
"""Seconds after which what was typed here is in the note."""
CHECK_AFTER = (2.0, 3.0)
"""Seconds after which what was typed at another worker is looked for in the note: that worker may be gone."""
MOST_WAITING = 1000
"""Pieces that may wait for others; of so many, or one update of so many bytes, nobody may add more."""
LARGE_WAITING = 64 * 1024
SLOW_WAITING = 0.02
"""Seconds that the text may need to place what waits, and an update that would wait: it is all placed at once."""
RECOUNT_COST = 50
"""Updates that counting the pieces of a text counts as."""
ANSWERS_WITHIN = 0.2
"""Seconds for which a new room waits for the awareness of the other workers."""
QUIET = 2.0


class _Answer(NamedTuple):
    """The changes that are missing at a state vector, in a revision of the document."""

    vector: bytes
    revision: int
    changes: bytes


class Scheduler(NamedTuple):
    """What the rooms of a worker share to divide the event loop."""

    turns: Turns
    allowances: TokenBuckets
    """The time for updates that each caller has for each note, in units of ``UPDATE_SECONDS``.

    They are kept apart from connections and rooms, so that reconnecting does not refill them.
    """


class Room:
    """The room of one note in one worker."""

    def __init__(self, id: int, texts: TextStore, journal: Journal[Room], relay: Relay, scheduler: Scheduler) -> None:
        self.id = id
        self.participants = Participants(id, relay)
        self.writing = asyncio.Lock()
        self.holds = 0
        self.due: float | None = None
        self.credits = Contributors()
        self.version = 0
        self.created = ""
        self.last_used = time.monotonic()
        self.given_up = False
        self.shared = 0
        self.checks = 0
        self._texts = texts
        self._journal = journal
        self._relay = relay
        self._turns, self._allowances = scheduler
        self._answered = _Answer(crdt.NOTHING, -1, b"")
        self._slow = False
        self._counted = (0, -1)
        self._document = TextDocument()
        self._client = crdt.new_client()
        self._lineage = ""
        self.ledger = AppliedRows()
        self._space = SizeQuota(self._document)
        self._staged: asyncio.Future[bool] | None = None
        self._loaded: asyncio.Future[None] | None = None
        self._early: list[RelayMessage] = []
        self._catching_up = asyncio.Lock()
        self._query = ""
        self._expected: int | None = None
        self._answers = 0
        self._answered_all = asyncio.Event()

    async def ready(self) -> None:
        """Waits until the text is here. Raises :class:`NoteNotFound`, :class:`Unavailable`."""
        loaded = self._loaded or self._start(self._load())
        if not loaded.done() or loaded.exception() is not None:
            await asyncio.shield(loaded)

    def _start(self, loading: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        self._loaded = loaded = asyncio.ensure_future(loading)
        loaded.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody waits for it
        return loaded

    def _ask_others(self) -> None:
        """Ask the other workers which awareness clients belong to whom, unless that was done before."""
        if self._query:
            return
        self._query = secrets.token_hex(6)
        self._expected = self._relay.others
        if self._expected == 0:
            self._answered_all.set()
        else:
            self._relay.enqueue(RelayMessage(RelayKind.QUERY_AWARENESS, self.id, self._query))

    async def _wait_for_others(self) -> None:
        """Wait for the answers, as a client that comes in before them could take over clients of other callers."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWERS_WITHIN):
                await self._answered_all.wait()
        self._answered_all.set()

    async def _load(self) -> None:
        self._ask_others()
        while True:
            stored = await self._texts.read(self.id)
            if stored is None:
                raise NoteNotFound
            if stored.lineage is not None:
                break
            await self._texts.begin(self.id, stored.note.version, crdt.genesis(stored.note.content))
        updates = [*filter(None, [stored.snapshot]), *(update for row in stored.rows for update in row.updates)]
        document = await loader.made_of(updates)
        await self._wait_for_others()
        self._document = document
        self._space = SizeQuota(self._document, sum(map(len, updates)))
        self._counted = (0, -1)
        self._client = crdt.new_client()  # what is drafted under the one before may be missing here
        self._lineage, self.version = stored.lineage, stored.note.version
        self.created = iso(stored.note.created_date)
        self.ledger = AppliedRows(stored.generation, (row.id for row in stored.rows), stored.edited)
        if str(self._document) != stored.note.content:  # a worker died before it could tell
            self._touch(CHECK_AFTER)
            self.credits.add(name for row in stored.rows for name in row.authors)
        early, self._early = self._early, []
        for told in early:
            self._hear(told)

    def _reload(self, error: DocumentBroken) -> None:
        """Loads the text again, since it broke."""
        log.warning("a text broke, and is loaded again", extra={"note": self.id, "error": error.detail})

        async def reload() -> None:
            try:
                await self.durable()
                await self._load()
            except BaseException:
                self.give_up(CloseCode.RESUME)
                raise

        self._start(reload())

    async def catch_up(self) -> None:
        """Takes what the journal has and this room has not. Raises :class:`NoteNotFound`, :class:`Unavailable`."""
        await self.ready()
        async with self._catching_up:
            stored = await self._texts.read(self.id, known=self.ledger.known, generation=self.ledger.generation)
            if stored is None:
                raise NoteNotFound
            if stored.lineage != self._lineage:
                raise Unavailable("the text is another one")
            if not await self.durable():  # what is told below is all that is here
                raise Unavailable
            before = self._document.state
            if stored.snapshot is not None:
                self._apply(Row("", self.id, [stored.snapshot]))
                self.ledger.generation = stored.generation
            for row in stored.rows:
                self._apply(row)
            self.ledger.add(stored.edited or "", whole=False)
            self.version = max(self.version, stored.note.version)
            if stored.snapshot is not None or stored.rows:
                self._touch(CHECK_AFTER)
                if (news := self._document.since(before)) != crdt.EMPTY:
                    self.participants.broadcast([protocol.update(news)])

    def _apply(self, row: Row) -> None:
        """Takes what is journaled. If that breaks the text, everyone is sent away to come back to a new room."""
        try:
            whole = sum(loader.take(self._document, update) for update in row.updates) == len(row.updates)
        except DocumentBroken as error:
            log.warning("a text broke, and is given up", extra={"note": self.id, "error": error.detail})
            self.give_up(CloseCode.RESUME)
            raise Unavailable from None
        self._space.use(sum(map(len, row.updates)))
        self.credits.add(row.authors)
        self._journaled(row.id, whole=whole and row.id != "")  # if not, it is not in the snapshot either

    def _journaled(self, row: str, *, whole: bool = True) -> None:
        self.ledger.add(row, whole=whole)
        self.last_used = time.monotonic()

    async def join(self, member: Peer) -> None:
        """Lets a client in, and tells it what is here and who. Raises as :meth:`ready`."""
        await self.ready()
        self.participants.members.add(member)
        self.last_used = time.monotonic()
        member.send(FrameBatch([protocol.state(self._document.state), *self.participants.everyone()]))
        if self.given_up:  # since the client was let in
            member.close(CloseCode.RESUME)

    def leave(self, member: Peer) -> None:
        """Takes a client for gone."""
        self.last_used = time.monotonic()
        self.participants.leave(member)

    def receive_now(self, member: Peer, data: bytes) -> Coroutine[Any, Any, None] | None:
        """Takes a message of a client; what cannot be done at once is returned, to be awaited before the next one.

        Raises :class:`MalformedUpdate`, and :class:`PeerRefused` of the member's limits.
        """
        kind, payload = protocol.decode(data)
        if not self.loaded:
            return self._receive(member, kind, payload)
        if kind is protocol.SyncKind.AWARENESS:
            self.participants.set_states(member, payload)
            return None
        typed = (
            kind is protocol.SyncKind.UPDATE and member.may_write and len(payload) <= LARGE and payload != crdt.EMPTY
        )
        if (
            not typed
            or self._slow
            or self._needs_parts(payload)
            or self._needs_base(payload)
            or self._journal.crowded
            or not self._space.surely_has(len(payload))
        ):
            return self._receive(member, kind, payload)
        self._timed_enter(member, payload, brought=False)
        return None

    async def receive(self, member: Peer, data: bytes) -> None:
        """Takes a message of a client as it arrives. Raises as :meth:`acquire`."""
        member.charge_arrival(data)
        work = self.receive_now(member, data)
        if work is not None:
            await work

    async def _receive(self, member: Peer, kind: protocol.SyncKind, payload: bytes) -> None:
        await self.ready()
        if kind is protocol.SyncKind.STATE:
            await self._answer(member, payload)
        elif kind in (protocol.SyncKind.MISSING, protocol.SyncKind.UPDATE) and payload != crdt.EMPTY:
            await self._write(member, payload, brought=kind is protocol.SyncKind.MISSING)
        elif kind is protocol.SyncKind.AWARENESS:
            self.participants.set_states(member, payload)
        elif kind is protocol.SyncKind.QUERY_AWARENESS:
            everyone = FrameBatch(self.participants.everyone())
            member.charge_states(len(everyone.framed))
            member.send(everyone)

    async def _answer(self, member: Peer, vector: bytes) -> None:
        """Send a client the changes that are missing in its state vector.

        Raises :class:`MalformedUpdate`, and :class:`PeerRefused` if the client had too many bytes of answers before.
        """
        clocks = await loader.clocks_of(vector, self._document)
        member.check_answers()
        answered = None
        while answered is None:
            async with self._turns.turn(member.caller):
                if member.closing.done():
                    return
                if self.loaded:
                    answered = self._missing(clocks)
            await self.ready()
        member.charge_answer(len(answered))
        answer = FrameBatch([protocol.missing(answered)])
        if await self.durable():
            member.send(answer, expected=True)

    def _missing(self, clocks: Mapping[int, int]) -> bytes:
        """Return the changes that are missing at these clocks, from the last answer if that has the same ones."""
        vector, revision = self._document.vector(clocks), self._document.revision
        if (vector, revision) != self._answered[:2]:
            self._answered = _Answer(vector, revision, self._document.changes_after(vector))
        return self._answered.changes

    def forget_answer(self) -> None:
        """Free the memory of the last answer, which is as large as the document."""
        self._answered = _Answer(crdt.NOTHING, -1, b"")

    async def _write(self, member: Peer, update: bytes, *, brought: bool) -> None:
        if not member.may_write:
            if not brought or update[0]:  # without pieces it is only what the client knows to be deleted
                member.notify_read_only()
            return
        take = self._take_parts if len(update) > LARGE or self._needs_parts(update) else self._take
        news = await take(member, update, brought=brought)
        if not news and await self.durable():  # who comes back brings all deletions there ever were
            member.send(FrameBatch([protocol.update(update)]))

    async def _take_parts(self, member: Peer, update: bytes, *, brought: bool) -> bool:
        """Takes an update as :meth:`_take`: if that may take long, in parts, each in a turn of its own.

        The library's time for an update can grow with the square of its pieces, and with its pieces multiplied by those
        of the text, and everyone would wait.
        """
        if self._document.pieces > loader.MAX_PIECES and yjs_update.count_pieces(update):
            await self._require_few_pieces(member)
        walk, parts = await loader.parts(update, self._document)
        if len(parts) == 1:
            await self.ready()
            return await self._take(member, update, brought=brought)
        if not self._document.follows(walk):
            raise PeerRefused(CloseCode.RESUME)
        size, in_turn = 0, self._needs_parts(update)
        for part in parts:
            await self.ready()
            if await self._take(member, part, brought=True, in_turn=in_turn):
                size += len(part)
            if size > LARGE:
                size = 0
                member.charge_update()
                await self.durable()
        return False  # nobody gets it as it was sent but its sender

    async def _require_few_pieces(self, member: Peer) -> None:
        """Raise :class:`PeerRefused` if the text is made of so many pieces that adding one takes too long."""
        revision = self._counted[1]
        if revision != self._document.revision:
            self._allowances.consume((member.caller, self.id), RECOUNT_COST, time.monotonic())
            async with self._turns.turn(member.caller):
                state, revision = self._document.since(), self._document.revision
            await self._recount(state, revision)
            await self.ready()
        if self._document.pieces > loader.MAX_PIECES:
            member.reject_too_large()

    async def _recount(self, state: bytes, revision: int) -> None:
        await loader.recount(self._document, state)
        self._counted = (self._document.pieces, revision)

    def _needs_parts(self, update: bytes) -> bool:
        """Return whether the text may take long for an update, or has too many pieces for it."""
        pieces = yjs_update.count_pieces(update)
        return (
            (pieces > 1 and loader.search_seconds(self._document, pieces) > SLICE_SECONDS)
            or (pieces > 0 and self._document.pieces > loader.MAX_PIECES)
            or loader.deletion_seconds(self._document, update) > SLICE_SECONDS
        )

    def _needs_base(self, update: bytes) -> bool:  # perhaps what it builds upon is not here
        waiting = self._document.waiting
        return (
            waiting > MOST_WAITING
            or len(update) > LARGE_WAITING
            or loader.search_seconds(self._document, waiting + yjs_update.count_pieces(update)) > SLOW_WAITING
        )

    async def _take(self, member: Peer, update: bytes, *, brought: bool, in_turn: bool = False) -> bool:
        """Takes an update and has it journaled, unless it is ``brought`` and nothing in it is news."""
        member.require_write_access()  # after what was waited for, and between parts
        if self._needs_base(update) and not self._document.follows(update):
            raise PeerRefused(CloseCode.RESUME)  # what it builds upon comes first
        if not self._space.surely_has(len(update)):
            async with self._turns.turn(member.caller):
                state = self._document.since()
            if not await self._space.has(state, update):
                member.reject_too_large()
            await self.ready()  # it may have been loaded anew meanwhile
        if in_turn or self._slow:
            async with self._turns.turn(member.caller):
                member.require_write_access()
                news = self._timed_enter(member, update, brought=brought, in_turn=in_turn)
        else:
            news = self._timed_enter(member, update, brought=brought)
        if self._journal.crowded:
            await self.durable()
        return news

    def _timed_enter(self, member: Peer, update: bytes, *, brought: bool, in_turn: bool = False) -> bool:
        """Apply an update, and charge for the time. A text whose updates take long gets the next ones in turns.

        The time is known afterwards, so a caller that used up its allowance is refused the next update, or the next
        part of this one. Raises :class:`PeerRefused` then.
        """
        account = (member.caller, self.id)
        if self._allowances.remaining(account, time.monotonic()) < 0:
            raise PeerRefused(CloseCode.TOO_MANY)
        started = time.thread_time()  # not the time that other processes take
        news = self._enter(member, update, brought=brought)
        seconds = time.thread_time() - started
        self._slow = seconds > SLOW_SECONDS
        if in_turn or seconds > peer.UPDATE_SECONDS:
            self._allowances.consume(account, seconds / peer.UPDATE_SECONDS, time.monotonic())
        return news

    def _enter(self, member: Peer, update: bytes, *, brought: bool) -> bool:
        """Apply an update and queue it for the journal, as :meth:`_take`.

        Others build upon what is applied, so the room is given up if it is applied and, whatever the reason, not
        queued: their changes would be journaled without it.
        """
        revision = self._document.revision
        try:
            if brought and not self._document.offer(update):
                return False
            if not brought:
                self._document.apply(update)
            self._space.use(len(update))
            name = self.participants.name_of(member)
            self.credits.add([name] if name is not None else ())
            self._staged = self._journal.write(self, update, name)
        except DocumentBroken as error:
            self._reload(error)
            raise MalformedUpdate("breaks the text") from None
        except BaseException as error:
            if self._document.revision != revision:
                log.warning("an update was not journaled", extra={"note": self.id, "error": repr(error)})
                self.give_up(CloseCode.RESUME)
            raise
        return True

    async def durable(self) -> bool:
        """Waits until all that is in the text now is in the journal; false if that failed."""
        staged = self._staged
        # A commit before the one that is waited for may have failed.
        return (staged is None or await asyncio.shield(staged)) and not self.given_up

    @property
    def waits(self) -> bool:
        """Whether the journal has not taken all yet."""
        return self._staged is not None and not self._staged.done()

    def stored(self, row: Row) -> None:
        """What clients of this room sent is in the journal: everyone gets it, its sender included."""
        self._journaled(row.id)
        self._touch(PROJECT_AFTER)
        self.participants.broadcast([protocol.update(update) for update in row.updates])
        self._relay.enqueue(RelayMessage(RelayKind.UPDATES, self.id, row.id, row.updates, row.authors))

    def give_up(self, code: CloseCode) -> None:
        """Sends everyone away. The room must not be used any more."""
        self.given_up = True
        for member in list(self.participants.members):
            member.close(code)

    def receive_relayed(self, told: RelayMessage) -> None:
        """Takes what another worker tells of this room."""
        if told.kind is RelayKind.AWARENESS:
            self.participants.receive(told)
            self._answers += told.row == self._query
            if self._answers == self._expected:
                self._answered_all.set()
        elif self._loaded is None or not self._loaded.done():
            self._early.append(told)
        else:
            self._hear(told)

    def _hear(self, told: RelayMessage) -> None:
        if told.kind is RelayKind.UPDATES and not self.ledger.has(told.row):
            with contextlib.suppress(Unavailable):
                self._apply(Row(told.row, told.note, told.updates, told.names))
            self._touch(CHECK_AFTER)
            self.participants.broadcast([protocol.update(update) for update in told.updates])
        elif told.kind is RelayKind.COMPACTED:
            self.ledger.fold(told.names, told.generation)

    def _touch(self, after: tuple[float, float]) -> None:
        due = time.monotonic() + random.uniform(*after)
        self.due = due if self.due is None else min(due, self.due)

    async def text(self, record: Record) -> TextSnapshot:
        """The text, durable, with all in it that this state of the note has.

        Raises :class:`NoteNotFound`, :class:`Unavailable`.
        """
        await self._include(record)
        shown = self.credits.show(str(self._document))
        if not await self.durable():
            raise Unavailable
        return shown

    async def base(self, record: Record) -> tuple[TextSnapshot, bytes]:
        """The text as in :meth:`text`, and what it is made of. Raises as that."""
        await self._include(record)
        shown, state = self.credits.show(str(self._document)), self._document.since()
        if not await self.durable():
            raise Unavailable
        return shown, state

    async def _include(self, record: Record) -> None:
        """Makes sure that all is here of which this state of the note was made, here or elsewhere."""
        await self.ready()
        if record.note.version > self.version or not self.ledger.has(record.edited):
            await self.catch_up()

    def projected(self, changes: int) -> None:
        """The note has the text as it was after so many changes, and tells of who made them."""
        self.credits.mark_attributed(changes)
        self.due = None
        if changes != self.credits.changes:
            self._touch(PROJECT_AFTER)

    async def draft(self, base: tuple[TextSnapshot, bytes], wanted: str) -> Row | None:
        """The edit that makes another text of this one, as a row that nobody has yet; ``None`` if they are the same.

        What is typed meanwhile is not in the base, and so stays. To be called with nobody else ``writing``: what is
        drafted twice under one client is lost.
        """
        shown, state = base
        if shown.text == wanted:
            return None
        return new_row(self.id, [await loader.edit(state, self._client, shown.text, wanted)])

    def accept(self, row: Row) -> None:
        """The edit that was drafted is committed: everyone gets it."""
        with contextlib.suppress(Unavailable):
            self._apply(row)
        self.participants.broadcast([protocol.update(update) for update in row.updates])
        self._relay.enqueue(RelayMessage(RelayKind.UPDATES, self.id, row.id, row.updates))

    def rotate_client_id(self) -> None:
        """An edit that was drafted may or may not be committed: the next one is written under another client."""
        self._client = crdt.new_client()

    @property
    def loaded(self) -> bool:
        """Whether the text is here."""
        return self._loaded is not None and self._loaded.done() and self._loaded.exception() is None

    def wants_compaction(self) -> bool:
        """Whether there are so many rows, or it is so quiet, that they should be folded into the snapshot."""
        quiet = time.monotonic() - self.last_used > QUIET and self.due is None
        return self.loaded and ((quiet and bool(self.ledger.rows)) or self.ledger.crowded)

    async def compact(self) -> None:
        """Folds the rows into the snapshot. Raises :class:`Unavailable`."""
        await self.ready()
        state, rows, generation = self._document.since(), set(self.ledger.rows), self.ledger.generation
        if not await self.durable():
            return
        if self._document.pieces > self._counted[0] * 1.2 + loader.RECOUNT_PIECES:
            await self._recount(state, self._document.revision)
        if await self._texts.compact(self._lineage, generation, state, rows):
            self.ledger.fold(rows, generation + 1)
            self._space.size = len(state)
            self._relay.enqueue(
                RelayMessage(RelayKind.COMPACTED, self.id, names=sorted(rows), generation=generation + 1)
            )
        else:
            await self.catch_up()
