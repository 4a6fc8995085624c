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

MOST = 3
LEASE = 0.6 * UNIT
ANN, BOB = Principal(frozenset(), "ann"), Principal(frozenset(), "bob")


@asynccontextmanager
async def worker(url: str | None, database: str) -> AsyncIterator[ConnectionSlots]:
    """The places of a worker."""
    assert url
    bus = Bus(url, database, max_entries=100)
    places = ConnectionSlots(bus, MOST, lease=LEASE)
    running = asyncio.create_task(places.run())
    try:
        yield places
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await bus.aclose()


@pytest.fixture
async def workers(settings: Settings) -> AsyncIterator[list[ConnectionSlots]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(worker(settings.redis_url, settings.database)) for _ in range(2)]


async def taken(places: ConnectionSlots, principal: Principal = ANN) -> Slot | None:
    """A place, once one is free."""

    async def take() -> Slot | None:
        try:
            return await places.acquire(principal)
        except TooManyRequests as error:
            raise AssertionError from error

    place: Slot | None = await eventually(take)
    return place


async def test_they_are_counted_over_all_workers_for_each_user(workers: list[ConnectionSlots]) -> None:
    one, other = workers
    first = [await one.acquire(ANN), await other.acquire(ANN), await one.acquire(ANN)]
    for places in workers:
        with pytest.raises(TooManyRequests):
            await places.acquire(ANN)
    assert await other.acquire(BOB)
    one.release(first[0])
    await taken(other)


async def test_networks_without_sign_in_have_places_too(settings: Settings) -> None:
    assert settings.redis_url
    bus = Bus(settings.redis_url, settings.database, max_entries=100)
    try:
        places, other = (ConnectionSlots(bus, MOST, 2, LEASE) for _ in range(2))
        await places.acquire(ANONYMOUS, "2001:db8::1")
        place = await other.acquire(ANONYMOUS, "2001:db8::2")
        with pytest.raises(TooManyRequests):
            await places.acquire(ANONYMOUS, "2001:db8::3")
        for principal, address in ((ANONYMOUS, "2001:db8:1::1"), (ANONYMOUS, "1.1.1.1"), (ANN, "2001:db8::3")):
            assert await places.acquire(principal, address)
        other.release(place)
        assert len(other._held) == 0
    finally:
        await bus.aclose()


@pytest.mark.parametrize("principal", [UNRESTRICTED, ANONYMOUS])
async def test_without_a_limit_who_is_not_signed_in_needs_none(
    workers: list[ConnectionSlots], principal: Principal
) -> None:
    for _ in range(MOST + 1):
        assert await workers[0].acquire(principal) is None
    workers[0].release(None)


async def test_those_of_a_killed_worker_become_free(workers: list[ConnectionSlots]) -> None:
    one, other = workers
    killed = ConnectionSlots(one._bus, MOST, lease=LEASE)
    for places in (killed, killed, one):
        await places.acquire(ANN)
    for _ in range(2):
        await taken(other)
    with pytest.raises(TooManyRequests):
        await one.acquire(ANN)


async def test_they_are_counted_again_by_a_redis_that_lost_them(
    workers: list[ConnectionSlots], settings: Settings
) -> None:
    one, other = workers
    held = [await one.acquire(ANN) for _ in range(MOST)]
    assert settings.redis_url
    assert held[0]
    key, _ = held[0]
    async with Redis.from_url(settings.redis_url) as redis:
        await redis.delete(key)
        await eventually(lambda: redis.exists(key))
    with pytest.raises(TooManyRequests):
        await other.acquire(ANN)


async def test_without_redis_each_worker_counts_for_itself() -> None:
    async with worker("redis://127.0.0.1:1/0", "away") as places:
        held = [await places.acquire(ANN) for _ in range(MOST)]
        with pytest.raises(TooManyRequests):
            await places.acquire(ANN)
        places.release(held[0])
        await places.acquire(ANN)


@pytest.fixture
def host(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(with_accounts(settings, max_connections_per_user=2)), base_url=HERE) as client:
        yield client


def test_every_way_in_takes_one(host: TestClient) -> None:
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
    # The places are given up in Redis a moment later.
    asyncio.run(eventually(lambda: ann.get("/changes").status_code == 200))


def test_guests_of_one_network_have_a_limit(settings: Settings) -> None:
    with TestClient(create_app(with_accounts(settings, max_connections_per_network=1)), base_url=HERE) as host:
        guest, other, ann = Browser(host), Browser(host), Browser(host).sign_up()
        with guest.websocket_connect("ws://127.0.0.1/ws") as socket:
            socket.send_json({"type": "auth"})
            assert socket.receive_json()["type"] == "ready"
            assert guest.get("/changes").status_code == 429
            with guest.websocket_connect("ws://127.0.0.1/ws") as late:
                late.send_json({"type": "auth"})
                assert late.receive()["code"] == CloseCode.TOO_MANY
            for who in (other, ann):
                assert who.get("/changes").status_code == 200


def test_without_accounts_guests_have_a_limit_if_it_is_set(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"max_connections_per_network": 1}))) as client:
        with client.websocket_connect("/ws") as socket:
            assert socket.receive_json()["type"] == "ready"
            assert client.get("/changes").status_code == 429
