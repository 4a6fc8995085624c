"""Routes for export and import."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import File, Header, Query, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import StreamingResponse

from realtime.api.deps import (
    CurrentPrincipal,
    IdempotencyKey,
    NotesDep,
    PoolsDep,
    QueriesDep,
    RequesterDep,
    allow_query,
    current_principal,
    operation_of,
)
from realtime.api.requests import qualities_of
from realtime.api.responses import INVALID, READ, WRITE, Responses, error_response, error_responses
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.auth.permissions import may_set_ids_and_dates
from realtime.errors import IdsTaken, ImportRefused, NotSignedIn, RealtimeError
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
    "changed": [{"file": "old.md", "reason": "encoding: is not UTF-8 and was read as Windows-1252"}],
}


@router.get(
    "/export",
    summary="Export all notes",
    response_class=Response,
    responses={
        **READ,
        200: {
            "description": "A zip archive of Markdown files with YAML front matter; `X-Total-Count` is approximate",
            "content": {ZIP: {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
async def export(
    request: Request, principal: CurrentPrincipal, requester: RequesterDep, queries: QueriesDep, pools: PoolsDep
) -> Response:
    """Return all notes as Markdown files in a zip archive, which is created while it is sent."""
    count = await queries.count(principal)
    pack = partial(pools.exports.run, requester)  # one thread for all, as each keeps the memory that it used
    chunks = _zip_chunks(request, queries.every(principal), pack)
    audit = services_of(request).audit
    if audit is not None:
        audit.add_hourly("export", principal, None)
    first = await anext(chunks)  # before the response starts, so that a database error gets its status

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    name = f"notes-{datetime.now(UTC):%Y-%m-%d}.zip"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Total-Count": str(count)}
    return StreamingResponse(body(), headers=headers, media_type=ZIP)


async def _zip_chunks(
    request: Request, batches: AsyncIterator[Sequence[Note]], run: Callable[[Callable[[], bytes]], Awaitable[bytes]]
) -> AsyncIterator[bytes]:
    with contextlib.closing(ZipWriter()) as writer:
        async for notes in batches:
            yield await run(partial(bundle.pack, writer, notes))
            try:
                await current_principal(request)
            except NotSignedIn:
                return  # the archive is invalid without its end, so that it cannot be mistaken for a complete one
        for chunk in writer.end():
            yield chunk


class FileRemark(BaseModel):
    """A file of an import that was skipped or changed, with the reason."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"file": "image.png", "reason": NOT_MARKDOWN}]})

    file: Annotated[str, Field(description="the name, inside its archive if there is one; long names are shortened")]
    reason: Annotated[str, Field(description="the reasons, separated by semicolons")]


class Imported(BaseModel):
    """The result of an import."""

    model_config = ConfigDict(json_schema_extra={"examples": [IMPORTED]})

    imported: Annotated[int, Field(description="number of imported notes")]
    ids: Annotated[list[int], Field(description="ids of the imported notes, in the order of the files")]
    skipped: Annotated[list[FileRemark], Field(description="files that were not imported")]
    changed: Annotated[list[FileRemark], Field(description="files that were imported with changes")]


IMPORT: Responses = {
    400: error_response("The body is not a valid multipart form", "There was an error parsing the body"),
    **WRITE,
    **INVALID,
    **error_responses(IdsTaken([1, 2])),
    200: {
        "description": f"Imported. With `Accept: {NDJSON}`, lines of JSON report the progress. The last line is the"
        " result, or has a `detail` if the import failed",
        "content": {
            "application/json": {"example": IMPORTED},
            NDJSON: {"example": f'{{"imported": 2, "of": 2}}\n{json.dumps(IMPORTED)}\n'},
        },
    },
}


@router.post(
    "/import", dependencies=[allow_query("keep_ids")], summary="Import notes", response_model=Imported, responses=IMPORT
)
async def bring_in(
    request: Request,
    principal: CurrentPrincipal,
    requester: RequesterDep,
    notes: NotesDep,
    pools: PoolsDep,
    files: Annotated[list[UploadFile], File(min_length=1, description="Markdown files, or zip archives of them")],
    keep_ids: Annotated[
        bool, Query(description="use the ids in the front matter instead of the next free ones")
    ] = False,
    idempotency_key: IdempotencyKey = None,
    accept: Annotated[str, Header(description=f"`{NDJSON}` for progress reports")] = "",
) -> Response:
    """Create notes from Markdown files that were exported from this server or written by any other program.

    Files are changed if necessary, and skipped if they cannot be imported. The response lists both with the reasons. If
    nothing can be imported, or the import exceeds a limit, the response is 422. All files are read before anything is
    written. With an `Idempotency-Key`, a repeated request creates only the missing notes, and has the same response.
    """
    unknown = sorted({name for name, _ in (await request.form()).multi_items()} - {"files"})
    if unknown:
        raise ImportRefused(f"{unknown[0][:100]}: unknown field. Send each file in a field named files")
    sources = [(file.filename or "", file.file) for file in files]
    keep_dates = may_set_ids_and_dates(principal)
    contents = await pools.imports.run(
        requester, partial(bundle.check, sources, keep_ids=keep_ids, keep_dates=keep_dates)
    )
    operation = None
    if idempotency_key is not None:
        operation = await asyncio.to_thread(operation_of, request, idempotency_key, bundle.chunks(sources))
    created = notes.import_notes(
        principal, bundle.notes_in(sources), contents.count, contents.ids if keep_ids else None, operation
    )
    lines = _progress(request, created, contents)
    if qualities_of(accept).get(NDJSON):
        first = await anext(lines)  # before the response starts, so that an error gets its status

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


async def _progress(
    request: Request, created: AsyncIterator[Sequence[int]], contents: bundle.ImportedContents
) -> AsyncIterator[bytes]:
    ids: list[int] = []
    await current_principal(request)  # the session may have ended while the files were read
    async for chunk in created:
        ids += chunk
        yield json.dumps({"imported": len(ids), "of": contents.count}).encode() + b"\n"
        await current_principal(request)  # before the next notes are created
    result = {
        "imported": len(ids),
        "ids": ids,
        "skipped": _remarks(contents.skipped),
        "changed": _remarks(contents.changed),
    }
    yield await asyncio.to_thread(to_json, result) + b"\n"


def _remarks(remarks: Sequence[bundle.Remark]) -> list[dict[str, str]]:
    return [remark._asdict() for remark in remarks]
