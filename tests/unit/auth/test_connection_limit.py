"""Connection slots: the number of open connections of a user over all workers, also after crashes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import pytest
from redis.asyncio import Redis
from starlette.testclient import TestClient, WebSocketDenialResponse

from realtime import create_app
from realtime.auth.connection_limit import ConnectionSlots, Slot
from realtime.auth.permissions import ANONYMOUS, UNRESTRICTED, Principal
from realtime.core.close_codes import CloseCode
from realtime.errors import TooManyRequests
from realtime.eventlog.bus import Bus
from realtime.settings import Settings
from tests.support.accounts import HERE, Browser, with_accounts
from tests.support.harness import UNIT, eventually, note_in

LIMIT = 3
LEASE = 0.6 * UNIT
ANN, BOB = Principal(frozenset(), "ann"), Principal(frozenset(), "bob")


@asynccontextmanager
async def worker(url: str | None, database: str) -> AsyncIterator[ConnectionSlots]:
    """Run the connection slots of one worker."""
    assert url
    bus = Bus(url, database, max_entries=100)
    slots = ConnectionSlots(bus, LIMIT, lease=LEASE)
    running = asyncio.create_task(slots.run())
    try:
        yield slots
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await bus.aclose()


@pytest.fixture
async def workers(settings: Settings) -> AsyncIterator[list[ConnectionSlots]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(worker(settings.redis_url, settings.database)) for _ in range(2)]


async def acquire_when_free(slots: ConnectionSlots, principal: Principal = ANN) -> Slot | None:
    """Acquire a slot as soon as one is free."""

    async def try_to_acquire() -> Slot | None:
        try:
            return await slots.acquire(principal)
        except TooManyRequests as error:
            raise AssertionError from error

    slot: Slot | None = await eventually(try_to_acquire)
    return slot


async def test_connection_slots_are_counted_per_user_over_all_workers(workers: list[ConnectionSlots]) -> None:
    one, other = workers
    first = [await one.acquire(ANN), await other.acquire(ANN), await one.acquire(ANN)]
    for slots in workers:
        with pytest.raises(TooManyRequests):
            await slots.acquire(ANN)
    assert await other.acquire(BOB)
    one.release(first[0])
    await acquire_when_free(other)


async def test_guest_slots_are_limited_per_network(settings: Settings) -> None:
    assert settings.redis_url
    bus = Bus(settings.redis_url, settings.database, max_entries=100)
    try:
        slots, other = (ConnectionSlots(bus, LIMIT, 2, LEASE) for _ in range(2))
        await slots.acquire(ANONYMOUS, "2001:db8::1")
        slot = await other.acquire(ANONYMOUS, "2001:db8::2")
        with pytest.raises(TooManyRequests):
            await slots.acquire(ANONYMOUS, "2001:db8::3")
        for principal, address in ((ANONYMOUS, "2001:db8:1::1"), (ANONYMOUS, "1.1.1.1"), (ANN, "2001:db8::3")):
            assert await slots.acquire(principal, address)
        other.release(slot)
        assert len(other.held) == 0
    finally:
        await bus.aclose()


@pytest.mark.parametrize("principal", [UNRESTRICTED, ANONYMOUS])
async def test_guest_without_a_guest_limit_needs_no_slot(workers: list[ConnectionSlots], principal: Principal) -> None:
    for _ in range(LIMIT + 1):
        assert await workers[0].acquire(principal) is None
    workers[0].release(None)


async def test_slots_of_a_killed_worker_become_free_after_the_lease(
    workers: list[ConnectionSlots], settings: Settings
) -> None:
    one, other = workers
    assert settings.redis_url
    bus = Bus(settings.redis_url, settings.database, max_entries=100)
    killed = ConnectionSlots(bus, LIMIT, lease=LEASE)
    for slots in (killed, killed, one):
        await slots.acquire(ANN)
    await bus.aclose()
    for _ in range(2):
        await acquire_when_free(other)
    with pytest.raises(TooManyRequests):
        await one.acquire(ANN)


async def test_held_slots_are_restored_after_redis_lost_them(
    workers: list[ConnectionSlots], settings: Settings
) -> None:
    one, other = workers
    held = [await one.acquire(ANN) for _ in range(LIMIT)]
    assert settings.redis_url
    assert held[0]
    key, _ = held[0]
    async with Redis.from_url(settings.redis_url) as redis:
        await redis.delete(key)
        await eventually(lambda: redis.exists(key))
    with pytest.raises(TooManyRequests):
        await other.acquire(ANN)


async def test_worker_without_redis_counts_only_its_own_slots() -> None:
    async with worker("redis://127.0.0.1:1/0", "away") as slots:
        held = [await slots.acquire(ANN) for _ in range(LIMIT)]
        with pytest.raises(TooManyRequests):
            await slots.acquire(ANN)
        slots.release(held[0])
        await slots.acquire(ANN)


@pytest.fixture
def host(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(with_accounts(settings, max_connections_per_user=2)), base_url=HERE) as client:
        yield client


def test_every_feed_and_room_connection_takes_a_slot(host: TestClient) -> None:
    ann = Browser(host).sign_up()
    id = ann.post("/notes/", json=note_in()).json()["id"]
    origin = {"Origin": HERE}
    with ExitStack() as open:
        for path in ("/ws", f"/sync/{id}"):
            open.enter_context(ann.websocket_connect(f"ws://127.0.0.1{path}", headers=origin))
        with ann.websocket_connect("ws://127.0.0.1/ws", headers=origin) as socket:
            assert socket.receive()["code"] == CloseCode.TOO_MANY
        room = f"ws://127.0.0.1/sync/{id}"
        with pytest.raises(WebSocketDenialResponse) as refused, ann.websocket_connect(room, headers=origin):
            pass
        for answer in (refused.value, ann.get("/changes")):
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
        delay = re.fullmatch(r"retry: (\d+)\n\n", ann.get("/events").text)
        assert delay, "an EventSource gives up after any status but 200"
        assert int(delay[1]) >= 5000
    # The slots are released in Redis asynchronously.
    asyncio.run(eventually(lambda: ann.get("/changes").status_code == 200))


def test_guests_of_a_network_over_the_limit_are_refused(settings: Settings) -> None:
    with TestClient(create_app(with_accounts(settings, max_connections_per_network=1)), base_url=HERE) as host:
        guest, other, ann = Browser(host), Browser(host), Browser(host).sign_up()
        with guest.websocket_connect("ws://127.0.0.1/ws") as socket:
            socket.send_json({"type": "auth"})
            assert socket.receive_json()["type"] == "ready"
            assert guest.get("/changes").status_code == 429
            with guest.websocket_connect("ws://127.0.0.1/ws") as late:
                late.send_json({"type": "auth"})
                assert late.receive()["code"] == CloseCode.TOO_MANY
            for browser in (other, ann):
                assert browser.get("/changes").status_code == 200


def test_server_without_accounts_applies_the_guest_limit(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"max_connections_per_network": 1}))) as client:
        with client.websocket_connect("/ws") as socket:
            assert socket.receive_json()["type"] == "ready"
            assert client.get("/changes").status_code == 429
