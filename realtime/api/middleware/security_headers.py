"""Security headers of all answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


HSTS = (b"strict-transport-security", b"max-age=31536000")
"""Has a browser that came over https once use nothing else for a year."""


class SecurityHeaders:
    """Has browsers take an answer for what it says it is, and tell nobody of it; a page has a policy of its own.

    Where there are accounts, nothing is ``kept`` that does not say so itself: it may be for one person only. Pages of
    other origins can load answers only if there are ``others`` that may.
    """

    def __init__(self, app: ASGIApp, *, kept: bool, others: bool) -> None:
        self._app = app
        self._all = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
        if not others:
            self._all.append((b"cross-origin-resource-policy", b"same-origin"))
        if not kept:
            self._all.append((b"cache-control", b"no-store"))
        self._json = [*self._all, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, and adds what its answer lacks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = dict(message["headers"])
                wanted = self._json if given.get(b"content-type") == b"application/json" else self._all
                lacking = [header for header in wanted if header[0] not in given]
                if scope["scheme"] == "https":
                    lacking.append(HSTS)
                message = {**message, "headers": [*message["headers"], *lacking]}
            await send(message)

        await self._app(scope, receive, safely)
