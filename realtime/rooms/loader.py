"""Builds the documents of rooms, and prepares updates for them.

Large documents are built in a thread. Large input from clients is decoded in another process, because Python code in a
thread would hold the interpreter's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from realtime.core.turns import SLICE_SECONDS
from realtime.errors import DocumentBroken, MalformedUpdate
from realtime.notes.models import MAX_CONTENT_BYTES
from realtime.rooms import yjs_update
from realtime.rooms.crdt import TextDocument
from realtime.rooms.yjs_update import UpdateSummary

if TYPE_CHECKING:
    from realtime.rooms.scheduler import Scheduler

log = logging.getLogger(__name__)

LARGE_JOURNAL_BYTES = 64 * 1024
"""Size from which a text is loaded in a thread."""
MAX_STATE_BYTES = 8 * 1024 * 1024
"""Maximum encoded size of a text."""
MAX_VECTOR_BYTES = 16 * 1024
LARGE_VECTOR_BYTES = 4 * 1024
"""Minimum size of a state vector that is decoded, or of an update that is split, in another process."""
MANY_PIECES = 50
"""Minimum number of pieces of an update that is split in another process."""
VECTOR_ENTRY_BYTES = 10
"""Maximum size of a client in a state vector: 5 bytes for its id and 5 for its clock."""
MAX_CHUNK_PIECES = 200
"""Maximum number of pieces and deletions that are applied in one step."""
PIECE_SECONDS = SLICE_SECONDS / MAX_CHUNK_PIECES
SEARCH_SECONDS = 0.25e-6
"""Time per existing piece that Yrs may visit to place a new one (measured: 0.16 to 0.23 µs)."""
DELETION_SECONDS = 16e-9
"""Time per piece of a text that a deletion covers, including deleted ones."""
MIN_DELETION_BYTES = 3
MAX_PIECES = 400_000
"""Number of pieces above which a text accepts no more from clients. Up to it, placing one takes at most 100 ms."""
RECOUNT_PIECES = 5_000
"""Growth of the estimated piece count, in addition to 20%, after which compaction counts the pieces again."""


class SizeQuota:
    """Limits the encoded size of a text, and the size of its content."""

    def __init__(self, document: TextDocument, size: int = 0) -> None:
        self.size = size
        self._document = document
        self._free_bytes = 0

    def add(self, size: int) -> None:
        """Count an applied update of ``size`` bytes."""
        self.size += size
        self._free_bytes -= size

    def surely_fits(self, size: int) -> bool:
        """Return whether any update of ``size`` bytes is within the limits."""
        if size > self._free_bytes:  # rarely: reading the length takes as long as an update
            self._free_bytes = MAX_CONTENT_BYTES - self._document.length
        return size <= self._free_bytes and self.size + size <= MAX_STATE_BYTES

    async def fits(self, full_update: bytes, update: bytes, scheduler: Scheduler, caller: str) -> bool:
        """Return whether a text is within the limits after an update, by applying it to a copy of the text.

        Raises :class:`MalformedUpdate` or :class:`PeerRefused`.
        """
        self.size = len(full_update)
        try:
            length = await scheduler.run_in_process_for_caller(caller, _length, [full_update, update])
        except DocumentBroken:
            raise MalformedUpdate("cannot be applied to the text") from None
        return self.size + len(update) <= MAX_STATE_BYTES and length <= MAX_CONTENT_BYTES


def _length(updates: Sequence[bytes]) -> int:
    """Return the size of the text with these updates. Raises :class:`MalformedUpdate` or :class:`DocumentBroken`."""
    return TextDocument(updates).length


async def load(updates: Sequence[bytes], pieces: int | None, scheduler: Scheduler, note: int) -> TextDocument:
    """Return a document with these journaled updates.

    Args:
        updates: The updates.
        pieces: The number of pieces in the first update if it is a snapshot without pending pieces, else ``None``.
        scheduler: Runs the work in a thread if there is much of it.
        note: The id of the note.

    Raises:
        DocumentBroken: The updates leave the document in an unknown state.
        Unavailable: Too much work is waiting.
    """
    work = partial(_load, updates, pieces)
    return (
        work() if sum(map(len, updates)) < LARGE_JOURNAL_BYTES else await scheduler.run_in_thread_for_note(note, work)
    )


def _load(updates: Sequence[bytes], pieces: int | None) -> TextDocument:
    document = TextDocument()
    if pieces is not None:
        document, updates = TextDocument.trusted(updates[0]), updates[1:]
        document.piece_count = pieces
    for update in updates:
        apply_journaled(document, update)
    return document


def apply_journaled(document: TextDocument, update: bytes) -> bool:
    """Apply a journaled update, and return whether that succeeded.

    It was validated when it was received, but may be incompatible with updates that other workers received.
    """
    try:
        document.apply(update)
    except MalformedUpdate as error:
        log.warning("a journaled update was skipped", extra={"error": error.detail})
        return False
    return True


async def split_update(
    update: bytes, document: TextDocument, scheduler: Scheduler, caller: str
) -> tuple[UpdateSummary, list[bytes]]:
    """Return a summary of an update, and chunks of it that are fast to apply. Raises :class:`MalformedUpdate`."""
    cost = document.piece_count, SEARCH_SECONDS / PIECE_SECONDS
    if len(update) < LARGE_VECTOR_BYTES and yjs_update.count_pieces(update) < MANY_PIECES:
        return yjs_update.split_update(update, MAX_CHUNK_PIECES, document.clocks, *cost)
    return await scheduler.run_in_process_for_caller(
        caller, yjs_update.split_update, update, MAX_CHUNK_PIECES, document.state, *cost
    )


def search_seconds(document: TextDocument, new_pieces: int) -> float:
    """Return the maximum time to place a number of new pieces in a text, in seconds."""
    return new_pieces * (document.piece_count + new_pieces) * SEARCH_SECONDS


def deletion_seconds(document: TextDocument, update: bytes) -> float:
    """Return the maximum time for an update's deletions, in seconds, as if each covered the whole text."""
    return len(update) // MIN_DELETION_BYTES * document.piece_count * DELETION_SECONDS


async def recount(
    document: TextDocument, full_update: bytes, scheduler: Scheduler, note: int, caller: str | None
) -> None:
    """Correct the piece count of a document by its full update, which may be of an earlier revision.

    Raises :class:`PeerRefused`, or :class:`Unavailable` if it is done on behalf of the note instead of a caller.
    """
    before = document.piece_count
    if caller is None:
        counted = await scheduler.run_in_process_for_note(note, yjs_update.recount_pieces, full_update)
    else:
        counted = await scheduler.run_in_process_for_caller(caller, yjs_update.recount_pieces, full_update)
    document.piece_count += counted - before  # it may have grown during the count


async def trim_vector(vector: bytes, document: TextDocument, scheduler: Scheduler, caller: str) -> bytes:
    """Return a client's state vector as :meth:`TextDocument.trim_vector` does. Raises :class:`MalformedUpdate`.

    It may be longer than the vector of the document: the client may have changes that are not in the document yet.
    """
    limit = MAX_VECTOR_BYTES + 2 * document.client_count * VECTOR_ENTRY_BYTES
    if len(vector) > limit:
        raise MalformedUpdate(f"has a state vector of {len(vector)} bytes, more than the limit of {limit}")

    if len(vector) < LARGE_VECTOR_BYTES:
        return document.trim_vector(vector)
    trimmed, clocks = await scheduler.run_in_process_for_caller(
        caller, yjs_update.decode_and_trim_vector, vector, document.state, document.clients_with_surrogates
    )
    document.check_clocks(clocks)
    return trimmed
