"""Several workers on one socket: they are supervised, replaced and stopped, and end with their parent."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from realtime.embedded.lock import lock_folder
from tests.faults.testbed import workers_of
from tests.support.harness import (
    Replica,
    ServerProcess,
    all_notes,
    data_folder,
    eventually,
    is_running,
    note_in,
    rest_client,
)


@pytest.fixture
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with two workers."""
    return serve(workers=2)


@contextlib.asynccontextmanager
async def clients_on_both(server: ServerProcess) -> AsyncIterator[list[Replica]]:
    """Connect clients until each worker has at least one. The kernel assigns connections to workers."""
    async with contextlib.AsyncExitStack() as stack:
        replicas: list[Replica] = []

        def connected(worker: psutil.Process) -> bool:
            mine = [one for one in worker.net_connections("tcp4") if one.laddr.port == server.port]
            return any(one.status == psutil.CONN_ESTABLISHED for one in mine)

        while not all(connected(worker) for worker in workers_of(server)):
            assert len(replicas) < 100
            replicas.append(await stack.enter_async_context(Replica(server.url)))
        yield replicas


async def gauge(server: ServerProcess, name: str) -> float:
    """Return the value of a metric."""
    async with rest_client(server.url) as rest:
        lines = (await rest.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


async def test_killed_worker_is_replaced_without_losing_events(server: ServerProcess) -> None:
    async with clients_on_both(server) as replicas:
        for number in range(10):
            async with rest_client(server.url) as rest:
                assert (await rest.post("/notes/", json=note_in(f"note {number}"))).status_code == 201
        assert await gauge(server, 'realtime_writes_total{action="create"}') == 10
        await eventually(lambda: _is(server, 'realtime_clients{transport="ws"}', len(replicas)))

        victim, other = workers_of(server)
        victim.kill()
        await eventually(lambda: len(workers_of(server) - {victim}) == 2, within=10)
        assert other in workers_of(server)
        async with rest_client(server.url) as rest:
            assert (await rest.post("/notes/", json=note_in("after"))).status_code == 201
        notes = await all_notes(server.url)
        assert len(notes) == 11
        await eventually(lambda: all(replica.notes == notes for replica in replicas), within=10)

        assert await gauge(server, 'realtime_writes_total{action="create"}') == 11
        await eventually(lambda: _is(server, 'realtime_clients{transport="ws"}', len(replicas)))
        await eventually(lambda: _is(server, "realtime_feed_connected", 1))
    assert server.stop() == 0


async def _is(server: ServerProcess, name: str, value: float) -> bool:
    return await gauge(server, name) == value


async def test_ctrl_c_drains_all_workers(server: ServerProcess) -> None:
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connect(server.ws)) for _ in range(8)]
        os.kill(server.pid, signal.SIGINT)
        for socket in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
    assert server.wait(within=10) == 0
    assert "Traceback" not in server.log()


async def test_workers_and_embedded_servers_end_with_a_killed_parent(tmp_path: Path) -> None:
    server = ServerProcess(data_folder(tmp_path).model_copy(update={"workers": 2}))
    server.start()
    family = psutil.Process(server.pid).children(recursive=True)
    assert {"mongod", "valkey-server"} < {child.name() for child in family}
    assert len(workers_of(server)) == 2
    async with connect(server.ws):
        server.kill()
        await eventually(lambda: [child.name() for child in family if is_running(child)] == [], within=20)
    os.close(lock_folder(tmp_path, os.getpid()))
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)
