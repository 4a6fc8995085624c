"""``realtime watch``: the smallest complete client of the feed. Follows it, comes back by itself, resumes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI
from websockets.http11 import Response

from realtime.cli.addresses import is_this_machine, proxy_problem
from realtime.cli.terminal import printable
from realtime.core.close_codes import may_come_back
from realtime.errors import RealtimeError

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 20.0
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
SILENCE = 60.0  # more than two heartbeats
FINAL = {401, 403, 421}
"""HTTP statuses of a handshake after which it is not tried again."""


class ConnectionRefused(RealtimeError):
    """The server does not want this client back; the message says why."""


def feed_url(url: str, since: str | None) -> str:
    """The address of the feed of a server, given by its page, its feed or its host."""
    refused = ConnectionRefused(f"{url} is not the address of a server: write for example http://127.0.0.1:8000")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme = SCHEMES[parts.scheme]
        if not parts.hostname or parts.port == 0:
            raise refused
    except (KeyError, ValueError):  # what urlsplit and its port raise
        raise refused from None
    path = parts.path.rstrip("/").removesuffix("/ws") + "/ws"
    return urlunsplit((scheme, parts.netloc, path, urlencode({"since": since}, errors="replace") if since else "", ""))


async def follow(
    url: str, since: str | None, tell: Callable[[str], None], token: str | None = None
) -> AsyncGenerator[dict[str, Any]]:
    """Every frame of the feed that is news, across reconnects. ``tell`` hears what happens to the connection.

    A server with accounts is told the API token.

    Raises :class:`HandshakeRefused` when the server says not to come back.
    """
    cursor = since
    versions: dict[int, int] = {}
    failures = 0
    while True:
        reason = "the connection was lost"
        try:
            async with await _connect(feed_url(url, cursor), token) as socket:
                while True:
                    async with asyncio.timeout(SILENCE):
                        frame = _frame_of(url, await socket.recv())
                    failures = 0
                    cursor = frame.get("cursor", cursor)
                    if frame["type"].startswith("note."):
                        # An event may come again, and then it is no news.
                        if frame["version"] <= versions.get(frame["id"], 0):
                            continue
                        versions[frame["id"]] = frame["version"]
                    yield frame
        except ConnectionClosed as closed:
            if closed.rcvd is not None:
                reason = closed.rcvd.reason or f"closed with {closed.rcvd.code}"
                if not may_come_back(closed.rcvd.code):
                    raise ConnectionRefused(f"the server refused: {reason}") from None
        except InvalidURI as error:
            raise ConnectionRefused(f"{url} is not the address of a server: {error}") from None
        except InvalidStatus as error:
            reason = _reason(error.response)
            if error.response.status_code in FINAL:
                raise ConnectionRefused(f"the server refused: {reason}") from None
        except InvalidHandshake as error:
            reason = f"no feed there: {error}"
        except TimeoutError:
            reason = "the server is silent"
        except OSError as error:
            reason = error.strerror or str(error)
        # Full jitter: clients that were cut off together do not come back together.
        pause = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**failures))
        failures = min(failures + 1, 10)
        tell(f"{reason}; trying again in {pause:.1f} s")
        await asyncio.sleep(pause)


def _reason(answer: Response) -> str:
    """Return the reason for a failed handshake."""
    try:
        return str(json.loads(answer.body)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"no feed there: the answer was {answer.status_code}"


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
        raise ConnectionRefused(f"{url} does not answer as a realtime server")
    return frame


def describe(frame: dict[str, Any]) -> str | None:
    """A frame in one line for people; ``None`` for what only keeps the connection alive."""
    line = _line(frame)
    # A note must neither break the line nor drive the terminal.
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
            return f"reset    {cursor}  (what was missed is no longer kept: read GET /notes/ again)"
        case {"type": "presence", "id": id, "people": people}:
            return f"presence #{id}  {len(people)} looking"
        case {"type": "presence.changed", "id": id, "state": state}:
            return f"presence #{id}  {'someone left' if state is None else 'someone is looking'}"
        case {"type": "error", "detail": detail}:
            return f"error    {detail}"
    return None
