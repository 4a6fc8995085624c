"""Error handlers: every error becomes a response of the form ``{"detail": …}``."""

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


RETRY_AFTER_SECONDS = "1"


def validation_errors(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return FastAPI's list of errors without the input, which may be secret, huge, or impossible to encode."""
    return [
        {
            "type": error["type"],
            "loc": list(map(_printable, error["loc"])),
            "msg": error["msg"].removeprefix("Value error, "),
        }
        for error in errors
    ]


def _printable(part: str | int) -> str | int:
    return part.encode(errors="backslashreplace").decode()[:100] if isinstance(part, str) else part


def response_for(error: RealtimeError) -> Response:
    """Return the response for an error."""
    headers: dict[str, str] = {}
    if error.status == 503:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(math.ceil(error.seconds))
    if isinstance(error, StaleWrite):
        headers["ETag"] = etag(error.current.version)
    return JSONResponse({"detail": error.detail, **error.extra()}, error.status, headers)


WEAK_TAG = (
    ". If-Match has a weak entity tag (W/), which never matches. Send the tag without W/, which a proxy may have added"
)
NOT_UTF8 = "The body is not UTF-8 (at byte {}). Send JSON as UTF-8"


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """Return the methods that the path of a request supports."""
    routes = [route for route in app.routes if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE]
    methods = {method for route in routes for method in route.methods or ()} | {"OPTIONS"}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def add_error_handlers(app: FastAPI) -> None:
    """Register the handlers with the application."""

    @app.exception_handler(RealtimeError)
    async def domain_error(request: Request, error: RealtimeError) -> Response:
        record_refusal(request, principal_of(request), error)
        if isinstance(error, BusUnavailable):
            error = Unavailable("The feed is not available. Try again")
        if isinstance(error, VersionMismatch) and "W/" in request.headers.get("if-match", ""):
            error.detail += WEAK_TAG
        return response_for(error)

    @app.exception_handler(400)
    async def bad_request(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, UnicodeDecodeError):  # FastAPI raises this for a JSON body that is not UTF-8
            return JSONResponse({"detail": NOT_UTF8.format(error.__cause__.start)}, 400)
        return await http_exception_handler(request, error)

    @app.exception_handler(405)
    async def method_not_allowed(request: Request, error: HTTPException) -> Response:
        allow = {"Allow": ", ".join(_methods(app, request.scope))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=allow)
        return JSONResponse({"detail": "Method Not Allowed"}, 405, allow)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        errors = validation_errors(error.errors())
        content_type = request.headers.get("content-type", "application/json")
        if errors and errors[0]["loc"] == ["body"] and "json" not in content_type:
            errors[0]["msg"] = f"send JSON with Content-Type: application/json, not {_printable(content_type)}"
        return JSONResponse({"detail": errors}, 422)
