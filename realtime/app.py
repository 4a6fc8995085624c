"""The composition root: creates the services, connects them, and runs their background tasks."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from realtime.api import docs_pages, routers, webapp
from realtime.api.error_handlers import add_error_handlers
from realtime.api.live_clients import Dispatcher, Revoker
from realtime.api.middleware.addressing import Addressing
from realtime.api.middleware.authentication import Authentication
from realtime.api.middleware.body_limit import BodyLimit
from realtime.api.middleware.connection_limits import ConnectLimit, check_open_connections
from realtime.api.middleware.open_mode import check_open_mode
from realtime.api.middleware.origins import AllowedOrigins, KnownHost, SameOrigin
from realtime.api.middleware.request_checks import Check, RequestChecks, check_encoding
from realtime.api.middleware.response_middleware import ResponseMiddleware
from realtime.api.middleware.write_limit import WriteLimit
from realtime.api.openapi import with_security, without_null_parameters
from realtime.api.responses import with_errors
from realtime.api.router import bound_routes, toggle_slash
from realtime.api.routes import feed, health
from realtime.api.services import Services
from realtime.auth.accounts import Accounts
from realtime.auth.audit import NoteAudit
from realtime.auth.authenticator import Authenticator
from realtime.auth.connection_limit import ConnectionSlots
from realtime.auth.open_connections import raise_open_files
from realtime.auth.open_mode import OpenModeCheck
from realtime.auth.passwords import Passwords
from realtime.auth.permissions import ANONYMOUS, UNRESTRICTED
from realtime.auth.rate_limit import RateLimiter, write_rule
from realtime.auth.revocations import LiveSessions, Revocations
from realtime.auth.sign_in_guard import SignInGuard
from realtime.auth.startup_checks import HAS_ACCOUNTS, NO_ANSWER, is_first_worker, setup_path
from realtime.core.loop_monitor import monitor_loop
from realtime.core.pools import Pools
from realtime.core.tasks import running
from realtime.embedded.pair import DatabaseUrls, database_urls
from realtime.errors import RealtimeError, Unavailable
from realtime.eventlog.bus import Bus
from realtime.eventlog.consumer import LogConsumer
from realtime.eventlog.outbox import Outbox
from realtime.eventlog.outbox_poller import OutboxPoller
from realtime.failpoints import FailPoints
from realtime.feed.hub import Hub
from realtime.feed.presence import Presence
from realtime.feed.replay_buffer import ReplayBuffer
from realtime.feed.service import Feed, FeedOptions
from realtime.metrics import Metrics
from realtime.notes.deleted_accounts import DeletedAccounts
from realtime.notes.executor import WriteExecutor
from realtime.notes.models import StorageUsage
from realtime.notes.publisher import ChangePublisher
from realtime.notes.queries import NoteQueries
from realtime.notes.quotas import Quotas
from realtime.notes.retention import Retention
from realtime.notes.service import NoteService
from realtime.notes.sharing import Sharing
from realtime.notes.writes import WriteContext
from realtime.rooms.manager import RoomOptions, Rooms
from realtime.rooms.projector import Projector
from realtime.settings import Settings
from realtime.store.database import Store
from realtime.version import __version__
from realtime.websocket import feed_endpoint, sync_endpoint

log = logging.getLogger(__name__)


STARTUP_WAIT_SECONDS = 2.0
REPLAY_BUFFER_EVENTS = 10_000
"""Number of log positions that the replay buffer of a worker reaches back."""
DESCRIPTION = (
    "Shared notes with real-time updates: write over REST, and receive every change on `/ws`, `/events` or `/changes`."
)


def create_app(settings: Settings | None = None, announce: Callable[[str], None] | None = None) -> FastAPI:
    """Return the application.

    Args:
        settings: The settings. By default they are read from the environment. Without URLs of MongoDB and Redis the
            application starts embedded servers.
        announce: Called with a line of text for the operator if there is no administrator yet.
    """
    settings = settings or Settings()
    metrics = Metrics()
    app = FastAPI(
        title="realtime",
        description=DESCRIPTION,
        version=__version__,
        lifespan=_lifespan(settings, metrics, announce),
        redirect_slashes=False,  # every path has a route with and without a trailing slash
        docs_url=None,  # FastAPI's pages load scripts from a CDN; ours are in `docs_pages`
        redoc_url=None,
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    app.state.security_contact = settings.security_contact
    app.state.anyone = UNRESTRICTED if settings.auth == "open" else ANONYMOUS
    _add_routes(app)
    add_error_handlers(app)
    _extend_openapi(app, settings)
    _add_middleware(app, settings, metrics)
    return app


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]


def _lifespan(settings: Settings, metrics: Metrics, announce: Callable[[str], None] | None) -> Lifespan:
    """Return the context manager that runs the services while the application serves."""
    failpoints = FailPoints(settings.failpoint)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        raise_open_files()
        async with (
            _databases(settings) as urls,
            _running_services(_infrastructure(settings, urls, failpoints, metrics)) as services,
        ):
            app.state.services = services
            await _announce_setup(settings, services.accounts, announce)

            drain = partial(_drain, services, settings.drain_seconds)
            with _on_signal(drain):
                yield {"drain": drain, "turns": services.rooms.turns}

    return lifespan


def _add_routes(app: FastAPI) -> None:
    for route in list(app.routes):  # /openapi.json
        if isinstance(route, Route):
            app.routes.remove(route)
            for path in (route.path, toggle_slash(route.path)):
                app.add_route(path, _with_schema(app, route.endpoint), include_in_schema=False)
    # The most frequently used routes come first.
    all_routers = (*routers.routers, feed_endpoint.router, feed.router, sync_endpoint.router, health.router)
    app.routes.extend(bound_routes(all_routers, app))
    app.routes.extend([*webapp.routes(), *docs_pages.routes()])


def _with_schema(app: FastAPI, endpoint: Callable[[Request], Awaitable[Response]]) -> Any:
    """Return an endpoint that generates the schema in a thread first: that takes 0.1 s of the event loop otherwise."""

    async def openapi_json(request: Request) -> Response:
        await asyncio.to_thread(app.openapi)
        return await endpoint(request)

    return openapi_json


def _extend_openapi(app: FastAPI, settings: Settings) -> None:
    generate, lock = app.openapi, threading.Lock()

    def openapi() -> dict[str, Any]:
        with lock:  # generate() sets the unfinished schema
            if app.openapi_schema is None:
                schema = with_errors(without_null_parameters(generate()))
                if settings.auth == "accounts":
                    schema = with_security(schema, settings.root_path)
                app.openapi_schema = schema
            return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Add the middleware. The middleware that is added last handles a request first."""
    has_accounts = settings.auth == "accounts"
    origins = frozenset(settings.origins.split())
    websocket_routes = [route for route in app.routes if isinstance(route, WebSocketRoute)]
    app.add_middleware(BodyLimit, limit=settings.max_body, overrides={"/import": settings.max_import})
    app.add_middleware(RequestChecks, checks=_checks(settings, origins), websocket_routes=websocket_routes)
    if origins:
        app.add_middleware(AllowedOrigins, origins=origins)
    app.add_middleware(ResponseMiddleware, metrics=metrics, cacheable=not has_accounts, cross_origin=bool(origins))
    segments = {path.split("/")[1] for route in app.routes if (path := getattr(route, "path", ""))}
    app.add_middleware(
        Addressing, proxies=settings.proxies, root_path=settings.root_path, first_segments=segments - {""}
    )


def _checks(settings: Settings, origins: frozenset[str]) -> Iterator[Check]:
    """Yield the checks of requests, in order."""
    has_accounts = settings.auth == "accounts"
    yield check_encoding
    if _is_private(settings):
        yield KnownHost(origins)
        yield check_open_mode
    yield SameOrigin(origins, any_port=not has_accounts)
    if has_accounts:
        yield Authentication(origins)
    yield check_open_connections
    if limit := settings.connects_per_second_limit:
        per_client, guests = (max(1, limit // 4), max(1, limit * 3 // 4)) if has_accounts else (limit, limit)
        yield ConnectLimit(limit, per_client, guests)
    if has_accounts:
        yield WriteLimit(write_rule(settings.max_writes_per_second))


def _is_private(settings: Settings) -> bool:
    """Return whether the server is in open mode, for users of this machine only."""
    return settings.auth == "open" and not settings.allow_public


async def _announce_setup(
    settings: Settings, accounts: Accounts | None, announce: Callable[[str], None] | None
) -> None:
    if announce is None or accounts is None or not is_first_worker():
        return
    try:
        token = await accounts.setup_token()
    except Unavailable:
        log.warning(NO_ANSWER)
        return
    if token is not None:
        announce(f"To set up the first administrator, open this path of the server: {setup_path(settings, token)}")


@asynccontextmanager
async def _databases(settings: Settings) -> AsyncIterator[DatabaseUrls]:
    """Enter :func:`database_urls` without blocking the event loop."""
    stack = ExitStack()
    urls = await asyncio.to_thread(stack.enter_context, database_urls(settings))
    try:
        yield urls
    finally:
        await asyncio.to_thread(stack.close)


@dataclass(frozen=True, slots=True)
class _Infrastructure:
    """The settings, the connections to the databases, and other objects that most services need."""

    settings: Settings
    store: Store
    bus: Bus
    pools: Pools
    failpoints: FailPoints
    metrics: Metrics
    authenticator: Authenticator
    audit: NoteAudit

    @property
    def has_accounts(self) -> bool:
        """Return whether the server has accounts."""
        return self.settings.auth == "accounts"

    async def aclose(self) -> None:
        """Close the connections to the databases."""
        await self.bus.aclose()
        await self.store.aclose()


def _infrastructure(
    settings: Settings, urls: DatabaseUrls, failpoints: FailPoints, metrics: Metrics
) -> _Infrastructure:
    store = Store(
        urls.mongo,
        settings.database,
        write_timeout=settings.write_timeout,
        read_timeout=settings.read_timeout,
        failpoints=failpoints,
    )
    return _Infrastructure(
        settings=settings,
        store=store,
        bus=Bus(urls.redis, settings.database, max_entries=settings.log_entries, max_bytes=settings.log_bytes),
        pools=Pools(),
        failpoints=failpoints,
        metrics=metrics,
        authenticator=Authenticator(store, settings.secret),
        audit=NoteAudit(store.audit),
    )


@dataclass(frozen=True, slots=True)
class _EventPipeline:
    """The services that publish events and deliver them to clients."""

    hub: Hub
    presence: Presence
    outbox: Outbox
    publisher: ChangePublisher
    rooms: Rooms
    consumer: LogConsumer
    poller: OutboxPoller
    feed: Feed
    revocations: Revocations


def _event_pipeline(infra: _Infrastructure) -> _EventPipeline:
    settings, store, bus = infra.settings, infra.store, infra.bus
    hub = Hub(
        settings.client_queue_bytes,
        settings.client_stall_seconds,
        max(1, round(settings.heartbeat)),
        replay_buffer=ReplayBuffer(min(REPLAY_BUFFER_EVENTS, settings.log_entries)),
    )
    presence = Presence(hub, partial(bus.publish, bus.presence))
    revoker = Revoker(hub, infra.authenticator)
    revocations = Revocations(
        store.revocations,
        {
            "session": revoker.end_sessions,
            "note": revoker.check_notes,
            "promoted": revoker.restart_sessions,
            "demoted": revoker.restart_sessions,
        },
        LiveSessions(revoker.sessions, infra.authenticator.ended),
    )
    outbox = Outbox(store, bus, infra.failpoints, infra.metrics, publish_wait=settings.publish_wait)
    publisher = ChangePublisher(outbox, infra.metrics, infra.audit if infra.has_accounts else None)
    rooms = Rooms(
        store,
        bus,
        Projector(store, publisher),
        infra.pools.texts,
        infra.metrics,
        RoomOptions(settings.client_queue_bytes, settings.client_stall_seconds, settings.room_idle, revocations.ended),
    )
    dispatcher = Dispatcher(hub, rooms, presence)
    consumer = LogConsumer(
        bus,
        dispatcher,
    )
    poller = OutboxPoller(store, bus, consumer)
    feed = Feed(hub, consumer, bus, presence, store.notes, FeedOptions(settings.heartbeat, revocations.ended))
    revoker.attach(revocations, rooms, feed, consumer)
    return _EventPipeline(hub, presence, outbox, publisher, rooms, consumer, poller, feed, revocations)


@dataclass(frozen=True, slots=True)
class _AccountServices:
    """The services that only a server with accounts has."""

    accounts: Accounts
    sharing: Sharing
    deleted_accounts: DeletedAccounts
    rate_limiter: RateLimiter


def _account_services(infra: _Infrastructure, notes: NoteService, queries: NoteQueries) -> _AccountServices:
    authenticator = infra.authenticator
    rate_limiter = RateLimiter(infra.bus)
    guard = SignInGuard(rate_limiter, Passwords(infra.settings.password_memory), authenticator.key)
    return _AccountServices(
        accounts=Accounts(infra.store, authenticator, guard, infra.settings.sign_up),
        sharing=Sharing(infra.store, notes, queries, authenticator),
        deleted_accounts=DeletedAccounts(infra.store, notes),
        rate_limiter=rate_limiter,
    )


def _services(infra: _Infrastructure, events: _EventPipeline) -> Services:
    """Create the services that serve requests."""
    settings, store, bus = infra.settings, infra.store, infra.bus
    audit = infra.audit if infra.has_accounts else None
    usage_limit = StorageUsage(settings.user_notes, settings.user_bytes) if infra.has_accounts else StorageUsage(0, 0)
    quotas = Quotas(store, usage_limit)
    store.history.on_stored = quotas.charge_history
    queries = NoteQueries(store, infra.pools.reads)
    context = WriteContext(store, quotas, infra.pools.merges, events.rooms)
    executor = WriteExecutor(context, events.publisher, infra.failpoints, events.revocations.ended)
    notes = NoteService(context, executor, events.publisher)
    accounts = _account_services(infra, notes, queries) if infra.has_accounts else None
    return Services(
        store=store,
        bus=bus,
        consumer=events.consumer,
        feed=events.feed,
        outbox=events.outbox,
        notes=notes,
        rooms=events.rooms,
        queries=queries,
        metrics=infra.metrics,
        connection_slots=ConnectionSlots(
            bus, settings.max_connections_per_user, settings.connections_per_network_limit
        ),
        quotas=quotas,
        pools=infra.pools,
        authenticator=infra.authenticator if accounts else None,
        accounts=accounts.accounts if accounts else None,
        sharing=accounts.sharing if accounts else None,
        deleted_accounts=accounts.deleted_accounts if accounts else None,
        audit=audit,
        rate_limiter=accounts.rate_limiter if accounts else None,
        open_mode=OpenModeCheck(store.users) if _is_private(settings) else None,
    )


Tasks = dict[str, Callable[[], Awaitable[None]]]


def _tasks(infra: _Infrastructure, events: _EventPipeline, services: Services) -> Tasks:
    """Return the background tasks of a worker by their names."""
    settings, bus, notes, rooms = infra.settings, infra.bus, services.notes, events.rooms
    retention = Retention(infra.store, notes, history_days=settings.history_days, trash_days=settings.trash_days)
    tasks: Tasks = {
        "prepare the database": lambda: infra.store.prepare(accounts=infra.has_accounts),
        "append to the log": bus.run,
        "check the Redis configuration": bus.inspect,
        "consume the log": events.consumer.run,
        "poll the outbox": events.poller.run,
        "clear the outbox": services.outbox.run_archive,
        "sweep the outbox": services.outbox.run_sweep,
        "send heartbeats": events.feed.run,
        "sample the metrics": partial(events.feed.run_sampling, infra.metrics),
        "monitor the event loop": partial(monitor_loop, infra.metrics.loop_lag.observe),
        "publish presence": events.presence.run,
        "apply retention": retention.run,
        "maintain rooms": rooms.run,
        **rooms.tasks,
        "renew connection slots": services.connection_slots.run,
    }
    if services.open_mode is not None:
        tasks["check for accounts"] = partial(services.open_mode.run, partial(_drain, services))
    if services.deleted_accounts is not None:
        tasks["settle deleted accounts"] = services.deleted_accounts.run
    if services.accounts is not None:
        tasks["write the audit"] = infra.audit.run
        tasks["count failed sign-ins"] = services.accounts.failures.run
        tasks["poll revocations"] = events.revocations.run
    return tasks


@asynccontextmanager
async def _running_services(infra: _Infrastructure) -> AsyncIterator[Services]:
    """Yield the services, with their background tasks running, and close them after the block."""
    events = _event_pipeline(infra)
    services = _services(infra, events)
    try:
        async with running(_tasks(infra, events, services)):
            await _wait_for_databases(services)
            yield services
            await _drain(services)
            await services.rooms.aclose()
            await events.presence.aclose()
            await services.outbox.aclose()
            await infra.audit.aclose()
            await infra.pools.aclose()
    finally:
        if services.accounts is not None:
            await services.accounts.aclose()
        await infra.aclose()


async def _drain(services: Services, seconds: float = 0) -> None:
    """Disconnect all clients, spread over up to ``seconds`` seconds."""
    await asyncio.gather(services.feed.drain(seconds), services.rooms.drain(seconds))


async def _wait_for_databases(services: Services) -> None:
    """Wait a short time for the databases, so that the first responses have a valid cursor. Continue without them.

    Raises:
        RealtimeError: The server is in open mode, and the database has accounts.
    """

    async def wait_for(contact: Awaitable[None]) -> None:
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(STARTUP_WAIT_SECONDS):
                await contact

    open_mode = services.open_mode
    if open_mode is None:
        await wait_for(services.consumer.ready())
        return
    await asyncio.gather(wait_for(services.consumer.ready()), wait_for(open_mode.read()))
    if open_mode.has_accounts:
        raise RealtimeError(HAS_ACCOUNTS)


@contextmanager
def _on_signal(drain: Callable[[], Any]) -> Iterator[None]:
    """Start to drain when the process receives SIGINT or SIGTERM.

    Before a server stops the application, it waits for open streams, which would otherwise never end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin() -> None:
        if not tasks:
            tasks.add(loop.create_task(drain()))

    previous_handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        loop.call_soon_threadsafe(begin)
        previous = previous_handlers[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)

    for number in previous_handlers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, previous in previous_handlers.items():
            signal.signal(number, previous)
