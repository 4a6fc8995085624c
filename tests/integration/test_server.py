"""A server process: draining, stopping, and the cost of clients that misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any, cast

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from realtime.server.serve import address, listen
from realtime.websocket.connection import drop
from tests.support.harness import Replica, ServerProcess, eventually, note_in, rest_client
from tests.support.http import Serve, printed_lines, wait_for_close

MIB = 1024 * 1024
STREAMS = 600  # enough that closing them all takes a while


@asynccontextmanager
async def open_connection(
    port: int, path: str, *, limit: int = 65536
) -> AsyncIterator[tuple[asyncio.StreamReader, Any]]:
    """Open a connection, and send the request for a stream or a WebSocket. Its small buffers fill quickly."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limit)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=limit)
    upgrade = ""
    if path.startswith("/ws"):
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = (
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        )
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n{upgrade}\r\n".encode())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def status(reader: asyncio.StreamReader) -> int:
    """Read a response up to the end of its headers, and return the status."""
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split()[1])


async def test_drain_finishes_pending_requests_and_closes_clients(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        ws = await stack.enter_async_context(connect(server.ws))
        rest = await stack.enter_async_context(rest_client(server.url))
        poll = asyncio.create_task(rest.get("/changes", params={"since": await _cursor(rest), "timeout": 60}))
        streams = [await stack.enter_async_context(open_connection(server.port, "/events")) for _ in range(STREAMS)]
        assert [await status(reader) for reader, _ in streams] == [200] * STREAMS
        upload = await stack.enter_async_context(open_connection(server.port, "/ping"))
        assert await status(upload[0]) == 200
        assert await upload[0].readexactly(16) == b'{"ping":"pong!"}'
        body = json.dumps(note_in()).encode()
        upload[1].write(b"POST /notes/ HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
        assert (await rest.get("/readyz")).status_code == 200

        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)

        ready = await eventually(lambda: _unready(server.url))
        assert ready["checks"]["accepting"] == {"ok": False}
        assert await wait_for_close(ws) == 1012
        for reader, _ in streams:
            assert (await reader.read()).endswith(b"0\r\n\r\n")
        answer = await poll
        assert (answer.status_code, answer.json()["changes"]) == (200, [])
        upload[1].write(body[5:])
        assert await status(upload[0]) == 201
        assert server.wait(within=5) == 0
    assert "Traceback" not in server.log()


async def _cursor(rest: httpx.AsyncClient) -> str:
    cursor: str = (await rest.get("/changes")).json()["cursor"]
    return cursor


async def _unready(url: str) -> Any:
    async with rest_client(url) as rest:
        answer = await rest.get("/readyz")
    assert answer.status_code == 503
    return answer.json()


async def test_server_prints_its_addresses_and_stops_at_ctrl_c(server: ServerProcess) -> None:
    assert printed_lines(server, 2) == [f"Docs  {server.url}/docs\n", f"Feed  {server.ws}\n"]
    os.kill(server.pid, signal.SIGINT)
    assert server.wait(within=3) == 0
    assert "Traceback" not in server.log()


async def test_stalled_clients_are_dropped_without_affecting_others(serve: Serve) -> None:
    server = serve(client_stall_seconds=1.0, client_queue_bytes=MIB)
    async with rest_client(server.url) as rest:
        await _write_large(rest, 24)  # fills the buffers that every server keeps
        async with stalled_clients(server) as dropped, Replica(server.url) as other:
            await eventually(lambda: len(other.notes) == 24)
            before = psutil.Process(server.pid).memory_info().rss
            await _write_large(rest, 24)
            assert psutil.Process(server.pid).memory_info().rss - before < 30 * MIB
            await eventually(lambda: len(other.notes) == 48)
            await eventually(lambda: not dropped & _client_ports(server), within=8)
            await eventually(lambda: _has_metric(rest, "realtime_too_slow_total 2.0"))


async def _write_large(rest: httpx.AsyncClient, many: int) -> None:
    for number in range(many):
        body = note_in(f"note {number}", content="x" * (MIB // 2))
        assert (await rest.post("/notes/", json=body)).status_code == 201


async def test_stalled_clients_do_not_delay_the_shutdown(serve: Serve) -> None:
    server = serve(client_stall_seconds=60)
    async with stalled_clients(server) as stalled, rest_client(server.url) as rest:
        for _ in range(16):
            assert (await rest.post("/notes/", json=note_in(content="x" * (MIB // 2)))).status_code == 201
        assert stalled < _client_ports(server)
        assert server.stop(within=8) == 0


@asynccontextmanager
async def stalled_clients(server: ServerProcess) -> AsyncIterator[set[int]]:
    """Open a WebSocket and an event stream that never read, and yield their ports."""
    async with (
        open_connection(server.port, "/ws", limit=4096) as (_, ws),
        open_connection(server.port, "/events", limit=4096) as (_, stream),
    ):
        ports = {one.get_extra_info("sockname")[1] for one in (ws, stream)}
        async with rest_client(server.url) as rest:
            await eventually(lambda: _has_metric(rest, 'realtime_clients{transport="ws"} 1.0'))
            await eventually(lambda: _has_metric(rest, 'realtime_clients{transport="sse"} 1.0'))
        yield ports


async def _has_metric(rest: httpx.AsyncClient, line: str) -> bool:
    return line in (await rest.get("/metrics")).text.splitlines()


def _client_ports(server: ServerProcess) -> set[int]:
    """Return the ports of the clients that are connected to the server."""
    connections = psutil.Process(server.pid).net_connections("tcp")
    return {one.raddr.port for one in connections if one.status != psutil.CONN_LISTEN}


async def test_dropped_connection_discards_data_for_a_stalled_client() -> None:
    """A plain abort would keep pending data in the kernel until the client disconnects."""
    transports: list[asyncio.Transport] = []

    class Flood(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(cast(asyncio.Transport, transport))
            transports[0].write(bytes(8_000_000))

    with closing(listen("127.0.0.1", 0)) as listener:
        serving = await asyncio.get_running_loop().create_server(Flood, sock=listener)
        with closing(socket.create_connection(listener.getsockname())) as stalled:
            await eventually(lambda: transports and transports[0].get_write_buffer_size())
            drop(transports[0])

            def drain() -> None:
                while stalled.recv(1 << 20):
                    pass

            with pytest.raises(ConnectionResetError):
                await asyncio.to_thread(drain)
        serving.close()


@pytest.mark.parametrize(
    ("host", "printed"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("10.0.0.7", "10.0.0.7")],
)
def test_printed_address_can_be_opened(host: str, printed: str) -> None:
    assert re.findall(r"://(\S+?)/", address(host, 8000)) == [f"{printed}:8000"] * 3


def test_second_server_on_a_port_fails_to_listen() -> None:
    with closing(listen("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=rf"^cannot listen on 127\.0\.0\.1 port {port}: Address already in use$"):
            listen("127.0.0.1", port).close()


async def test_refused_handshake_is_not_logged(shared_servers: list[ServerProcess]) -> None:
    server = shared_servers[0]
    with pytest.raises(InvalidStatus) as refused:
        await connect(server.ws, origin=Origin("http://evil.example"))
    assert refused.value.response.status_code == 403
    async with rest_client(server.url) as rest:
        await rest.get("/ping")
    assert "handshake" not in server.log()


async def test_invalid_utf8_closes_the_connection_without_a_traceback(server: ServerProcess) -> None:
    async with connect(server.ws) as socket:
        await socket.recv()
        await socket.send(b"\xff\xfe", text=True)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1007
    assert "Traceback" not in server.log()
