"""Encodes feed messages other than events as frames. Events are encoded in :mod:`realtime.eventlog.codec`."""

from __future__ import annotations

from functools import lru_cache

from pydantic import BaseModel

from realtime.core.frames import Frame
from realtime.eventlog.cursor import Cursor
from realtime.feed.messages import Heartbeat, Ready, Reset

RESET = "reset"  # the conflation key of a reset frame


def encode(message: BaseModel) -> bytes:
    """Return a message as JSON."""
    return message.__pydantic_serializer__.to_json(message)


@lru_cache(maxsize=1)
def ready(position: Cursor) -> Frame:
    """Return a ``ready`` frame. The latest one is cached, because clients that connect between two events share it."""
    return Frame(encode(Ready(cursor=str(position))), cursor=str(position))


def reset(position: Cursor) -> Frame:
    """Return a ``reset`` frame: clients fetch all notes again and resume from the position."""
    return Frame(encode(Reset(cursor=str(position))), key=RESET, cursor=str(position))


def heartbeat(position: Cursor) -> Frame:
    """Return a ``heartbeat`` frame: clients have received everything up to the position."""
    return Frame(encode(Heartbeat(cursor=str(position))), cursor=str(position))
