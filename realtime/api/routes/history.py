"""The routes of a note's history."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header, Path, Query, Response
from pydantic import BaseModel, Field, field_validator
from starlette.responses import PlainTextResponse

from realtime.api.deps import Id, NotesPart, Once, QueriesPart, RequesterPart, Version, Who, only
from realtime.api.etags import Allowed
from realtime.api.pagination import After, PageQuery, decode_page_token, encode_page_token, link, list_answer
from realtime.api.responses import JSON_BODY, NO_VERSION, NOT_FOUND, READ, STALE, TOO_MANY, WRITE, answer, json_of
from realtime.api.router import SlashRouter
from realtime.notes.models import MAX_ID, Integral, Model, Note, Revision, RevisionText, example

router = SlashRouter(prefix="/notes/{id}", tags=["history"])

ORDER = "history"


class HistoryQuery(PageQuery):
    """The query of a history."""

    after: After = None

    @field_validator("after")
    @classmethod
    def _goes_on(cls, token: str | None) -> str | None:
        if token is not None:
            decode_page_token(token, ORDER)
        return token


@router.get("/history/", summary="List the versions", response_model=list[Revision], responses={**READ, **NOT_FOUND})
async def history(who: Who, queries: QueriesPart, id: Id, query: Annotated[HistoryQuery, Query()]) -> Response:
    """The versions of a note, the newest first: when, by whom, how, and which fields changed.

    All of the last `REALTIME_HISTORY_DAYS` are there; of the days before, the last of each.
    """
    before = MAX_ID + 1 if query.after is None else decode_page_token(query.after, ORDER)[1]
    revisions, more = await queries.history(who, id, before, query.limit)
    headers = {}
    if more:
        last = revisions[-1].version
        headers["Link"] = link(f"/notes/{id}/history/", limit=query.limit, after=encode_page_token(ORDER, last, last))
    return list_answer(revisions, headers)


@router.get(
    "/history/{version}/",
    summary="Read a version",
    response_model=RevisionText,
    responses={**READ, **NO_VERSION},
)
async def version(who: Who, queries: QueriesPart, id: Id, version: Version) -> Response:
    """A note as it was at a version."""
    return Response(json_of(await queries.version(who, id, version)), media_type="application/json")


class HunkOut(BaseModel):
    """Changed lines and some around them, each with a blank, `-` or `+` before it. Lines count from 1."""

    from_line: int
    from_lines: int
    to_line: int
    to_lines: int
    lines: list[str]


class DifferenceOut(BaseModel):
    """What changed between two versions: for each field that did, its hunks."""

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
            "description": "As `Accept` asks: a unified diff (`text/x-diff`, `text/plain`; the default), or JSON",
            "content": {"text/x-diff": {"schema": {"type": "string"}, "example": DIFF}},
        },
    },
)
async def difference(
    who: Who,
    requester: RequesterPart,
    queries: QueriesPart,
    id: Id,
    versions: Annotated[str, Path(pattern=RANGE, description="`<a>..<b>`", examples=["2..3"])],
    accept: Annotated[str, Header(description="`application/json` for hunks")] = "",
) -> Response:
    """What changed from one version to another, in each field, by lines."""
    match = re.match(RANGE, versions)
    assert match is not None
    before, after = map(int, match.groups())
    found = await queries.difference(who, id, before, after, requester)
    headers = {"Vary": "Accept"}
    if _wants_json(accept):
        fields = {
            name: [HunkOut.model_validate(hunk, from_attributes=True) for hunk in hunks]
            for name, hunks in found.fields.items()
        }
        body = DifferenceOut(id=id, before=found.before, after=found.after, fields=fields)
        return Response(json_of(body), headers=headers, media_type="application/json")
    text = "".join(
        f"--- {id}/{name} version {found.before}\n+++ {id}/{name} version {found.after}\n{''.join(map(str, hunks))}"
        for name, hunks in found.fields.items()
    )
    return PlainTextResponse(text, headers=headers, media_type="text/x-diff")


def _wants_json(accept: str) -> bool:
    """Whether JSON is liked better than text (RFC 9110, section 12.5.1)."""
    likes = {"json": 0.0, "text": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        match = next((re.fullmatch(r"q=([01](?:\.[0-9]{0,3})?)", one) for one in parameters if one[:2] == "q="), None)
        quality = float(match[1]) if match else 1.0
        if kind == "application/json":
            likes["json"] = quality
        elif kind in ("text/x-diff", "text/plain", "text/*", "*/*"):
            likes["text"] = max(likes["text"], quality)
    return likes["json"] > 0 and likes["json"] >= likes["text"]


class Restore(Model):
    """The version to go back to."""

    model_config = example(version=2)

    version: Annotated[int, Field(ge=1, le=MAX_ID, examples=[2]), Integral]


@router.post(
    "/restore",
    dependencies=[only()],
    summary="Go back to a version",
    response_model=Note,
    responses={**JSON_BODY, **WRITE, **NO_VERSION, **STALE},
)
async def restore(who: Who, notes: NotesPart, id: Id, wanted: Restore, versions: Allowed, operation: Once) -> Response:
    """Makes an earlier version the newest one. Nothing is lost: what was there stays in the history."""
    return answer(await notes.restore(who, id, wanted.version, versions, operation))
