"""Middleware that adds security headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


HSTS = (b"strict-transport-security", b"max-age=31536000")
"""Makes browsers use only HTTPS for a year."""


class SecurityHeaders:
    """Middleware that adds ``nosniff``, ``no-referrer`` and, to JSON, a restrictive Content-Security-Policy.

    Args:
        app: The application.
        cacheable: Whether responses without ``Cache-Control`` may be cached. They must not be on a server with
            accounts, because a response may be meant for one user only.
        cross_origin: Whether pages of other origins may load responses.
    """

    def __init__(self, app: ASGIApp, *, cacheable: bool, cross_origin: bool) -> None:
        self._app = app
        self._all = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
        if not cross_origin:
            self._all.append((b"cross-origin-resource-policy", b"same-origin"))
        if not cacheable:
            self._all.append((b"cache-control", b"no-store"))
        self._json = [*self._all, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the missing headers to its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = dict(message["headers"])
                headers = self._json if present.get(b"content-type") == b"application/json" else self._all
                missing = [header for header in headers if header[0] not in present]
                if scope["scheme"] == "https":
                    missing.append(HSTS)
                message = {**message, "headers": [*message["headers"], *missing]}
            await send(message)

        await self._app(scope, receive, send_secured)
