"""The client connections of a server process: counted by client, and kept below the limit of open files.

A process that has no file descriptor left answers nobody. So there is a limit to all connections, a lower one to those
of clients that are not signed in, and one for each client to connections that wait, such as those without a request.
"""

from __future__ import annotations

import logging
import resource
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from realtime.auth.permissions import key_of
from realtime.core.networks import network_of
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from typing import Any

log = logging.getLogger(__name__)

MAX_OPEN_FILES = 2**20
"""More are not used, even if the system allows them."""
OWN_FILES = 512
"""Open files of the process itself, at most: connections to MongoDB and Redis, uploads, logs."""
MAX_WAITING = 256
"""Connections of one client that may wait: for a request, for its end, or for its answer."""
SURPLUS = 32
"""More connections of a client that may send a request, in case it is of a signed-in user."""
MAX_UNREAD_BYTES = 64 * 1024 * 1024
"""Bytes of answers that one client may leave unread, over all its connections. A single answer may be larger."""
LOG_INTERVAL = 60.0
OCCUPANT = "realtime.occupant"
"""Scope key: the :class:`OpenConnection` that is the connection of the request."""
FULL = "The server has too many open connections. Try again in a few seconds"


def raise_open_files() -> int:
    """Raise the limit of open files of this process as far as the system allows, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:  # macOS has a limit of the kernel besides
        log.warning("the limit of open files stays at %d", soft, extra={"error": str(error)})
        return soft
    return wanted


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections a process takes.

    Attributes:
        total: All connections.
        guests: Connections of clients that are not signed in. The rest is a reserve for signed-in users.
        waiting: Waiting connections of one client.
        proxy_waiting: Waiting connections of one trusted proxy, which has those of many clients.
        surplus: Connections of one client beyond its limit that may still send a request.
    """

    total: int
    guests: int
    waiting: int
    proxy_waiting: int
    surplus: int = SURPLUS

    @classmethod
    def of(cls, open_files: int, *, accounts: bool, least_waiting: int) -> ConnectionLimits:
        """Return the limits for a process with a limit of open files.

        Args:
            open_files: The limit of open files.
            accounts: Whether users sign in, for whom there is a reserve.
            least_waiting: Connections that one client may have open at least, as far as there are enough files.
        """
        total = open_files - min(OWN_FILES, open_files // 4)
        waiting = min(max(MAX_WAITING, least_waiting), total // 4)
        return cls(total, total * 3 // 4 if accounts else total, waiting, total // 2)


class Closable(Protocol):
    """A connection that can be closed while it is idle."""

    def close_if_idle(self) -> bool:
        """Close the connection if it waits for another request after it has answered one. Returns whether it did."""


class OpenConnection:
    """One connection, and the client that it counts for: a network, or a user as ``@name``."""

    __slots__ = ("_connection", "_gone", "_guest", "_occupancy", "_waiting", "key", "surplus", "unread")

    def __init__(self, occupancy: OpenConnections, key: str, connection: Closable, *, surplus: bool) -> None:
        self._occupancy = occupancy
        self._connection: Closable | None = connection
        self._guest = self._waiting = True
        self._gone = False
        self.key = key
        self.unread = 0
        """Bytes of an answer that the client has not read yet."""
        self.surplus = surplus
        """Whether it is beyond a limit, so that it is of use only to a signed-in user."""

    def identify(self, scope: Mapping[str, Any], user: str | None) -> None:
        """Count the connection for the client that sent a request.

        Args:
            scope: The scope of the request, with the client's own address if it came through a proxy.
            user: The name of the user, if the client is signed in.

        Raises:
            Unavailable: The client has too many connections that wait, or guests have too many connections.
        """
        client = scope.get("client")
        key = key_of(user) if user is not None else network_of(client[0]) if client else self.key
        self._occupancy.move(self, key, guest=user is None)

    def settle(self) -> None:
        """Count the connection as one that stays open, which is limited elsewhere, and no longer as one that waits."""
        self._connection = None
        self._occupancy.settle(self)

    def hold(self, unread: int) -> bool:
        """Set the bytes that are unread, and return whether the client may leave as many. It may on one connection."""
        return self._occupancy.hold(self, unread)

    def leave(self) -> None:
        """Stop counting the connection: it is closed."""
        self._connection = None
        self._occupancy.leave(self)

    def close_if_idle(self) -> bool:
        """Close the connection if it waits for another request. Returns whether it did. It counts until it is gone."""
        return self._connection is not None and self._connection.close_if_idle()


class OpenConnections:
    """The connections of one server process."""

    def __init__(self, limits: ConnectionLimits, proxies: Container[str]) -> None:
        self._limits = limits
        self._proxies = proxies
        self._proxy_keys: set[str] = set()
        self._total = 0
        self._guests = 0
        self._waiting: dict[str, dict[OpenConnection, None]] = {}
        self._unread: Counter[str] = Counter()
        self._logged = float("-inf")
        self.turned_away = 0
        """Connections that get an answer although there is no room for them."""

    def enter(self, address: str | None, connection: Closable) -> OpenConnection | None:
        """Return the occupant that a new connection is, or ``None`` if there is no room for it."""
        key = network_of(address or "")
        if address in self._proxies:
            self._proxy_keys.add(key)  # an IPv6 address is counted by its network
        crowded = not self._has_room(key)
        over = crowded and len(self._waiting[key]) >= self._limit(key) + self._limits.surplus
        if over or self._total >= self._limits.total:
            self._log_refusal(key)
            return None
        occupant = OpenConnection(self, key, connection, surplus=crowded or self._guests >= self._limits.guests)
        self._total += 1
        self._guests += 1
        self._waiting.setdefault(key, {})[occupant] = None
        return occupant

    def move(self, occupant: OpenConnection, key: str, *, guest: bool) -> None:
        """Count an occupant for another client. Raises :class:`Unavailable`."""
        if occupant._gone:
            return
        moves = occupant._waiting and key != occupant.key
        if (guest and occupant.surplus) or (moves and not self._has_room(key)):
            self._log_refusal(key)
            raise Unavailable(FULL)
        if moves:
            self._forget(occupant)
            self._waiting.setdefault(key, {})[occupant] = None
        self._guests += guest - occupant._guest
        unread = occupant.unread
        self.hold(occupant, 0)
        occupant.key, occupant._guest, occupant.surplus = key, guest, False
        self.hold(occupant, unread)

    def settle(self, occupant: OpenConnection) -> None:
        """Count an occupant no longer as one that waits."""
        if occupant._waiting and not occupant._gone:
            self._forget(occupant)
            occupant._waiting = False

    def hold(self, occupant: OpenConnection, unread: int) -> bool:
        """Set the unread bytes of an occupant, and return whether its client may leave as many."""
        if occupant._gone or unread == occupant.unread == 0:
            return True
        others = self._unread[occupant.key] - occupant.unread
        occupant.unread = unread
        if others + unread:
            self._unread[occupant.key] = others + unread
        else:
            del self._unread[occupant.key]
        return not (others and unread) or others + unread <= MAX_UNREAD_BYTES

    def leave(self, occupant: OpenConnection) -> None:
        """Stop counting an occupant."""
        if occupant._gone:
            return
        self.hold(occupant, 0)
        self.settle(occupant)
        occupant._gone = True
        self._total -= 1
        self._guests -= occupant._guest

    def _log_refusal(self, key: str) -> None:
        """Log that a connection is refused, at most once per :data:`LOG_INTERVAL`."""
        now = time.monotonic()
        if now - self._logged > LOG_INTERVAL:
            self._logged = now
            counts = {"client": key, "connections": self._total, "guests": self._guests}
            log.warning("too many connections: new ones are answered with 503", extra=counts)

    def _forget(self, occupant: OpenConnection) -> None:
        others = self._waiting[occupant.key]
        del others[occupant]
        if not others:
            del self._waiting[occupant.key]

    def _limit(self, key: str) -> int:
        # A connection without an address came through a Unix socket, from a proxy.
        return self._limits.proxy_waiting if not key or key in self._proxy_keys else self._limits.waiting

    def _has_room(self, key: str) -> bool:
        """Return whether a client may have another waiting connection, for which an idle one may be closed."""
        waiting = self._waiting.get(key, {})
        return len(waiting) < self._limit(key) or any(one.close_if_idle() for one in list(waiting))
