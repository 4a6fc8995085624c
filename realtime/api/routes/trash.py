"""Routes for the trash."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import field_validator

from realtime.api.deps import CurrentPrincipal, Id, NotesDep, QueriesDep, WriteConditions, allow_query
from realtime.api.pagination import After, PageQuery, decode_page_token, encode_page_token, link, list_response
from realtime.api.responses import NOT_FOUND, READ, STALE, WRITE, note_response
from realtime.api.router import SlashRouter
from realtime.notes.models import Note, Trashed

router = SlashRouter(prefix="/trash", tags=["trash"])

ORDER = "trash"


class TrashQuery(PageQuery):
    """The query parameters of the trash."""

    after: After = None

    @field_validator("after")
    @classmethod
    def _check_token(cls, token: str | None) -> str | None:
        if token is not None and isinstance(decode_page_token(token, ORDER)[0], str):
            raise ValueError("is a page token for another order")
        return token


@router.get("/", summary="List the trash", response_model=list[Trashed], responses=READ)
async def trash(principal: CurrentPrincipal, queries: QueriesDep, query: Annotated[TrashQuery, Query()]) -> Response:
    """Return deleted notes, latest deletion first. They are purged after `REALTIME_TRASH_DAYS` days."""
    after = None if query.after is None else decode_page_token(query.after, ORDER)
    notes, end = await queries.trash(principal, after, query.limit)
    headers = {}
    if end is not None:
        headers["Link"] = link("/trash/", limit=query.limit, after=encode_page_token(ORDER, *end))
    return list_response(notes, headers)


@router.get("/{id}/", summary="Read a deleted note", response_model=Trashed, responses={**READ, **NOT_FOUND})
async def read(principal: CurrentPrincipal, queries: QueriesDep, id: Id) -> Response:
    """Return a note in the trash, with its version as `ETag`."""
    return note_response(await queries.trashed(principal, id))


@router.post(
    "/{id}/restore",
    dependencies=[allow_query()],
    summary="Restore a deleted note",
    response_model=Note,
    responses={**WRITE, **NOT_FOUND, **STALE},
)
async def restore(principal: CurrentPrincipal, notes: NotesDep, id: Id, conditions: WriteConditions) -> Response:
    """Restore a note from the trash with its id. Its version increases by 1."""
    return note_response(await notes.undelete(principal, id, conditions))


@router.delete(
    "/{id}/",
    status_code=204,
    dependencies=[allow_query()],
    summary="Purge a deleted note",
    responses={**WRITE, **NOT_FOUND, **STALE, 204: {"description": "Purged"}},
)
async def purge(principal: CurrentPrincipal, notes: NotesDep, id: Id, conditions: WriteConditions) -> Response:
    """Permanently delete a note in the trash and its history. Its id is not used again."""
    await notes.purge(principal, id, conditions)
    return Response(status_code=204)
