"""The documents of rooms, made of what is journaled; large ones in a thread, so that nobody waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from realtime.core.turns import SLICE_SECONDS
from realtime.errors import DocumentBroken, MalformedUpdate
from realtime.notes.diff import changes
from realtime.notes.models import MAX_CONTENT_BYTES
from realtime.rooms import yjs_update
from realtime.rooms.crdt import TextDocument
from realtime.rooms.yjs_update import UpdateSummary

log = logging.getLogger(__name__)

LARGE = 64 * 1024
"""Bytes."""
MAX_STATE = 8 * 1024 * 1024
SMALL_EDIT = 1024
"""Bytes of a text that is compared and changed at once."""
MAX_VECTOR = 64 * 1024
LARGE_VECTOR = 4 * 1024
"""Bytes of a state vector from which on it is decoded in a thread."""
VECTOR_ENTRY = 10
"""Bytes that a client takes in a state vector: 5 for its id and up to 5 for its clock."""
MOST_PIECES = 500
"""Pieces and deletions that a text takes at once."""
PIECE_SECONDS = SLICE_SECONDS / MOST_PIECES
SEARCH_SECONDS = 0.25e-6
"""Time for each piece of a text that the library may look at to place a new one (measured: 0.16 to 0.23 µs)."""
DELETION_SECONDS = 16e-9
"""Time for each piece of a text that a deletion is of, also if it is deleted already."""
SMALLEST_DELETION = 3
"""Bytes."""
MAX_PIECES = 400_000
"""Pieces of a text to which clients can add more. Placing one then takes at most 100 ms."""
RECOUNT_PIECES = 5_000
"""Pieces that may have been counted twice, after which they are counted again."""


class SizeQuota:
    """How much a text may grow: to so many bytes of what it is made of, and as many of its content as a note has."""

    def __init__(self, document: TextDocument, size: int = 0) -> None:
        self.size = size
        self._document = document
        self._spare = 0

    def use(self, size: int) -> None:
        """Counts an update of so many bytes that the text took."""
        self.size += size
        self._spare -= size

    def surely_has(self, size: int) -> bool:
        """Whether there is room for an update of so many bytes, whatever is in it."""
        if size > self._spare:  # asked for now and then: the answer takes as long as an update does
            self._spare = MAX_CONTENT_BYTES - self._document.length
        return size <= self._spare and self.size + size <= MAX_STATE

    async def has(self, state: bytes, update: bytes) -> bool:
        """Whether there is room for an update of this state, by trying it. Raises :class:`MalformedUpdate`."""
        self.size = len(state)
        try:
            trial = await asyncio.to_thread(TextDocument, [state, update])
        except DocumentBroken:
            raise MalformedUpdate("breaks the text") from None
        return self.size + len(update) <= MAX_STATE and trial.length <= MAX_CONTENT_BYTES


async def made_of(journaled: Sequence[bytes]) -> TextDocument:
    """A document of what is journaled. Raises :class:`DocumentBroken`."""
    small = sum(map(len, journaled)) < LARGE
    return _made(journaled) if small else await asyncio.to_thread(_made, journaled)


def _made(journaled: Sequence[bytes]) -> TextDocument:
    document = TextDocument()
    for update in journaled:
        take(document, update)
    return document


def take(document: TextDocument, update: bytes) -> bool:
    """Takes what is journaled. It was checked where it came in, so it fits, but perhaps not with all of the others."""
    try:
        document.apply(update)
    except MalformedUpdate as error:
        log.warning("an update of a text is left out", extra={"error": error.detail})
        return False
    return True


async def parts(update: bytes, document: TextDocument) -> tuple[UpdateSummary, list[bytes]]:
    """What an update holds, and the same as parts that are quickly taken. Raises :class:`MalformedUpdate`."""
    cost = (MOST_PIECES, document.clocks, document.pieces, SEARCH_SECONDS / PIECE_SECONDS)
    if len(update) < LARGE_VECTOR:
        return yjs_update.parts(update, *cost)
    return await asyncio.to_thread(yjs_update.parts, update, *cost)


def search_seconds(document: TextDocument, pieces: int) -> float:
    """Return the time that a text may need at most to place new pieces, in seconds."""
    return pieces * (document.pieces + pieces) * SEARCH_SECONDS


def deletion_seconds(document: TextDocument, update: bytes) -> float:
    """Return the time that deletions in an update may need at most if each is of the whole text, in seconds."""
    return len(update) // SMALLEST_DELETION * document.pieces * DELETION_SECONDS


async def recount(document: TextDocument, state: bytes) -> None:
    """Count the pieces of a text, which has this state or went on from it."""
    before = document.pieces
    document.pieces += await asyncio.to_thread(yjs_update.recount_pieces, state) - before


async def clocks_of(vector: bytes, document: TextDocument) -> dict[int, int]:
    """Decode the state vector of a client of this document. Raises :class:`MalformedUpdate`.

    It may name twice as many clients as the document has: the client may hold changes that are not here yet.
    """
    limit = MAX_VECTOR + 2 * document.clients * VECTOR_ENTRY
    if len(vector) > limit:
        raise MalformedUpdate(f"has a state vector of {len(vector)} bytes, more than the limit of {limit}")
    if len(vector) < LARGE_VECTOR:
        return yjs_update.clocks_of(vector)
    return await asyncio.to_thread(yjs_update.clocks_of, vector)


async def edit(state: bytes, client: int, text: str, wanted: str) -> bytes:
    """The update by which this client makes another text of the one that is in this state."""

    def made() -> bytes:
        return TextDocument([state], client).edit(changes(text, wanted))

    small = len(state) + len(wanted) < SMALL_EDIT  # the time grows with the square of the lines
    return made() if small else await asyncio.to_thread(made)
