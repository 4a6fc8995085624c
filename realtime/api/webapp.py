"""The web app: its files and their security headers."""

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

from realtime.api.requests import PROXIED, host_of, qualities_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

STATIC = Path(__file__).parents[1] / "static"
PATHS = ("/", "/n/{id}", "/n/{id}/history", "/new/{key}", "/deleted", "/account", "/people", "/invite")
"""The paths of the web app's views."""
NONCE = "__NONCE__"
"""The placeholder for the nonce."""
ROOT = "__ROOT__"
"""The placeholder for the path prefix of the server."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src {images};"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types dompurify"
)
IMAGES = ("/icon.svg", "/files/")
"""The paths of images that the web app may load: its icon, and the files of notes."""
PLAIN_HOST = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?", re.IGNORECASE)
"""A host that a policy can name; an IPv6 address cannot be named (CSP Level 3, section 2.3.1)."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
ENCODINGS = {"br": ".br", "gzip": ".gz"}


async def page(request: Request) -> Response:
    """Return the HTML page of the web app. Its nonce allows the styles that the editor creates."""
    return document("index.html", POLICY, request)


def document(name: str, policy: str, request: Request) -> Response:
    """Return an HTML document of the bundle, with a new nonce and the request's ``root_path`` in its URLs.

    Args:
        name: The file name.
        policy: The Content-Security-Policy, with the placeholders ``{nonce}`` and ``{images}``.
        request: The request.
    """
    nonce = secrets.token_urlsafe(16)
    try:
        text = (STATIC / name).read_text()
    except FileNotFoundError:
        raise HTTPException(503, "The web app is not built. Install the package again") from None
    policy = policy.format(nonce=nonce, images=_images(request.scope))
    headers = {**HEADERS, "Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    root = html.escape(request.scope.get("root_path", ""))
    return HTMLResponse(text.replace(NONCE, nonce).replace(ROOT, root), headers=headers)


def _images(scope: Scope) -> str:
    """Return the allowed image sources of a policy.

    ``'self'`` would also allow the paths of the API. A source with a path requires a host, which is taken from the
    request. If a policy cannot name this host, only the check :class:`SameOrigin` rejects embedded API requests.
    """
    host = host_of(scope)
    if not PLAIN_HOST.fullmatch(host):
        return "'self'"
    if PROXIED in scope and ":" not in host:  # the proxy may have dropped the port
        host += ":*"
    return " ".join(f"{host}{scope.get('root_path', '')}{path}" for path in IMAGES)


class Assets:
    """ASGI application that serves the files of a folder, precompressed where the client accepts it.

    Args:
        folder: The folder.
        cache_control: The ``Cache-Control`` header of the responses.
    """

    def __init__(self, folder: Path, cache_control: str) -> None:
        # Files are looked up by name, so that no path can lead out of the folder.
        self._files = {path.name: path for path in folder.glob("*") if path.is_file()}
        self._caching = cache_control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a file in the best encoding that the client accepts."""
        name = scope["path"].rpartition("/")[2]
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or name not in self._files:
            raise HTTPException(404)
        path = self._files[name]
        headers = {**HEADERS, "Cache-Control": self._caching, "Vary": "Accept-Encoding"}
        accepted = qualities_of(Headers(scope=scope).get("accept-encoding", ""))
        for encoding, suffix in ENCODINGS.items():
            if accepted.get(encoding) and name + suffix in self._files:
                headers["Content-Encoding"] = encoding
                path = self._files[name + suffix]
                break
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        await FileResponse(path, headers=headers, media_type=media_type)(scope, receive, send)


def routes() -> list[BaseRoute]:
    """Return the routes of the web app and its files."""
    icon = Assets(STATIC, "max-age=86400")
    return [
        *(Route(path, page, include_in_schema=False) for path in PATHS),
        Mount("/assets", Assets(STATIC / "assets", "public, max-age=31536000, immutable")),
        Route("/icon.svg", icon),
    ]
