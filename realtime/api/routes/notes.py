"""The routes of the notes themselves."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationInfo, field_validator

from realtime.api.deps import FeedPart, Id, NotesPart, Once, PoolsPart, QueriesPart, RequesterPart, Who, only
from realtime.api.etags import Allowed, IfNoneMatch, versions_of
from realtime.api.fast_route import FastRoute
from realtime.api.pagination import After, PageQuery, decode_page_token, encode_page_token, link, list_answer
from realtime.api.responses import (
    JSON_BODY,
    NOT_FOUND,
    NOTE_SCHEMA,
    READ,
    STALE,
    TOO_MANY,
    WRITE,
    Answers,
    answer,
    json_of,
    problem,
)
from realtime.api.router import SlashRouter
from realtime.notes.listing import Listing, Sort
from realtime.notes.models import (
    EXAMPLE,
    MAX_ID,
    STORABLE,
    Note,
    NoteFields,
    NoteIn,
    NoteListed,
    NotePatch,
    NotePut,
    Tag,
    example,
)
from realtime.notes.preconditions import etag
from realtime.notes.snippets import snippet
from realtime.notes.text_operations import Edits

router = SlashRouter(prefix="/notes", tags=["notes"], route_class=FastRoute)

PART = {"type": "object", "properties": {"start": {}, "end": {}, "text": {"type": "string"}}}
CONFLICT: Answers = {
    409: problem(
        "With `base_version`: others changed the same words, or that version is not in the history. `merged` is what"
        " the fields would be with the others' words in the `conflicts`, whose ranges are in characters",
        "Others changed the same words: choose, and write again",
        {
            "note": EXAMPLE,
            "yours": {"content": "# To buy\nmilk\nrye bread\n"},
            "conflicts": [
                {
                    "field": "content",
                    "base": {"start": 14, "end": 20, "text": "buns\n"},
                    "current": {"start": 14, "end": 20, "text": "bread\n"},
                    "yours": {"start": 14, "end": 24, "text": "rye bread\n"},
                    "merged": {"start": 14, "end": 20, "text": "bread\n"},
                }
            ],
            "merged": {"content": "# To buy\nmilk\nbread\n"},
        },
        note=NOTE_SCHEMA,
        yours={"type": "object"},
        merged={"type": "object"},
        conflicts={
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string"},
                    **dict.fromkeys(("base", "current", "yours", "merged"), PART),
                },
            },
        },
    )
}
REFUSED: Answers = {
    409: problem(
        "What an operation is to change is not there as often as it says; nothing was written",
        "Operation 0 (replace): the text must be there once, and is there 2 times",
        {"operation": 0, "expected": 1, "found": 2, "at": [12, 40]},
        operation={"type": "integer"},
        expected={"type": "integer"},
        found={"type": "integer"},
        at={"type": "array", "items": {"type": "integer"}},
    )
}
Base = Annotated[
    int | None,
    Query(
        ge=1,
        le=MAX_ID,
        description="the version that this was written on: what happened since is merged in, and the answer has"
        " `merged`, which tells whether anything had",
        examples=[2],
    ),
]


class Merged(Note):
    """A note that was written; with `base_version` it tells whether the write was merged."""

    model_config = example(*EXAMPLE, merged=True)

    merged: bool = False


@router.post(
    "/",
    status_code=201,
    dependencies=[only()],
    summary="Make a note",
    response_model=Note,
    responses={**JSON_BODY, **WRITE, 201: {"description": "Made; `Location` and `ETag` tell where and which version"}},
)
async def create(who: Who, notes: NotesPart, note: NoteIn, operation: Once) -> Response:
    """Makes a note under the next id."""
    made = await notes.create(who, note, operation)
    return answer(made, 201, Location=f"/notes/{made.id}/")


class ListQuery(PageQuery):
    """The query of a list of notes."""

    q: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description='words to find in title, description, content and tags; `"a phrase"`, `-without`',
            examples=["milk -bread"],
        ),
        *STORABLE,
    ] = None
    tag: Annotated[
        list[Tag], Field(default_factory=list, max_length=32, description="only notes with all of these tags")
    ]
    sort: Annotated[
        Sort | None,
        Field(description="`-` is backwards; by default `id`, and `relevance` (then `id`) with `q`"),
    ] = None
    content: Annotated[bool, Field(description="`false` leaves the texts out")] = True
    after: After = None

    @field_validator("sort")
    @classmethod
    def _sortable(cls, sort: Sort | None, info: ValidationInfo) -> Sort | None:
        if sort == "relevance" and info.data.get("q") is None:
            raise ValueError("relevance is an order of what q finds: without q there is none")
        return sort

    @field_validator("after")
    @classmethod
    def _goes_on(cls, token: str | None, info: ValidationInfo) -> str | None:
        if token is not None:
            order = _order(info.data.get("q"), info.data.get("sort"))
            key, _ = decode_page_token(token, order)
            if isinstance(key, str) is not order.endswith("title"):
                raise ValueError("is the end of a page in another order")
        return token

    def listing(self) -> Listing:
        """What is asked for."""
        sort = _order(self.q, self.sort)
        after = None if self.after is None else decode_page_token(self.after, sort)
        return Listing(self.q, tuple(dict.fromkeys(self.tag)), sort, after, self.limit, self.content)


def _order(q: str | None, sort: Sort | None) -> Sort:
    return sort or ("id" if q is None else "relevance")


@router.get("/", summary="List or search notes", response_model=list[NoteListed], responses={**READ, **TOO_MANY})
async def page(
    who: Who,
    requester: RequesterPart,
    queries: QueriesPart,
    feed: FeedPart,
    pools: PoolsPart,
    query: Annotated[ListQuery, Query()],
) -> Response:
    """Notes in an order. `Link: <…>; rel="next"` leads to the next page; the feed goes on from here at `X-Cursor`.

    Notes that do not change while pages are read are neither skipped nor repeated; those that change are on the feed.
    A search for words that are in very many notes is cut short if it would take too long: `X-Incomplete: true` says
    that there may be more notes than this page has, and that only these were put in order. Of a content, the text up to
    the 5,000th different word is searched.
    """
    cursor = feed.position  # before the notes: what changes while they are read comes again over the feed
    found = await queries.page(who, query.listing())
    headers = {"X-Cursor": str(cursor)}
    if not found.complete:
        headers["X-Incomplete"] = "true"
    if found.after is not None:
        given = query.model_dump(exclude_unset=True, exclude={"content"})
        if not query.content:
            given["content"] = "false"
        given |= {"limit": query.limit, "after": encode_page_token(query.listing().sort, *found.after)}
        headers["Link"] = link("/notes/", **given)
    if query.q is None:
        return Response(found.json, headers=headers, media_type="application/json")
    # In a thread: the words are looked for in all of the texts.
    notes = await pools.reads.run(requester, lambda: [_excerpted(note, query) for note in found.notes])
    return list_answer(notes, headers)


def _excerpted(note: dict[str, Any], query: ListQuery) -> dict[str, Any]:
    texts = (note["content"], note["description"], note["title"], " ".join(note["tags"]))
    shown = note if query.content else {name: value for name, value in note.items() if name != "content"}
    return {**shown, "snippet": snippet(query.q or "", *texts)}


@router.get(
    "/{id}/",
    summary="Read a note",
    response_model=Note,
    responses={**READ, **NOT_FOUND, 304: {"description": "Still at a version that `If-None-Match` names"}},
)
async def read(
    who: Who,
    queries: QueriesPart,
    id: Id,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """A note, with its version as `ETag`."""
    if if_none_match is not None:
        versions, version = versions_of(if_none_match, weak=True), await queries.current(who, id)
        if versions is None or version in versions:
            return Response(status_code=304, headers={"ETag": etag(version)})
    return answer(await queries.get(who, id))


CHANGES: dict[str, Any] = {
    "dependencies": [only("base_version")],
    "response_model": Merged,
    "responses": {**JSON_BODY, **WRITE, **NOT_FOUND, **STALE, **CONFLICT},
}


def _written(note: Note, base: int | None) -> Response:
    if base is None:
        return answer(note)
    # A write at its base makes the very next version; a later one was merged.
    merged = Merged.model_construct(**dict(note), merged=note.version > base + 1)
    return answer(merged)


def _check_id(note: NoteFields, id: int) -> None:
    """Reject a body whose ``id`` differs from the path."""
    if note.id is not None and (note.id != id or isinstance(note.id, bool)):
        message = f"does not match the id in the path. Omit it, or send {id}"
        raise RequestValidationError([{"type": "value_error", "loc": ("body", "id"), "msg": message}])


@router.put("/{id}/", summary="Replace a note", **CHANGES)
async def replace(
    who: Who, notes: NotesPart, id: Id, note: NotePut, versions: Allowed, operation: Once, base_version: Base = None
) -> Response:
    """Sets title and description; content and tags too when they are sent, else they stay."""
    _check_id(note, id)
    return _written(await notes.replace(who, id, note, versions, base_version, operation), base_version)


@router.patch(
    "/{id}/",
    summary="Change some fields",
    openapi_extra={
        "requestBody": {
            "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/NotePatch"}}}
        }
    },
    **CHANGES,
)
async def patch(
    who: Who, notes: NotesPart, id: Id, patch: NotePatch, versions: Allowed, operation: Once, base_version: Base = None
) -> Response:
    """A JSON merge patch (RFC 7396): sets what is sent; `null` empties content or tags."""
    _check_id(patch, id)
    note = await notes.patch(who, id, patch, versions, base_version, operation)
    return _written(note, base_version if patch.changes else None)


@router.post(
    "/{id}/content",
    dependencies=[only()],
    summary="Edit the text",
    response_model=Note,
    responses={**JSON_BODY, **WRITE, **NOT_FOUND, **STALE, **REFUSED},
)
async def edit(
    who: Who,
    notes: NotesPart,
    id: Id,
    edits: Annotated[
        Edits,
        Body(
            openapi_examples={
                "append": {"value": [{"op": "append", "text": "eggs\n"}]},
                "replace": {"value": [{"op": "replace", "find": "milk", "with": "oat milk"}]},
                "insert": {"value": [{"op": "insert", "after_heading": "To buy", "text": "butter\n"}]},
            }
        ),
    ],
    versions: Allowed,
    operation: Once,
) -> Response:
    """Applies text operations to the content, one after the other: all of them or none, in one version."""
    return answer(await notes.edit(who, id, edits, versions, operation))


@router.delete(
    "/{id}/",
    dependencies=[only()],
    summary="Delete a note",
    response_model=Note,
    responses={**WRITE, **NOT_FOUND, **STALE},
)
async def delete(who: Who, notes: NotesPart, id: Id, versions: Allowed, operation: Once) -> Response:
    """Moves a note into the trash and answers with it as it was."""
    return Response(json_of(await notes.delete(who, id, versions, operation)), media_type="application/json")
