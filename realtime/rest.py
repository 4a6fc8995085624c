"""The routes of the notes: parse, one action, public model."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from realtime.feed import Feed
from realtime.models import MAX_ID, Note, NoteIn, NotePatch, NotePut, Operation, etag
from realtime.notes import Notes, Versions
from realtime.routing import SlashRouter, parts_of

PROBLEM: dict[str, Any] = {"type": "object", "required": ["detail"], "properties": {"detail": {}}}


def _problem(description: str, **properties: Any) -> dict[str, Any]:
    schema = {**PROBLEM, "properties": {**PROBLEM["properties"], **properties}}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


Answers = dict[int | str, dict[str, Any]]

UNAVAILABLE: Answers = {503: _problem("The database did not answer in time; `Retry-After` tells when to try again")}
INVALID: Answers = {422: _problem("The request is not valid: what is wrong, or a list of it")}
READ: Answers = {**UNAVAILABLE, **INVALID}
WRITE: Answers = {
    400: _problem("The body is not JSON"),
    413: _problem("The body is larger than `REALTIME_MAX_BODY`"),
    **INVALID,
    503: _problem(
        "The database did not confirm the write in time: with `outcome` it may or may not have been saved",
        outcome={"const": "unknown"},
    ),
}
NOT_FOUND: Answers = {404: _problem("There is no such note")}
STALE: Answers = {
    412: _problem("The note is not at a version that `If-Match` names", note={"$ref": "#/components/schemas/Note"})
}

router = SlashRouter(prefix="/notes", tags=["notes"])


def _notes(request: Request) -> Notes:
    return parts_of(request).notes


def _feed(request: Request) -> Feed:
    return parts_of(request).feed


# RFC 9110, section 8.8.3; what is between the quotes may be anything but a quote or a control character.
ENTITY_TAGS = r'^[ \t]*(\*|(W/)?"[!#-~ ]*"[ \t]*(,[ \t]*(W/)?"[!#-~ ]*"[ \t]*)*)[ \t]*$'
_TAG = re.compile(r'(W/)?"([^"]*)"')
_VERSION = re.compile(r"v([1-9][0-9]{0,15})")


def _versions(tags: str, *, weak: bool) -> Versions:
    """The versions that a list of entity tags names; ``None`` for ``*``, which names all."""
    if tags.strip() == "*":
        return None
    named = (_VERSION.fullmatch(tag) for prefix, tag in _TAG.findall(tags) if weak or not prefix)
    return frozenset(int(match[1]) for match in named if match)


def _if_match(
    if_match: Annotated[
        str | None, Header(pattern=ENTITY_TAGS, description="write only at this version", examples=['"v3"'])
    ] = None,
) -> Versions:
    return None if if_match is None else _versions(if_match, weak=False)


async def _operation(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, pattern=r"^[!-~]+$", description="makes a repeat of this request safe"),
    ] = None,
) -> Operation | None:
    if idempotency_key is None:
        return None
    digest = hashlib.sha256()
    for part in (
        request.method.encode(),
        request.url.path.rstrip("/").encode(),
        request.headers.get("if-match", "").encode(),
        await request.body(),
    ):
        digest.update(b"%d:%b" % (len(part), part))
    return Operation(idempotency_key, digest.digest())


def _digits(id: str) -> str:
    # A number is understood in many spellings; a note has one address.
    if not (id.isascii() and id.isdigit() and (id == "0" or id[0] != "0")):
        raise ValueError("must be a positive integer in plain digits")
    return id


NotesPart = Annotated[Notes, Depends(_notes)]
FeedPart = Annotated[Feed, Depends(_feed)]
IfMatch = Annotated[Versions, Depends(_if_match)]
Once = Annotated[Operation | None, Depends(_operation)]
Id = Annotated[int, Path(ge=1, le=MAX_ID), BeforeValidator(_digits)]


def _answer(note: Note, status: int = 200, **headers: str) -> Response:
    headers["ETag"] = etag(note.version)
    return Response(_json(note), status, headers, "application/json")


def _json(note: Note) -> bytes:
    return note.__pydantic_serializer__.to_json(note)


@router.post(
    "/",
    status_code=201,
    summary="Make a note",
    response_model=Note,
    responses={**WRITE, 201: {"description": "Made; `Location` and `ETag` tell where and at which version"}},
)
async def create(notes: NotesPart, note: NoteIn, operation: Once) -> Response:
    """Makes a note under the next id."""
    made = await notes.create(note, operation)
    return _answer(made, 201, Location=f"/notes/{made.id}/")


class Page(BaseModel):
    """The query of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000, description="most notes in one answer; large ones make it fewer")] = 100
    after: Annotated[
        str | None, Field(pattern=r"^[0-9a-f]{1,14}$", description="where the page before ended; opaque, from `Link`")
    ] = None


@router.get("/", summary="List notes", response_model=list[Note], responses=READ)
async def page(notes: NotesPart, feed: FeedPart, query: Annotated[Page, Query()]) -> Response:
    """Notes by id. `Link: <…>; rel="next"` leads to the next page; `X-Cursor` is where the feed goes on from here."""
    cursor = feed.position  # before the notes: what changes while they are read comes again over the feed
    found, more = await notes.page(int(query.after or "0", 16), query.limit)
    headers = {"X-Cursor": str(cursor)}
    if more:
        headers["Link"] = f'</notes/?limit={query.limit}&after={found[-1].id:x}>; rel="next"'
    return Response(b"[" + b",".join(map(_json, found)) + b"]", headers=headers, media_type="application/json")


@router.get(
    "/{id}/",
    summary="Read a note",
    response_model=Note,
    responses={**READ, **NOT_FOUND, 304: {"description": "Still at a version that `If-None-Match` names"}},
)
async def read(
    notes: NotesPart,
    id: Id,
    if_none_match: Annotated[
        str | None, Header(pattern=ENTITY_TAGS, description="answer only with another version", examples=['"v3"'])
    ] = None,
) -> Response:
    """A note, with its version as `ETag`."""
    note = await notes.get(id)
    if if_none_match is not None:
        versions = _versions(if_none_match, weak=True)
        if versions is None or note.version in versions:
            return Response(status_code=304, headers={"ETag": etag(note.version)})
    return _answer(note)


@router.put("/{id}/", summary="Replace a note", response_model=Note, responses={**WRITE, **NOT_FOUND, **STALE})
async def replace(notes: NotesPart, id: Id, note: NotePut, versions: IfMatch, operation: Once) -> Response:
    """Sets title and description; content and tags too when they are sent, else they stay."""
    return _answer(await notes.replace(id, note, versions, operation))


@router.patch(
    "/{id}/",
    summary="Change some fields",
    response_model=Note,
    responses={**WRITE, **NOT_FOUND, **STALE},
    openapi_extra={
        "requestBody": {
            "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/NotePatch"}}}
        }
    },
)
async def patch(notes: NotesPart, id: Id, patch: NotePatch, versions: IfMatch, operation: Once) -> Response:
    """A JSON merge patch (RFC 7396): sets what is sent; `null` empties content or tags."""
    return _answer(await notes.patch(id, patch, versions, operation))


@router.delete("/{id}/", summary="Delete a note", response_model=Note, responses={**WRITE, **NOT_FOUND, **STALE})
async def delete(notes: NotesPart, id: Id, versions: IfMatch, operation: Once) -> Response:
    """Deletes a note and answers with it as it was."""
    return Response(_json(await notes.delete(id, versions, operation)), media_type="application/json")
