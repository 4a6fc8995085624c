"""Race conditions of the feed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from realtime.auth.permissions import ANONYMOUS, UNRESTRICTED, Access, NoteAccess
from realtime.core.close_codes import CloseCode
from realtime.core.frames import Frame
from realtime.eventlog.codec import decode_event
from realtime.eventlog.cursor import Cursor
from realtime.eventlog.event import Event
from realtime.feed.codec import reset
from realtime.feed.hub import Hub
from realtime.feed.query import FeedQuery
from realtime.feed.service import Feed, FeedOptions
from realtime.feed.subscriber import Subscriber


def event(offset: int) -> Event:
    text = f'{{"type":"note.deleted","cursor":"e:{offset}","id":1,"version":{offset}}}'
    return decode_event(text.encode())


class FeedBench:
    """A feed whose consumer is the test, which sets the position and publishes events."""

    def __init__(self) -> None:
        self.hub = Hub(budget=2**20, stall_seconds=10)
        self.position = Cursor("e", 10)
        bus = SimpleNamespace(read=self._read, silent=False)
        presence = SimpleNamespace(
            leave=lambda client: None, people=lambda note: [], remove_unauthorized=lambda note: None
        )
        self.access = Access("ann", public=True)
        self.access_reads = 0

        parts = (cast(Any, self), cast(Any, bus), cast(Any, presence))
        self.feed = Feed(self.hub, *parts, self, FeedOptions(heartbeat_seconds=25))

    async def note_access(self, id: int) -> NoteAccess:
        """Return the access rights of any note, and count the reads."""
        self.access_reads += 1
        return NoteAccess(self.access, live=True)

    async def ready(self) -> None:
        """Return at once: this consumer is always ready."""

    async def _read(self, *_: Any, **__: Any) -> list[tuple[int, bytes]]:
        return []

    def publish(self, offset: int) -> None:
        """Publish an event as the consumer does."""
        self.position = Cursor("e", offset)
        self.hub.publish(event(offset))

    async def poll(self, timeout: float) -> Any:
        """Poll from the current position, and return the decoded response."""
        return json.loads(await self.feed.poll(FeedQuery(since=str(self.position)), UNRESTRICTED, 100, timeout))


@pytest.fixture
async def bench() -> FeedBench:
    return FeedBench()


async def test_event_during_the_poll_timeout_is_not_skipped(bench: FeedBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event and the timeout end the poll in the same loop iteration: the cursor must not skip the event."""

    async def time_out(client: Subscriber) -> Any:
        bench.publish(11)
        raise TimeoutError

    monkeypatch.setattr(Subscriber, "next_batch", time_out)
    assert await bench.poll(5) == {"cursor": "e:10", "reset": False, "changes": []}


async def test_idle_poll_returns_the_current_cursor(bench: FeedBench) -> None:
    polling = asyncio.create_task(bench.feed.poll(FeedQuery(since="e:10", notes="5"), UNRESTRICTED, 100, 0.05))
    await asyncio.sleep(0)
    bench.publish(11)
    assert json.loads(await polling)["cursor"] == "e:11"


async def test_reset_within_an_epoch_ends_the_poll(bench: FeedBench) -> None:
    polling = asyncio.create_task(bench.poll(5))
    while not len(bench.hub):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    bench.position = Cursor("e", 500)
    bench.hub.reset(reset(bench.position))
    assert await polling == {"cursor": "e:500", "reset": True, "changes": []}


async def test_large_frame_extends_the_stall_timeout(bench: FeedBench) -> None:
    client = bench.hub.join(None, content=True, principal=UNRESTRICTED)
    small, large = event(11).full, event(12).full
    large.size = 1024 * 1024
    for frame, patience in ((small, 10), (large, 10 + 64)):
        client.start_write(frame)
        assert client.busy_since is not None
        started = client.busy_since
        bench.hub.close_stalled(started + patience - 1)
        assert not client.closing.done()
    bench.hub.close_stalled(started + 80)
    assert client.closing.done()


def test_new_clients_of_a_draining_server_are_closed(client: TestClient) -> None:
    client.app.state.services.feed.draining = True  # type: ignore[attr-defined]  # as after SIGTERM
    with client.websocket_connect("/ws") as socket, pytest.raises(WebSocketDisconnect) as closed:
        socket.receive_json()
    assert closed.value.code == CloseCode.DRAIN
    answer = client.get("/events")
    assert answer.status_code == 200
    assert re.fullmatch(r"retry: \d{4}\n\n", answer.text), "an EventSource gives up after any other status"
    assert client.get("/readyz").status_code == 503


async def test_recheck_reads_the_access_rights_once_for_all_clients(bench: FeedBench) -> None:
    """A large number of clients must not delay the check of clients whose access ended."""
    clients = [bench.feed.join(FeedQuery(), ANONYMOUS) for _ in range(3)]
    assert [await bench.feed.admit_to_presence(client, 1) for client in clients] == [True] * 3
    bench.access, bench.access_reads = Access("ann"), 0
    await bench.feed.recheck_access(1)
    assert bench.access_reads == 1
    assert [client.sees(1) for client in clients] == [False] * 3


@pytest.mark.parametrize("public", [True, False])
async def test_presence_list_is_sent_only_to_clients_with_access(bench: FeedBench, public: bool) -> None:
    bench.access = Access("ann", public=public)
    bench.feed.presence.people = lambda note: [{"name": "ann"}]  # type: ignore[method-assign]
    bench.feed.presence.frame = lambda note: Frame(b"presence")  # type: ignore[method-assign]
    client = bench.feed.join(FeedQuery(notes="1"), ANONYMOUS)
    client.offer(Frame(b"the end"))
    async with contextlib.aclosing(bench.feed.stream(client, None)) as frames:
        texts: list[str] = []
        while not texts or texts[-1] != "the end":
            texts.append((await anext(frames)).text)
    assert texts[1:] == (["presence", "the end"] if public else ["the end"])
