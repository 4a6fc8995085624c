"""Limits the TCP connections of one server process, so that it does not run out of file descriptors.

This module counts every connection of its process, even before a request arrives. In contrast,
:mod:`realtime.auth.connection_limit` counts only WebSockets, event streams and long polls, over all workers.

A process without free file descriptors cannot respond to any client. Therefore, there is a limit on all connections, a
lower limit on connections of clients that are not signed in, and a limit per client on waiting connections, such as
connections without a request.
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
"""Maximum number of open files, even if the system allows more."""
RESERVED_FILES = 512
"""Number of files reserved for connections to MongoDB and Redis, uploads and logs."""
MAX_WAITING = 256
"""Maximum number of connections per client that wait for a request, for the rest of it, or for its response."""
MAX_SURPLUS = 32
"""Number of connections above that limit that can still send a request, in case it is from a signed-in user."""
MAX_UNREAD_BYTES = 64 * 1024 * 1024
"""Maximum number of unread response bytes over all connections of a client. A single response can be larger."""
LOG_INTERVAL_SECONDS = 60.0
OPEN_CONNECTION = "realtime.open_connection"
"""The key in the ASGI scope of a request for its :class:`OpenConnection`."""
FULL = "The server has too many open connections. Try again in a few seconds"


def raise_open_files() -> int:
    """Raise the limit of open files of this process to the maximum that the system allows, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:  # macOS has an additional kernel limit
        log.warning("the limit of open files stays at %d", soft, extra={"error": str(error)})
        return soft
    return wanted


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The maximum numbers of connections of a process.

    Attributes:
        total: All connections.
        guests: Connections of clients that are not signed in. The remainder is reserved for signed-in users.
        waiting: Waiting connections of a client.
        proxy_waiting: Waiting connections of a trusted proxy, which forwards the requests of many clients.
        surplus: Waiting connections of a client above its limit that can still send a request.
    """

    total: int
    guests: int
    waiting: int
    proxy_waiting: int
    surplus: int = MAX_SURPLUS

    @classmethod
    def of(cls, open_files: int, *, accounts: bool, min_waiting: int) -> ConnectionLimits:
        """Return the limits for a process with a limit of open files.

        Args:
            open_files: The limit of open files.
            accounts: Whether the server has accounts. If so, connections are reserved for signed-in users.
            min_waiting: The lower bound for ``waiting``, if there are enough files.
        """
        total = open_files - min(RESERVED_FILES, open_files // 4)
        waiting = min(max(MAX_WAITING, min_waiting), total // 4)
        return cls(total, total * 3 // 4 if accounts else total, waiting, total // 2)


class Closable(Protocol):
    """A connection that can be closed while it is idle."""

    def close_if_idle(self) -> bool:
        """Close the connection if it is waiting for another request. Return whether it was closed."""


class OpenConnection:
    """An open connection, which is counted for a client: a network, or a user as ``@name``."""

    __slots__ = ("_connection", "_gone", "_guest", "_registry", "_waiting", "client_key", "surplus", "unread")

    def __init__(self, registry: OpenConnections, client_key: str, connection: Closable, *, surplus: bool) -> None:
        self._registry = registry
        self._connection: Closable | None = connection
        self._guest = self._waiting = True
        self._gone = False
        self.client_key = client_key
        self.unread = 0
        """Bytes of a response that the client has not read yet."""
        self.surplus = surplus
        """Whether the connection is above a limit. If so, only signed-in users can use it."""

    def identify(self, scope: Mapping[str, Any], user: str | None) -> None:
        """Count the connection for the client that sent a request.

        Args:
            scope: The scope of the request, with the original address of the client if it came through a proxy.
            user: The name of the user, if the client is signed in.

        Raises:
            Unavailable: The client has too many waiting connections, or guests have too many connections.
        """
        client = scope.get("client")
        client_key = key_of(user) if user is not None else network_of(client[0]) if client else self.client_key
        self._registry.move(self, client_key, guest=user is None)

    def settle(self) -> None:
        """Stop counting the connection as waiting. A WebSocket stays open, and connection slots limit their number."""
        self._connection = None
        self._registry.settle(self)

    def hold(self, unread: int) -> bool:
        """Set the number of unread bytes. Return whether the client is within its limit."""
        return self._registry.hold(self, unread)

    def leave(self) -> None:
        """Stop counting the connection, because it was closed."""
        self._connection = None
        self._registry.leave(self)

    def close_if_idle(self) -> bool:
        """Close the connection if it is waiting for another request. It is counted until :meth:`leave` is called.

        Returns:
            Whether the connection was closed.
        """
        return self._connection is not None and self._connection.close_if_idle()


class OpenConnections:
    """The open connections of one server process."""

    def __init__(self, limits: ConnectionLimits, proxies: Container[str]) -> None:
        self._limits = limits
        self._proxies = proxies
        self._proxy_keys: set[str] = set()
        self._total = 0
        self._guests = 0
        self._waiting: dict[str, dict[OpenConnection, None]] = {}
        self._unread: Counter[str] = Counter()
        self._last_log_time = float("-inf")
        self.rejected_count = 0
        """Number of connections above the limits that stay open only until the response 503 is sent."""

    def enter(self, address: str | None, connection: Closable) -> OpenConnection | None:
        """Count a new connection, and return its entry, or ``None`` if a limit is reached."""
        client_key = network_of(address or "")
        if address in self._proxies:
            self._proxy_keys.add(client_key)  # IPv6 addresses are counted by network
        at_limit = not self._has_room(client_key)
        at_surplus_limit = at_limit and len(self._waiting[client_key]) >= self._limit(client_key) + self._limits.surplus
        if at_surplus_limit or self._total >= self._limits.total:
            self._log_refusal(client_key)
            return None
        entry = OpenConnection(self, client_key, connection, surplus=at_limit or self._guests >= self._limits.guests)
        self._total += 1
        self._guests += 1
        self._waiting.setdefault(client_key, {})[entry] = None
        return entry

    def move(self, entry: OpenConnection, client_key: str, *, guest: bool) -> None:
        """Count a connection for another client. Raises :class:`Unavailable` if that client has reached a limit."""
        if entry._gone:
            return
        moves = entry._waiting and client_key != entry.client_key
        if (guest and entry.surplus) or (moves and not self._has_room(client_key)):
            self._log_refusal(client_key)
            raise Unavailable(FULL)
        if moves:
            self._remove_waiting(entry)
            self._waiting.setdefault(client_key, {})[entry] = None
        self._guests += guest - entry._guest
        unread = entry.unread
        self.hold(entry, 0)
        entry.client_key, entry._guest, entry.surplus = client_key, guest, False
        self.hold(entry, unread)

    def settle(self, entry: OpenConnection) -> None:
        """Stop counting a connection as waiting."""
        if entry._waiting and not entry._gone:
            self._remove_waiting(entry)
            entry._waiting = False

    def hold(self, entry: OpenConnection, unread: int) -> bool:
        """Set the number of unread bytes of a connection. Return whether its client is within its limit."""
        if entry._gone or unread == entry.unread == 0:
            return True
        others = self._unread[entry.client_key] - entry.unread
        entry.unread = unread
        if others + unread:
            self._unread[entry.client_key] = others + unread
        else:
            del self._unread[entry.client_key]
        return not (others and unread) or others + unread <= MAX_UNREAD_BYTES

    def leave(self, entry: OpenConnection) -> None:
        """Stop counting a connection."""
        if entry._gone:
            return
        self.hold(entry, 0)
        self.settle(entry)
        entry._gone = True
        self._total -= 1
        self._guests -= entry._guest

    def _log_refusal(self, client_key: str) -> None:
        """Log that a connection was refused, at most once per :data:`LOG_INTERVAL_SECONDS`."""
        now = time.monotonic()
        if now - self._last_log_time > LOG_INTERVAL_SECONDS:
            self._last_log_time = now
            counts = {"client": client_key, "connections": self._total, "guests": self._guests}
            log.warning("too many connections, responding to new ones with 503", extra=counts)

    def _remove_waiting(self, entry: OpenConnection) -> None:
        others = self._waiting[entry.client_key]
        del others[entry]
        if not others:
            del self._waiting[entry.client_key]

    def _limit(self, client_key: str) -> int:
        # Connections without an address come from a proxy through a Unix socket.
        return self._limits.proxy_waiting if not client_key or client_key in self._proxy_keys else self._limits.waiting

    def _has_room(self, client_key: str) -> bool:
        """Return whether a client can have another waiting connection. At the limit, try to close an idle one."""
        waiting = self._waiting.get(client_key, {})
        return len(waiting) < self._limit(client_key) or any(
            idle_candidate.close_if_idle() for idle_candidate in list(waiting)
        )
