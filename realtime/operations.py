"""Routes for whoever runs the server: liveness, readiness, metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request, Response
from starlette.responses import JSONResponse

from realtime.errors import RealtimeError
from realtime.routing import SlashRouter, parts_of

CHECK_TIMEOUT = 2.0

router = SlashRouter(tags=["operations"])


@router.get("/ping", summary="Is anybody there?")
async def ping() -> dict[str, str]:
    """Always `{"ping": "pong!"}`."""
    return {"ping": "pong!"}


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    """200 as long as the process can answer at all, whatever it depends on."""
    return {"status": "alive"}


async def _check(check: Any) -> dict[str, Any]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check
    except RealtimeError as error:
        return {"ok": False, "detail": error.detail}
    except TimeoutError:
        return {"ok": False, "detail": f"no answer within {CHECK_TIMEOUT:.0f} s"}
    return {"ok": True}


@router.get(
    "/readyz",
    summary="Can it serve?",
    responses={503: {"description": "Not now: `checks` tells why", "content": {"application/json": {}}}},
)
async def readyz(request: Request) -> Response:
    """200 when MongoDB and Redis answer, the feed is followed and the server is not stopping; each is named."""
    parts = parts_of(request)
    mongodb, redis = await asyncio.gather(_check(parts.store.ping(CHECK_TIMEOUT)), _check(parts.bus.position()))
    if redis["ok"] and not parts.bus.appending:
        redis = {"ok": False, "detail": "events cannot be published"}
    if redis["ok"] and not parts.bus.appending:
        redis = {"ok": False, "detail": "events cannot be published"}
    follower = parts.follower
    feed = {"ok": follower.connected, "cursor": str(follower.position), "lag": follower.lag}
    checks = {"mongodb": mongodb, "redis": redis, "feed": feed, "accepting": {"ok": not parts.feed.draining}}
    ready = all(check["ok"] for check in checks.values())
    headers = {} if ready else {"Retry-After": "1"}
    return JSONResponse({"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503, headers)


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format, over all workers of this server."""
    return Response(parts_of(request).metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
