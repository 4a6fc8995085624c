"""Responses and their descriptions in OpenAPI, shared by the routes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from realtime.api.middleware.http_semantics import ENCODED
from realtime.notes.models import EXAMPLE, Note
from realtime.notes.preconditions import etag


def problem(description: str, example: Any, more: dict[str, Any] | None = None, **properties: Any) -> dict[str, Any]:
    """An error answer: what it means, an example of its detail, and what it tells besides."""
    schema = {"type": "object", "required": ["detail"], "properties": {"detail": {}, **properties}}
    content = {"schema": schema, "example": {"detail": example, **(more or {})}}
    return {"description": description, "content": {"application/json": content}}


Answers = dict[int | str, dict[str, Any]]


NOTE_SCHEMA = {"$ref": "#/components/schemas/Note"}


UNAVAILABLE: Answers = {
    503: problem(
        "The database did not answer in time; `Retry-After` tells when to try again",
        "The database is not available, try again",
    )
}
INVALID: Answers = {
    422: problem(
        "The request is not valid: a list of what is wrong and where, or a text",
        [
            {
                "type": "string_too_short",
                "loc": ["body", "title"],
                "msg": "String should have at least 3 characters",
            }
        ],
    )
}
READ: Answers = {**UNAVAILABLE, **INVALID}
FOREIGN: Answers = {
    403: problem(
        "A page of another origin sent it, which `REALTIME_ORIGINS` does not name; or it is a note, or a token, that is"
        " only for reading",
        "Requests from this origin are not allowed. Behind a proxy, pass on the Host header or send X-Forwarded-Host."
        " To allow other origins, set REALTIME_ORIGINS",
    )
}
SIGNED_OUT: Answers = {401: problem("Not signed in", "Not signed in")}
TOO_MANY: Answers = {
    429: problem("Too often; `Retry-After` tells when to try again", "Too many requests, try again later")
}
BODY: Answers = {
    408: problem("The body came too slowly", "The body came too slowly"),
    413: problem(
        "The body is larger than allowed, or the owner of the note has reached a quota",
        "The body must be at most 1048576 bytes",
    ),
    415: problem("The body has a `Content-Encoding`", ENCODED.format("gzip")),
}
WRITE: Answers = {
    **SIGNED_OUT,
    **FOREIGN,
    **TOO_MANY,
    **BODY,
    **INVALID,
    503: problem(
        "The database did not confirm the write in time: with `outcome` it may or may not have been saved",
        "The database did not confirm the write in time. It may have been saved: read the note, or repeat the request"
        " with the same Idempotency-Key",
        {"outcome": "unknown"},
        outcome={"const": "unknown"},
    ),
}
JSON_BODY: Answers = {400: problem("The body is not JSON", "There was an error parsing the body")}
NOT_FOUND: Answers = {404: problem("There is no such note", "Note not found")}
NO_VERSION: Answers = {404: problem("There is no such note, or no such version of it", "Version not found")}
STALE: Answers = {
    412: problem(
        "The note is not at a version that `If-Match` names, or at one that `If-None-Match` names",
        "The note is at version 3, which the request's If-Match or If-None-Match does not allow",
        {"note": EXAMPLE},
        note=NOTE_SCHEMA,
    )
}


def json_of(model: BaseModel) -> bytes:
    """A model as JSON."""
    return model.__pydantic_serializer__.to_json(model)


def answer(note: Note, status: int = 200, **headers: str) -> Response:
    """A note, with its version as ``ETag``."""
    headers["ETag"] = etag(note.version)
    return Response(json_of(note), status, headers, "application/json")
