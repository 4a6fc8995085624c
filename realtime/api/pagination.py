"""Pagination: the ``after`` token and the ``Link`` header."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import to_json

from realtime.notes.listing import Position
from realtime.notes.models import MAX_ID

_token_adapter: TypeAdapter[tuple[str, int | float | str, int]] = TypeAdapter(tuple[str, int | float | str, int])


def encode_page_token(*position: Any) -> str:
    """Return a position in a list as an opaque token.

    Args:
        position: The order, the sort key of the last item, and its id.
    """
    return (
        base64.urlsafe_b64encode(json.dumps(position, separators=(",", ":"), ensure_ascii=False).encode())
        .decode()
        .rstrip("=")
    )


def decode_page_token(token: str, order: str) -> Position:
    """Return the position in a page token.

    Raises:
        ValueError: The token was not made by :func:`encode_page_token` for this order.
    """
    try:
        text = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        token_order, key, id = _token_adapter.validate_json(text, strict=True)
        json.dumps(key, ensure_ascii=False).encode()
    except (ValueError, binascii.Error):
        raise ValueError("is not a page token. Use the one from the `Link` header") from None
    if token_order != order:
        raise ValueError("is a page token for another order")
    if not 0 <= id <= MAX_ID or (not isinstance(key, str) and not abs(key) <= MAX_ID):
        raise ValueError("is not a page token. Use the one from the `Link` header")
    return key, id


After = Annotated[
    str | None,
    Field(pattern=r"^[A-Za-z0-9_-]{1,3000}$", description="page token from the `Link` header of the previous page"),
]


class PageQuery(BaseModel):
    """Base of the query parameters of all lists. Subclasses add ``after`` last, as its validation needs the order."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[
        int, Field(ge=1, le=1000, description="maximum number of items; a page has fewer if they are large")
    ] = 100


def link(path: str, **query: Any) -> str:
    """Return the ``Link`` header for the next page."""
    parameters = {name: value for name, value in query.items() if value is not None}
    return f'<{path}?{urlencode(parameters, doseq=True)}>; rel="next"'


def list_response(items: Sequence[BaseModel | Mapping[str, Any]], headers: dict[str, str]) -> Response:
    """Return a JSON array as a response."""
    return Response(to_json(items), headers=headers, media_type="application/json")
