"""Runs the application under uvicorn: opens the socket, starts the workers, and drains connections on shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from realtime.api.middleware.addressing import trusted_hosts
from realtime.auth.open_connections import ConnectionLimits, OpenConnections, raise_open_files
from realtime.embedded.pair import database_urls
from realtime.errors import RealtimeError
from realtime.metrics import MULTIPROCESS
from realtime.server import logs
from realtime.server.workers import Workers
from realtime.websocket.connection import ABORT_DELAY_SECONDS, drop
from realtime.websocket.handshake import Handshake
from realtime.websocket.http_protocol import HttpProtocol

if TYPE_CHECKING:
    from fastapi import FastAPI

    from realtime.settings import Settings

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.5
SHUTDOWN_TIMEOUT_SECONDS = 30
LISTEN_BACKLOG = 4096
SWITCH_INTERVAL_SECONDS = 0.00005
"""Maximum time for which a thread can delay the event loop after each of its system calls (Python's default: 5 ms)."""


class DrainingServer(uvicorn.Server):
    """A uvicorn server that closes open feeds gradually before it shuts down."""

    def __init__(
        self, config: uvicorn.Config, on_started: Callable[[], None] | None = None, parent: int | None = None
    ) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._parent = parent

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal stops the server."""
        dropper = asyncio.create_task(self._drop_stalled_connections())
        try:
            await super().serve(sockets)
        finally:
            dropper.cancel()

    async def _drop_stalled_connections(self) -> None:
        """Abort connections that have been closing for too long.

        ``close()`` waits until the write buffer is empty, which never happens if the peer has stopped reading.
        """
        previous: set[Any] = set()
        while True:
            await asyncio.sleep(ABORT_DELAY_SECONDS)
            closing: set[Any] = {
                connection for connection in self.server_state.connections if connection.transport.is_closing()
            }
            for connection in closing & previous:
                drop(connection.transport)
            previous = closing

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and the listeners, then call ``on_started``."""
        await super().startup(sockets)
        # Freeze objects loaded at startup: a full collection would scan them and stall the loop for about 50 ms.
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        if self.started and self._on_started is not None:
            self._on_started()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop. A worker also stops when its parent process has ended: no signal would reach it."""
        if self._parent is not None and os.getppid() != self._parent:
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then shut down as uvicorn does. A second Ctrl-C skips the drain."""
        # Clients with keep-alive connections reconnect to another server after their next response.
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        drain = asyncio.ensure_future(self.lifespan.state["drain"]())
        while not drain.done() and not self.force_exit:
            await asyncio.wait({drain}, timeout=0.1)
        drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drain
        for server in self.servers:
            server.close()
        # A connection may have just been accepted, with its request still on the way: closing it would fail the call.
        for _ in range(round(SETTLE_SECONDS / 0.02)):
            if not self.server_state.connections or self.force_exit:
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def build(settings: Settings) -> FastAPI:
    """Configure logging, and return the application of a server process."""
    from realtime.app import create_app

    logs.configure(settings)
    return create_app(settings)


def config_for(settings: Settings) -> uvicorn.Config:
    """Return the uvicorn configuration for these settings."""
    accounts = settings.auth == "accounts"
    min_waiting = max(settings.max_connections_per_user, settings.connections_per_network_limit)
    limits = ConnectionLimits.of(raise_open_files(), accounts=accounts, min_waiting=min_waiting)
    open_connections = OpenConnections(limits, trusted_hosts(settings.proxies))
    protocol: Any = partial(HttpProtocol, open_connections=open_connections, stall=settings.client_stall_seconds)
    return uvicorn.Config(
        partial(build, settings),
        factory=True,
        http=protocol,
        ws=Handshake,  # HttpProtocol upgrades to it
        log_config=None,
        access_log=False,
        proxy_headers=False,  # read by realtime.api.middleware.addressing
        server_header=False,
        backlog=LISTEN_BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_SECONDS,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ``OSError`` with a message for the user."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # Listen immediately: several sockets can be bound to one port until one of them listens.
            listener.listen(LISTEN_BACKLOG)
            stack.pop_all()
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def run(settings: Settings, listener: socket.socket, on_started: Callable[[], None], parent: int | None = None) -> None:
    """Run one server process until it gets a signal, or until the process ``parent`` has ended."""
    # After its shutdown uvicorn raises the signal again, which would end the process before cleanup. The handler also
    # covers signals that arrive before uvicorn installs its own.
    server = DrainingServer(config_for(settings), on_started, parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: setattr(server, "should_exit", True))
    server.run([listener])


def serve(settings: Settings, report: Callable[[str], None]) -> None:
    """Run the server until it gets a signal.

    Args:
        settings: The settings. Without database URLs, the embedded databases are started.
        report: Called with the addresses of the server when it accepts requests.

    Raises:
        OSError: The server cannot listen on the address.
        EmbeddedError: The embedded databases cannot be started.
        RealtimeError: A URL is invalid, or the notes would be exposed to everyone.
    """
    _check_urls(settings)
    if settings.exposed:
        raise RealtimeError(
            f"on {settings.host}, everyone who can reach the server could read and write all notes. Require sign-in"
            " (REALTIME_AUTH=accounts, or --auth accounts), or allow public access (--allow-public)"
        )
    raise_open_files()  # the embedded databases inherit the limit
    listener = listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        urls = stack.enter_context(database_urls(settings))
        settings = settings.model_copy(update={"mongo_url": urls.mongo, "redis_url": urls.redis})

        # Imported here because the driver is slow to import.
        from realtime.auth.startup_checks import inspect

        logs.configure(settings)
        setup = asyncio.run(inspect(settings))

        def started() -> None:
            try:
                report(address(host, port, setup))
            except OSError as error:  # standard output is full or closed, which does not affect the server
                log.warning(
                    "the address cannot be printed", extra={"address": address(host, port), "error": str(error)}
                )

        if settings.workers == 1:
            run(settings, listener, started)
        else:
            os.environ[MULTIPROCESS] = stack.enter_context(tempfile.TemporaryDirectory(prefix="realtime-metrics-"))
            Workers(partial(run, settings, listener), settings.workers, started).run()


def _check_urls(settings: Settings) -> None:
    # Imported here because the drivers are slow to import, and not needed to report a port in use.
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
    """Return the URLs of a running server, as lines to print.

    Args:
        host: The address that the server listens on.
        port: The port that the server listens on.
        setup: The path with the setup token, if there are no users yet.
    """
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    host_and_port = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
    lines = [f"Page  http://{host_and_port}/", f"Docs  http://{host_and_port}/docs", f"Feed  ws://{host_and_port}/ws"]
    if setup is not None:
        lines.append(f"Setup http://{host_and_port}{setup}  (no users yet: create the first administrator here)")
    return "\n".join(lines)
