"""The log of events in Redis: append, publish, subscribe, read, position. Keys are opaque here: no notes."""

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

BATCH_EVENTS = 128
BATCH_BYTES = 4 * 1024 * 1024
SILENCE = 0.4
"""Seconds without an answer after which nobody counts on one."""
EVICTS = (
    "maxmemory-policy is {}: when its memory is full it deletes keys of the feed, and clients have to fetch all notes"
    " again. Set it to noeviction"
)
QUEUE_EVENTS = 10_000
QUEUE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An event to append. ``key`` and ``version`` keep the log monotonic: of one key, versions only grow.

    The payload is ``head + cursor + tail``.
    """

    key: str
    version: int
    head: bytes
    tail: bytes

    @property
    def size(self) -> int:
        """Bytes of the payload, the cursor left out."""
        return len(self.head) + len(self.tail)


@dataclass(frozen=True, slots=True)
class BusMessage:
    """What a subscription brings: a payload, or with ``data=None`` the news that the channel is subscribed (again)."""

    channel: str
    data: bytes | None


Batch = list[tuple[LogEntry, asyncio.Future[None]]]


class Bus:
    """One Redis connection pool, and the queue of what is to be appended.

    Appending is batched by itself: while one script call is under way, what comes meanwhile waits for the next.
    """

    def __init__(
        self, url: str, namespace: str, *, keep: int, keep_bytes: int = 256 * 1024 * 1024, timeout: float = 2.0
    ) -> None:
        # No retries: a script that ran and whose answer got lost would run again, and the outbox does it better.
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            client_name="realtime",
        )
        self._keep = (keep, keep_bytes)
        self._namespace = namespace
        self._keys = [self.key(name) for name in ("meta", "log", "latest", "versions")]
        self.feed = self.key("feed")
        self.presence = self.key("presence")
        self.sync = self.key("sync")
        self._append = self.script("append.lua")
        self._read = self.script("read.lua")
        self._queue: deque[tuple[LogEntry, asyncio.Future[None]]] = deque()
        self._queued_bytes = 0
        self._due = asyncio.Event()
        self._asked: dict[object, float] = {}
        self.available = True
        self.appending = True
        self.warning: str | None = None
        """A problem of the configuration of Redis that does not stop the server."""

    @property
    def silent(self) -> bool:
        """Whether Redis is away, or lets somebody wait for its answer."""
        oldest = next(iter(self._asked.values()), None)
        return not self.available or (oldest is not None and time.monotonic() - oldest > SILENCE)

    @property
    def connections(self) -> ConnectionPool:
        """The connections, for a library that talks to Redis by itself."""
        return self._redis.connection_pool

    def key(self, name: str) -> str:
        """A key of this program. All have one hash tag: in a Redis cluster, what a script touches lives in one slot."""
        return f"{{{self._namespace}}}:{name}"

    def script(self, name: str) -> Any:
        """A script of this program, to :meth:`call`."""
        return self._redis.register_script(resources.files("realtime.eventlog").joinpath("scripts", name).read_text())

    async def aclose(self) -> None:
        """Closes the connections; what is still queued fails."""
        _resolve(self._queue, BusUnavailable("the bus was closed"))
        self._queue.clear()
        self._queued_bytes = 0
        await self._redis.aclose()

    def append(self, entry: LogEntry) -> asyncio.Future[None]:
        """Queues an event. The future is done once the log has it, and fails with :class:`BusUnavailable`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(self._queue) >= QUEUE_EVENTS or self._queued_bytes + entry.size > QUEUE_BYTES:
            future.set_exception(BusUnavailable("too many events wait for Redis"))
            return future
        self._queue.append((entry, future))
        self._queued_bytes += entry.size
        self._due.set()
        return future

    async def run(self) -> None:
        """Appends what is queued, for ever."""
        while True:
            await self._due.wait()
            batch = self._next_batch()
            if not batch:
                self._due.clear()
                continue
            try:
                await self._call_append([entry for entry, _ in batch])
            except BusUnavailable as error:
                _resolve(batch, error)
                if self.appending:
                    log.warning("events cannot be published", extra={"error": error.detail})
                self.appending = False
            except BaseException as error:  # whoever waits must hear of it, whatever it is
                _resolve(batch, BusUnavailable(repr(error)))
                raise
            else:
                _resolve(batch, None)
                self.appending = True

    def _next_batch(self) -> Batch:
        batch: Batch = []
        size = 0
        while self._queue and len(batch) < BATCH_EVENTS and (not batch or size + self._queue[0][0].size <= BATCH_BYTES):
            entry, future = self._queue.popleft()
            size += entry.size
            batch.append((entry, future))
        self._queued_bytes -= size
        return batch

    async def _call_append(self, entries: Sequence[LogEntry]) -> Cursor:
        arguments: list[bytes | str | int] = [secrets.token_hex(6), *self._keep, self.feed]
        for entry in entries:
            arguments += (entry.key, entry.version, entry.head, entry.tail)
        epoch, top, *_ = await self.call(self._append, self._keys, arguments)
        return Cursor(epoch.decode(), top)

    async def call(self, script: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What a script answers. Raises :class:`BusUnavailable`."""
        question = object()
        self._asked[question] = time.monotonic()
        try:
            result = await script(keys=keys, args=arguments)
        except (RedisError, OSError) as error:
            self.available = False
            raise _lost(error) from error
        finally:
            del self._asked[question]
        _stop_if_cancelled()
        self.available = True
        return result

    async def inspect(self) -> None:
        """Log a warning if Redis may evict keys. Raises :class:`BusUnavailable`."""
        try:
            memory = await self._redis.info("memory")
        except NoPermissionError:
            return  # the user may not look; whatever else it may not do shows when it is done
        except (RedisError, OSError) as error:
            raise _lost(error) from error
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            self.warning = EVICTS.format(policy)
            log.warning("Redis: %s", self.warning)

    async def position(self) -> Cursor:
        """The position of the last event in the log. Raises :class:`BusUnavailable`."""
        return await self._call_append(())

    async def read(
        self, after: Cursor, last: int, *, collapse: bool = False, limit: int = 256, limit_bytes: int = BATCH_BYTES
    ) -> list[tuple[int, bytes]] | None:
        """Events after a cursor and up to the offset ``last``, the next ``most`` of them, as offset and payload.

        With ``collapse`` only the latest event of each key. ``None`` when the log does not reach back so far.
        Raises :class:`BusUnavailable`.
        """
        arguments = [after.epoch, after.offset, last, limit, limit_bytes, int(collapse)]
        flat = await self.call(self._read, self._keys[:3], arguments)
        if flat is None:
            return None
        return list(zip(flat[::2], flat[1::2], strict=True))

    async def publish(self, channel: str, data: bytes) -> None:
        """Publishes something that no log keeps. Raises :class:`BusUnavailable`."""
        try:
            await self._redis.publish(channel, data)
        except (RedisError, OSError) as error:
            raise _lost(error) from error
        _stop_if_cancelled()

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncIterator[AsyncIterator[BusMessage]]:
        """Subscribes. The iterator raises :class:`BusUnavailable` when the connection is lost."""
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
    """Until Python 3.12, ``asyncio.wait_for``, which redis-py sends with, may swallow a cancellation (gh-86296)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _lost(error: Exception) -> BusUnavailable:
    return BusUnavailable(f"Redis: {str(error) or type(error).__name__}")


def check_url(url: str) -> None:
    """Raises ``ValueError`` with the reason when a Redis URL cannot be used."""
    try:
        parse_url(url)
    except ValueError as error:
        raise ValueError(f"the Redis URL cannot be used: {error}") from None
