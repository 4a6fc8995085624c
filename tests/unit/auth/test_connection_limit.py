"""Connection slots: the number of open connections of a user over all workers, also after crashes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis.asyncio import Redis
from starlette.testclient import TestClient

from realtime import create_app
from realtime.auth.connection_limit import ConnectionSlots, Slot
from realtime.auth.permissions import ANONYMOUS, UNRESTRICTED, Principal
from realtime.core.close_codes import CloseCode
from realtime.core.tasks import running
from realtime.errors import TooManyRequests
from realtime.settings import Settings
from tests.support.accounts import HERE, Browser, accounts_server
from tests.support.harness import UNIT, create_note, eventually
from tests.support.http import refused_handshake
from tests.support.workers import NO_REDIS, open_bus

LIMIT = 3
LEASE = 0.6 * UNIT
ANN, BOB = Principal(frozenset(), "ann"), Principal(frozenset(), "bob")


@asynccontextmanager
async def worker(settings: Settings) -> AsyncIterator[ConnectionSlots]:
    """Run the connection slots of one worker."""
    async with open_bus(settings) as bus:
        slots = ConnectionSlots(bus, LIMIT, lease=LEASE)
        async with running({"slots": slots.run}):
            yield slots


@pytest.fixture
async def workers(settings: Settings) -> AsyncIterator[list[ConnectionSlots]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(worker(settings)) for _ in range(2)]


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
    async with open_bus(settings) as bus:
        slots, other = (ConnectionSlots(bus, LIMIT, 2, LEASE) for _ in range(2))
        await slots.acquire(ANONYMOUS, "2001:db8::1")
        slot = await other.acquire(ANONYMOUS, "2001:db8::2")
        with pytest.raises(TooManyRequests):
            await slots.acquire(ANONYMOUS, "2001:db8::3")
        for principal, address in ((ANONYMOUS, "2001:db8:1::1"), (ANONYMOUS, "1.1.1.1"), (ANN, "2001:db8::3")):
            assert await slots.acquire(principal, address)
        other.release(slot)
        assert len(other.held) == 0


@pytest.mark.parametrize("principal", [UNRESTRICTED, ANONYMOUS])
async def test_guest_without_a_guest_limit_needs_no_slot(workers: list[ConnectionSlots], principal: Principal) -> None:
    for _ in range(LIMIT + 1):
        assert await workers[0].acquire(principal) is None
    workers[0].release(None)


async def test_slots_of_a_killed_worker_become_free_after_the_lease(
    workers: list[ConnectionSlots], settings: Settings
) -> None:
    one, other = workers
    async with open_bus(settings) as bus:
        killed = ConnectionSlots(bus, LIMIT, lease=LEASE)
        for slots in (killed, killed, one):
            await slots.acquire(ANN)
    for _ in range(2):
        await acquire_when_free(other)
    with pytest.raises(TooManyRequests):
        await one.acquire(ANN)


async def test_held_slots_are_restored_after_redis_lost_them(
    workers: list[ConnectionSlots], settings: Settings
) -> None:
    one, other = workers
    held = [await one.acquire(ANN) for _ in range(LIMIT)]
    assert held[0]
    key, _ = held[0]
    async with Redis.from_url(settings.redis_url or "") as redis:
        await redis.delete(key)
        await eventually(lambda: redis.exists(key))
    with pytest.raises(TooManyRequests):
        await other.acquire(ANN)


async def test_worker_without_redis_counts_only_its_own_slots() -> None:
    async with worker(Settings(redis_url=NO_REDIS)) as slots:
        held = [await slots.acquire(ANN) for _ in range(LIMIT)]
        with pytest.raises(TooManyRequests):
            await slots.acquire(ANN)
        slots.release(held[0])
        await slots.acquire(ANN)


@pytest.fixture
def host(settings: Settings) -> Iterator[TestClient]:
    with accounts_server(settings, max_connections_per_user=2) as client:
        yield client


def test_every_feed_and_room_connection_takes_a_slot(host: TestClient) -> None:
    ann = Browser(host).sign_up()
    id = create_note(ann)["id"]
    with ann.open_feed(), ann.open_room(id):
        with ann.open_feed() as socket:
            assert socket.receive()["code"] == CloseCode.TOO_MANY
        for answer in (refused_handshake(ann, f"ws://127.0.0.1/sync/{id}", Origin=HERE), ann.get("/changes")):
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
        delay = re.fullmatch(r"retry: (\d+)\n\n", ann.get("/events").text)
        assert delay, "an EventSource gives up after any status but 200"
        assert int(delay[1]) >= 5000
    # The slots are released in Redis asynchronously.
    asyncio.run(eventually(lambda: ann.get("/changes").status_code == 200))


def test_guests_of_a_network_over_the_limit_are_refused(settings: Settings) -> None:
    with accounts_server(settings, max_connections_per_network=1) as host:
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
