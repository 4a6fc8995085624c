"""The event log in Redis: append, publish, subscribe and read. Entry keys are opaque to this module."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError

from realtime.errors import BusUnavailable
from realtime.eventlog.cursor import Cursor

log = logging.getLogger(__name__)

MAX_BATCH_EVENTS = 128
MAX_BATCH_BYTES = 4 * 1024 * 1024
SILENCE_SECONDS = 0.4
"""Time after which a call without a reply marks Redis as unresponsive."""
EVICTION_WARNING = (
    "maxmemory-policy is {}: when its memory is full, Redis deletes keys of the feed and clients must fetch all notes"
    " again. Set it to noeviction"
)
MAX_QUEUED_EVENTS = 10_000
MAX_QUEUED_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An event to append. Its payload is ``head + cursor + tail``.

    The log drops an entry whose version is not higher than that of the last entry with the same ``key``.
    """

    key: str
    version: int
    head: bytes
    tail: bytes

    @property
    def size(self) -> int:
        """Size of the payload in bytes, without the cursor."""
        return len(self.head) + len(self.tail)


@dataclass(frozen=True, slots=True)
class BusMessage:
    """A message from a subscription: a payload, or ``None`` when a subscription to the channel starts or restarts."""

    channel: str
    data: bytes | None


Batch = list[tuple[LogEntry, asyncio.Future[None]]]


class Bus:
    """A Redis connection pool, and the queue of events to append.

    Appends are batched automatically: events that arrive during a script call go into the next call.

    Args:
        url: URL of Redis.
        namespace: Prefix of all Redis keys.
        max_entries: Maximum number of events in the log.
        max_bytes: Maximum total size of the events in the log.
        timeout: Socket timeout in seconds.

    Attributes:
        available: Whether the last call to Redis succeeded.
        appending: Whether the last append succeeded.
    """

    def __init__(
        self, url: str, namespace: str, *, max_entries: int, max_bytes: int = 256 * 1024 * 1024, timeout: float = 2.0
    ) -> None:
        # No retries, because a script whose reply was lost would run twice. The outbox publishes the change again.
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            client_name="realtime",
        )
        self._limits = (max_entries, max_bytes)
        self._namespace = namespace
        self._keys = [self.key(name) for name in ("meta", "log", "latest", "versions")]
        self.feed = self.key("feed")
        self.presence = self.key("presence")
        self.sync = self.key("sync")
        self._append = self.script("append.lua")
        self._read = self.script("read.lua")
        self._queue: deque[tuple[LogEntry, asyncio.Future[None]]] = deque()
        self._queued_bytes = 0
        self._has_queued = asyncio.Event()
        self._calls: dict[object, float] = {}
        self.available = True
        self.appending = True
        self.warning: str | None = None
        """A problem in the configuration of Redis that does not prevent the server from running."""

    @property
    def silent(self) -> bool:
        """Whether Redis is unavailable, or a call has had no reply for :data:`SILENCE_SECONDS`."""
        oldest = next(iter(self._calls.values()), None)
        return not self.available or (oldest is not None and time.monotonic() - oldest > SILENCE_SECONDS)

    @property
    def connections(self) -> ConnectionPool:
        """The connection pool, for libraries that access Redis directly."""
        return self._redis.connection_pool

    def key(self, name: str) -> str:
        """Return a Redis key in the namespace. All keys share a hash tag, so that a cluster keeps them in one slot."""
        return f"{{{self._namespace}}}:{name}"

    def script(self, name: str) -> Any:
        """Return a Lua script of this package, for :meth:`call`."""
        return self._redis.register_script(resources.files("realtime.eventlog").joinpath("scripts", name).read_text())

    async def aclose(self) -> None:
        """Fail the queued events and close the connections."""
        _resolve(self._queue, BusUnavailable("the bus was closed"))
        self._queue.clear()
        self._queued_bytes = 0
        await self._redis.aclose()

    def append(self, entry: LogEntry) -> asyncio.Future[None]:
        """Queue an event. Return a future that completes once it is logged, or fails with :class:`BusUnavailable`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(self._queue) >= MAX_QUEUED_EVENTS or self._queued_bytes + entry.size > MAX_QUEUED_BYTES:
            future.set_exception(BusUnavailable("too many events are queued for Redis"))
            return future
        self._queue.append((entry, future))
        self._queued_bytes += entry.size
        self._has_queued.set()
        return future

    async def run(self) -> None:
        """Append queued events until cancelled."""
        while True:
            await self._has_queued.wait()
            batch = self._next_batch()
            if not batch:
                self._has_queued.clear()
                continue
            try:
                await self._call_append([entry for entry, _ in batch])
            except BusUnavailable as error:
                _resolve(batch, error)
                if self.appending:
                    log.warning("events cannot be published", extra={"error": error.detail})
                self.appending = False
            except BaseException as error:  # fail the futures, because callers are waiting for them
                _resolve(batch, BusUnavailable(repr(error)))
                raise
            else:
                _resolve(batch, None)
                self.appending = True

    def _next_batch(self) -> Batch:
        batch: Batch = []
        size = 0
        while (
            self._queue
            and len(batch) < MAX_BATCH_EVENTS
            and (not batch or size + self._queue[0][0].size <= MAX_BATCH_BYTES)
        ):
            entry, future = self._queue.popleft()
            size += entry.size
            batch.append((entry, future))
        self._queued_bytes -= size
        return batch

    async def _call_append(self, entries: Sequence[LogEntry]) -> Cursor:
        arguments: list[bytes | str | int] = [secrets.token_hex(6), *self._limits, self.feed]
        for entry in entries:
            arguments += (entry.key, entry.version, entry.head, entry.tail)
        epoch, top, *_ = await self.call(self._append, self._keys, arguments)
        return Cursor(epoch.decode(), top)

    async def call(self, script: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script and return its reply. Raises :class:`BusUnavailable`."""
        call = object()
        self._calls[call] = time.monotonic()
        try:
            result = await script(keys=keys, args=arguments)
        except (RedisError, OSError) as error:
            self.available = False
            raise _lost(error) from error
        finally:
            del self._calls[call]
        _stop_if_cancelled()
        self.available = True
        return result

    async def inspect(self) -> None:
        """Log a warning if Redis may evict keys. Raises :class:`BusUnavailable`."""
        try:
            memory = await self._redis.info("memory")
        except NoPermissionError:
            return  # the check is optional: the Redis user may lack permission for INFO
        except (RedisError, OSError) as error:
            raise _lost(error) from error
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            self.warning = EVICTION_WARNING.format(policy)
            log.warning("Redis: %s", self.warning)

    async def position(self) -> Cursor:
        """Return the position of the last event in the log. Raises :class:`BusUnavailable`."""
        return await self._call_append(())

    async def read(
        self, after: Cursor, last: int, *, collapse: bool = False, limit: int = 256, limit_bytes: int = MAX_BATCH_BYTES
    ) -> list[tuple[int, bytes]] | None:
        """Return events after a cursor as pairs of offset and payload.

        Args:
            after: Position before the first event.
            last: Offset of the last event to return.
            collapse: Whether to return only the latest event of each key.
            limit: Maximum number of events.
            limit_bytes: Maximum total size of the payloads. The first event is returned even if it is larger.

        Returns:
            The events, or ``None`` if the log does not reach back to ``after``.

        Raises:
            BusUnavailable: Redis cannot be reached.
        """
        arguments = [after.epoch, after.offset, last, limit, limit_bytes, int(collapse)]
        flat = await self.call(self._read, self._keys[:3], arguments)
        if flat is None:
            return None
        return list(zip(flat[::2], flat[1::2], strict=True))

    async def publish(self, channel: str, data: bytes) -> None:
        """Publish a message without adding it to the log. Raises :class:`BusUnavailable`."""
        try:
            await self._redis.publish(channel, data)
        except (RedisError, OSError) as error:
            raise _lost(error) from error
        _stop_if_cancelled()

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncIterator[AsyncIterator[BusMessage]]:
        """Subscribe to channels. The iterator raises :class:`BusUnavailable` when the connection is lost."""
        pubsub = self._redis.pubsub()
        try:
            try:
                await pubsub.subscribe(*channels)
            except (RedisError, OSError):
                self.available = False
                raise
            _stop_if_cancelled()
            yield self._messages(pubsub)
        except (RedisError, OSError) as error:
            raise _lost(error) from error
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # the library leaves it open

    async def _messages(self, pubsub: Any) -> AsyncIterator[BusMessage]:
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield BusMessage(message["channel"].decode(), message["data"])
            elif message["type"] == "subscribe":
                yield BusMessage(message["channel"].decode(), None)


def _resolve(entries: Iterable[tuple[LogEntry, asyncio.Future[None]]], error: BusUnavailable | None) -> None:
    for _, future in entries:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


def _stop_if_cancelled() -> None:
    """Raise ``CancelledError`` if the task was cancelled.

    Before Python 3.12, ``asyncio.wait_for``, which redis-py uses to send, can swallow a cancellation
    (https://github.com/python/cpython/issues/86296).
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _lost(error: Exception) -> BusUnavailable:
    return BusUnavailable(f"Redis: {str(error) or type(error).__name__}")


def check_url(url: str) -> None:
    """Raise ``ValueError`` with the reason if a Redis URL is invalid."""
    try:
        parse_url(url)
    except ValueError as error:
        raise ValueError(f"the Redis URL cannot be used: {error}") from None
