"""Responses shared by the routes, and their OpenAPI descriptions."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from realtime.api.middleware.request_checks import ENCODED
from realtime.notes.models import EXAMPLE, Note
from realtime.notes.preconditions import etag


def error_response(
    description: str, example: Any, fields: dict[str, Any] | None = None, **properties: Any
) -> dict[str, Any]:
    """Return the OpenAPI description of an error response.

    Args:
        description: The cause of the error.
        example: An example of ``detail``.
        fields: Examples of other fields.
        properties: The schemas of the other fields.
    """
    schema = {"type": "object", "required": ["detail"], "properties": {"detail": {}, **properties}}
    content = {"schema": schema, "example": {"detail": example, **(fields or {})}}
    return {"description": description, "content": {"application/json": content}}


Responses = dict[int | str, dict[str, Any]]


NOTE_SCHEMA = {"$ref": "#/components/schemas/Note"}


UNAVAILABLE: Responses = {
    503: error_response(
        "The database did not respond in time; retry after `Retry-After` seconds",
        "The database is not available. Try again",
    )
}
INVALID: Responses = {
    422: error_response(
        "The request is invalid; `detail` is a list of errors with their locations, or a text",
        [
            {
                "type": "string_too_short",
                "loc": ["body", "title"],
                "msg": "String should have at least 3 characters",
            }
        ],
    )
}
READ: Responses = {**UNAVAILABLE, **INVALID}
FOREIGN: Responses = {
    403: error_response(
        "The caller has read-only access, or the request is from a page of an origin that `REALTIME_ORIGINS` does not"
        " list",
        "Requests from this origin are not allowed. Behind a proxy, pass on the Host header or send X-Forwarded-Host."
        " To allow other origins, set REALTIME_ORIGINS",
    )
}
SIGNED_OUT: Responses = {401: error_response("Not signed in", "Not signed in")}
TOO_MANY: Responses = {
    429: error_response("Too many requests; retry after `Retry-After` seconds", "Too many requests. Try again later")
}
BODY: Responses = {
    408: error_response("The request body arrived too slowly", "The request body arrived too slowly"),
    413: error_response(
        "The body is too large, or the owner of the note has reached a storage quota",
        "The body must be at most 1048576 bytes",
    ),
    415: error_response("The body has a `Content-Encoding`", ENCODED.format("gzip")),
}
WRITE: Responses = {
    **SIGNED_OUT,
    **FOREIGN,
    **TOO_MANY,
    **BODY,
    **INVALID,
    503: error_response(
        "The database did not respond in time; with `outcome`, the write may or may not have been saved",
        "The database did not confirm the write in time. It may have been saved: read the note, or repeat the request"
        " with the same Idempotency-Key",
        {"outcome": "unknown"},
        outcome={"const": "unknown"},
    ),
}
JSON_BODY: Responses = {400: error_response("The body is not valid JSON", "There was an error parsing the body")}
NOT_FOUND: Responses = {404: error_response("The note does not exist", "Note not found")}
NO_VERSION: Responses = {404: error_response("The note or the version does not exist", "Version not found")}
STALE: Responses = {
    412: error_response(
        "The current version of the note does not match `If-Match`, or matches `If-None-Match`",
        "The note is at version 3, which the request's If-Match or If-None-Match does not allow",
        {"note": EXAMPLE},
        note=NOTE_SCHEMA,
    )
}


def json_of(model: BaseModel) -> bytes:
    """Return a model as JSON."""
    return model.__pydantic_serializer__.to_json(model)


def note_response(note: Note, status: int = 200, **headers: str) -> Response:
    """Return a note as a response, with its version as ``ETag``."""
    headers["ETag"] = etag(note.version)
    return Response(json_of(note), status, headers, "application/json")
