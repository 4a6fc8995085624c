"""Running the application under uvicorn: the sockets, the workers, the drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from realtime.api.middleware.proxies import trusted_hosts
from realtime.auth.open_connections import ConnectionLimits, OpenConnections, raise_open_files
from realtime.embedded.pair import EmbeddedServers
from realtime.errors import RealtimeError
from realtime.metrics import MULTIPROCESS
from realtime.server import logs
from realtime.server.workers import Workers
from realtime.websocket.connection import ABORT_AFTER, drop
from realtime.websocket.handshake import Handshake
from realtime.websocket.http_protocol import HttpProtocol

if TYPE_CHECKING:
    from fastapi import FastAPI

    from realtime.settings import Settings

log = logging.getLogger(__name__)

SETTLE = 0.5
GRACE = 30
BACKLOG = 4096


class DrainingServer(uvicorn.Server):
    """A uvicorn server that drains: open feeds are closed a few at a time before the rest is shut down."""

    def __init__(
        self, config: uvicorn.Config, on_started: Callable[[], None] | None = None, parent: int | None = None
    ) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._parent = parent

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until it is told to stop."""
        sweep = asyncio.create_task(self._drop_frozen())
        try:
            await super().serve(sockets)
        finally:
            sweep.cancel()

    async def _drop_frozen(self) -> None:
        """Drops connections that are to be closed, even if their peers take nothing any more.

        A plain ``close()`` waits for the write buffer to empty, for a frozen peer for ever.
        """
        before: set[Any] = set()
        while True:
            await asyncio.sleep(ABORT_AFTER)
            closing: set[Any] = {one for one in self.server_state.connections if one.transport.is_closing()}
            for connection in closing & before:
                drop(connection.transport)
            before = closing

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application and the listeners, and tells when both are up."""
        await super().startup(sockets)
        # What is loaded by now stays: walking through it, every collection would stop all clients for some 50 ms.
        gc.collect()
        gc.freeze()
        if self.started and self._on_started is not None:
            self._on_started()

    async def on_tick(self, counter: int) -> bool:
        """Ends a worker whose parent is gone: nobody would ever stop it."""
        if self._parent is not None and os.getppid() != self._parent:
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains, then stops as uvicorn does. A second Ctrl-C cuts the drain short."""
        # Whoever keeps a connection open is told with each answer to come back on another one.
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        drain = asyncio.ensure_future(self.lifespan.state["drain"]())
        while not drain.done() and not self.force_exit:
            await asyncio.wait({drain}, timeout=0.1)
        drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drain
        for server in self.servers:
            server.close()
        # A connection may have been taken a moment ago, its request still on the way: closing it would fail the call.
        for _ in range(round(SETTLE / 0.02)):
            if not self.server_state.connections or self.force_exit:
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def build(settings: Settings) -> FastAPI:
    """The application of a server process, with its logs set up."""
    from realtime.app import create_app

    logs.configure(settings)
    return create_app(settings)


def config_for(settings: Settings) -> uvicorn.Config:
    """uvicorn's configuration for this program."""
    accounts = settings.auth == "accounts"
    least_waiting = max(settings.max_connections_per_user, settings.connections_per_network_limit)
    limits = ConnectionLimits.of(raise_open_files(), accounts=accounts, least_waiting=least_waiting)
    occupancy = OpenConnections(limits, trusted_hosts(settings.proxies))
    protocol: Any = partial(HttpProtocol, occupancy=occupancy, stall=settings.client_stall_seconds)
    return uvicorn.Config(
        partial(build, settings),
        factory=True,
        http=protocol,
        ws=Handshake,  # which the other one begins
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the application reads them: `proxies.py`
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``OSError`` with a message for people."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # At once: several sockets may be bound to one port until one of them listens.
            listener.listen(BACKLOG)
            stack.pop_all()
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def run(settings: Settings, listener: socket.socket, on_started: Callable[[], None], parent: int | None = None) -> None:
    """Runs one server process until a signal comes, or until ``parent`` is gone."""
    # uvicorn raises the signal that stopped it once more when it is done, which would end us before we have cleaned up.
    # One that comes before uvicorn listens to signals counts, too.
    server = DrainingServer(config_for(settings), on_started, parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: setattr(server, "should_exit", True))
    server.run([listener])


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Serves until a signal comes. Says the address once it can be used.

    Raises ``OSError`` if it cannot listen, :class:`EmbeddedError`, and :class:`RealtimeError` if it must not serve.
    """
    _check_urls(settings)
    if settings.exposed:
        raise RealtimeError(
            f"on {settings.host} everyone who reaches it could read and write all notes: have people sign in"
            " (REALTIME_AUTH=accounts, or --auth accounts), or allow it (--allow-public)"
        )
    raise_open_files()  # the embedded servers inherit it
    listener = listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        if not (settings.mongo_url and settings.redis_url):
            embedded = EmbeddedServers(settings.data, mongo=not settings.mongo_url, redis=not settings.redis_url)
            embedded.start()
            stack.callback(embedded.stop)
            settings = settings.model_copy(
                update={
                    "mongo_url": settings.mongo_url or embedded.mongo_url,
                    "redis_url": settings.redis_url or embedded.redis_url,
                }
            )

        # Here, not at the top: the driver is slow to import.
        from realtime.auth.startup_checks import inspect

        logs.configure(settings)
        setup = asyncio.run(inspect(settings))

        def started() -> None:
            try:
                say(address(host, port, setup))
            except OSError as error:  # standard output is full or closed; the server works all the same
                log.warning("the address cannot be shown", extra={"address": address(host, port), "error": str(error)})

        if settings.workers == 1:
            run(settings, listener, started)
        else:
            os.environ[MULTIPROCESS] = stack.enter_context(tempfile.TemporaryDirectory(prefix="realtime-metrics-"))
            Workers(partial(run, settings, listener), settings.workers, started).run()


def _check_urls(settings: Settings) -> None:
    # Here, not at the top: the drivers are slow to import and not needed to refuse a port.
    from realtime.eventlog import bus
    from realtime.store import bootstrap as mongo

    checks = {"mongo_url": (settings.mongo_url, mongo.check_url), "redis_url": (settings.redis_url, bus.check_url)}
    for name, (url, check) in checks.items():
        if url:
            try:
                check(url)
            except ValueError as error:
                raise RealtimeError(f"{name}: {error}") from None


def address(host: str, port: int, setup: str | None = None) -> str:
    """Return the addresses of a server that is up, as lines for its user.

    Args:
        host: The address that it listens on.
        port: Its port.
        setup: The path with the setup token, if there is no user yet.
    """
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    place = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
    lines = [f"Page  http://{place}/", f"Docs  http://{place}/docs", f"Feed  ws://{place}/ws"]
    if setup is not None:
        lines.append(f"Setup http://{place}{setup}  (there is no user yet: make the first administrator here)")
    return "\n".join(lines)
