"""The messages of the y-websocket protocol: synchronisation, awareness, and the question for awareness.

A message is the number of its kind and what belongs to it: see ``sync.js``, ``awareness.js`` and ``auth.js`` of
y-protocols.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from realtime import lib0
from realtime.errors import MalformedUpdate

_SYNC, _AWARENESS, _AUTH, _QUERY_AWARENESS = range(4)


class Kind(IntEnum):
    """What a message is."""

    STATE = 0
    """"This is what I have": to be answered with what is missing there (sync step 1)."""
    MISSING = 1
    """The answer to it (sync step 2)."""
    UPDATE = 2
    AWARENESS = 3
    QUERY_AWARENESS = 4
    OTHER = 5
    """What a client may send and a server has no use for."""


class Message(NamedTuple):
    """A message of a client."""

    kind: Kind
    payload: bytes


def decode(data: bytes) -> Message:
    """Reads a message. Raises :class:`MalformedUpdate`."""
    reader = lib0.Reader(data)
    kind = reader.number(255)
    if kind == _QUERY_AWARENESS:
        return Message(Kind.QUERY_AWARENESS, b"")
    if kind == _AUTH:
        return Message(Kind.OTHER, b"")
    if kind == _SYNC:
        message = Message(Kind(reader.number(2)), reader.array())
    elif kind == _AWARENESS:
        message = Message(Kind.AWARENESS, reader.array())
    else:
        raise MalformedUpdate(f"is of kind {kind}, which is not known here")
    reader.finish()
    return message


def state(state: bytes) -> bytes:
    """Sync step 1."""
    return bytes((_SYNC, 0)) + lib0.array(state)


def missing(update: bytes) -> bytes:
    """Sync step 2."""
    return bytes((_SYNC, 1)) + lib0.array(update)


def update(update: bytes) -> bytes:
    """An update."""
    return bytes((_SYNC, 2)) + lib0.array(update)


def denied(reason: str) -> bytes:
    """That the client may not write (y-protocols ``auth.js``)."""
    return bytes((_AUTH, 0)) + lib0.string(reason)


def awareness(entries: bytes) -> bytes:
    """States of clients."""
    return bytes((_AWARENESS,)) + lib0.array(entries)
