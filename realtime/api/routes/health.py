"""Routes for whoever runs the server: liveness, readiness, metrics."""

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
from realtime.api.responses import problem
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.errors import Forbidden, NotSignedIn, RealtimeError
from realtime.settings import is_loopback

if TYPE_CHECKING:
    from realtime.api.services import Services

CHECK_TIMEOUT = 3.0
CONTACT_DAYS = 30
"""For how long ``security.txt`` may be taken as current."""

CHECKS = {
    "mongodb": {"ok": True},
    "redis": {"ok": True},
    "feed": {"ok": True, "cursor": "c2c16b7c2e32:17", "lag": 0},
    "accepting": {"ok": True},
}
"""The checks of the examples."""
AWAY = {"ok": False, "detail": "MongoDB cannot commit a write: it did not answer in time"}

ADMINS_ONLY = "The metrics are for administrators, and for programs on the machine of the server"
NO_CONTACT = "This server names no contact for reports of vulnerabilities: REALTIME_SECURITY_CONTACT sets it"

router = SlashRouter(tags=["operations"])


def _example(description: str, example: Any, kind: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {kind: {"example": example}}}


@router.get("/ping", summary="Is anybody there?", responses={200: _example("There is", {"ping": "pong!"})})
async def ping() -> dict[str, str]:
    """Always `{"ping": "pong!"}`."""
    return {"ping": "pong!"}


@router.get("/healthz", summary="Is the process alive?", responses={200: _example("It is", {"status": "alive"})})
async def healthz() -> dict[str, str]:
    """200 as long as the process can answer at all, whatever it depends on."""
    return {"status": "alive"}


def _may_inspect(request: Request) -> bool:
    """Return whether details are for whoever asks: an administrator, or a program on this machine.

    A reverse proxy on this machine says that it forwards.
    """
    principal = principal_of(request)
    if principal.keys is None or principal.admin:
        return True
    return proxy_header_of(request.scope) is None and request.client is not None and is_loopback(request.client.host)


async def _check(check: Awaitable[object], warning: str | None) -> dict[str, Any]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check
    except RealtimeError as error:
        return {"ok": False, "detail": error.detail}
    except TimeoutError:
        return {"ok": False, "detail": f"no answer within {CHECK_TIMEOUT:.0f} s"}
    return {"ok": True} if warning is None else {"ok": True, "warning": warning}


async def _mongodb(parts: Services) -> None:
    """Raise :class:`Unavailable` if notes cannot be written, or must not be served."""
    await parts.store.readiness.check()
    if parts.open_mode is not None:
        await parts.open_mode.check()


@router.get(
    "/readyz",
    summary="Can it serve?",
    responses={
        200: _example("It can", {"status": "ready", "checks": CHECKS}),
        503: _example(
            "Not now: `checks` tells why",
            {
                "status": "not ready",
                "checks": {
                    **CHECKS,
                    "mongodb": {"ok": False, "detail": "MongoDB cannot commit a write: it did not answer in time"},
                },
            },
        ),
    },
)
async def readyz(request: Request) -> Response:
    """200 when a majority of MongoDB's members confirms a write, Redis answers, the feed is followed and the server is
    not stopping. Each is named; a `warning` is about a deployment that works, but keeps fewer promises.

    With accounts, `checks` is there for administrators and for programs on the same machine only.
    """
    parts = services_of(request)
    mongodb, redis = await asyncio.gather(
        _check(_mongodb(parts), parts.store.readiness.warning),
        _check(parts.bus.position(), parts.bus.warning),
    )
    if redis["ok"] and not parts.bus.appending:
        redis = {"ok": False, "detail": "events cannot be published"}
    follower = parts.follower
    feed = {"ok": follower.connected, "cursor": str(follower.position), "lag": follower.lag}
    checks = {"mongodb": mongodb, "redis": redis, "feed": feed, "accepting": {"ok": not parts.feed.draining}}
    ready = all(check["ok"] for check in checks.values())
    headers = {} if ready else {"Retry-After": "1"}
    answer: dict[str, Any] = {"status": "ready" if ready else "not ready"}
    if _may_inspect(request):
        answer["checks"] = checks
    return JSONResponse(answer, 200 if ready else 503, headers)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    openapi_extra={"security": []},  # programs on the same machine need none
    responses={
        200: _example("The metrics", 'realtime_writes_total{action="create"} 1.0\n', "text/plain"),
        401: problem("Not signed in", "Not signed in"),
        403: problem("Not an administrator", ADMINS_ONLY),
    },
)
async def metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format, over all workers of this server.

    With accounts, they are for administrators and for programs on the same machine only.
    """
    if not _may_inspect(request):
        raise NotSignedIn if principal_of(request).name is None else Forbidden(ADMINS_ONLY)
    return Response(services_of(request).metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/.well-known/security.txt", include_in_schema=False)
async def security_txt(request: Request) -> Response:
    """The contact that `REALTIME_SECURITY_CONTACT` names (RFC 9116)."""
    contact = request.app.state.security_contact
    if not contact:
        raise HTTPException(404, NO_CONTACT)
    expires = (datetime.now(UTC) + timedelta(days=CONTACT_DAYS)).replace(hour=0, minute=0, second=0)
    text = f"Contact: {contact}\nExpires: {expires:%Y-%m-%dT%H:%M:%SZ}\n"
    return Response(text, media_type="text/plain; charset=utf-8")
