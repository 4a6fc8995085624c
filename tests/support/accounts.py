"""Browsers of users, for tests with accounts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar

from httpx2 import Request, Response
from pymongo.database import Database
from starlette.testclient import TestClient, WebSocketTestSession

from realtime import create_app
from realtime.auth.authenticator import CONFIRMATION_LIFETIME
from realtime.auth.permissions import Principal
from realtime.auth.tokens import digest
from realtime.cli.users import run_action
from realtime.core.close_codes import CloseCode
from realtime.feed.query import FeedQuery
from realtime.feed.service import Feed
from realtime.settings import Settings
from tests.support.harness import Json

HERE = "http://127.0.0.1"
PASSWORD = "correct horse battery staple"
T = TypeVar("T")
_numbers = itertools.count(1)


def with_accounts(settings: Settings, **changes: object) -> Settings:
    """Return settings with accounts and fast password hashing."""
    return settings.model_copy(update={"auth": "accounts", "sign_up": "open", "password_memory": 8, **changes})


@contextmanager
def accounts_server(settings: Settings, **changes: object) -> Iterator[TestClient]:
    """Run a server with accounts in this process, and yield a client of it."""
    with TestClient(create_app(with_accounts(settings, **changes)), base_url=HERE) as client:
        yield client


async def add_user(settings: Settings, name: str = "root", *, admin: bool = True) -> None:
    """Add a user as ``realtime user add`` does."""
    await run_action(settings, lambda accounts: accounts.users.add(name, PASSWORD, admin=admin))


class Browser(TestClient):
    """A browser of a server in this process, with its own cookies and address."""

    def __init__(self, host: TestClient, url: str = HERE, address: str | None = None) -> None:
        number = next(_numbers)
        address = address or f"10.0.{number // 250}.{number % 250}"
        super().__init__(host.app, base_url=url, client=(address, 50000))
        self.portal = host.portal
        self.address = address
        self.name = f"user{number}"

    def sign_up(self, name: str = "", **more: str) -> Self:
        """Create an account and sign in. The first account is an admin and uses the setup token."""
        self.name = name or self.name
        setup = run(self, parts_of(self).accounts.setup_token)
        body = {"name": self.name, "password": PASSWORD, **({"setup": setup} if setup else {}), **more}
        answer = self.post("/auth/sign-up", json=body)
        assert answer.status_code == 201, answer.text
        return self

    def sign_in(self, name: str, password: str = PASSWORD) -> Self:
        """Sign in."""
        answer = self.try_sign_in(name, password)
        assert answer.status_code == 200, answer.text
        self.name = name
        return self

    def try_sign_in(self, name: str, password: str = PASSWORD) -> Response:
        """Try to sign in, and return the response."""
        return self.post("/auth/sign-in", json={"name": name, "password": password})

    def sign_up_status(self, **more: str | None) -> int:
        """Try to create an account, and return the status of the response."""
        return self.post("/auth/sign-up", json={"name": self.name, "password": PASSWORD, **more}).status_code

    def signed_token(self, name: str) -> str:
        """Exchange the password of a user for a signed token."""
        answer = self.post("/auth/token", data={"username": name, "password": PASSWORD})
        return str(answer.json()["access_token"])

    def open_feed(self, query: str = "") -> WebSocketTestSession:
        """Open a WebSocket of the feed, as a page of this server does."""
        return self.websocket_connect(f"ws://127.0.0.1/ws{query}", headers={"Origin": HERE})

    def open_room(self, note: int) -> WebSocketTestSession:
        """Open a WebSocket of the room of a note, as a page of this server does."""
        return self.websocket_connect(f"ws://127.0.0.1/sync/{note}", headers={"Origin": HERE})

    @property
    def user(self) -> Json | None:
        """The user that is signed in, as reported by the server."""
        user: Json | None = self.get("/auth/me").json()["user"]
        return user

    @property
    def secret(self) -> str:
        """The secret of its session."""
        return next(value for name, value in self.cookies.items() if name in ("realtime", "__Host-realtime"))

    def token(self, **options: object) -> Json:
        """Create an API token."""
        answer = self.post("/auth/tokens", json={"name": "for a program", **options})
        assert answer.status_code == 201, answer.text
        made: Json = answer.json()
        return made


Browse = Callable[..., Browser]
"""Creates a browser of the server, for a URL and with an address."""


def expire_confirmation(database: Database[Json], who: Browser) -> None:
    """Make the last password confirmation of a browser too old to be valid."""
    then = datetime.now(UTC) - CONFIRMATION_LIFETIME - timedelta(seconds=1)
    database.sessions.update_one({"_id": digest(who.secret)}, {"$set": {"proven_date": then}})


async def is_rejected(feed: Feed, principal: Principal) -> bool:
    """Return whether the feed closes new subscribers of a principal, because its sign-in has ended."""
    subscriber = feed.join(FeedQuery(), principal)
    feed.leave(subscriber)
    return subscriber.closing.done() and subscriber.closing.result() is CloseCode.NOT_SIGNED_IN


def scope_of(who: Browser, request: Request) -> Json:
    """Return the scope of a request, for tests that call the application directly."""
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method, "scheme": "http",
        "path": request.url.path, "raw_path": request.url.path.encode(), "query_string": request.url.query,
        "root_path": "", "app": who.app, "client": ("10.1.0.1", 1), "server": ("127.0.0.1", 80),
        "headers": [(name.lower(), value) for name, value in request.headers.raw], "extensions": {}, "state": {},
    }  # fmt: skip


def slowly(who: Browser, method: str, path: str, body: Json | None, meanwhile: Callable[[], Awaitable[None]]) -> bytes:
    """Send a slow request, and return the response.

    Calls ``meanwhile`` before the request body is sent, or, without a body, before the response body is received.
    """
    raw = bytearray()
    request = who.build_request(method, path, json=body)

    async def receive() -> Json:
        if body is None:
            await asyncio.Event().wait()
        await meanwhile()
        return {"type": "http.request", "body": request.content, "more_body": False}

    async def send(message: Any) -> None:
        if body is None and "status" in message:
            await meanwhile()
        raw.extend(f"{message['status']} ".encode() if "status" in message else message["body"])

    async def answered() -> None:
        await who.app(scope_of(who, request), receive, send)

    run(who, answered)
    return bytes(raw)


def parts_of(host: TestClient) -> Any:
    """Return the services of a server that runs in this process."""
    return host.app.state.services  # type: ignore[attr-defined]  # the type of the application is not known


def run(host: TestClient, make: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine in the event loop of the server."""
    assert host.portal
    return host.portal.call(make)


def bearer(token: str) -> dict[str, str]:
    """Return the authorization header for an API token."""
    return {"Authorization": f"Bearer {token}"}
