"""The awareness protocol of Yjs: which clients are in a room, and their states (y-protocols ``awareness.js``).

The state of a client with the highest clock counts; ``null`` is the state of a client that left. States are JSON of
the client's own choice, and are passed on unchanged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from realtime.errors import MalformedUpdate
from realtime.rooms import lib0

MAX_STATE_CHARACTERS = 8 * 1024
MAX_CLOCK = 2**31
"""Highest accepted clock. A client adds 1 per change; a higher clock would leave it none to go on with."""
OUTDATED = 30.0
"""Seconds without a message after which a client counts as gone; clients repeat themselves every 15."""
MAX_NAME = 40
MAX_NESTING = 50
"""Levels of arrays and objects in a state."""
GONE = "null"
_LARGEST = 2**53 - 1


class ClientState(NamedTuple):
    """The state of one client in a message."""

    client: int
    clock: int
    state: str
    name: str | None = None
    """The name that the client chose, if :func:`checked` read it."""


class _Entry(NamedTuple):
    clock: int
    state: str
    heard: float
    name: str | None = None


class Awareness:
    """The states of the clients in a room. Times are in seconds, of any clock that only goes forward."""

    def __init__(self) -> None:
        self.characters = 0
        """The size of all states."""
        self._entries: dict[int, _Entry] = {}

    def take(self, states: Iterable[ClientState], now: float) -> tuple[list[ClientState], bytes]:
        """Store states.

        Returns:
            The states that were news, and an encoded message for the sender (empty if there is none): the clients in
            ``states`` that were taken for gone and whose clock is not newer. A client that receives this about itself
            answers with a higher clock; it would stay invisible otherwise.
        """
        news: list[ClientState] = []
        gone: dict[int, _Entry] = {}
        for told in states:
            if self.is_news(told):
                news.append(told)
                self._store(told.client, _Entry(told.clock, told.state, now, told.name))
            elif told.state != GONE and told.client in self._entries and not self.is_here(told.client):
                gone[told.client] = self._entries[told.client]
        return news, _encoded(gone.items()) if gone else b""

    def is_news(self, told: ClientState) -> bool:
        """Return whether a state is newer than the one that is stored."""
        known = self._entries.get(told.client)
        if told.clock > MAX_CLOCK:
            return False
        if known is None or told.clock > known.clock:
            return True
        # A client that leaves repeats its clock.
        return told.clock == known.clock and told.state == GONE and known.state != GONE

    def _store(self, client: int, entry: _Entry) -> None:
        self.characters += len(entry.state) - self.size({client})
        self._entries[client] = entry

    def __len__(self) -> int:
        """Return the number of clients that are known, or were until recently."""
        return len(self._entries)

    def is_here(self, client: int) -> bool:
        """Return whether a client has a state that is not ``null``."""
        entry = self._entries.get(client)
        return entry is not None and entry.state != GONE

    def size(self, clients: Iterable[int]) -> int:
        """Return the number of characters in the states of some clients."""
        return sum(len(self._entries[client].state) for client in clients if client in self._entries)

    def everyone(self) -> bytes:
        """Return the states of all clients that are here, encoded; empty if there are none."""
        here = [(client, entry) for client, entry in self._entries.items() if entry.state != GONE]
        return _encoded(here) if here else b""

    def states(self, clients: Iterable[int]) -> bytes:
        """Return the current states of some clients, encoded."""
        return _encoded([(client, self._entries[client]) for client in clients if client in self._entries])

    def leave(self, clients: Iterable[int], now: float) -> set[int]:
        """Take clients for gone, and return those that were here."""
        left = {client for client in clients if self.is_here(client)}
        for client in left:
            self._store(client, _Entry(self._entries[client].clock, GONE, now))
        return left

    def expire(self, now: float) -> tuple[set[int], set[int]]:
        """Take for gone the clients that were silent for too long, and forget those that were gone.

        Returns:
            The clients that are taken for gone now, and those that are forgotten.
        """
        late = {client for client, entry in self._entries.items() if now - entry.heard > OUTDATED}
        forgotten = {client for client in late if not self.is_here(client)}
        self.characters -= self.size(forgotten)
        for client in forgotten:
            del self._entries[client]
        return self.leave(late - forgotten, now), forgotten

    def name_of(self, clients: Iterable[int]) -> str | None:
        """Return the name that came with the states of some clients, if there is one."""
        for client in clients:
            entry = self._entries.get(client)
            if entry is not None and entry.name is not None:
                return entry.name
        return None


def count_of(data: bytes) -> int:
    """Return the number of states in a message. Raises :class:`MalformedUpdate`."""
    return lib0.Reader(data).count()


def decoded(data: bytes) -> list[ClientState]:
    """Decode the states in a message. Raises :class:`MalformedUpdate`."""
    reader = lib0.Reader(data)
    count = reader.count()
    states = [ClientState(reader.number(_LARGEST), reader.number(_LARGEST), reader.string()) for _ in range(count)]
    reader.finish()
    if len({told.client for told in states}) < len(states):
        raise MalformedUpdate("names a client twice")
    return states


def checked(told: ClientState, name: str | None = None) -> ClientState:
    """Check a client's state, and return it with ``name`` as its ``user.name`` if it has one.

    Without ``name``, the returned state carries the name that the client chose (``user.name``, as editors set it).

    Raises:
        MalformedUpdate: The state is too large, is not JSON, is nested too deeply, or has a number that JavaScript
            cannot represent: clients that read it would fail.
    """
    if len(told.state) > MAX_STATE_CHARACTERS:
        raise MalformedUpdate(f"holds a state of more than {MAX_STATE_CHARACTERS} characters")
    try:
        state = json.loads(told.state, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        raise MalformedUpdate("holds a state that is not JSON") from None
    # The count is an upper bound, and mostly enough.
    if told.state.count("[") + told.state.count("{") > MAX_NESTING and _nests_deeper(state, MAX_NESTING):
        raise MalformedUpdate(f"holds a state with more than {MAX_NESTING} levels")
    if not isinstance(state, dict) or "user" not in state:
        return told
    user = state["user"] if isinstance(state["user"], dict) else {}
    if name is None:
        return told._replace(name=_chosen_name(user))
    signed = json.dumps({**state, "user": {**user, "name": name}}, separators=(",", ":"), allow_nan=False)
    return told._replace(state=signed)


def _nests_deeper(value: Any, limit: int) -> bool:
    """Return whether a JSON value has more than ``limit`` levels of arrays and objects."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return items is not None and (limit == 0 or any(_nests_deeper(item, limit - 1) for item in items))


def _chosen_name(user: dict[str, Any]) -> str | None:
    """Return the name of a state's user as it can be stored, or ``None`` if there is none."""
    name = user.get("name")
    if not isinstance(name, str):
        return None
    # JSON can hold half of a surrogate pair; UTF-8, and so the journal, cannot.
    return name.encode(errors="replace").decode().strip()[:MAX_NAME].strip() or None


def _encoded(entries: Iterable[tuple[int, _Entry]]) -> bytes:
    parts = [lib0.number(client) + lib0.number(entry.clock) + lib0.string(entry.state) for client, entry in entries]
    return lib0.number(len(parts)) + b"".join(parts)


def _refuse(constant: str) -> None:
    """Refuse ``NaN`` and ``Infinity``, which Python reads and JSON does not have."""
    raise ValueError(constant)


def _finite(digits: str) -> float:
    """Refuse numbers such as ``1e999``, which Python reads as infinity and writes as ``Infinity``."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number
