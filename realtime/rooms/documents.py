"""The documents of rooms, made of what is journaled; large ones in a thread, so that nobody waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from realtime import updates
from realtime.crdt import Document
from realtime.errors import MalformedUpdate
from realtime.merge import changes
from realtime.updates import Walk

log = logging.getLogger(__name__)

LARGE = 64 * 1024
"""Bytes."""
MOST_PIECES = 500
"""Pieces and deletions that a text takes at once."""


async def made_of(journaled: Sequence[bytes]) -> Document:
    """A document of what is journaled. Raises :class:`DocumentBroken`."""
    small = sum(map(len, journaled)) < LARGE
    return _made(journaled) if small else await asyncio.to_thread(_made, journaled)


def _made(journaled: Sequence[bytes]) -> Document:
    document = Document()
    for update in journaled:
        take(document, update)
    return document


def take(document: Document, update: bytes) -> bool:
    """Takes what is journaled. It was checked where it came in, so it fits, but perhaps not with all of the others."""
    try:
        document.apply(update)
    except MalformedUpdate as error:
        log.warning("an update of a text is left out", extra={"error": error.detail})
        return False
    return True


async def parts(update: bytes) -> tuple[Walk, list[bytes]]:
    """What an update holds, and the same as parts that are quickly taken. Raises :class:`MalformedUpdate`."""
    return await asyncio.to_thread(updates.parts, update, MOST_PIECES)


async def edit(state: bytes, client: int, text: str, wanted: str) -> bytes:
    """The update by which this client makes another text of the one that is in this state."""

    def made() -> bytes:
        return Document([state], client).edit(changes(text, wanted))

    small = len(state) < LARGE and len(wanted) < LARGE
    return made() if small else await asyncio.to_thread(made)
