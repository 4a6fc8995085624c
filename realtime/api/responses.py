"""Responses shared by the routes, and their OpenAPI descriptions."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from pydantic import BaseModel, create_model
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.responses import Response
from typing_extensions import is_typeddict

from realtime.api.middleware.request_checks import ENCODED
from realtime.errors import (
    NoteNotFound,
    NotSignedIn,
    OutcomeUnknown,
    RealtimeError,
    TooManyRequests,
    Unavailable,
    VersionMismatch,
    VersionNotFound,
)
from realtime.notes.models import EXAMPLE, Note
from realtime.notes.preconditions import etag

Responses = dict[int | str, dict[str, Any]]
"""OpenAPI descriptions of responses by status."""


class Problem(BaseModel):
    """An error."""

    detail: str


class InvalidItem(BaseModel):
    """A field that is invalid."""

    type: str
    loc: list[str | int]
    msg: str


class InvalidRequest(BaseModel):
    """The error of an invalid request: a list of invalid fields with their locations, or a text."""

    detail: list[InvalidItem] | str


def error_response(description: str, example: Any, model: type[BaseModel] = Problem) -> dict[str, Any]:
    """Return the OpenAPI description of an error response.

    Args:
        description: The cause of the error.
        example: An example of ``detail``.
        model: The model of the response.
    """
    content = {"schema": reference(model), "example": {"detail": example}}
    return {"description": description, "content": {"application/json": content}}


RETRY = dict.fromkeys((429, 503), "; retry after `Retry-After` seconds")
"""The advice for clients after an error, by its status."""


def error_responses(*errors: RealtimeError) -> Responses:
    """Return the OpenAPI descriptions of errors, by their status. Each error is an example of its class."""
    responses: Responses = {}
    for status in dict.fromkeys(error.status for error in errors):
        same = [error for error in errors if error.status == status]
        causes = "; or ".join(dict.fromkeys(_cause(type(error)) for error in same))
        description = causes[:1].upper() + causes[1:] + RETRY.get(status, "")
        schemas = [reference(_problem_model(type(error))) for error in same]
        unique = [schema for number, schema in enumerate(schemas) if schema not in schemas[:number]]
        content: dict[str, Any] = {"schema": unique[0] if len(unique) == 1 else {"anyOf": unique}}
        examples = [{"detail": error.detail, **error.extra()} for error in same]
        if len(examples) == 1:
            content["example"] = examples[0]
        else:
            content["examples"] = {
                type(error).__name__: {"value": example} for error, example in zip(same, examples, strict=True)
            }
        responses[status] = {"description": description, "content": {"application/json": content}}
    return responses


def _cause(error: type[RealtimeError]) -> str:
    """Return the condition in the first sentence of the docstring, which begins with "Raised if"."""
    sentence = (inspect.getdoc(error) or "").replace("\n", " ").partition(". ")[0]
    return sentence.removeprefix("Raised if ").rstrip(".").replace("``", "`")


MODELS: dict[str, type[BaseModel]] = {}
"""The models of errors by name, which the OpenAPI schema has to contain."""


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Return a reference to the schema of a model, and add the model to the OpenAPI schema."""
    MODELS[model.__name__] = model
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _problem_model(error: type[RealtimeError]) -> type[BaseModel]:
    """Return the model of an error's response: :class:`Problem`, with the fields that the error adds."""
    fields = get_type_hints(error.extra)["return"]
    if not is_typeddict(fields):
        return Problem
    name = error.__name__
    definitions: dict[str, Any] = {field: (hint, ...) for field, hint in get_type_hints(fields).items()}
    if "note" in definitions:  # the errors do not know the model
        definitions["note"] = (Note, ...)
    if name not in MODELS:
        MODELS[name] = create_model(name, __base__=Problem, __doc__=inspect.getdoc(error), **definitions)
    return MODELS[name]


def with_errors(openapi: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI schema with the schemas of all errors."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "serialization") for model in MODELS.values()]
    _, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")
    openapi["components"]["schemas"] = definitions["$defs"] | openapi["components"]["schemas"]
    return openapi


CURRENT = Note.model_validate(EXAMPLE)
UNAVAILABLE = error_responses(Unavailable())
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
        InvalidRequest,
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
SIGNED_OUT = error_responses(NotSignedIn())
TOO_MANY = error_responses(TooManyRequests(1.0))
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
    **error_responses(Unavailable(), OutcomeUnknown()),
}
JSON_BODY: Responses = {400: error_response("The body is not valid JSON", "There was an error parsing the body")}
NOT_FOUND = error_responses(NoteNotFound())
NO_VERSION = error_responses(NoteNotFound(), VersionNotFound())
STALE = error_responses(VersionMismatch(CURRENT))


def json_of(model: BaseModel) -> bytes:
    """Return a model as JSON."""
    return model.__pydantic_serializer__.to_json(model)


def note_response(note: Note, status: int = 200, **headers: str) -> Response:
    """Return a note as a response, with its version as ``ETag``."""
    headers["ETag"] = etag(note.version)
    return Response(json_of(note), status, headers, "application/json")
