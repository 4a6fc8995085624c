"""What the routes share: the parts, preconditions, keys, pages, and the descriptions of their answers."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Header, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic_core import to_json

from realtime.api.middleware.http_semantics import ENCODED
from realtime.api.routing import address_of, parts_of, path_of, problem, viewer_of
from realtime.auth.permissions import Viewer
from realtime.core.fair_queue import Requester
from realtime.core.pools import Pools, requester_of
from realtime.feed.service import Feed
from realtime.notes.models import EXAMPLE, MAX_ID, AllBut, Note, Operation, Position, Versions, etag
from realtime.notes.queries import Queries
from realtime.notes.service import Notes

Answers = dict[int | str, dict[str, Any]]

NOTE_SCHEMA = {"$ref": "#/components/schemas/Note"}


UNAVAILABLE: Answers = {
    503: problem(
        "The database did not answer in time; `Retry-After` tells when to try again",
        "The database is not available, try again",
    )
}
INVALID: Answers = {
    422: problem(
        "The request is not valid: a list of what is wrong and where, or a text",
        [
            {
                "type": "string_too_short",
                "loc": ["body", "title"],
                "msg": "String should have at least 3 characters",
            }
        ],
    )
}
READ: Answers = {**UNAVAILABLE, **INVALID}
FOREIGN: Answers = {
    403: problem(
        "A page of another origin sent it, which `REALTIME_ORIGINS` does not name; or it is a note, or a token, that is"
        " only for reading",
        "Requests from this origin are not allowed. Behind a proxy, pass on the Host header or send X-Forwarded-Host."
        " To allow other origins, set REALTIME_ORIGINS",
    )
}
SIGNED_OUT: Answers = {401: problem("Not signed in", "Not signed in")}
TOO_MANY: Answers = {
    429: problem("Too often; `Retry-After` tells when to try again", "Too many requests, try again later")
}
BODY: Answers = {
    408: problem("The body came too slowly", "The body came too slowly"),
    413: problem(
        "The body is larger than allowed, or the owner of the note has reached a quota",
        "The body must be at most 1048576 bytes",
    ),
    415: problem("The body has a `Content-Encoding`", ENCODED.format("gzip")),
}
WRITE: Answers = {
    **SIGNED_OUT,
    **FOREIGN,
    **TOO_MANY,
    **BODY,
    **INVALID,
    503: problem(
        "The database did not confirm the write in time: with `outcome` it may or may not have been saved",
        "The database did not confirm the write in time. It may have been saved: read the note, or repeat the request"
        " with the same Idempotency-Key",
        {"outcome": "unknown"},
        outcome={"const": "unknown"},
    ),
}
JSON_BODY: Answers = {400: problem("The body is not JSON", "There was an error parsing the body")}
NOT_FOUND: Answers = {404: problem("There is no such note", "Note not found")}
NO_VERSION: Answers = {404: problem("There is no such note, or no such version of it", "Version not found")}
STALE: Answers = {
    412: problem(
        "The note is not at a version that `If-Match` names, or at one that `If-None-Match` names",
        "The note is at version 3, which the request's If-Match or If-None-Match does not allow",
        {"note": EXAMPLE},
        note=NOTE_SCHEMA,
    )
}


async def still(request: Request) -> Viewer:
    """Who sent this, if what their rights come from still holds: bodies may take their time, both ways.

    Raises :class:`NotSignedIn`, :class:`Unavailable`.
    """
    viewer, viewers = viewer_of(request), parts_of(request).viewers
    if viewers is not None:
        await viewers.check(viewer)
    return viewer


# Asynchronous, though they wait for nothing: FastAPI has others run in a thread, for each request.
async def _notes(request: Request) -> Notes:
    return parts_of(request).notes


async def _queries(request: Request) -> Queries:
    return parts_of(request).queries


async def _feed(request: Request) -> Feed:
    return parts_of(request).feed


async def _pools(request: Request) -> Pools:
    return parts_of(request).pools


async def _requester(request: Request) -> Requester:
    return requester_of(viewer_of(request), address_of(request))


# RFC 9110, section 8.8.3; what is between the quotes may be anything but a quote or a control character.
# A list may have empty elements (section 5.6.1).
ENTITY_TAGS = r'^[ \t]*(\*|(,[ \t]*)*(W/)?"[!#-~ ]*"([ \t]*,([ \t]*(W/)?"[!#-~ ]*")?)*)[ \t]*$'
_TAG = re.compile(r'(W/)?"([^"]*)"')
# Apache adds the encoding to the tags of what it compresses, and does not take it off again.
_VERSION = re.compile(r"v([1-9][0-9]{0,15})(?:-gzip|-br)?")


def versions_of(tags: str, *, weak: bool) -> frozenset[int] | None:
    """The versions that a list of entity tags names; ``None`` for ``*``, which names all."""
    if tags.strip() == "*":
        return None
    named = (_VERSION.fullmatch(tag) for prefix, tag in _TAG.findall(tags) if weak or not prefix)
    return frozenset(int(match[1]) for match in named if match)


def names_tag(tags: str, tag: str) -> bool:
    """Return whether a list of entity tags names one, by weak comparison (RFC 9110, section 8.8.3.2)."""
    return tags.strip() == "*" or tag.strip('"') in (opaque for _, opaque in _TAG.findall(tags))


IfNoneMatch = Annotated[
    str | None, Header(pattern=ENTITY_TAGS, description="answer only with another version", examples=['"v3"'])
]


async def _precondition(
    if_match: Annotated[
        str | None, Header(pattern=ENTITY_TAGS, description="write only at this version", examples=['"v3"'])
    ] = None,
    if_none_match: Annotated[
        str | None, Header(pattern=ENTITY_TAGS, description="write only at another version", examples=['"v3"'])
    ] = None,
) -> Versions:
    """Return the versions at which a write is allowed (RFC 9110, section 13.1)."""
    allowed = None if if_match is None else versions_of(if_match, weak=False)
    if if_none_match is None:
        return allowed
    excluded = versions_of(if_none_match, weak=True)
    if excluded is None:
        return frozenset()
    return AllBut(excluded) if allowed is None else allowed - excluded


Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="makes a repeat of this request safe",
        examples=["c0ffee-1"],
    ),
]


async def _operation(request: Request, idempotency_key: Key = None) -> Operation | None:
    return None if idempotency_key is None else operation_of(request, idempotency_key, [await request.body()])


def operation_of(request: Request, key: str, body: Iterable[bytes]) -> Operation:
    """A key, which is its user's own, and the digest of all that the outcome of its request depends on."""
    digest = hashlib.sha256()
    head = (
        request.method.encode(),
        path_of(request.scope).rstrip("/").encode(),
        request.url.query.encode(),
        request.headers.get("if-match", "").encode(),
        *([none_match.encode()] if (none_match := request.headers.get("if-none-match")) else []),
    )
    for part in (*head, *body):
        digest.update(b"%d:%b" % (len(part), part))
    viewer = viewer_of(request)
    whose = viewer.name or min((key for key in viewer.keys or () if key and key.startswith("link:")), default=None)
    return Operation(key if whose is None else f"{whose} {key}", digest.digest())


def _digits(id: str) -> str:
    # A number is understood in many spellings; a note has one address.
    if not (id.isascii() and id.isdigit() and (id == "0" or id[0] != "0")):
        raise ValueError("must be a positive integer in plain digits")
    return id


Who = Annotated[Viewer, Depends(still)]
NotesPart = Annotated[Notes, Depends(_notes)]
QueriesPart = Annotated[Queries, Depends(_queries)]
FeedPart = Annotated[Feed, Depends(_feed)]
PoolsPart = Annotated[Pools, Depends(_pools)]
RequesterPart = Annotated[Requester, Depends(_requester)]
Allowed = Annotated[Versions, Depends(_precondition)]
Once = Annotated[Operation | None, Depends(_operation)]
Number = Annotated[int, Field(ge=1, le=MAX_ID), BeforeValidator(_digits)]
Id = Annotated[Number, Path(examples=[1])]
Version = Annotated[Number, Path(examples=[3])]


def only(*known: str) -> Any:
    """A dependency that refuses a query with anything else in it: a misspelt option must not be left out silently."""

    async def check(request: Request) -> None:
        errors = [
            {"type": "extra_forbidden", "loc": ("query", name), "msg": "There is no such option, or it came twice"}
            for name, times in Counter(name for name, _ in request.query_params.multi_items()).items()
            if name not in known or times > 1
        ]
        if errors:
            raise RequestValidationError(errors)

    return Depends(check)


def json_of(model: BaseModel) -> bytes:
    """A model as JSON."""
    return model.__pydantic_serializer__.to_json(model)


def answer(note: Note, status: int = 200, **headers: str) -> Response:
    """A note, with its version as ``ETag``."""
    headers["ETag"] = etag(note.version)
    return Response(json_of(note), status, headers, "application/json")


_place: TypeAdapter[tuple[str, int | float | str, int]] = TypeAdapter(tuple[str, int | float | str, int])


def place_token(*place: Any) -> str:
    """A place in a list, as the opaque token of ``after``: the order, what the last note is ordered by, and its id."""
    return (
        base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":"), ensure_ascii=False).encode())
        .decode()
        .rstrip("=")
    )


def place_of(token: str, order: str) -> Position:
    """The place that a token names. Raises ``ValueError`` for what :func:`place_token` did not make for this order."""
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
