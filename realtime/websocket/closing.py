"""Closing a WebSocket with a code that says what to do, and a reason in words."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from realtime.errors import CLOSE_REASONS, CloseCode
from realtime.websocket.connection import RECONNECT_DELAY

WITHIN = 1.0
REPEATED = {CloseCode.BAD_FRAME, CloseCode.TOO_BIG, CloseCode.TOO_MANY}
"""Close codes of errors that a client is likely to repeat after reconnecting."""


def delay_of(code: CloseCode) -> float:
    """Return the delay in seconds before closing a connection to a room."""
    return RECONNECT_DELAY if code in REPEATED else 0


async def close(socket: WebSocket, code: CloseCode, last: str | None = None, reason: str | None = None) -> None:
    """Closes a socket, with a text message before it if there is one to send."""
    if socket.client_state is not WebSocketState.CONNECTED:
        return
    # A client that takes nothing would hold this up for ever; the server then drops the connection.
    with contextlib.suppress(WebSocketDisconnect, OSError, TimeoutError, RuntimeError):
        async with asyncio.timeout(WITHIN):
            if last is not None:
                await socket.send_text(last)
            await socket.close(code, reason or CLOSE_REASONS[code])
