"""The reference of the REST interface, to try out (Swagger UI) and to read (ReDoc), with nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from realtime.api.router import other_form
from realtime.api.webapp import document

POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src {images} data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SEARCHED = POLICY + "; worker-src blob:"
"""ReDoc searches in a worker that it makes of its own text."""
DOCUMENTS = {
    "/docs": ("docs.html", POLICY),
    "/docs/oauth2-redirect": ("oauth2-redirect.html", POLICY),
    "/redoc": ("redoc.html", SEARCHED),
}


def routes() -> list[BaseRoute]:
    """The documents, in both slash forms."""
    return [
        Route(form, _show(name, policy), include_in_schema=False)
        for path, (name, policy) in DOCUMENTS.items()
        for form in (path, other_form(path))
    ]


def _show(name: str, policy: str) -> Callable[[Request], Awaitable[Response]]:
    async def show(request: Request) -> Response:
        return document(name, policy, request)

    return show
