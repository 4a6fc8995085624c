"""The web page: its files, and the rules that the browser is to keep with them."""

from __future__ import annotations

import html
import mimetypes
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from realtime.api.requests import PROXIED, host_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

STATIC = Path(__file__).parents[1] / "static"
PATHS = ("/", "/n/{id}", "/n/{id}/history", "/new/{key}", "/deleted", "/account", "/people", "/invite")
"""What the page shows by itself: deep links."""
NONCE = "__NONCE__"
ROOT = "__ROOT__"
"""Where a document has the path prefix that the server is mounted below."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src {images};"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types dompurify"
)
IMAGES = ("/icon.svg", "/files/")
"""The paths of images that the page may show: its icon, and the files of notes."""
PLAIN_HOST = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?", re.IGNORECASE)
"""A host that can be named in a policy; an IPv6 address cannot (CSP Level 3, section 2.3.1)."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
ENCODINGS = {"br": ".br", "gzip": ".gz"}


async def page(request: Request) -> Response:
    """The page, with a nonce of its own for the styles that the editor makes."""
    return document("index.html", POLICY, request)


def document(name: str, policy: str, request: Request) -> Response:
    """Return a document that the bundler made, under a policy.

    It has a new nonce each time, and the request's ``root_path`` in its addresses.
    """
    nonce = secrets.token_urlsafe(16)
    try:
        text = (STATIC / name).read_text()
    except FileNotFoundError:
        raise HTTPException(503, "The page is not built: install the package again") from None
    policy = policy.format(nonce=nonce, images=_images(request.scope))
    headers = {**HEADERS, "Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    root = html.escape(request.scope.get("root_path", ""))
    return HTMLResponse(text.replace(NONCE, nonce).replace(ROOT, root), headers=headers)


def _images(scope: Scope) -> str:
    """Return the sources of images that a policy allows.

    ``'self'`` would include the API. A path needs a host before it, which the request names. Where it cannot be named,
    the API itself refuses what is embedded.
    """
    host = host_of(scope)
    if not PLAIN_HOST.fullmatch(host):
        return "'self'"
    if PROXIED in scope and ":" not in host:  # the proxy may have dropped the port
        host += ":*"
    return " ".join(f"{host}{scope.get('root_path', '')}{path}" for path in IMAGES)


class Assets:
    """The files beside the page, as the bundler compressed them. Their names change with what is in them."""

    def __init__(self, folder: Path, caching: str) -> None:
        # By name: what is not in the folder cannot be asked for.
        self._files = {path.name: path for path in folder.glob("*") if path.is_file()}
        self._caching = caching

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with a file in the best form that the browser takes."""
        name = scope["path"].rpartition("/")[2]
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or name not in self._files:
            raise HTTPException(404)
        path = self._files[name]
        headers = {**HEADERS, "Cache-Control": self._caching, "Vary": "Accept-Encoding"}
        accepted = _accepted(Headers(scope=scope).get("accept-encoding", ""))
        for encoding, suffix in ENCODINGS.items():
            if encoding in accepted and name + suffix in self._files:
                headers["Content-Encoding"] = encoding
                path = self._files[name + suffix]
                break
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        await FileResponse(path, headers=headers, media_type=kind)(scope, receive, send)


def _accepted(header: str) -> set[str]:
    """The encodings that a browser takes (RFC 9110, section 12.5.3)."""
    taken = set()
    for part in header.lower().split(","):
        encoding, _, quality = part.replace(" ", "").partition(";q=")
        if not re.fullmatch(r"0(\.0*)?", quality):
            taken.add(encoding)
    return taken


def routes() -> list[BaseRoute]:
    """The page under all its addresses, and its files."""
    icon = Assets(STATIC, "max-age=86400")
    return [
        *(Route(path, page, include_in_schema=False) for path in PATHS),
        Mount("/assets", Assets(STATIC / "assets", "public, max-age=31536000, immutable")),
        Route("/icon.svg", icon),
    ]
