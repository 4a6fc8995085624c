"""Client side of ``realtime watch``: a minimal feed client that reconnects and resumes automatically."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI
from websockets.frames import Close
from websockets.http11 import Response

from realtime.cli.addresses import is_this_machine, proxy_problem
from realtime.cli.terminal import printable
from realtime.core.close_codes import may_reconnect
from realtime.errors import RealtimeError

FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 20.0
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
SILENCE_TIMEOUT_SECONDS = 60.0  # more than two heartbeats
FINAL_STATUSES = {401, 403, 421}
"""HTTP statuses of a handshake after which the client does not retry."""


class ConnectionRefused(RealtimeError):
    """Raised if the server refused the connection and a retry cannot succeed. The message gives the reason."""


def feed_url(url: str, since: str | None) -> str:
    """Return the WebSocket URL of a feed.

    Args:
        url: The URL of the web app or of the feed, or a host name.
        since: The cursor to resume from.

    Raises:
        ConnectionRefused: The URL is not the address of a server.
    """
    refused = ConnectionRefused(f"{url} is not the address of a server; use for example http://127.0.0.1:8000")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme = SCHEMES[parts.scheme]
        if not parts.hostname or parts.port == 0:
            raise refused
    except (KeyError, ValueError):  # an unknown scheme, or an invalid host or port
        raise refused from None
    path = parts.path.rstrip("/").removesuffix("/ws") + "/ws"
    return urlunsplit((scheme, parts.netloc, path, urlencode({"since": since}, errors="replace") if since else "", ""))


async def follow(
    url: str, since: str | None, on_reconnect: Callable[[str], None], token: str | None = None
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the frames of the feed, without repeated events. Reconnects and resumes after each failure.

    Args:
        url: The address of the server.
        since: The cursor to resume from.
        on_reconnect: Called with a message whenever the connection is lost.
        token: An API token, for servers with accounts.

    Raises:
        ConnectionRefused: The server refused the connection permanently.
    """
    cursor = since
    versions: dict[int, int] = {}
    failures = 0
    while True:
        try:
            async with await _connect(feed_url(url, cursor), token) as socket:
                while True:
                    async with asyncio.timeout(SILENCE_TIMEOUT_SECONDS):
                        frame = _frame_of(url, await socket.recv())
                    failures = 0
                    cursor = frame.get("cursor", cursor)
                    if not _is_repeated(frame, versions):
                        yield frame
        except (ConnectionClosed, InvalidURI, InvalidHandshake, OSError) as error:  # TimeoutError is an OSError
            reason = _failure(url, error)
        # Full jitter: clients that were disconnected together do not reconnect together.
        delay = random.uniform(0, min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**failures))
        failures = min(failures + 1, 10)
        on_reconnect(f"{reason}; reconnecting in {delay:.1f} s")
        await asyncio.sleep(delay)


def _is_repeated(frame: dict[str, Any], versions: dict[int, int]) -> bool:
    """Return whether a frame is an event that was delivered before a resume, and remember its version."""
    if not frame["type"].startswith("note."):
        return False
    if frame["version"] <= versions.get(frame["id"], 0):
        return True
    versions[frame["id"]] = frame["version"]
    return False


def _failure(url: str, error: Exception) -> str:
    """Return the reason for a lost connection. Raises :class:`ConnectionRefused` if a retry cannot succeed."""
    match error:
        case ConnectionClosed(rcvd=None):
            return "the connection was lost"
        case ConnectionClosed(rcvd=Close(code, reason)):
            reason = reason or f"closed with {code}"
            if not may_reconnect(code):
                raise ConnectionRefused(f"the server refused: {reason}") from None
            return reason
        case InvalidURI():
            raise ConnectionRefused(f"{url} is not the address of a server: {error}") from None
        case InvalidStatus(response=response):
            reason = _reason(response)
            if response.status_code in FINAL_STATUSES:
                raise ConnectionRefused(f"the server refused: {reason}") from None
            return reason
        case InvalidHandshake():
            return f"no feed at this address: {error}"
        case TimeoutError():
            return "no heartbeat from the server"
        case OSError():
            return error.strerror or str(error)
    return str(error)


def _reason(response: Response) -> str:
    """Return the reason for a failed handshake."""
    try:
        return str(json.loads(response.body)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"no feed at this address (status {response.status_code})"


async def _connect(address: str, token: str | None) -> ClientConnection:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    proxy: Literal[True] | None = None if is_this_machine(address) else True
    try:
        return await connect(address, max_size=None, compression=None, additional_headers=headers, proxy=proxy)
    except UnicodeError as error:
        raise ConnectionRefused(f"{address} is not the address of a server: {error}") from None
    except (InvalidProxy, ImportError, ValueError) as error:
        raise ConnectionRefused(proxy_problem(error)) from None


def _frame_of(url: str, message: str | bytes) -> dict[str, Any]:
    try:
        frame = json.loads(message)
    except ValueError:
        frame = None
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise ConnectionRefused(f"{url} is not a realtime server")
    return frame


def describe(frame: dict[str, Any]) -> str | None:
    """Return a frame as one readable line, or ``None`` for a heartbeat."""
    line = _line(frame)
    # The text of a note must not contain line feeds or terminal control sequences.
    return None if line is None else printable(line)


def _line(frame: dict[str, Any]) -> str | None:
    match frame:
        case {"type": "note.created" | "note.updated" as type, "id": id, "version": version, "note": note}:
            return f"{type.removeprefix('note.')}  #{id} v{version}  {note['title']} – {note['description']}"
        case {"type": "note.deleted", "id": id, "version": version}:
            return f"deleted  #{id} v{version}"
        case {"type": "ready", "cursor": cursor}:
            return f"ready    {cursor}"
        case {"type": "reset", "cursor": cursor}:
            return f"reset    {cursor}  (missed events are no longer available: read GET /notes/ again)"
        case {"type": "presence", "id": id, "people": people}:
            return f"presence #{id}  {len(people)} present"
        case {"type": "presence.changed", "id": id, "state": state}:
            return f"presence #{id}  {'someone left' if state is None else 'someone is present'}"
        case {"type": "error", "detail": detail}:
            return f"error    {detail}"
    return None
