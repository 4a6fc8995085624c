"""The router class that the routes use. The routers themselves are listed in :mod:`realtime.api.routers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.routing import APIRoute, request_response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from realtime.api.fast_route import FastRoute

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send


class SlashRouter(APIRouter):
    """Router that serves every path with and without a trailing slash, without a redirect.

    The OpenAPI schema contains only the declared form.
    """

    def __init__(self, **options: Any) -> None:
        # A body without Content-Type is parsed as JSON, because some clients do not send this header.
        super().__init__(strict_content_type=False, **options)

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add both forms of a route."""
        super().add_api_route(path, endpoint, **options)
        super().add_api_route(toggle_slash(path), endpoint, **{**options, "include_in_schema": False})

    def add_api_websocket_route(self, path: str, endpoint: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Add both forms of a WebSocket route. Its endpoint gets the WebSocket and the path parameters only."""
        for form in (path, toggle_slash(path)):
            self.routes.append(WebSocketRoute(form, _WebSocketEndpoint(endpoint)))


def bound_routes(routers: Iterable[APIRouter], app: FastAPI) -> Iterator[BaseRoute]:
    """Yield copies of the routes of routers that use the ``dependency_overrides`` of an application.

    ``include_router`` would match each request twice: against a router, and against its routes.
    """
    for router in routers:
        for route in router.routes:
            bound = copy(route)
            if isinstance(bound, APIRoute):
                bound.dependency_overrides_provider = app
                bound.app = request_response(bound.get_route_handler())
                if isinstance(bound, FastRoute):
                    bound.set_fallback(bound.app)
            yield bound


class _WebSocketEndpoint:
    """ASGI application that calls the endpoint of a WebSocket route."""

    def __init__(self, endpoint: Callable[..., Any]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(WebSocket(scope, receive, send), **scope["path_params"])


def toggle_slash(path: str) -> str:
    """Return the path without its trailing slash, or with one if it has none."""
    return path.removesuffix("/") if path.endswith("/") else path + "/"
