"""The awareness protocol of Yjs: the clients in a room and their states (y-protocols ``awareness.js``).

The state with the highest clock is current; ``null`` is the state of a client that left. States are JSON defined by
the clients, and are forwarded unchanged.
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
"""Maximum accepted clock. A client adds 1 per change; with a higher clock it could run out of clocks."""
OUTDATED_SECONDS = 30.0
"""Time without a message after which a client counts as gone; clients repeat their state every 15 seconds."""
MAX_NAME_CHARACTERS = 40
MAX_NESTING_LEVELS = 50
"""Maximum number of nested arrays and objects in a state."""
NULL_STATE = "null"
_MAX_NUMBER = 2**53 - 1


class ClientState(NamedTuple):
    """The state of one client in a message."""

    client: int
    clock: int
    state: str
    name: str | None = None
    """The name that the client chose, if :func:`check_state` has read it."""


class _Entry(NamedTuple):
    clock: int
    state: str
    received_at: float
    name: str | None = None


class Awareness:
    """Tracks the states of the clients in a room. Times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.characters = 0
        """The size of all states."""
        self._entries: dict[int, _Entry] = {}

    def apply(self, states: Iterable[ClientState], now: float) -> tuple[list[ClientState], bytes]:
        """Store states.

        Returns:
            The states that were new, and an encoded message for the sender (empty if there is none): the clients in
            ``states`` that were marked as gone and whose clock is not newer. A client that is marked as gone in
            it responds with a higher clock; without the message, it would stay invisible.
        """
        new_states: list[ClientState] = []
        gone: dict[int, _Entry] = {}
        for update in states:
            if self.is_newer(update):
                new_states.append(update)
                self._store(update.client, _Entry(update.clock, update.state, now, update.name))
            elif update.state != NULL_STATE and update.client in self._entries and not self.is_present(update.client):
                gone[update.client] = self._entries[update.client]
        return new_states, _encode(gone.items()) if gone else b""

    def is_newer(self, update: ClientState) -> bool:
        """Return whether a state is newer than the stored state."""
        known = self._entries.get(update.client)
        if update.clock > MAX_CLOCK:
            return False
        if known is None or update.clock > known.clock:
            return True
        # A client that leaves repeats its clock.
        return update.clock == known.clock and update.state == NULL_STATE and known.state != NULL_STATE

    def _store(self, client: int, entry: _Entry) -> None:
        self.characters += len(entry.state) - self.size({client})
        self._entries[client] = entry

    def __len__(self) -> int:
        """Return the number of clients that are known, or were until recently."""
        return len(self._entries)

    def is_present(self, client: int) -> bool:
        """Return whether a client has a state that is not ``null``."""
        entry = self._entries.get(client)
        return entry is not None and entry.state != NULL_STATE

    def size(self, clients: Iterable[int]) -> int:
        """Return the number of characters in the states of these clients."""
        return sum(len(self._entries[client].state) for client in clients if client in self._entries)

    def encode_present(self) -> bytes:
        """Return the states of all present clients, encoded; empty if there are none."""
        present = [(client, entry) for client, entry in self._entries.items() if entry.state != NULL_STATE]
        return _encode(present) if present else b""

    def encode(self, clients: Iterable[int]) -> bytes:
        """Return the current states of these clients, encoded."""
        return _encode([(client, self._entries[client]) for client in clients if client in self._entries])

    def remove(self, clients: Iterable[int], now: float) -> set[int]:
        """Mark clients as gone, and return those that were present."""
        left = {client for client in clients if self.is_present(client)}
        for client in left:
            self._store(client, _Entry(self._entries[client].clock, NULL_STATE, now))
        return left

    def expire(self, now: float) -> tuple[set[int], set[int]]:
        """Mark clients as gone that have not sent a state for too long, and forget those that were marked before.

        Returns:
            The clients that are marked as gone now, and the forgotten ones.
        """
        outdated = {client for client, entry in self._entries.items() if now - entry.received_at > OUTDATED_SECONDS}
        forgotten = {client for client in outdated if not self.is_present(client)}
        self.characters -= self.size(forgotten)
        for client in forgotten:
            del self._entries[client]
        return self.remove(outdated - forgotten, now), forgotten

    def name_of(self, clients: Iterable[int]) -> str | None:
        """Return the first name in the states of these clients, or ``None``."""
        for client in clients:
            entry = self._entries.get(client)
            if entry is not None and entry.name is not None:
                return entry.name
        return None


def count_states(data: bytes) -> int:
    """Return the number of states in a message. Raises :class:`MalformedUpdate`."""
    return lib0.Reader(data).count()


def decode_states(data: bytes) -> list[ClientState]:
    """Decode the states in a message. Raises :class:`MalformedUpdate`."""
    reader = lib0.Reader(data)
    count = reader.count()
    states = [
        ClientState(reader.number(_MAX_NUMBER), reader.number(_MAX_NUMBER), reader.string()) for _ in range(count)
    ]
    reader.finish()
    if len({update.client for update in states}) < len(states):
        raise MalformedUpdate("lists a client twice")
    return states


def check_state(update: ClientState, name: str | None = None) -> ClientState:
    """Validate a client's state, and return it with ``name`` as its ``user.name`` if it has a user.

    Without ``name``, the returned state carries the name that the client chose (``user.name``, as editors set it).

    Raises:
        MalformedUpdate: The state is too large, is not JSON, is nested too deeply, or has a number that JavaScript
            cannot represent: clients that read it would fail.
    """
    if len(update.state) > MAX_STATE_CHARACTERS:
        raise MalformedUpdate(f"has a state of more than {MAX_STATE_CHARACTERS} characters")
    try:
        state = _DECODER.decode(update.state)
    except (ValueError, RecursionError):
        raise MalformedUpdate("has a state that is not JSON") from None
    # The count is an upper bound, which usually is enough.
    if update.state.count("[") + update.state.count("{") > MAX_NESTING_LEVELS and _nests_deeper(
        state, MAX_NESTING_LEVELS
    ):
        raise MalformedUpdate(f"has a state with more than {MAX_NESTING_LEVELS} levels")
    if not isinstance(state, dict) or "user" not in state:
        return update
    user = state["user"] if isinstance(state["user"], dict) else {}
    if name is None:
        return update._replace(name=_chosen_name(user))
    signed = json.dumps({**state, "user": {**user, "name": name}}, separators=(",", ":"), allow_nan=False)
    return update._replace(state=signed)


def _nests_deeper(value: Any, limit: int) -> bool:
    """Return whether a JSON value has more than ``limit`` levels of arrays and objects."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return items is not None and (limit == 0 or any(_nests_deeper(item, limit - 1) for item in items))


def _chosen_name(user: dict[str, Any]) -> str | None:
    """Return the name of a state's user in a form that can be stored, or ``None``."""
    name = user.get("name")
    if not isinstance(name, str):
        return None
    # JSON can contain half of a surrogate pair; UTF-8, and so the journal, cannot.
    return name.encode(errors="replace").decode().strip()[:MAX_NAME_CHARACTERS].strip() or None


def _encode(entries: Iterable[tuple[int, _Entry]]) -> bytes:
    parts = [lib0.number(client) + lib0.number(entry.clock) + lib0.string(entry.state) for client, entry in entries]
    return lib0.number(len(parts)) + b"".join(parts)


def _reject_constant(constant: str) -> None:
    """Reject ``NaN`` and ``Infinity``, which Python accepts and JSON does not have."""
    raise ValueError(constant)


def _parse_finite(digits: str) -> float:
    """Reject numbers such as ``1e999``, which Python reads as infinity and writes as ``Infinity``."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


# ``json.loads`` with options creates a decoder for each call: 4.6 instead of 3.6 µs to check the state of an editor.
_DECODER = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_finite)
