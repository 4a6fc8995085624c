"""The limits on open connections of a server process: per client, without sign-in, and in total."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from realtime.auth import open_connections
from realtime.auth.open_connections import (
    MAX_OPEN_FILES,
    MAX_UNREAD_BYTES,
    ConnectionLimits,
    OpenConnection,
    OpenConnections,
    raise_open_files,
)
from realtime.core.close_codes import CloseCode
from realtime.errors import Unavailable
from realtime.settings import Settings
from realtime.websocket import http_protocol
from realtime.websocket.handshake import Handshake
from realtime.websocket.http_protocol import HttpProtocol, no_room
from tests.support.accounts import PASSWORD, add_user, with_accounts
from tests.support.harness import UNIT, ServerProcess, eventually, rest_client

PROXY = "10.0.0.1"
PROXY_6 = "fd00::5"
LIMITS = ConnectionLimits(total=20, guests=12, waiting=4, proxy_waiting=10, surplus=2)


class StubConnection:
    """A stand-in for a connection, which can be idle."""

    def __init__(self, *, idle: bool = False) -> None:
        self.idle = idle
        self.closed = False

    def close_if_idle(self) -> bool:
        if not self.idle or self.closed:
            return False
        self.closed = True
        return True


def scope(address: str) -> dict[str, Any]:
    return {"client": (address, 1)}


@pytest.fixture(autouse=True)
def no_stall_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALL_MARGIN_SECONDS", 0.0)


@pytest.fixture
def connections() -> OpenConnections:
    return OpenConnections(LIMITS, {PROXY, PROXY_6})


def enter(connections: OpenConnections, address: str, *, idle: bool = False) -> OpenConnection:
    entry = connections.enter(address, StubConnection(idle=idle))
    assert entry is not None
    return entry


def test_client_over_its_limit_gets_surplus_connections_then_none(connections: OpenConnections) -> None:
    assert [enter(connections, "1.1.1.1").surplus for _ in range(6)] == [False] * 4 + [True] * 2
    assert connections.enter("1.1.1.1", StubConnection()) is None
    assert not enter(connections, "1.1.1.2").surplus


def test_addresses_of_an_ipv6_network_count_as_one_client(connections: OpenConnections) -> None:
    for number in range(6):
        enter(connections, f"2001:db8:1:1::{number}")
    assert connections.enter("2001:db8:1:1::ff", StubConnection()) is None
    assert connections.enter("2001:db8:1:2::1", StubConnection()) is not None


def test_unread_bytes_of_a_client_are_limited_except_one_response(connections: OpenConnections) -> None:
    first, second, third = (enter(connections, "1.1.1.1") for _ in range(3))
    assert first.hold(2 * MAX_UNREAD_BYTES)  # a single response may be larger than the limit
    assert not second.hold(1)
    assert enter(connections, "1.1.1.2").hold(MAX_UNREAD_BYTES)
    first.hold(0)
    assert second.hold(MAX_UNREAD_BYTES - 1)
    assert third.hold(1)
    assert not third.hold(2)
    second.leave()
    assert third.hold(MAX_UNREAD_BYTES)


def test_unread_bytes_are_counted_for_the_identified_client(connections: OpenConnections) -> None:
    first, second = enter(connections, PROXY), enter(connections, PROXY)
    first.hold(MAX_UNREAD_BYTES)
    first.identify(scope("1.1.1.1"), None)
    assert second.hold(MAX_UNREAD_BYTES)
    second.identify(scope("1.1.1.1"), None)
    assert not second.hold(1)


@pytest.mark.parametrize("address", [PROXY, PROXY_6, None])
def test_proxy_has_a_higher_connection_limit(connections: OpenConnections, address: str | None) -> None:
    assert not any(connections.enter(address, StubConnection()).surplus for _ in range(10))  # type: ignore[union-attr]  # there is room


def test_closed_connection_is_no_longer_counted(connections: OpenConnections) -> None:
    entries = [enter(connections, "1.1.1.1") for _ in range(6)]
    for entry in entries:
        entry.leave()
        entry.leave()  # twice: both protocols of a connection may report it
    assert not any(enter(connections, "1.1.1.1").surplus for _ in range(4))


def test_idle_connection_is_closed_when_the_limit_is_reached(connections: OpenConnections) -> None:
    idle = StubConnection(idle=True)
    entry = connections.enter("1.1.1.1", idle)
    assert entry is not None
    for _ in range(4):
        assert not enter(connections, "1.1.1.1").surplus
    assert idle.closed
    assert enter(connections, "1.1.1.1").surplus  # a closed connection counts until its socket is gone
    entry.leave()
    assert enter(connections, "1.1.1.1").surplus


def test_guest_limit_leaves_a_reserve_for_signed_in_users(connections: OpenConnections) -> None:
    for number in range(12):
        assert not enter(connections, f"1.1.{number}.1").surplus
    late = enter(connections, "1.2.1.1")
    with pytest.raises(Unavailable, match="Try again"):
        late.identify(scope("1.2.1.1"), None)
    late.identify(scope("1.2.1.1"), "ann")
    assert not late.surplus
    for number in range(7):
        enter(connections, f"1.3.{number}.1").identify(scope("x"), "bob" if number < 4 else "cyd")
    assert connections.enter("1.4.1.1", StubConnection()) is None  # the total


def test_signed_in_users_do_not_count_as_guests(connections: OpenConnections) -> None:
    for number in range(10):
        enter(connections, f"1.1.{number}.1").identify(scope("x"), f"user{number}")
    assert not enter(connections, "1.1.1.1").surplus
    for number in range(8):
        assert not enter(connections, f"1.2.{number}.1").surplus


def test_user_over_the_connection_limit_is_refused(connections: OpenConnections) -> None:
    for number in range(4):
        enter(connections, f"1.1.{number}.1").identify(scope("x"), "ann")
    with pytest.raises(Unavailable):
        enter(connections, "1.1.9.1").identify(scope("x"), "ann")


def test_clients_behind_a_proxy_are_counted_by_their_own_address(connections: OpenConnections) -> None:
    for _ in range(4):
        enter(connections, PROXY).identify(scope("1.1.1.1"), None)
    late = enter(connections, PROXY)
    with pytest.raises(Unavailable):
        late.identify(scope("1.1.1.1"), None)
    late.identify(scope("1.1.1.2"), None)
    assert late.client_key == "1.1.1.2"


def test_settled_connections_count_as_guests_but_not_as_waiting(connections: OpenConnections) -> None:
    for _ in range(12):
        entry = enter(connections, "1.1.1.1")
        entry.identify(scope("1.1.1.1"), None)
        entry.settle()
    late = enter(connections, "1.1.1.1")
    assert late.surplus
    for closed in (late, entry):
        closed.leave()
        closed.identify(scope("1.1.1.1"), None)  # too late
    assert not enter(connections, "1.1.1.1").surplus


@pytest.mark.parametrize(
    ("files", "accounts", "limits"),
    [
        (256, True, (192, 144, 48, 96)),
        (1024, True, (768, 576, 192, 384)),
        (1024, False, (768, 768, 192, 384)),
        (65536, True, (65024, 48768, 256, 32512)),
    ],
)
def test_connection_limits_depend_on_open_files_and_accounts(
    files: int, accounts: bool, limits: tuple[int, ...]
) -> None:
    known = ConnectionLimits.of(files, accounts=accounts, min_waiting=0)
    assert (known.total, known.guests, known.waiting, known.proxy_waiting) == limits
    assert ConnectionLimits.of(65536, accounts=True, min_waiting=1000).waiting == 1000


@pytest.fixture
def open_files_limit() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_open_files_limit_is_raised_to_the_hard_limit(open_files_limit: tuple[int, int]) -> None:
    _, hard = open_files_limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    raised = min(hard, MAX_OPEN_FILES) if hard != resource.RLIM_INFINITY else MAX_OPEN_FILES
    assert raise_open_files() == raised
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (raised, hard)
    assert raise_open_files() == raised


def test_open_files_limit_stays_if_raising_it_fails(
    open_files_limit: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    resource.setrlimit(resource.RLIMIT_NOFILE, (512, open_files_limit[1]))
    with monkeypatch.context() as patch:
        patch.setattr(resource, "setrlimit", refuse)
        assert raise_open_files() == 512


# With sockets

ONE_WAITING = ConnectionLimits(total=9, guests=9, waiting=1, proxy_waiting=1, surplus=0)

LARGE = 30_000
"""Bytes of a response that is too small to pause writing."""
BUFFER = 2048
"""Bytes of the socket buffers of a server and a client: such a response stays partly unsent."""


async def _application(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        await receive()
    if scope["path"] == "/known":
        scope[open_connections.OPEN_CONNECTION].identify(scope, "ann")
    body = b"x" * LARGE if scope["path"] == "/large" else b""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def http_server(
    limits: ConnectionLimits, *, stall: float = http_protocol.HEAD_TIMEOUT_SECONDS
) -> AsyncIterator[int]:
    config = uvicorn.Config(_application, lifespan="off", ws=Handshake, log_config=None, access_log=False)
    config.load()
    counted = OpenConnections(limits, {PROXY})
    make: Any = lambda: HttpProtocol(config, ServerState(), {}, open_connections=counted, stall=stall)  # noqa: E731
    async with await asyncio.get_running_loop().create_server(make, "127.0.0.1") as server:
        for listener in server.sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def open_socket(port: int, address: str = "127.0.0.1") -> AsyncIterator[tuple[asyncio.StreamReader, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def send_request(port: int, path: str, address: str = "127.0.0.1") -> bytes:
    """Send a request, and return all bytes that the server sends until it closes the connection."""
    async with open_socket(port, address) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(10 * UNIT):
            return await reader.read()


async def test_connection_over_the_limit_receives_a_503_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "SURPLUS_HEAD_TIMEOUT_SECONDS", 0.2)
    limits = ConnectionLimits(total=2, guests=2, waiting=2, proxy_waiting=2, surplus=0)
    async with http_server(limits) as port, AsyncExitStack() as stack:
        held = [await stack.enter_async_context(open_socket(port)) for _ in range(2)]
        await eventually(lambda: _check_refused(port))
        answer = await send_request(port, "/")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5" in head
        assert json.loads(body)["detail"] == open_connections.FULL
        stream = await send_request(port, "/prefix/events?notes=1")
        assert stream.startswith(b"HTTP/1.1 200 ")
        assert stream.endswith(b"\r\n\r\nretry: 5000\n\n")
        async with open_socket(port) as (reader, _):  # this client sends nothing
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        monkeypatch.setattr(http_protocol, "MAX_REFUSED", 0)
        async with open_socket(port) as (reader, _):
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        held[0][1].transport.abort()
        await eventually(lambda: _check_accepted(port))


async def _check_refused(port: int) -> None:
    assert (await send_request(port, "/")).startswith(b"HTTP/1.1 503 ")


async def _check_accepted(port: int) -> None:
    assert (await send_request(port, "/")).startswith(b"HTTP/1.1 200 ")


async def test_idle_http_connection_is_closed_for_a_new_connection() -> None:
    async with http_server(ONE_WAITING) as port, open_socket(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert (await send_request(port, "/")).startswith(b"HTTP/1.1 200 ")
        assert await reader.read() == b""
        async with open_socket(port):  # a connection that has not sent anything is not idle
            await eventually(lambda: _check_refused(port))


@asynccontextmanager
async def slow_reader(port: int, *, last: bool) -> AsyncIterator[socket.socket]:
    """Connect a client that leaves most of a response unread. With ``last``, it announces no further request."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        ending = "Connection: close\r\n" if last else ""
        await loop.sock_sendall(client, f"GET /large HTTP/1.1\r\nHost: test\r\n{ending}\r\n".encode())
        assert await loop.sock_recv(client, 8) == b"HTTP/1.1"
        yield client


async def test_connection_with_an_unsent_response_is_not_closed_as_idle() -> None:
    """Its socket would stay open, but uncounted, for as long as the client reads nothing."""
    async with http_server(ONE_WAITING) as port, slow_reader(port, last=False) as client:
        for _ in range(3):
            await _check_refused(port)
        size = 0
        while size < LARGE:
            size += len(await asyncio.get_running_loop().sock_recv(client, LARGE))
        await eventually(lambda: _check_accepted(port))


async def test_closed_connection_counts_until_its_unread_response_is_dropped() -> None:
    async with http_server(ONE_WAITING) as port, slow_reader(port, last=True):
        await _check_refused(port)
    async with http_server(ONE_WAITING, stall=0.2) as port, slow_reader(port, last=True):
        await eventually(lambda: _check_accepted(port))


def test_no_room_response_is_503_except_for_event_streams() -> None:
    for request in (b"", b"GET /eventsx HTTP/1.1", b"POST /events HTTP/1.1", b"GET /x?/events HTTP/1.1"):
        assert no_room(request).startswith(b"HTTP/1.1 503 ")
    for request in (b"GET /events HTTP/1.1", b"GET /a/events/?since=1 HTTP/1.1"):
        assert no_room(request).startswith(b"HTTP/1.1 200 ")


# With a server process

FILES = 1024
GUEST_CONNECTIONS = 1200
FLOOD, OTHER = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def server_with_few_files(settings: Settings) -> Iterator[ServerProcess]:
    """Run a server with the user ``ann`` and a low limit of open files."""
    raise_open_files()  # for the connections of the test
    settings = with_accounts(settings, port=0, max_connects_per_second=0)
    asyncio.run(add_user(settings, "ann"))
    server = ServerProcess(settings)
    server.prefix = ["sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh"]
    server.start()
    yield server
    server.kill()


async def sign_in(server: ServerProcess) -> dict[str, str]:
    """Sign in, and return the headers of a new API token."""
    async with rest_client(server.url) as rest:
        answer = await rest.post("/auth/sign-in", json={"name": "ann", "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        token = await rest.post("/auth/tokens", json={"name": "program"})
        return {"Authorization": f"Bearer {token.json()['token']}"}


async def check_served(server: ServerProcess, user: dict[str, str]) -> None:
    """Check that a signed-in user and an address without sign-in are served."""
    ping = await send_request(server.port, "/ping", OTHER)
    assert ping.startswith(b"HTTP/1.1 200 "), ping
    async with rest_client(server.url) as rest:
        assert (await rest.get("/notes/", headers=user)).status_code == 200
    async with connect(server.ws, additional_headers=user) as socket:
        assert json.loads(await socket.recv())["type"] == "ready"


async def test_idle_connections_of_one_address_do_not_block_other_clients(server_with_few_files: ServerProcess) -> None:
    user = await sign_in(server_with_few_files)
    answers: list[bytes] = []

    async def hold(reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            answers.append(await reader.read(64))

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        tasks = []
        for _ in range(GUEST_CONNECTIONS):
            reader, _writer = await stack.enter_async_context(open_socket(server_with_few_files.port, FLOOD))
            tasks.append(group.create_task(hold(reader)))
        await check_served(server_with_few_files, user)
        await eventually(lambda: len(answers) > GUEST_CONNECTIONS // 2)
        assert {answer.split(b" ")[1] for answer in answers} <= {b"503", b"408"}
        await check_served(server_with_few_files, user)
        for task in tasks:
            task.cancel()
    assert "too many connections" in server_with_few_files.log()
    assert "Too many open files" not in server_with_few_files.log()


async def test_guest_subscribers_of_one_address_do_not_block_other_clients(
    server_with_few_files: ServerProcess,
) -> None:
    user = await sign_in(server_with_few_files)
    refused: list[int] = []

    async def join() -> ClientConnection | None:
        try:
            socket = await connect(
                server_with_few_files.ws, local_addr=(FLOOD, 0), open_timeout=20 * UNIT, compression=None
            )
        except InvalidStatus as error:
            refused.append(error.response.status_code)
            return None
        try:
            await socket.send('{"type": "auth"}')
            await socket.recv()
        except ConnectionClosed as closed:
            refused.append(closed.rcvd.code if closed.rcvd else 0)
            return None
        return socket

    held: list[ClientConnection] = []
    try:
        for _ in range(0, GUEST_CONNECTIONS, 50):
            joined = await asyncio.gather(*(join() for _ in range(50)))
            held += [socket for socket in joined if socket is not None]
        assert len(held) == 200
        assert set(refused) <= {503, CloseCode.TOO_MANY}
        await check_served(server_with_few_files, user)
        async with connect(server_with_few_files.ws, local_addr=(FLOOD, 0), additional_headers=user) as socket:
            assert json.loads(await socket.recv())["type"] == "ready"
    finally:
        for socket in held:
            socket.transport.abort()
