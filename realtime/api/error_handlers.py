"""Error handlers: every error becomes an answer of the form ``{"detail": …}``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from realtime.api.access_records import record_refusal
from realtime.api.requests import principal_of
from realtime.errors import BusUnavailable, RealtimeError, StaleWrite, TooManyRequests, Unavailable, VersionMismatch
from realtime.notes.preconditions import etag

if TYPE_CHECKING:
    from starlette.types import Scope


RETRY_AFTER = "1"


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
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(math.ceil(error.seconds))
    if isinstance(error, StaleWrite):
        headers["ETag"] = etag(error.current.version)
    return JSONResponse({"detail": error.detail, **error.extra()}, error.status, headers)


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
        record_refusal(request, principal_of(request), error)
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
