"""Who is in a room, and where: the awareness protocol of Yjs (y-protocols ``awareness.js``).

Of each client the state with the highest clock counts; ``null`` is the state of one that is gone. States are JSON of
the client's own choice, passed on as they came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from realtime import lib0
from realtime.errors import MalformedUpdate

MAX_STATE = 8 * 1024
MAX_CLIENTS = 10_000
OUTDATED = 30.0
"""Seconds without a word after which a client counts as gone; clients repeat themselves every 15."""
MAX_NAME = 40
GONE = "null"
_LARGEST = 2**53 - 1


class _Entry(NamedTuple):
    clock: int
    state: str
    heard: float


class Awareness:
    """The states of the clients in a room. Times are in seconds, of any clock that only goes forward."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    def take(self, data: bytes, now: float) -> tuple[bytes, set[int], bytes]:
        """Takes states: returns those that were news, encoded (empty if none), and the clients that are new here.

        The third is to be told to whoever sent them: clients that say nothing newer than when they were taken for
        gone. A client that hears so of itself says that it is here, with a higher clock; it would else stay unseen
        after it came back. Raises :class:`MalformedUpdate`, with nothing taken.
        """
        news: dict[int, _Entry] = {}
        gone: dict[int, _Entry] = {}
        for client, clock, state in _decoded(data):
            known = self._entries.get(client)
            if known is not None and clock <= known.clock:
                # A client that is thought gone by others is, at the same clock.
                if not (clock == known.clock and state == GONE and known.state != GONE):
                    if state != GONE and known.state == GONE:
                        gone[client] = known
                    continue
            elif state != GONE:
                _check(state)
            news[client] = _Entry(clock, state, now)
        if len(self._entries) + len(news) > MAX_CLIENTS:
            raise MalformedUpdate("names too many clients")
        arrived = {client for client, entry in news.items() if entry.state != GONE and not self._here(client)}
        self._entries |= news
        return _encoded(news.items()) if news else b"", arrived, _encoded(gone.items()) if gone else b""

    def _here(self, client: int) -> bool:
        entry = self._entries.get(client)
        return entry is not None and entry.state != GONE

    def everyone(self) -> bytes:
        """The states of all that are here, encoded; empty if there is nobody."""
        here = [(client, entry) for client, entry in self._entries.items() if entry.state != GONE]
        return _encoded(here) if here else b""

    def named(self, data: bytes) -> set[int]:
        """The clients whose states these are. Raises :class:`MalformedUpdate`."""
        return {client for client, _, _ in _decoded(data)}

    def states(self, clients: Iterable[int]) -> bytes:
        """The states of these clients as they are now, encoded."""
        return _encoded([(client, self._entries[client]) for client in clients if client in self._entries])

    def leave(self, clients: Iterable[int], now: float) -> bytes:
        """Takes these clients for gone; returns that as states, encoded (empty if none was here)."""
        left = {client: _Entry(self._entries[client].clock, GONE, now) for client in clients if self._here(client)}
        self._entries |= left
        return _encoded(left.items()) if left else b""

    def expire(self, now: float) -> bytes:
        """Takes for gone who said nothing for too long, and forgets who was gone; returns as :meth:`leave`."""
        late = {client for client, entry in self._entries.items() if now - entry.heard > OUTDATED}
        for client in [client for client in late if not self._here(client)]:
            del self._entries[client]
        return self.leave(late & self._entries.keys(), now)

    def name_of(self, clients: Iterable[int]) -> str | None:
        """The name that one of these clients goes by (``user.name``, as editors set it)."""
        for client in clients:
            entry = self._entries.get(client)
            state = None if entry is None else json.loads(entry.state)
            user = state.get("user") if isinstance(state, dict) else None
            name = user.get("name") if isinstance(user, dict) else None
            if isinstance(name, str) and name.strip():
                return name.strip()[:MAX_NAME]
        return None


def signed(data: bytes, name: str) -> bytes:
    """States with this name as ``user.name`` wherever they have one. Raises :class:`MalformedUpdate`."""
    entries = [(client, _Entry(clock, _signed(state, name), 0)) for client, clock, state in _decoded(data)]
    return _encoded(entries)


def _signed(state: str, name: str) -> str:
    _check(state)
    told = json.loads(state)
    if not isinstance(told, dict) or "user" not in told:
        return state
    user = told["user"] if isinstance(told["user"], dict) else {}
    return json.dumps({**told, "user": {**user, "name": name}}, separators=(",", ":"))


def _decoded(data: bytes) -> list[tuple[int, int, str]]:
    reader = lib0.Reader(data)
    entries = [(reader.number(_LARGEST), reader.number(_LARGEST), reader.string()) for _ in range(reader.count())]
    reader.finish()
    if len({client for client, _, _ in entries}) < len(entries):
        raise MalformedUpdate("names a client twice")
    return entries


def _encoded(entries: Iterable[tuple[int, _Entry]]) -> bytes:
    parts = [lib0.number(client) + lib0.number(entry.clock) + lib0.string(entry.state) for client, entry in entries]
    return lib0.number(len(parts)) + b"".join(parts)


def _refuse(constant: str) -> None:
    """Python reads ``NaN`` and ``Infinity``; JSON has neither."""
    raise ValueError(constant)


def _check(state: str) -> None:
    """What is no JSON would make every client fail that reads it."""
    if len(state) > MAX_STATE:
        raise MalformedUpdate(f"holds a state of more than {MAX_STATE} characters")
    try:
        json.loads(state, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise MalformedUpdate("holds a state that is not JSON") from None
