"""Routes for the history of a note."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header, Path, Query, Response
from pydantic import BaseModel, Field, field_validator
from starlette.responses import PlainTextResponse

from realtime.api.deps import (
    CurrentPrincipal,
    Id,
    NotesDep,
    QueriesDep,
    RequesterDep,
    Version,
    WriteConditions,
    allow_query,
)
from realtime.api.pagination import After, PageQuery, decode_page_token, encode_page_token, link, list_response
from realtime.api.requests import qualities_of
from realtime.api.responses import (
    JSON_BODY,
    NO_VERSION,
    NOT_FOUND,
    READ,
    STALE,
    TOO_MANY,
    WRITE,
    json_of,
    note_response,
)
from realtime.api.router import SlashRouter
from realtime.notes.models import MAX_ID, Integral, Model, Note, Revision, RevisionText, example

router = SlashRouter(prefix="/notes/{id}", tags=["history"])

ORDER = "history"


class HistoryQuery(PageQuery):
    """The query parameters of a history."""

    after: After = None

    @field_validator("after")
    @classmethod
    def _check_token(cls, token: str | None) -> str | None:
        if token is not None:
            decode_page_token(token, ORDER)
        return token


@router.get("/history/", summary="List the versions", response_model=list[Revision], responses={**READ, **NOT_FOUND})
async def history(
    principal: CurrentPrincipal, queries: QueriesDep, id: Id, query: Annotated[HistoryQuery, Query()]
) -> Response:
    """Return the versions of a note, newest first, with their date, author, action and changed fields.

    All versions of the last `REALTIME_HISTORY_DAYS` days are kept, and of older versions, the last one of each day.
    """
    before = MAX_ID + 1 if query.after is None else decode_page_token(query.after, ORDER)[1]
    revisions, more = await queries.history(principal, id, before, query.limit)
    headers = {}
    if more:
        last = revisions[-1].version
        headers["Link"] = link(f"/notes/{id}/history/", limit=query.limit, after=encode_page_token(ORDER, last, last))
    return list_response(revisions, headers)


@router.get(
    "/history/{version}/",
    summary="Read a version",
    response_model=RevisionText,
    responses={**READ, **NO_VERSION},
)
async def version(principal: CurrentPrincipal, queries: QueriesDep, id: Id, version: Version) -> Response:
    """Return the note as it was at a version."""
    return Response(json_of(await queries.version(principal, id, version)), media_type="application/json")


class HunkOut(BaseModel):
    """Changed lines and their context, each prefixed with a space, `-` or `+`. Line numbers start at 1."""

    from_line: int
    from_lines: int
    to_line: int
    to_lines: int
    lines: list[str]


class DifferenceOut(BaseModel):
    """The changes between two versions: the hunks of each changed field."""

    model_config = example(
        "id",
        before=2,
        after=3,
        fields={
            "content": [
                {
                    "from_line": 1,
                    "from_lines": 3,
                    "to_line": 1,
                    "to_lines": 3,
                    "lines": [" # To buy\n", " milk\n", "-buns\n", "+bread\n"],
                }
            ]
        },
    )

    id: int
    before: int
    after: int
    fields: dict[str, list[HunkOut]]


RANGE = r"^([1-9][0-9]{0,15})\.\.([1-9][0-9]{0,15})$"
DIFF = """\
--- 1/content version 2
+++ 1/content version 3
@@ -1,3 +1,3 @@
 # To buy
 milk
-buns
+bread
"""


@router.get(
    "/history/{versions}/diff",
    summary="Compare two versions",
    response_model=DifferenceOut,
    responses={
        **READ,
        **NO_VERSION,
        **TOO_MANY,
        200: {
            "description": "A unified diff, or JSON if `Accept` prefers it",
            "content": {"text/x-diff": {"schema": {"type": "string"}, "example": DIFF}},
        },
    },
)
async def difference(
    principal: CurrentPrincipal,
    requester: RequesterDep,
    queries: QueriesDep,
    id: Id,
    versions: Annotated[str, Path(pattern=RANGE, description="`<a>..<b>`", examples=["2..3"])],
    accept: Annotated[str, Header(description="`application/json` for JSON")] = "",
) -> Response:
    """Return the changed lines of each field between two versions."""
    match = re.match(RANGE, versions)
    assert match is not None
    before, after = map(int, match.groups())
    diff = await queries.difference(principal, id, before, after, requester)
    headers = {"Vary": "Accept"}
    if _wants_json(accept):
        fields = {
            name: [HunkOut.model_validate(hunk, from_attributes=True) for hunk in hunks]
            for name, hunks in diff.fields.items()
        }
        body = DifferenceOut(id=id, before=diff.before, after=diff.after, fields=fields)
        return Response(json_of(body), headers=headers, media_type="application/json")
    text = "".join(
        f"--- {id}/{name} version {diff.before}\n+++ {id}/{name} version {diff.after}\n{''.join(map(str, hunks))}"
        for name, hunks in diff.fields.items()
    )
    return PlainTextResponse(text, headers=headers, media_type="text/x-diff")


def _wants_json(accept: str) -> bool:
    """Return whether an ``Accept`` header prefers JSON to text (RFC 9110, section 12.5.1)."""
    qualities = qualities_of(accept)
    text = max(qualities.get(media_type, 0.0) for media_type in ("text/x-diff", "text/plain", "text/*", "*/*"))
    json = qualities.get("application/json", 0.0)
    return json > 0 and json >= text


class Restore(Model):
    """The version to restore."""

    model_config = example(version=2)

    version: Annotated[int, Field(ge=1, le=MAX_ID, examples=[2]), Integral]


@router.post(
    "/restore",
    dependencies=[allow_query()],
    summary="Restore a version",
    response_model=Note,
    responses={**JSON_BODY, **WRITE, **NO_VERSION, **STALE},
)
async def restore(
    principal: CurrentPrincipal,
    notes: NotesDep,
    id: Id,
    body: Restore,
    conditions: WriteConditions,
) -> Response:
    """Write the content of an earlier version as a new version. The history keeps all versions."""
    return note_response(await notes.restore(principal, id, body.version, conditions))
