"""The rules of the feed in their corners: what happens in the very moment that something else does."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from realtime.access import OPEN
from realtime.cursor import Cursor
from realtime.errors import CloseCode
from realtime.events import decode_event, reset
from realtime.feed import Feed, Wanted
from realtime.hub import Client, Event, Hub
from realtime.metrics import Metrics


def event(offset: int) -> Event:
    text = f'{{"type":"note.deleted","cursor":"e:{offset}","id":1,"version":{offset}}}'
    return decode_event(text.encode())


class Stand:
    """A feed whose follower is this test: it says where the position is, and hands events out."""

    def __init__(self) -> None:
        self.hub = Hub(budget=2**20, stall=10, too_slow=CloseCode.TOO_SLOW)
        self.position = Cursor("e", 10)
        bus = SimpleNamespace(read=self._read)
        presence = SimpleNamespace(leave=lambda client: None, people=lambda note: [])

        async def sees(*_: Any) -> bool:
            return True

        parts = (cast(Any, self), cast(Any, bus), cast(Any, presence))
        self.feed = Feed(self.hub, *parts, Metrics(), sees=sees, interval=25)

    async def ready(self) -> None:
        """The follower is at once."""

    async def _read(self, *_: Any, **__: Any) -> list[tuple[int, bytes]]:
        return []

    def happen(self, offset: int) -> None:
        """What the follower does with an event."""
        self.position = Cursor("e", offset)
        self.hub.publish(event(offset))

    async def poll(self, timeout: float) -> Any:
        """A long poll from where the feed is."""
        return json.loads(await self.feed.poll(Wanted(since=str(self.position)), OPEN, 100, timeout))


@pytest.fixture
async def stand() -> Stand:
    return Stand()


async def test_event_in_the_moment_of_the_time_out_is_not_skipped(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event wakes the poll and the timer ends it in one turn of the loop: the cursor must not pass the event."""

    async def interrupted(client: Client) -> Any:
        stand.happen(11)
        raise TimeoutError

    monkeypatch.setattr(Client, "take", interrupted)
    assert await stand.poll(5) == {"cursor": "e:10", "reset": False, "changes": []}


async def test_idle_poll_moves_on(stand: Stand) -> None:
    polling = asyncio.create_task(stand.feed.poll(Wanted(since="e:10", notes="5"), OPEN, 100, 0.05))
    await asyncio.sleep(0)
    stand.happen(11)
    assert json.loads(await polling)["cursor"] == "e:11"


async def test_reset_within_an_epoch_reaches_the_poll(stand: Stand) -> None:
    polling = asyncio.create_task(stand.poll(5))
    while not len(stand.hub):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    stand.position = Cursor("e", 500)
    stand.hub.reset(reset(stand.position))
    assert await polling == {"cursor": "e:500", "reset": True, "changes": []}


async def test_large_frame_on_a_slow_link_gets_its_time(stand: Stand) -> None:
    client = stand.hub.join(None, content=True, viewer=OPEN)
    small, large = event(11).full, event(12).full
    large.size = 1024 * 1024
    for frame, patience in ((small, 10), (large, 10 + 64)):
        client.writing(frame)
        assert client.busy_since is not None
        started = client.busy_since
        stand.hub.close_stalled(started + patience - 1)
        assert not client.closing.done()
    stand.hub.close_stalled(started + 80)
    assert client.closing.done()


def test_who_comes_while_the_server_is_stopping_is_sent_away(client: TestClient) -> None:
    client.app.state.parts.feed.draining = True  # type: ignore[attr-defined]  # what SIGTERM does
    with client.websocket_connect("/ws") as socket, pytest.raises(WebSocketDisconnect) as closed:
        socket.receive_json()
    assert closed.value.code == CloseCode.DRAIN
    answer = client.get("/events")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert client.get("/readyz").status_code == 503
