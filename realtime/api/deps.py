"""Dependencies of the routes: services, path parameters, idempotency keys."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field

from realtime.api.requests import address_of, path_of, principal_of
from realtime.api.services import services_of
from realtime.auth.permissions import Principal
from realtime.auth.requesters import requester_of
from realtime.core.fair_queue import Requester
from realtime.core.pools import Pools
from realtime.feed.service import Feed
from realtime.notes.models import MAX_ID
from realtime.notes.preconditions import Operation
from realtime.notes.queries import NoteQueries
from realtime.notes.service import NoteService


async def require_connected(request: Request) -> Principal:
    """Who sent this, if what their rights come from still holds: bodies may take their time, both ways.

    Raises :class:`NotSignedIn`, :class:`Unavailable`.
    """
    principal, authenticator = principal_of(request), services_of(request).authenticator
    if authenticator is not None:
        await authenticator.check(principal)
    return principal


# Asynchronous, though they wait for nothing: FastAPI has others run in a thread, for each request.
async def _notes(request: Request) -> NoteService:
    return services_of(request).notes


async def _queries(request: Request) -> NoteQueries:
    return services_of(request).queries


async def _feed(request: Request) -> Feed:
    return services_of(request).feed


async def _pools(request: Request) -> Pools:
    return services_of(request).pools


async def _requester(request: Request) -> Requester:
    return requester_of(principal_of(request), address_of(request))


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
    principal = principal_of(request)
    whose = principal.name or min(
        (key for key in principal.keys or () if key and key.startswith("link:")), default=None
    )
    return Operation(key if whose is None else f"{whose} {key}", digest.digest())


def _digits(id: str) -> str:
    # A number is understood in many spellings; a note has one address.
    if not (id.isascii() and id.isdigit() and (id == "0" or id[0] != "0")):
        raise ValueError("must be a positive integer in plain digits")
    return id


Who = Annotated[Principal, Depends(require_connected)]
NotesPart = Annotated[NoteService, Depends(_notes)]
QueriesPart = Annotated[NoteQueries, Depends(_queries)]
FeedPart = Annotated[Feed, Depends(_feed)]
PoolsPart = Annotated[Pools, Depends(_pools)]
RequesterPart = Annotated[Requester, Depends(_requester)]

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
