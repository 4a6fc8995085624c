"""The routes of export and import."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import File, Header, Query, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import StreamingResponse

from realtime.api.deps import (
    Key,
    NotesPart,
    PoolsPart,
    QueriesPart,
    RequesterPart,
    Who,
    only,
    operation_of,
    require_connected,
)
from realtime.api.responses import INVALID, READ, WRITE, Answers, problem
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.auth.permissions import may_set_ids_and_dates
from realtime.errors import ImportRefused, NotSignedIn, RealtimeError
from realtime.notes.models import Note
from realtime.transfer import bundle
from realtime.transfer.zip_stream import NOT_MARKDOWN, ZipWriter

router = SlashRouter(tags=["export and import"])

NDJSON = "application/x-ndjson"
ZIP = "application/zip"
IMPORTED: dict[str, Any] = {
    "imported": 2,
    "ids": [1, 2],
    "skipped": [{"file": "image.png", "reason": NOT_MARKDOWN}],
    "changed": [{"file": "old.md", "reason": "encoding: was read as Windows-1252, as it is not UTF-8"}],
}


@router.get(
    "/export",
    summary="Export all notes",
    response_class=Response,
    responses={
        **READ,
        200: {
            "description": "A zip of Markdown files with YAML front matter; `X-Total-Count` is about how many",
            "content": {ZIP: {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
async def export(request: Request, who: Who, queries: QueriesPart) -> Response:
    """All notes, one Markdown file each, as a zip that is made while it is sent."""
    count = await queries.count(who)
    pieces = _zipped(request, queries.every(who))
    audit = services_of(request).audit
    if audit is not None:
        audit.add_hourly("export", who, None)
    first = await anext(pieces)  # before the answer begins, so that a database that is away is told properly

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    name = f"notes-{datetime.now(UTC):%Y-%m-%d}.zip"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Total-Count": str(count)}
    return StreamingResponse(body(), headers=headers, media_type=ZIP)


async def _zipped(request: Request, batches: AsyncIterator[Sequence[Note]]) -> AsyncIterator[bytes]:
    with contextlib.closing(ZipWriter()) as writer:
        async for notes in batches:
            yield await asyncio.to_thread(bundle.pack, writer, notes)
            try:
                await require_connected(request)
            except NotSignedIn:
                return  # an archive without its end is none: nobody takes it for all there is
        for piece in writer.end():
            yield piece


class FileRemark(BaseModel):
    """A file of an import that was skipped or changed, and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"file": "image.png", "reason": NOT_MARKDOWN}]})

    file: Annotated[str, Field(description="the name, within its archive if it has one; cut in the middle if long")]
    reason: Annotated[str, Field(description="one or more reasons, with semicolons between them")]


class Imported(BaseModel):
    """The result of an import."""

    model_config = ConfigDict(json_schema_extra={"examples": [IMPORTED]})

    imported: Annotated[int, Field(description="how many notes")]
    ids: Annotated[list[int], Field(description="their ids, in the order of the files")]
    skipped: Annotated[list[FileRemark], Field(description="every file that did not become a note")]
    changed: Annotated[list[FileRemark], Field(description="every file that became a note, but not just as it was")]


IMPORT: Answers = {
    400: problem("The body is no form with files", "There was an error parsing the body"),
    **WRITE,
    **INVALID,
    409: problem(
        "With `keep_ids`: there are, or were, notes with some of the ids",
        "keep_ids: there are, or were, notes with these ids: 1, 2",
        {"ids": [1, 2]},
        ids={"type": "array", "items": {"type": "integer"}},
    ),
    200: {
        "description": f"Imported. With `Accept: {NDJSON}` a line of JSON tells how far it is, again and again, and the"
        " last one is the answer, or has a `detail` if it failed on the way",
        "content": {
            "application/json": {"example": IMPORTED},
            NDJSON: {"example": f'{{"imported": 2, "of": 2}}\n{json.dumps(IMPORTED)}\n'},
        },
    },
}


@router.post(
    "/import", dependencies=[only("keep_ids")], summary="Import notes", response_model=Imported, responses=IMPORT
)
async def bring_in(
    request: Request,
    who: Who,
    requester: RequesterPart,
    notes: NotesPart,
    pools: PoolsPart,
    files: Annotated[list[UploadFile], File(min_length=1, description="Markdown files, or zip archives of them")],
    keep_ids: Annotated[bool, Query(description="under the ids in the front matter, else under the next ones")] = False,
    idempotency_key: Key = None,
    accept: Annotated[str, Header(description=f"`{NDJSON}` to be told how far it is")] = "",
) -> Response:
    """Makes notes from Markdown files, as an export has them or of any other program.

    A file that can be adapted is adapted, one that cannot become a note is skipped, and the answer lists all of them
    with a reason. If nothing can be imported, or a limit on the whole import is exceeded, the answer is 422. All files
    are read before anything is written. With an `Idempotency-Key`, a repeat makes what is missing and has the same
    answer.
    """
    others = sorted({name for name, _ in (await request.form()).multi_items()} - {"files"})
    if others:
        raise ImportRefused(f"{others[0][:100]}: there is no such field; send each file in a field named files")
    sources = [(file.filename or "", file.file) for file in files]
    keep_dates = may_set_ids_and_dates(who)
    found = await pools.imports.run(requester, partial(bundle.check, sources, keep_ids=keep_ids, keep_dates=keep_dates))
    operation = None
    if idempotency_key is not None:
        operation = await asyncio.to_thread(operation_of, request, idempotency_key, bundle.chunks(sources))
    made = notes.import_notes(who, bundle.notes_in(sources), found.count, found.ids if keep_ids else None, operation)
    lines = _told(request, made, found)
    if NDJSON in accept.lower():
        first = await anext(lines)  # before the answer begins, so that a refusal has its status

        async def body() -> AsyncIterator[bytes]:
            yield first
            try:
                async for line in lines:
                    yield line
            except RealtimeError as error:
                yield json.dumps({"detail": error.detail, **error.extra()}).encode() + b"\n"

        return StreamingResponse(body(), media_type=NDJSON)
    async for last in lines:
        line = last
    return Response(line, media_type="application/json")


async def _told(
    request: Request, made: AsyncIterator[Sequence[int]], found: bundle.ImportedContents
) -> AsyncIterator[bytes]:
    ids: list[int] = []
    await require_connected(request)  # reading the files may have taken its time
    async for some in made:
        ids += some
        yield json.dumps({"imported": len(ids), "of": found.count}).encode() + b"\n"
        await require_connected(request)  # before the next ones are made
    answer = {"imported": len(ids), "ids": ids, "skipped": _remarks(found.skipped), "changed": _remarks(found.changed)}
    yield await asyncio.to_thread(to_json, answer) + b"\n"


def _remarks(remarks: Sequence[bundle.Remark]) -> list[dict[str, str]]:
    return [remark._asdict() for remark in remarks]
