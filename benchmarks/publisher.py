"""Publishes changes to Redis like a contender does after a write, to measure the fan-out alone.

Receives requests of the load, whose bodies are notes, and responds when Redis has the event. For this program, the
event goes to its event log (:class:`realtime.eventlog.bus.Bus`); for the others, it is sent with PUBLISH. Use:
``python -m benchmarks.publisher PORT REDIS_URL CHANNEL TEMPLATE``, where ``%s`` in the template is the note. The
channel ``realtime:<database>`` selects this program.
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
"""Ids from this number do not exist in the database, so that these events do not conflict with writes."""


def through_log(bus: Bus) -> Publish:
    """Return a function that appends an event to the event log of this program."""
    version = int(datetime.now(UTC).timestamp() * 1000)  # versions of an id must increase, also over several runs

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
    """Return a function that publishes a message to a channel."""
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
    """Serve until the process is ended."""
    kind, _, database = channel.partition(":")
    bus = Bus(url, database, max_entries=100_000)
    appending = asyncio.create_task(bus.run())
    publish = through_log(bus) if kind == "realtime" else through_channel(redis.Redis.from_url(url), channel, template)
    server = await asyncio.start_server(lambda reader, writer: _serve(publish, reader, writer), "127.0.0.1", port)
    await asyncio.gather(appending, server.serve_forever())


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *sys.argv[2:]))
