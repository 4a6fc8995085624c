"""The API reference in Swagger UI and ReDoc, without resources from other hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from realtime.api.router import toggle_slash
from realtime.api.webapp import document

POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src {images} data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REDOC_POLICY = POLICY + "; worker-src blob:"
"""The policy of ReDoc, which searches in a web worker created from a blob."""
DOCUMENTS = {
    "/docs": ("docs.html", POLICY),
    "/docs/oauth2-redirect": ("oauth2-redirect.html", POLICY),
    "/redoc": ("redoc.html", REDOC_POLICY),
}


def routes() -> list[BaseRoute]:
    """Return the routes of the pages, with and without a trailing slash."""
    return [
        Route(form, _endpoint(name, policy), include_in_schema=False)
        for path, (name, policy) in DOCUMENTS.items()
        for form in (path, toggle_slash(path))
    ]


def _endpoint(name: str, policy: str) -> Callable[[Request], Awaitable[Response]]:
    async def show(request: Request) -> Response:
        return document(name, policy, request)

    return show
