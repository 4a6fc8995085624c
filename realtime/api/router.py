"""Routes with and without a trailing slash."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


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
            self.routes.append(WebSocketRoute(form, _WebSocketEndpoint(endpoint)))


class _WebSocketEndpoint:
    """An endpoint for WebSockets, as an ASGI application."""

    def __init__(self, endpoint: Callable[..., Any]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(WebSocket(scope, receive, send), **scope["path_params"])


def other_form(path: str) -> str:
    """The path with the trailing slash if it has none, and the other way round."""
    return path.removesuffix("/") if path.endswith("/") else path + "/"
