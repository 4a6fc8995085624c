"""WebSocket close codes. A client uses the code to decide whether to reconnect."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """WebSocket close codes. Clients reconnect after codes below 4500, except 1009."""

    DRAIN = 1012
    TOO_BIG = 1009
    TOO_SLOW = 4008
    RESUME = 4010
    NO_PONG = 4012
    TOO_MANY = 4029
    BAD_FRAME = 4500
    NOT_SIGNED_IN = 4501
    PERMISSION_GONE = 4503
    NOTE_GONE = 4504


def may_reconnect(code: int) -> bool:
    """Return whether a client should reconnect after this close code."""
    return code < 4500 and code != CloseCode.TOO_BIG


CLOSE_REASONS: dict[CloseCode, str] = {
    CloseCode.DRAIN: "the server is going away, reconnect",
    CloseCode.TOO_BIG: "message too big",
    CloseCode.TOO_SLOW: "too slow, resume with the last cursor",
    CloseCode.RESUME: "resume with the last cursor",
    CloseCode.NO_PONG: "no pong",
    CloseCode.TOO_MANY: "too many",
    CloseCode.BAD_FRAME: "bad frame",
    CloseCode.NOT_SIGNED_IN: "not signed in",
    CloseCode.PERMISSION_GONE: "permission gone",
    CloseCode.NOTE_GONE: "note gone",
}
