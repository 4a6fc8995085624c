"""Routes for operators: liveness, readiness, metrics and `security.txt`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from realtime.api.middleware.origins import proxy_header_of
from realtime.api.requests import principal_of
from realtime.api.responses import error_responses
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.errors import Forbidden, NotSignedIn, RealtimeError
from realtime.settings import is_loopback

if TYPE_CHECKING:
    from realtime.api.services import Services

CHECK_TIMEOUT_SECONDS = 3.0
CONTACT_DAYS = 30
"""Validity of ``security.txt``."""

CHECKS = {
    "mongodb": {"ok": True},
    "redis": {"ok": True},
    "feed": {"ok": True, "cursor": "c2c16b7c2e32:17", "lag": 0},
    "accepting": {"ok": True},
}
"""Example of the checks."""
REDIS_DOWN = {"ok": False, "detail": "Redis is unavailable. Try again"}
MONGODB_DOWN = {"ok": False, "detail": "MongoDB cannot commit a write: it did not respond in time"}

ADMINS_ONLY = "Only administrators, and programs on the same machine, can read the metrics"
NO_CONTACT = "No security contact is configured. Set REALTIME_SECURITY_CONTACT"

router = SlashRouter(tags=["operations"])


def _example(description: str, example: Any, media_type: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"example": example}}}


@router.get("/ping", summary="Ping the server", responses={200: _example("The server responds", {"ping": "pong!"})})
async def ping() -> dict[str, str]:
    """Return `{"ping": "pong!"}`."""
    return {"ping": "pong!"}


@router.get(
    "/healthz", summary="Check liveness", responses={200: _example("The process is alive", {"status": "alive"})}
)
async def healthz() -> dict[str, str]:
    """Return 200 as long as the process can respond, independently of MongoDB and Redis."""
    return {"status": "alive"}


def _may_inspect(request: Request) -> bool:
    """Return whether the caller may see details: an administrator, or a program on this machine but not a proxy."""
    principal = principal_of(request)
    if principal.keys is None or principal.admin:
        return True
    return proxy_header_of(request.scope) is None and request.client is not None and is_loopback(request.client.host)


async def _check(check: Awaitable[object], warning: str | None) -> dict[str, Any]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check
    except RealtimeError as error:
        return {"ok": False, "detail": error.detail}
    except TimeoutError:
        return {"ok": False, "detail": f"no response within {CHECK_TIMEOUT_SECONDS:.0f} s"}
    return {"ok": True} if warning is None else {"ok": True, "warning": warning}


async def _mongodb(services: Services) -> None:
    """Check that notes can be written, and that this server is allowed to serve them.

    Raises:
        Unavailable: MongoDB cannot commit writes, or the server is in open mode and the database has accounts.
    """
    await services.store.readiness.check()
    if services.open_mode is not None:
        await services.open_mode.check()


@router.get(
    "/readyz",
    summary="Check readiness",
    responses={
        200: {
            "description": "The server works; if it is degraded, `checks` names the parts that do not work",
            "content": {
                "application/json": {
                    "examples": {
                        "ready": {"value": {"status": "ready", "checks": CHECKS}},
                        "degraded": {"value": {"status": "degraded", "checks": {**CHECKS, "redis": REDIS_DOWN}}},
                    }
                }
            },
        },
        503: _example(
            "The server cannot serve requests; `checks` gives the reason",
            {
                "status": "not ready",
                "checks": {**CHECKS, "mongodb": MONGODB_DOWN},
            },
        ),
    },
)
async def readyz(request: Request) -> Response:
    """Report whether the server can serve requests: MongoDB confirms a majority write, and the server is not stopping.

    Without Redis or the feed, the status is `degraded`: the server serves reads and writes, and delivers changes
    through MongoDB, which takes longer. Each check can have a `warning` about a configuration that works but gives
    weaker guarantees.

    On a server with accounts, only administrators and programs on the same machine get `checks`.
    """
    services = services_of(request)
    mongodb, redis = await asyncio.gather(
        _check(_mongodb(services), services.store.readiness.warning),
        _check(services.bus.position(), services.bus.warning),
    )
    if redis["ok"] and not services.bus.appending:
        redis = {"ok": False, "detail": "events cannot be published"}
    consumer = services.consumer
    feed = {"ok": consumer.connected, "cursor": str(consumer.position), "lag": consumer.lag}
    checks = {"mongodb": mongodb, "redis": redis, "feed": feed, "accepting": {"ok": not services.feed.draining}}
    works = checks["mongodb"]["ok"] and checks["accepting"]["ok"]
    complete = all(check["ok"] for check in checks.values())
    body: dict[str, Any] = {"status": "ready" if complete else "degraded" if works else "not ready"}
    if _may_inspect(request):
        body["checks"] = checks
    return JSONResponse(body, 200) if works else JSONResponse(body, 503, {"Retry-After": "1"})


@router.get(
    "/metrics",
    summary="Read the metrics",
    response_class=Response,
    openapi_extra={"security": []},  # programs on the same machine need no credentials
    responses={
        200: _example("The metrics", 'realtime_writes_total{action="create"} 1.0\n', "text/plain"),
        **error_responses(NotSignedIn(), Forbidden(ADMINS_ONLY)),
    },
)
async def metrics(request: Request) -> Response:
    """Return the metrics of all workers of this server in the Prometheus text format.

    On a server with accounts, only administrators and programs on the same machine can read them.
    """
    if not _may_inspect(request):
        raise NotSignedIn if principal_of(request).name is None else Forbidden(ADMINS_ONLY)
    return Response(services_of(request).metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/.well-known/security.txt", include_in_schema=False)
async def security_txt(request: Request) -> Response:
    """Return the contact from `REALTIME_SECURITY_CONTACT` (RFC 9116)."""
    contact = request.app.state.security_contact
    if not contact:
        raise HTTPException(404, NO_CONTACT)
    expires = (datetime.now(UTC) + timedelta(days=CONTACT_DAYS)).replace(hour=0, minute=0, second=0)
    text = f"Contact: {contact}\nExpires: {expires:%Y-%m-%dT%H:%M:%SZ}\n"
    return Response(text, media_type="text/plain; charset=utf-8")
