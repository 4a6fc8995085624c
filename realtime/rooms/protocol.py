"""The messages of the y-websocket protocol: synchronization, awareness, and awareness queries.

A message consists of its type and a payload: see ``sync.js``, ``awareness.js`` and ``auth.js`` of y-protocols.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from realtime.errors import MalformedUpdate
from realtime.rooms import lib0

_SYNC, _AWARENESS, _AUTH, _QUERY_AWARENESS = range(4)


class SyncKind(IntEnum):
    """The type of a message."""

    STATE = 0
    """A state vector, which requests the missing changes (sync step 1)."""
    MISSING = 1
    """The missing changes (sync step 2)."""
    UPDATE = 2
    AWARENESS = 3
    QUERY_AWARENESS = 4


class SyncMessage(NamedTuple):
    """A message from a client."""

    kind: SyncKind
    payload: bytes


def is_awareness(data: bytes) -> bool:
    """Return whether a message contains or requests awareness states."""
    return data[:1] in (b"\1", b"\3")


def decode(data: bytes) -> SyncMessage:
    """Decode a message. Raises :class:`MalformedUpdate`."""
    reader = lib0.Reader(data)
    kind = reader.number(255)
    if kind == _QUERY_AWARENESS:
        message = SyncMessage(SyncKind.QUERY_AWARENESS, b"")
    elif kind == _SYNC:
        message = SyncMessage(SyncKind(reader.number(2)), reader.array())
    elif kind == _AWARENESS:
        message = SyncMessage(SyncKind.AWARENESS, reader.array())
    elif kind == _AUTH:
        raise MalformedUpdate(f"has message type {kind}, which only servers send in the y-websocket protocol")
    else:
        raise MalformedUpdate(f"has the unknown message type {kind}; the y-websocket protocol has 0, 1 and 3")
    reader.finish()
    return message


def state(state: bytes) -> bytes:
    """Return sync step 1, which contains a state vector."""
    return bytes((_SYNC, 0)) + lib0.array(state)


def missing(update: bytes) -> bytes:
    """Return sync step 2, which contains missing changes."""
    return bytes((_SYNC, 1)) + lib0.array(update)


def update(update: bytes) -> bytes:
    """Return a message that contains an update."""
    return bytes((_SYNC, 2)) + lib0.array(update)


def denied(reason: str) -> bytes:
    """Return the message for a client whose write access is denied (y-protocols ``auth.js``)."""
    return bytes((_AUTH, 0)) + lib0.string(reason)


def awareness(entries: bytes) -> bytes:
    """Return a message that contains the states of awareness clients."""
    return bytes((_AWARENESS,)) + lib0.array(entries)
