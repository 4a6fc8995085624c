"""The messages of the feed that are not events, encoded as frames."""

from __future__ import annotations

from functools import lru_cache

from pydantic import BaseModel

from realtime.core.frames import Frame
from realtime.eventlog.cursor import Cursor
from realtime.feed.messages import Heartbeat, Ready, Reset

RESET = "reset"  # the key of a reset frame


def encode(message: BaseModel) -> bytes:
    """A message as the JSON that the sockets send."""
    return message.__pydantic_serializer__.to_json(message)


@lru_cache(maxsize=1)
def ready(position: Cursor) -> Frame:
    """The frame that says: everything after the position will come. It is the same for all who come meanwhile."""
    return Frame(encode(Ready(cursor=str(position))), cursor=str(position))


def reset(position: Cursor) -> Frame:
    """The frame that says: start over, and go on from the position."""
    return Frame(encode(Reset(cursor=str(position))), key=RESET, cursor=str(position))


def heartbeat(position: Cursor) -> Frame:
    """The frame that says: nothing was missed up to the position."""
    return Frame(encode(Heartbeat(cursor=str(position))), cursor=str(position))
