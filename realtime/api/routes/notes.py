"""Routes for notes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationInfo, field_validator

from realtime.api.deps import (
    CurrentPrincipal,
    FeedDep,
    Id,
    IdempotentOperation,
    NotesDep,
    PoolsDep,
    QueriesDep,
    RequesterDep,
    WriteConditions,
    allow_query,
)
from realtime.api.etags import IfNoneMatch, versions_of
from realtime.api.fast_route import FastRoute
from realtime.api.pagination import After, PageQuery, decode_page_token, encode_page_token, link, list_response
from realtime.api.responses import (
    CURRENT,
    JSON_BODY,
    NOT_FOUND,
    READ,
    STALE,
    TOO_MANY,
    WRITE,
    error_responses,
    json_of,
    note_response,
)
from realtime.api.router import SlashRouter
from realtime.errors import BaseNotFound, EditRefused, MergeConflict
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
from realtime.notes.text_operations import TextOperations

router = SlashRouter(prefix="/notes", tags=["notes"], route_class=FastRoute)

CONFLICT = error_responses(
    MergeConflict(
        [
            {
                "field": "content",
                "base": {"start": 14, "end": 20, "text": "buns\n"},
                "current": {"start": 14, "end": 20, "text": "bread\n"},
                "yours": {"start": 14, "end": 24, "text": "rye bread\n"},
                "merged": {"start": 14, "end": 20, "text": "bread\n"},
            }
        ],
        {"content": "# To buy\nmilk\nrye bread\n"},
        {"content": "# To buy\nmilk\nbread\n"},
        CURRENT,
    ),
    BaseNotFound(1, CURRENT),
)
EDIT_REFUSED = error_responses(EditRefused(0, "replace", "the text", expected=1, actual=2, offsets=[12, 40]))
Base = Annotated[
    int | None,
    Query(
        ge=1,
        le=MAX_ID,
        description="the version that the change is based on; later changes are merged, and `merged` in the response"
        " says whether there were any",
        examples=[2],
    ),
]


class Merged(Note):
    """A note after a write, and whether the write was merged with other changes."""

    model_config = example(*EXAMPLE, merged=True)

    merged: bool = False


@router.post(
    "/",
    status_code=201,
    dependencies=[allow_query()],
    summary="Create a note",
    response_model=Note,
    responses={**JSON_BODY, **WRITE, 201: {"description": "Created; `Location` has the path, `ETag` the version"}},
)
async def create(
    principal: CurrentPrincipal, notes: NotesDep, note: NoteIn, operation: IdempotentOperation
) -> Response:
    """Create a note with the next id."""
    created = await notes.create(principal, note, operation)
    return note_response(created, 201, Location=f"/notes/{created.id}/")


class ListQuery(PageQuery):
    """The query parameters of a list of notes."""

    q: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description='words to find in title, description, content and tags, including `"a phrase"` and `-excluded`',
            examples=["milk -bread"],
        ),
        *STORABLE,
    ] = None
    tag: Annotated[list[Tag], Field(default_factory=list, max_length=32, description="only notes with all these tags")]
    sort: Annotated[
        Sort | None,
        Field(description="the order, descending with `-`; by default `id`, with `q` `relevance` and then `id`"),
    ] = None
    content: Annotated[bool, Field(description="`false` omits the content")] = True
    after: After = None

    @field_validator("sort")
    @classmethod
    def _check_sort(cls, sort: Sort | None, info: ValidationInfo) -> Sort | None:
        if sort == "relevance" and info.data.get("q") is None:
            raise ValueError("relevance requires q")
        return sort

    @field_validator("after")
    @classmethod
    def _check_token(cls, token: str | None, info: ValidationInfo) -> str | None:
        if token is not None:
            order = _order(info.data.get("q"), info.data.get("sort"))
            key, _ = decode_page_token(token, order)
            if isinstance(key, str) is not order.endswith("title"):
                raise ValueError("is a page token for another order")
        return token

    def listing(self) -> Listing:
        """Return the listing for this query."""
        sort = _order(self.q, self.sort)
        after = None if self.after is None else decode_page_token(self.after, sort)
        return Listing(self.q, tuple(dict.fromkeys(self.tag)), sort, after, self.limit, self.content)


def _order(q: str | None, sort: Sort | None) -> Sort:
    return sort or ("id" if q is None else "relevance")


@router.get("/", summary="List or search notes", response_model=list[NoteListed], responses={**READ, **TOO_MANY})
async def page(
    principal: CurrentPrincipal,
    requester: RequesterDep,
    queries: QueriesDep,
    feed: FeedDep,
    pools: PoolsDep,
    query: Annotated[ListQuery, Query()],
) -> Response:
    """Return a page of notes. `Link: <…>; rel="next"` has the next page; `X-Cursor` is the feed's current cursor.

    Notes that do not change between pages are neither skipped nor repeated; changes are on the feed after `X-Cursor`.
    A search with too many matches is stopped. The response then has `X-Incomplete: true`: more notes may match, and
    only the notes that were found before the stop are sorted. In a long content, only the text up to the 5,000th
    distinct word is searched.
    """
    cursor = feed.position  # before the notes, so that the feed repeats changes made during the query
    result = await queries.page(principal, query.listing())
    headers = {"X-Cursor": str(cursor)}
    if not result.complete:
        headers["X-Incomplete"] = "true"
    if result.after is not None:
        parameters = query.model_dump(exclude_unset=True, exclude={"content"})
        if not query.content:
            parameters["content"] = "false"
        parameters |= {"limit": query.limit, "after": encode_page_token(query.listing().sort, *result.after)}
        headers["Link"] = link("/notes/", **parameters)
    if query.q is None:
        return Response(result.json, headers=headers, media_type="application/json")
    # In a thread, because the snippets scan the whole texts.
    notes = await pools.reads.run(requester, lambda: [_with_snippet(note, query) for note in result.notes])
    return list_response(notes, headers)


def _with_snippet(note: dict[str, Any], query: ListQuery) -> dict[str, Any]:
    texts = (note["content"], note["description"], note["title"], " ".join(note["tags"]))
    fields = note if query.content else {name: value for name, value in note.items() if name != "content"}
    return {**fields, "snippet": snippet(query.q or "", *texts)}


@router.get(
    "/{id}/",
    summary="Read a note",
    response_model=Note,
    responses={**READ, **NOT_FOUND, 304: {"description": "The note is at a version in `If-None-Match`"}},
)
async def read(
    principal: CurrentPrincipal,
    queries: QueriesDep,
    id: Id,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return a note, with its version as `ETag`."""
    if if_none_match is not None:
        versions, version = versions_of(if_none_match, weak=True), await queries.current(principal, id)
        if versions is None or version in versions:
            return Response(status_code=304, headers={"ETag": etag(version)})
    return note_response(await queries.get(principal, id))


WRITE_OPTIONS: dict[str, Any] = {
    "dependencies": [allow_query("base_version")],
    "response_model": Merged,
    "responses": {**JSON_BODY, **WRITE, **NOT_FOUND, **STALE, **CONFLICT},
}


def _write_response(note: Note, base: int | None, content: str | None) -> Response:
    if base is None:
        return note_response(note)
    # An unmerged write creates the version right after its base. Typed text is merged before it becomes a version.
    merged = note.version > base + 1 or content not in (None, note.content)
    return note_response(Merged.model_construct(**dict(note), merged=merged))


def _check_id(note: NoteFields, id: int) -> None:
    """Raise an error if the ``id`` in the body differs from the path."""
    if note.id is not None and (note.id != id or isinstance(note.id, bool)):
        message = f"does not match the id in the path. Omit it or send {id}"
        raise RequestValidationError([{"type": "value_error", "loc": ("body", "id"), "msg": message}])


@router.put("/{id}/", summary="Replace a note", **WRITE_OPTIONS)
async def replace(
    principal: CurrentPrincipal,
    notes: NotesDep,
    id: Id,
    note: NotePut,
    conditions: WriteConditions,
    base_version: Base = None,
) -> Response:
    """Replace the title and the description, and also the content and the tags if they are sent."""
    _check_id(note, id)
    stored = await notes.replace(principal, id, note, conditions, base_version)
    return _write_response(stored, base_version, note.changes.get("content"))


@router.patch(
    "/{id}/",
    summary="Update a note",
    openapi_extra={
        "requestBody": {
            "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/NotePatch"}}}
        }
    },
    **WRITE_OPTIONS,
)
async def patch(
    principal: CurrentPrincipal,
    notes: NotesDep,
    id: Id,
    patch: NotePatch,
    conditions: WriteConditions,
    base_version: Base = None,
) -> Response:
    """Apply a JSON merge patch (RFC 7396): set the fields that are sent. `null` clears content or tags."""
    _check_id(patch, id)
    note = await notes.patch(principal, id, patch, conditions, base_version)
    return _write_response(note, base_version if patch.changes else None, patch.changes.get("content"))


@router.post(
    "/{id}/content",
    dependencies=[allow_query()],
    summary="Edit the content",
    response_model=Note,
    responses={**JSON_BODY, **WRITE, **NOT_FOUND, **STALE, **EDIT_REFUSED},
)
async def edit(
    principal: CurrentPrincipal,
    notes: NotesDep,
    id: Id,
    edits: Annotated[
        TextOperations,
        Body(
            openapi_examples={
                "append": {"value": [{"op": "append", "text": "eggs\n"}]},
                "replace": {"value": [{"op": "replace", "find": "milk", "with": "oat milk"}]},
                "insert": {"value": [{"op": "insert", "after_heading": "To buy", "text": "butter\n"}]},
            }
        ),
    ],
    conditions: WriteConditions,
) -> Response:
    """Apply text operations to the content in order, as one version. If one fails, none is applied."""
    return note_response(await notes.edit(principal, id, edits, conditions))


@router.delete(
    "/{id}/",
    dependencies=[allow_query()],
    summary="Delete a note",
    response_model=Note,
    responses={**WRITE, **NOT_FOUND, **STALE},
)
async def delete(principal: CurrentPrincipal, notes: NotesDep, id: Id, conditions: WriteConditions) -> Response:
    """Move a note to the trash, and return its last state."""
    return Response(json_of(await notes.delete(principal, id, conditions)), media_type="application/json")
