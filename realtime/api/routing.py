"""What all routes share: both slash forms, and how errors are told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, WebSocketRoute
from starlette.websockets import WebSocket

from realtime.auth.authorization import NoteForbidden, NoteHidden
from realtime.auth.permissions import key_of
from realtime.auth.rate_limit import neighbourhood
from realtime.errors import Behind, BusUnavailable, RealtimeError, TooMany, Unavailable, VersionMismatch
from realtime.notes.models import etag

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from realtime.app import Parts
    from realtime.auth.permissions import Viewer

RETRY_AFTER = "1"
VIEWER = "realtime.viewer"
"""Where a scope has who is behind it."""
FORWARDED_HOST = "realtime.forwarded_host"
"""Scope key: the host that the client requested from a trusted proxy."""
PROXIED = "realtime.proxied"
"""Scope key: set if the request came through a trusted proxy."""


def parts_of(connection: HTTPConnection) -> Parts:
    """The parts of the application that this request or socket belongs to."""
    parts: Parts = connection.app.state.parts
    return parts


def viewer_of(connection: HTTPConnection) -> Viewer:
    """Who sent this request or opened this socket."""
    viewer: Viewer = connection.scope.get(VIEWER, connection.app.state.anyone)
    return viewer


def address_of(connection: HTTPConnection) -> str:
    """Return the address that a request came from; empty if it is not known."""
    return connection.client.host if connection.client else ""


def caller_of(connection: HTTPConnection, viewer: Viewer | None = None) -> str:
    """Return what the requests of one caller are counted for: a user as ``@name``, or the network of an address."""
    name = (viewer or viewer_of(connection)).name
    if name is not None:
        return key_of(name)
    return neighbourhood(address_of(connection))


def header_of(scope: Scope, name: bytes) -> str | None:
    """A header of a request, by its name in lower case."""
    for given, value in scope["headers"]:
        if given == name:
            text: str = value.decode("latin-1")
            return text
    return None


def host_of(scope: Scope) -> str:
    """Return the host that the client asked for, with its port if it named one."""
    forwarded: str | None = scope.get(FORWARDED_HOST)
    return forwarded or header_of(scope, b"host") or ""


def path_of(scope: Scope) -> str:
    """Return the path of a request below the root path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def record_refusal(connection: HTTPConnection, viewer: Viewer, error: RealtimeError) -> None:
    """Record in the audit that somebody was refused a note that exists."""
    audit = parts_of(connection).audit
    if audit is not None and isinstance(error, (NoteHidden, NoteForbidden)):
        audit.add_hourly("note.access", viewer, connection.path_params.get("id"), ok=False)


def record_token_use(parts: Parts, viewer: Viewer) -> None:
    """Record in the audit that an API token is used."""
    if parts.audit is not None and viewer.token:
        parts.audit.add_hourly("token.use", viewer, viewer.session)


class SlashRouter(APIRouter):
    """Serves every path with and without the trailing slash, without a redirect; documents the form that was given."""

    def __init__(self, **options: Any) -> None:
        # A body without Content-Type is taken as JSON, as the tutorial's clients send it.
        super().__init__(strict_content_type=False, **options)

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Adds both forms of a route."""
        super().add_api_route(path, endpoint, **options)
        super().add_api_route(other_form(path), endpoint, **{**options, "include_in_schema": False})

    def add_api_websocket_route(self, path: str, endpoint: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Adds both forms of a WebSocket's route. It gets the socket and the path's parameters, and nothing else."""
        for form in (path, other_form(path)):
            self.routes.append(WebSocketRoute(form, _Opened(endpoint)))


class _Opened:
    """An endpoint for WebSockets, as an ASGI application."""

    def __init__(self, endpoint: Callable[..., Any]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(WebSocket(scope, receive, send), **scope["path_params"])


class SocketsFirst:
    """Middleware that takes WebSockets straight to their routes: what comes around a request's answer is not theirs."""

    def __init__(self, app: ASGIApp, routes: Iterable[WebSocketRoute]) -> None:
        self._app = app
        self._routes = tuple(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is no WebSocket; one for none of them is refused."""
        if scope["type"] == "websocket":
            for route in self._routes:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    await route.app(scope, receive, send)
                    return
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def other_form(path: str) -> str:
    """The path with the trailing slash if it has none, and the other way round."""
    return path.removesuffix("/") if path.endswith("/") else path + "/"


def problem(description: str, example: Any, more: dict[str, Any] | None = None, **properties: Any) -> dict[str, Any]:
    """An error answer: what it means, an example of its detail, and what it tells besides."""
    schema = {"type": "object", "required": ["detail"], "properties": {"detail": {}, **properties}}
    content = {"schema": schema, "example": {"detail": example, **(more or {})}}
    return {"description": description, "content": {"application/json": content}}


def problems(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """FastAPI's list of what is wrong, without the input: it may be secret, huge, or impossible to encode."""
    return [
        {"type": one["type"], "loc": list(map(_plain, one["loc"])), "msg": one["msg"].removeprefix("Value error, ")}
        for one in errors
    ]


def _plain(part: str | int) -> str | int:
    return part.encode(errors="backslashreplace").decode()[:100] if isinstance(part, str) else part


def refusal(error: RealtimeError) -> Response:
    """The answer that an error is."""
    headers: dict[str, str] = {}
    if error.status == 503:
        headers["Retry-After"] = RETRY_AFTER
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooMany):
        headers["Retry-After"] = str(math.ceil(error.seconds))
    if isinstance(error, Behind):
        headers["ETag"] = etag(error.current.version)
    return JSONResponse({"detail": error.detail, **error.more()}, error.status, headers)


def without_null_parameters(openapi: dict[str, Any]) -> dict[str, Any]:
    """The description with optional parameters as what they are: a query or a header can be left out, but not null."""
    for operations in openapi["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                kinds = [kind for kind in parameter["schema"].pop("anyOf", ()) if kind != {"type": "null"}]
                if len(kinds) == 1:
                    parameter["schema"] |= kinds[0]
                elif kinds:
                    parameter["schema"]["anyOf"] = kinds
    return openapi


SCHEMES: dict[str, Any] = {
    "password": {
        "type": "oauth2",
        "description": "A name and a password, for 15 minutes.",
        "flows": {
            "password": {
                "tokenUrl": "/auth/token",
                "scopes": {"read": "a token that only reads", "write": "a token that writes, too"},
            }
        },
    },
    "token": {"type": "http", "scheme": "bearer", "description": "An API token: `rt_…`."},
}
"""The ways for a program to say who it is; a page has its cookie."""


def with_security(openapi: dict[str, Any], root_path: str) -> dict[str, Any]:
    """The description of a server with accounts: what can answer 401 needs somebody who is signed in."""
    schemes = deepcopy(SCHEMES)
    password = schemes["password"]["flows"]["password"]
    password["tokenUrl"] = root_path + password["tokenUrl"]
    openapi["components"]["securitySchemes"] = schemes
    needed: list[dict[str, list[str]]] = [{"password": []}, {"token": []}]
    for operations in openapi["paths"].values():
        for operation in operations.values():
            operation.setdefault("security", needed if "401" in operation["responses"] else [{}, *needed])
    return openapi


WEAK = (
    ". An entity tag that begins with W/ is weak and never matches in If-Match: send it as the server does, without W/."
    " Proxies that compress answers add it"
)
NOT_UTF8 = "The body is not UTF-8 (at byte {}). Send JSON as UTF-8"


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """Return the methods that the path of a request takes."""
    routes = [route for route in app.routes if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE]
    found = {method for route in routes for method in route.methods or ()} | {"OPTIONS"}
    return sorted(found | {"HEAD"} if "GET" in found else found)


def add_error_handlers(app: FastAPI) -> None:
    """Makes every error an answer of the form ``{"detail": …}``."""

    @app.exception_handler(RealtimeError)
    async def named(request: Request, error: RealtimeError) -> Response:
        record_refusal(request, viewer_of(request), error)
        if isinstance(error, BusUnavailable):
            error = Unavailable("The feed is not available, try again")
        if isinstance(error, VersionMismatch) and "W/" in request.headers.get("if-match", ""):
            error.detail += WEAK
        return refusal(error)

    @app.exception_handler(400)
    async def unreadable(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, UnicodeDecodeError):  # FastAPI raises this for a JSON body that is not UTF-8
            return JSONResponse({"detail": NOT_UTF8.format(error.__cause__.start)}, 400)
        return await http_exception_handler(request, error)

    @app.exception_handler(405)
    async def not_allowed(request: Request, error: HTTPException) -> Response:
        allow = {"Allow": ", ".join(_methods(app, request.scope))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=allow)
        return JSONResponse({"detail": "Method Not Allowed"}, 405, allow)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        told = problems(error.errors())
        sent_as = request.headers.get("content-type", "application/json")
        if told and told[0]["loc"] == ["body"] and "json" not in sent_as:
            told[0]["msg"] = f"send JSON, with Content-Type: application/json; this came as {_plain(sent_as)}"
        return JSONResponse({"detail": told}, 422)
