"""Pages of lists: the ``after`` token and the ``Link`` header."""

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

_place: TypeAdapter[tuple[str, int | float | str, int]] = TypeAdapter(tuple[str, int | float | str, int])


def encode_page_token(*place: Any) -> str:
    """A place in a list, as the opaque token of ``after``: the order, what the last note is ordered by, and its id."""
    return (
        base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":"), ensure_ascii=False).encode())
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
        made_for, key, id = _place.validate_json(text, strict=True)
        json.dumps(key, ensure_ascii=False).encode()
    except (ValueError, binascii.Error):
        raise ValueError("is not the end of a page, as `Link` gives it") from None
    if made_for != order:
        raise ValueError("is the end of a page in another order")
    if not 0 <= id <= MAX_ID or (not isinstance(key, str) and not abs(key) <= MAX_ID):
        raise ValueError("is not the end of a page, as `Link` gives it")
    return key, id


After = Annotated[
    str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,3000}$", description="from `Link`: where the page before ended")
]


class PageQuery(BaseModel):
    """The part of a query that all lists share; ``after`` comes last in each, so that its order is known by then."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000, description="most in one answer; large ones make it fewer")] = 100


def link(path: str, **query: Any) -> str:
    """The header that leads to the next page."""
    given = {name: value for name, value in query.items() if value is not None}
    return f'<{path}?{urlencode(given, doseq=True)}>; rel="next"'


def list_answer(items: Sequence[BaseModel | Mapping[str, Any]], headers: dict[str, str]) -> Response:
    """A JSON array."""
    return Response(to_json(items), headers=headers, media_type="application/json")
