"""FastAPI dependencies of the routes: services, path parameters, idempotency keys."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field

from realtime.api.etags import IfMatch, IfNoneMatchOfWrite, precondition
from realtime.api.requests import address_of, path_of, principal_of
from realtime.api.services import services_of
from realtime.auth.permissions import Principal
from realtime.auth.requesters import requester_of
from realtime.core.fair_queue import Requester
from realtime.core.pools import Pools
from realtime.feed.service import Feed
from realtime.notes.models import MAX_ID
from realtime.notes.preconditions import Conditions, Operation
from realtime.notes.queries import NoteQueries
from realtime.notes.service import NoteService


async def current_principal(request: Request) -> Principal:
    """Return the caller after checking its session again, which may have ended while the body arrived.

    Raises:
        NotSignedIn: The session has ended.
        Unavailable: The database is not available.
    """
    principal, authenticator = principal_of(request), services_of(request).authenticator
    if authenticator is not None:
        await authenticator.check(principal)
    return principal


# These are asynchronous although they await nothing, because FastAPI would run synchronous ones in a thread.
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


IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="makes it safe to repeat this request",
        examples=["c0ffee-1"],
    ),
]


async def _operation(request: Request, idempotency_key: IdempotencyKey = None) -> Operation | None:
    return None if idempotency_key is None else operation_of(request, idempotency_key, [await request.body()])


async def _conditions(
    request: Request,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatchOfWrite = None,
    idempotency_key: IdempotencyKey = None,
) -> Conditions:
    versions = await precondition(if_match, if_none_match)
    return Conditions(versions, await _operation(request, idempotency_key))


def operation_of(request: Request, key: str, body: Iterable[bytes]) -> Operation:
    """Return the idempotency key of a request, scoped to its user, and a digest of all inputs of its result."""
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
    owner = principal.name or min(
        (key for key in principal.keys or () if key and key.startswith("link:")), default=None
    )
    return Operation(key if owner is None else f"{owner} {key}", digest.digest())


def _digits(id: str) -> str:
    # Python accepts many spellings of a number, but a note has only one path.
    if not (id.isascii() and id.isdigit() and (id == "0" or id[0] != "0")):
        raise ValueError("must be a positive integer in plain digits")
    return id


CurrentPrincipal = Annotated[Principal, Depends(current_principal)]
NotesDep = Annotated[NoteService, Depends(_notes)]
QueriesDep = Annotated[NoteQueries, Depends(_queries)]
FeedDep = Annotated[Feed, Depends(_feed)]
PoolsDep = Annotated[Pools, Depends(_pools)]
RequesterDep = Annotated[Requester, Depends(_requester)]

IdempotentOperation = Annotated[Operation | None, Depends(_operation)]
WriteConditions = Annotated[Conditions, Depends(_conditions)]
Number = Annotated[int, Field(ge=1, le=MAX_ID), BeforeValidator(_digits)]
Id = Annotated[Number, Path(examples=[1])]
Version = Annotated[Number, Path(examples=[3])]


def allow_query(*names: str) -> Any:
    """Return a dependency that rejects unknown and repeated query parameters.

    A misspelled option would otherwise be ignored silently.
    """

    async def check(request: Request) -> None:
        errors = [
            {"type": "extra_forbidden", "loc": ("query", name), "msg": "Unknown or repeated query parameter"}
            for name, count in Counter(name for name, _ in request.query_params.multi_items()).items()
            if name not in names or count > 1
        ]
        if errors:
            raise RequestValidationError(errors)

    return Depends(check)
