"""The composition root: builds the parts, wires them, runs their tasks."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route, WebSocketRoute

from realtime.api import docs_pages, routers, webapp
from realtime.api.error_handlers import add_error_handlers
from realtime.api.middleware.authentication import AuthenticationMiddleware
from realtime.api.middleware.body_limit import BodyLimit
from realtime.api.middleware.connection_limits import Admission, ConnectLimit, StreamRetry
from realtime.api.middleware.http_semantics import HttpSemantics
from realtime.api.middleware.open_mode import OpenModeGate
from realtime.api.middleware.origins import AllowedOrigins, KnownHost, SameOrigin
from realtime.api.middleware.proxies import ProxyHeaders, RootPath
from realtime.api.middleware.request_log import RequestLog
from realtime.api.middleware.security_headers import SecurityHeaders
from realtime.api.middleware.websocket_routes import WebSocketRoutes
from realtime.api.middleware.write_limit import WriteLimit
from realtime.api.openapi import with_security, without_null_parameters
from realtime.api.router import other_form
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
from realtime.auth.revocations import EndedSubjects, LiveSessions, Revocations
from realtime.auth.sign_in_guard import SignInGuard
from realtime.auth.startup_checks import HAS_ACCOUNTS, NO_ANSWER, is_first_worker, setup_path
from realtime.core.close_codes import CloseCode
from realtime.core.pools import Pools
from realtime.core.tasks import running
from realtime.embedded.pair import EmbeddedServers
from realtime.errors import RealtimeError, Unavailable
from realtime.eventlog.bus import Bus
from realtime.eventlog.codec import decode_event, event_at
from realtime.eventlog.consumer import ConsumerHandlers, LogConsumer
from realtime.eventlog.event import Event
from realtime.eventlog.outbox import Outbox
from realtime.eventlog.outbox_poller import OutboxPoller
from realtime.failpoints import FailPoints
from realtime.feed.codec import reset
from realtime.feed.hub import Hub
from realtime.feed.presence import Presence
from realtime.feed.replay_buffer import ReplayBuffer
from realtime.feed.service import Feed
from realtime.metrics import Metrics
from realtime.notes.deleted_accounts import DeletedAccounts
from realtime.notes.models import StorageUsage
from realtime.notes.queries import NoteQueries
from realtime.notes.quotas import Quotas
from realtime.notes.retention import Retention
from realtime.notes.service import NoteService
from realtime.notes.sharing import Sharing
from realtime.rooms.manager import Rooms
from realtime.settings import Settings
from realtime.store.database import Store
from realtime.version import __version__
from realtime.websocket import feed_endpoint, sync_endpoint

log = logging.getLogger(__name__)


FIRST_CONTACT = 2.0
RECENT = 10_000
"""Events that a worker keeps at hand, for those who come back."""
DESCRIPTION = (
    "Notes that are live everywhere: write over REST, see every change at once on `/ws`, `/events` or `/changes`."
)


def create_app(settings: Settings | None = None, announce: Callable[[str], None] | None = None) -> FastAPI:
    """Return the application.

    Args:
        settings: The settings. By default they come from the environment. Without URLs the application starts its own
            servers.
        announce: Called with a line for the operator, if the first administrator has to be set up.
    """
    settings = settings or Settings()
    metrics = Metrics()
    failpoints = FailPoints(settings.failpoint)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        raise_open_files()
        async with (
            _servers(settings) as (mongo_url, redis_url),
            _parts(settings, mongo_url, redis_url, failpoints, metrics) as parts,
        ):
            app.state.parts = parts
            await _announce_setup(settings, parts.accounts, announce)

            async def drain() -> None:
                await asyncio.gather(parts.feed.drain(settings.drain), parts.rooms.drain(settings.drain))

            with _on_signal(drain):
                yield {"drain": drain, "turns": parts.rooms.turns}

    app = FastAPI(
        title="realtime",
        description=DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,  # both forms of each path are there
        docs_url=None,  # FastAPI's are made of scripts from elsewhere; ours are in `reference`
        redoc_url=None,
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    for route in list(app.routes):  # /openapi.json
        if isinstance(route, Route):
            app.add_route(other_form(route.path), route.endpoint, include_in_schema=False)
    # As the application's own: a router that is included looks for its route twice. What is asked for most comes first.
    for router in (*routers.routers, feed_endpoint.router, feed.router, sync_endpoint.router, health.router):
        app.routes.extend(router.routes)
    add_error_handlers(app)
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = without_null_parameters(describe())
            if settings.auth == "accounts":
                described = with_security(described, settings.root_path)
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    app.routes.extend([*webapp.routes(), *docs_pages.routes()])

    app.add_middleware(BodyLimit, most=settings.max_body, others={"/import": settings.max_import})
    others = frozenset(settings.origins.split())
    if settings.auth == "accounts":
        app.add_middleware(WriteLimit, rule=write_rule(settings.writes))
    app.add_middleware(WebSocketRoutes, routes=[route for route in app.routes if isinstance(route, WebSocketRoute)])
    if most := settings.most_accepts:
        accounts = settings.auth == "accounts"
        per_client, guests = (max(1, most // 4), max(1, most * 3 // 4)) if accounts else (most, most)
        app.add_middleware(ConnectLimit, per_second=most, per_client=per_client, guests=guests)
    app.add_middleware(Admission)
    if settings.auth == "accounts":
        app.add_middleware(AuthenticationMiddleware, others=others)
    app.state.security_contact = settings.security_contact
    app.state.anyone = UNRESTRICTED if settings.auth == "open" else ANONYMOUS
    app.add_middleware(SameOrigin, others=others, any_port=settings.auth == "open")
    if others:
        app.add_middleware(AllowedOrigins, origins=others)
    if _is_private(settings):
        app.add_middleware(OpenModeGate)
        app.add_middleware(KnownHost, others=others)
    app.add_middleware(HttpSemantics)
    app.add_middleware(RequestLog, metrics=metrics)
    app.add_middleware(StreamRetry)
    app.add_middleware(SecurityHeaders, kept=settings.auth == "open", others=bool(others))
    segments = {path.split("/")[1] for route in app.routes if (path := getattr(route, "path", ""))}
    app.add_middleware(RootPath, root_path=settings.root_path, first_segments=segments - {""})
    app.add_middleware(ProxyHeaders, proxies=settings.proxies)
    return app


async def _first_contact(follower: LogConsumer, open_mode: OpenModeCheck | None) -> None:
    """Wait for Redis and MongoDB to answer, but not for long. Raises :class:`RealtimeError` if it must not serve."""

    async def wait_for(contact: Awaitable[None]) -> None:
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(FIRST_CONTACT):
                await contact

    if open_mode is None:
        await wait_for(follower.ready())
        return
    await asyncio.gather(wait_for(follower.ready()), wait_for(open_mode.read()))
    if open_mode.has_accounts:
        raise RealtimeError(HAS_ACCOUNTS)


def _is_private(settings: Settings) -> bool:
    """Return whether the server is in open mode, for the people of this machine only."""
    return settings.auth == "open" and not settings.open


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
async def _servers(settings: Settings) -> AsyncIterator[tuple[str, str]]:
    """The URLs of MongoDB and Redis: those that are set, else those of servers of our own while the block lasts."""
    if settings.mongo_url and settings.redis_url:
        yield settings.mongo_url, settings.redis_url
        return
    embedded = EmbeddedServers(settings.data, mongo=not settings.mongo_url, redis=not settings.redis_url)
    await asyncio.to_thread(embedded.start)
    try:
        yield settings.mongo_url or embedded.mongo_url, settings.redis_url or embedded.redis_url
    finally:
        await asyncio.to_thread(embedded.stop)


@asynccontextmanager
async def _parts(
    settings: Settings, mongo_url: str, redis_url: str, failpoints: FailPoints, metrics: Metrics
) -> AsyncIterator[Services]:
    store = Store(
        mongo_url,
        settings.database,
        write_timeout=settings.write_timeout,
        read_timeout=settings.read_timeout,
        failpoints=failpoints,
    )
    bus = Bus(redis_url, settings.database, keep=settings.log_entries, keep_bytes=settings.log_bytes)
    pools = Pools()
    slots = max(1, round(settings.heartbeat))
    recent = ReplayBuffer(min(RECENT, settings.log_entries))
    hub = Hub(settings.client_budget, settings.client_stall, CloseCode.TOO_SLOW, slots, replay_buffer=recent)

    async def tell(data: bytes) -> None:
        await bus.publish(bus.presence, data)

    presence = Presence(hub, tell)
    authenticator = Authenticator(store, settings.secret)

    async def end(sessions: EndedSubjects) -> None:
        authenticator.forget(sessions)
        hub.end(sessions, CloseCode.NOT_SIGNED_IN)
        rooms.end(sessions, CloseCode.NOT_SIGNED_IN)

    async def change_role(sessions: EndedSubjects) -> None:
        # Clients start over on a new connection, with the rights that the session has from now on.
        authenticator.forget(sessions)
        hub.end(sessions, CloseCode.RESUME, reset(follower.position))
        rooms.end(sessions, CloseCode.RESUME)

    async def check(notes: EndedSubjects) -> None:
        for id in notes:
            await rooms.check(id)
            await feed.check(id)

    revocations = Revocations(
        store.revocations,
        {"session": end, "note": check, "promoted": change_role, "demoted": change_role},
        LiveSessions(lambda: hub.sessions() | rooms.sessions(), authenticator.ended),
    )
    rooms = Rooms(
        store,
        bus,
        metrics,
        budget=settings.client_budget,
        stall=settings.client_stall,
        idle=settings.room_idle,
        pool=pools.merges,
        ended=revocations.ended,
    )

    def deliver(event: Event, *, logged: bool = True) -> None:
        hub.publish(event, logged=logged)
        if event.deleted:
            rooms.gone(event.id, event.full.version)
        if event.audience.since > 1:
            rooms.shared(event.id, event.audience.since)
            presence.check(event.id)

    follower = LogConsumer(
        bus,
        ConsumerHandlers(
            decode=decode_event,
            deliver=deliver,
            reset=lambda position: hub.reset(reset(position)),
            presence=presence.receive,
        ),
    )
    detour = OutboxPoller(store, bus, lambda change: deliver(event_at(change, follower.position), logged=False))
    queries = NoteQueries(store, pools.reads)
    feed = Feed(
        hub,
        follower,
        bus,
        presence,
        metrics,
        standing=store.notes.standing,
        interval=settings.heartbeat,
        ended=revocations.ended,
    )
    outbox = Outbox(store, bus, failpoints, metrics, wait=settings.publish_wait)
    audit = NoteAudit(store.audit)
    noted = audit if settings.auth == "accounts" else None
    limit = (
        StorageUsage(settings.user_notes, settings.user_bytes) if settings.auth == "accounts" else StorageUsage(0, 0)
    )
    quotas = Quotas(store, limit)
    store.history.on_stored = quotas.charge_history
    writes_ended, pool = revocations.ended, pools.merges
    notes = NoteService(store, outbox, rooms, failpoints, metrics, noted, ended=writes_ended, quotas=quotas, pool=pool)
    housekeeping = Retention(store, notes, history_days=settings.history_days, trash_days=settings.trash_days)
    tasks = {
        "prepare the database": lambda: store.prepare(accounts=settings.auth == "accounts"),
        "append to the log": bus.run,
        "check the configuration of Redis": bus.inspect,
        "follow the feed": follower.run,
        "go around Redis": detour.run,
        "clear the outbox": outbox.clear,
        "sweep the outbox": outbox.sweep,
        "tick": feed.tick,
        "presence": presence.run,
        "keep house": housekeeping.run,
        "tend the rooms": lambda: rooms.run(notes.project),
        **rooms.tasks,
    }
    places = ConnectionSlots(bus, settings.sockets, settings.most_guest_sockets)
    tasks["keep places"] = places.run
    open_mode = OpenModeCheck(store.people) if _is_private(settings) else None
    if open_mode is not None:

        async def refuse() -> None:
            await asyncio.gather(feed.drain(0), rooms.drain(0))

        tasks["look for accounts"] = partial(open_mode.run, refuse)
    accounts = sharing = deleted_accounts = limits = None
    if settings.auth == "accounts":
        limits = RateLimiter(bus)
        sharing = Sharing(store, notes, queries, authenticator)
        guard = SignInGuard(limits, Passwords(settings.password_memory), authenticator.key)
        accounts = Accounts(store, authenticator, guard, settings.sign_up)
        deleted_accounts = DeletedAccounts(store, notes)
        tasks["settle deleted accounts"] = deleted_accounts.run
        tasks["audit"] = audit.run
        tasks["count failed sign-ins"] = accounts.failures.run
        tasks["hear of revocations"] = revocations.run
    try:
        async with running(tasks):
            # So that the first answers carry a real cursor; without Redis the server starts all the same.
            await _first_contact(follower, open_mode)
            known = None if accounts is None else authenticator
            common = (store, bus, follower, feed, outbox, notes, rooms, queries, metrics, places, quotas, pools)
            yield Services(*common, known, accounts, sharing, deleted_accounts, noted, limits, open_mode)
            await asyncio.gather(feed.drain(0), rooms.drain(0))
            await rooms.aclose(notes.project)
            await presence.aclose()
            await outbox.aclose()
            await audit.aclose()
            await pools.aclose()
    finally:
        if accounts is not None:
            await accounts.aclose()
        await bus.aclose()
        await store.aclose()


@contextmanager
def _on_signal(drain: Callable[[], Any]) -> Iterator[None]:
    """Begins to drain as soon as the process is asked to stop.

    A server waits for open streams before it stops the application, and streams do not end by themselves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin() -> None:
        if not tasks:
            tasks.add(loop.create_task(drain()))

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        loop.call_soon_threadsafe(begin)
        earlier = before[signal.Signals(number)]
        if callable(earlier):
            earlier(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
