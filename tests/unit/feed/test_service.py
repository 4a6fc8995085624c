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
from realtime.feed.service import Feed
from realtime.feed.subscriber import Subscriber
from realtime.metrics import Metrics


def event(offset: int) -> Event:
    text = f'{{"type":"note.deleted","cursor":"e:{offset}","id":1,"version":{offset}}}'
    return decode_event(text.encode())


class FeedBench:
    """A feed whose follower is this test: it says where the position is, and hands events out."""

    def __init__(self) -> None:
        self.hub = Hub(budget=2**20, stall_seconds=10, too_slow=CloseCode.TOO_SLOW)
        self.position = Cursor("e", 10)
        bus = SimpleNamespace(read=self._read, silent=False)
        presence = SimpleNamespace(
            leave=lambda client: None, people=lambda note: [], remove_unauthorized=lambda note: None
        )
        self.access = Access("ann", public=True)
        self.looked = 0

        async def standing(_: int) -> NoteAccess:
            self.looked += 1
            return NoteAccess(self.access, live=True)

        parts = (cast(Any, self), cast(Any, bus), cast(Any, presence))
        self.feed = Feed(self.hub, *parts, Metrics(), access_of=standing, heartbeat_seconds=25)

    async def ready(self) -> None:
        """The follower is at once."""

    async def _read(self, *_: Any, **__: Any) -> list[tuple[int, bytes]]:
        return []

    def happen(self, offset: int) -> None:
        """Publish an event as the consumer does."""
        self.position = Cursor("e", offset)
        self.hub.publish(event(offset))

    async def poll(self, timeout: float) -> Any:
        """A long poll from where the feed is."""
        return json.loads(await self.feed.poll(FeedQuery(since=str(self.position)), UNRESTRICTED, 100, timeout))


@pytest.fixture
async def bench() -> FeedBench:
    return FeedBench()


async def test_event_in_the_moment_of_the_time_out_is_not_skipped(
    bench: FeedBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event wakes the poll and the timer ends it in one turn of the loop: the cursor must not pass the event."""

    async def interrupted(client: Subscriber) -> Any:
        bench.happen(11)
        raise TimeoutError

    monkeypatch.setattr(Subscriber, "next_batch", interrupted)
    assert await bench.poll(5) == {"cursor": "e:10", "reset": False, "changes": []}


async def test_idle_poll_moves_on(bench: FeedBench) -> None:
    polling = asyncio.create_task(bench.feed.poll(FeedQuery(since="e:10", notes="5"), UNRESTRICTED, 100, 0.05))
    await asyncio.sleep(0)
    bench.happen(11)
    assert json.loads(await polling)["cursor"] == "e:11"


async def test_reset_within_an_epoch_reaches_the_poll(bench: FeedBench) -> None:
    polling = asyncio.create_task(bench.poll(5))
    while not len(bench.hub):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    bench.position = Cursor("e", 500)
    bench.hub.reset(reset(bench.position))
    assert await polling == {"cursor": "e:500", "reset": True, "changes": []}


async def test_large_frame_on_a_slow_link_gets_its_time(bench: FeedBench) -> None:
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


def test_who_comes_while_the_server_is_stopping_is_sent_away(client: TestClient) -> None:
    client.app.state.services.feed.draining = True  # type: ignore[attr-defined]  # what SIGTERM does
    with client.websocket_connect("/ws") as socket, pytest.raises(WebSocketDisconnect) as closed:
        socket.receive_json()
    assert closed.value.code == CloseCode.DRAIN
    answer = client.get("/events")
    assert answer.status_code == 200
    assert re.fullmatch(r"retry: \d{4}\n\n", answer.text), "an EventSource gives up after any other status"
    assert client.get("/readyz").status_code == 503


async def test_a_crowd_is_checked_by_one_look(bench: FeedBench) -> None:
    """As many as there are, they do not keep others waiting whose rights ended."""
    clients = [bench.feed.join(FeedQuery(), ANONYMOUS) for _ in range(3)]
    assert [await bench.feed.admit(client, 1) for client in clients] == [True] * 3
    bench.access, bench.looked = Access("ann"), 0
    await bench.feed.recheck_access(1)
    assert bench.looked == 1
    assert [client.sees(1) for client in clients] == [False] * 3


@pytest.mark.parametrize("public", [True, False])
async def test_who_is_there_already_is_told_to_who_may_see_the_note(bench: FeedBench, public: bool) -> None:
    bench.access = Access("ann", public=public)
    bench.feed.presence.people = lambda note: [{"name": "ann"}]  # type: ignore[method-assign]
    bench.feed.presence.frame = lambda note: Frame(b"presence")  # type: ignore[method-assign]
    client = bench.feed.join(FeedQuery(notes="1"), ANONYMOUS)
    client.offer(Frame(b"the end"))
    async with contextlib.aclosing(bench.feed.stream(client, None)) as frames:
        told: list[str] = []
        while not told or told[-1] != "the end":
            told.append((await anext(frames)).text)
    assert told[1:] == (["presence", "the end"] if public else ["the end"])
