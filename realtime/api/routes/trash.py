"""The routes of the trash."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import field_validator

from realtime.api.deps import Id, NotesPart, Once, QueriesPart, Who, only
from realtime.api.etags import Allowed
from realtime.api.pagination import After, PageQuery, decode_page_token, encode_page_token, link, list_answer
from realtime.api.responses import NOT_FOUND, READ, STALE, WRITE, answer
from realtime.api.router import SlashRouter
from realtime.notes.models import Note, Trashed

router = SlashRouter(prefix="/trash", tags=["trash"])

ORDER = "trash"


class TrashQuery(PageQuery):
    """The query of the trash."""

    after: After = None

    @field_validator("after")
    @classmethod
    def _goes_on(cls, token: str | None) -> str | None:
        if token is not None and isinstance(decode_page_token(token, ORDER)[0], str):
            raise ValueError("is the end of a page in another order")
        return token


@router.get("/", summary="List the trash", response_model=list[Trashed], responses=READ)
async def trash(who: Who, queries: QueriesPart, query: Annotated[TrashQuery, Query()]) -> Response:
    """Deleted notes, the last deleted first. After `REALTIME_TRASH_DAYS` they are gone for good."""
    after = None if query.after is None else decode_page_token(query.after, ORDER)
    found, end = await queries.trash(who, after, query.limit)
    headers = {}
    if end is not None:
        headers["Link"] = link("/trash/", limit=query.limit, after=encode_page_token(ORDER, *end))
    return list_answer(found, headers)


@router.get("/{id}/", summary="Read a deleted note", response_model=Trashed, responses={**READ, **NOT_FOUND})
async def read(who: Who, queries: QueriesPart, id: Id) -> Response:
    """A note in the trash, with its version as `ETag`."""
    return answer(await queries.trashed(who, id))


@router.post(
    "/{id}/restore",
    dependencies=[only()],
    summary="Take a note out of the trash",
    response_model=Note,
    responses={**WRITE, **NOT_FOUND, **STALE},
)
async def restore(who: Who, notes: NotesPart, id: Id, versions: Allowed, operation: Once) -> Response:
    """The note is back under its id, and goes on counting its version."""
    return answer(await notes.undelete(who, id, versions, operation))


@router.delete(
    "/{id}/",
    status_code=204,
    dependencies=[only()],
    summary="Delete a note for good",
    responses={**WRITE, **NOT_FOUND, **STALE, 204: {"description": "Gone, with its history"}},
)
async def purge(who: Who, notes: NotesPart, id: Id, versions: Allowed, operation: Once) -> Response:
    """Deletes a note in the trash and its history. Its id is not used again."""
    await notes.purge(who, id, versions, operation)
    return Response(status_code=204)
