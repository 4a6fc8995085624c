"""The proxy injects the configured faults in the configured direction, and no others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

import pytest

from tests.faults.proxy import Proxy, Toxics
from tests.support.harness import eventually


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """Run a proxy in front of an echo server."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


class Client:
    """A connection through a proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._port = proxy.port

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def echo(self, data: bytes = b"hello") -> float:
        """Send data, wait for the echo, and return the seconds that it took."""
        started = time.monotonic()
        self.writer.write(data)
        async with asyncio.timeout(5):
            assert await self.reader.readexactly(len(data)) == data
        return time.monotonic() - started


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    async with Client(proxy) as client:
        await client.echo()
        yield client


async def test_latency_adds_up_over_both_directions(proxy: Proxy, client: Client) -> None:
    proxy.up, proxy.down = Toxics(latency=0.05), Toxics(latency=0.05, jitter=0.01)
    assert await client.echo() >= 0.1


async def test_bandwidth_limit_delays_the_data(proxy: Proxy, client: Client) -> None:
    proxy.up = Toxics(bandwidth=100_000)
    assert await client.echo(b"x" * 10_000) >= 0.1


async def test_sliced_data_arrives_complete(proxy: Proxy, client: Client) -> None:
    proxy.up = proxy.down = Toxics(slice=7)
    await client.echo(bytes(range(256)) * 4)


async def test_black_hole_drops_data_and_keeps_the_connection(proxy: Proxy, client: Client) -> None:
    proxy.down = Toxics(hole=True, match=b"lost")
    client.writer.write(b"lost")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.reader.read(1)
    await client.echo()


async def test_timeout_drops_data_and_closes_the_connection(proxy: Proxy, client: Client) -> None:
    proxy.up = Toxics(timeout=0.05)
    with pytest.raises(asyncio.IncompleteReadError):
        await client.echo()


@pytest.mark.parametrize("how", ["toxic", "cut"])
async def test_reset_and_cut_reset_the_connection(proxy: Proxy, client: Client, how: str) -> None:
    if how == "cut":
        proxy.cut()
    else:
        proxy.down = Toxics(reset=True)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await client.echo()
    await eventually(lambda: proxy.connections == 0)


async def test_proxy_refuses_connections_until_healed(proxy: Proxy) -> None:
    proxy.accepts = False
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        async with Client(proxy) as refused:
            await refused.echo()
    proxy.heal()
    async with Client(proxy) as client:
        await client.echo()
