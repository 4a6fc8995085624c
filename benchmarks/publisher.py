"""Publishes a change straight into Redis, as a contender would after a write: the fan-out alone.

Takes requests from the load, whose bodies are notes, and answers once Redis has the event. For this program that is its
own log (:class:`realtime.eventlog.bus.Bus`), for the others a PUBLISH. Use: ``python -m benchmarks.publisher PORT
REDIS_URL CHANNEL TEMPLATE``, where ``%s`` in the template is the note; ``realtime:<database>`` as the channel is this
program.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import redis.asyncio as redis
import uvloop

from realtime.eventlog.bus import Bus, LogEntry
from realtime.eventlog.codec import encode_change
from realtime.notes.models import Note, NoteChange, NoteIn

Publish = Callable[[bytes], Awaitable[object]]
BEYOND = 1_000_000
"""Ids from here on are no notes of the database, so that no write meets them."""


def through_log(bus: Bus) -> Publish:
    """Appends an event of this program."""
    version = int(datetime.now(UTC).timestamp() * 1000)  # of one key they only grow, over runs too

    async def publish(body: bytes) -> None:
        nonlocal version
        version += 1
        sent = NoteIn.model_validate_json(body)
        now = datetime.now(UTC)
        note = Note.model_construct(
            id=BEYOND + version % 1000, version=version, created_date=now, updated_date=now, **sent.model_dump()
        )
        await bus.append(LogEntry(str(note.id), note.version, *encode_change(NoteChange(note))))

    return publish


def through_channel(client: redis.Redis, channel: str, template: str) -> Publish:
    """Publishes as it is."""
    head, _, tail = template.encode().partition(b"%s")
    return lambda body: client.publish(channel, head + body + tail)


async def _serve(publish: Publish, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await publish(await reader.readexactly(size))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main(port: int, url: str, channel: str, template: str) -> None:
    """Serves until it is ended."""
    kind, _, database = channel.partition(":")
    bus = Bus(url, database, max_entries=100_000)
    appending = asyncio.create_task(bus.run())
    publish = through_log(bus) if kind == "realtime" else through_channel(redis.Redis.from_url(url), channel, template)
    server = await asyncio.start_server(lambda reader, writer: _serve(publish, reader, writer), "127.0.0.1", port)
    await asyncio.gather(appending, server.serve_forever())


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *sys.argv[2:]))
