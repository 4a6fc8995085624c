"""The routes of export and import."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Annotated

from fastapi import File, Header, Query, Request, Response, UploadFile
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from realtime.archive import MOST_FILES, ZipWriter, read_zip
from realtime.errors import ImportRefused, RealtimeError
from realtime.markdown import FILE_BYTES, file_name, from_markdown, to_markdown
from realtime.models import Note, NoteIn
from realtime.rest.common import (
    INVALID,
    READ,
    WRITE,
    Answers,
    Key,
    NotesPart,
    QueriesPart,
    json_of,
    operation_of,
    problem,
)
from realtime.routing import SlashRouter

router = SlashRouter(tags=["export and import"])

NDJSON = "application/x-ndjson"
ZIP = "application/zip"
CHUNK = 1024 * 1024
SHOWN = 100


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
async def export(queries: QueriesPart) -> Response:
    """All notes, one Markdown file each, as a zip that is made while it is sent."""
    count = await queries.count()
    pieces = _zipped(queries.every())
    first = await anext(pieces)  # before the answer begins, so that a database that is away is told properly

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    name = f"notes-{datetime.now(UTC):%Y-%m-%d}.zip"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Total-Count": str(count)}
    return StreamingResponse(body(), headers=headers, media_type=ZIP)


async def _zipped(batches: AsyncIterator[Sequence[Note]]) -> AsyncIterator[bytes]:
    writer = ZipWriter()

    def packed(notes: Sequence[Note]) -> bytes:
        return b"".join(writer.file(file_name(note), to_markdown(note).encode(), note.updated_date) for note in notes)

    async for notes in batches:
        yield await asyncio.to_thread(packed, notes)
    for piece in writer.end():
        yield piece


class Imported(BaseModel):
    """What an import made."""

    imported: Annotated[int, Field(description="how many notes", examples=[2])]
    ids: Annotated[list[int], Field(description="their ids, in the order of the files", examples=[[1, 2]])]
    skipped: Annotated[list[str], Field(description="files that are no Markdown; at most 100 are named")]


IMPORT: Answers = {
    400: problem("The body is no form with files", "There was an error parsing the body"),
    **WRITE,
    **INVALID,
    409: problem(
        "With `keep_ids`: there are, or were, notes with some of the ids. Nothing was written",
        "keep_ids: there are, or were, notes with these ids: 1, 2",
        {"ids": [1, 2]},
        ids={"type": "array", "items": {"type": "integer"}},
    ),
    200: {
        "description": f"Imported. With `Accept: {NDJSON}` a line of JSON tells how far it is, again and again, and the"
        " last one is the answer, or has a `detail` if it failed on the way",
        "content": {
            "application/json": {"example": {"imported": 2, "ids": [1, 2], "skipped": ["image.png"]}},
            NDJSON: {"example": '{"imported": 1, "of": 1}\n{"imported": 1, "ids": [1], "skipped": []}\n'},
        },
    },
}


@dataclass(frozen=True, slots=True)
class _Found:
    """What files hold, once they were read from the beginning to the end."""

    many: int
    ids: Sequence[int]
    skipped: Sequence[str]


@router.post("/import", summary="Import notes", response_model=Imported, responses=IMPORT)
async def bring_in(
    request: Request,
    notes: NotesPart,
    files: Annotated[list[UploadFile], File(min_length=1, description="Markdown files, or zip archives of them")],
    keep_ids: Annotated[bool, Query(description="under the ids in the front matter, else under the next ones")] = False,
    idempotency_key: Key = None,
    accept: Annotated[str, Header(description=f"`{NDJSON}` to be told how far it is")] = "",
) -> Response:
    """Makes notes from Markdown files, as an export has them or of other origin.

    All files are checked before anything is written. With an `Idempotency-Key`, a repeat makes what is missing.
    """
    sources = [(file.filename or "", file.file) for file in files]
    found = await asyncio.to_thread(_checked, sources, keep_ids)
    operation = None
    if idempotency_key is not None:
        digests = await asyncio.to_thread(lambda: list(_chunks(sources)))
        operation = operation_of(request, idempotency_key, digests)
    made = notes.bring_in(
        (note for _, note in _notes_in(sources, [])), found.many, found.ids if keep_ids else None, operation
    )
    lines = _told(made, found)
    if NDJSON in accept.lower():
        first = await anext(lines)  # before the answer begins, so that a refusal has its status

        async def body() -> AsyncIterator[bytes]:
            yield first
            try:
                async for line in lines:
                    yield line
            except RealtimeError as error:
                yield json.dumps({"detail": error.detail, **error.more()}).encode() + b"\n"

        return StreamingResponse(body(), media_type=NDJSON)
    async for last in lines:
        line = last
    return Response(line, media_type="application/json")


async def _told(made: AsyncIterator[Sequence[int]], found: _Found) -> AsyncIterator[bytes]:
    ids: list[int] = []
    async for some in made:
        ids += some
        yield json.dumps({"imported": len(ids), "of": found.many}).encode() + b"\n"
    yield json_of(Imported(imported=len(ids), ids=ids, skipped=list(found.skipped))) + b"\n"


def _checked(sources: Sequence[tuple[str, IO[bytes]]], keep_ids: bool) -> _Found:
    """Reads all files, and keeps none. Raises :class:`ImportRefused`."""
    ids: dict[int, None] = {}
    skipped: list[str] = []
    many = 0
    for id, _ in _notes_in(sources, skipped):
        many += 1
        if many > MOST_FILES:
            raise ImportRefused(f"files: more than {MOST_FILES} notes at once")
        if keep_ids:
            if id is None or id in ids:
                raise ImportRefused(f"keep_ids: note {many} has {'no id' if id is None else f'id {id} once more'}")
            ids[id] = None
    if not many:
        raise ImportRefused("files: there is no Markdown file (.md) among them")
    return _Found(many, list(ids), skipped)


def _notes_in(sources: Sequence[tuple[str, IO[bytes]]], skipped: list[str]) -> Iterator[tuple[int | None, NoteIn]]:
    for source, file in sources:
        file.seek(0)
        if file.read(4)[:2] == b"PK":
            for name, data in read_zip(file, FILE_BYTES):
                if data is not None:
                    yield from_markdown(name, data)
                elif len(skipped) < SHOWN:
                    skipped.append(name)
        elif source.lower().endswith((".md", ".markdown")):
            file.seek(0)
            data = file.read(FILE_BYTES + 1)
            if len(data) > FILE_BYTES:
                raise ImportRefused(f"{source}: is larger than {FILE_BYTES} bytes")
            yield from_markdown(source, data)
        else:
            raise ImportRefused(f"{source or 'files'}: is neither a Markdown file (.md) nor a zip archive")


def _chunks(sources: Sequence[tuple[str, IO[bytes]]]) -> Iterator[bytes]:
    for name, file in sources:
        yield name.encode(errors="replace")
        file.seek(0)
        while chunk := file.read(CHUNK):
            yield chunk
