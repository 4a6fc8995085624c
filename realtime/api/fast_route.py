"""Routes whose ordinary requests take a shorter way than FastAPI's, which costs more than all that they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

if TYPE_CHECKING:
    from fastapi._compat import ModelField
    from starlette.types import Message, Receive, Scope, Send

JSON = (None, "application/json")
SINGLE = (int, bool, str, int | None, str | None, bool | None)
"""What one value in a query can be."""


class FallbackNeeded(Exception):
    """The request is not one for the short way."""


class FastRoute(APIRoute):
    """A route whose endpoint answers with a :class:`Response`, and gets what it declares.

    Its declaration is FastAPI's, and so is its description. A request is taken here if its path, query, headers and
    body are as declared, and none of the headers is there that dependencies ask for. All others, and so all that are
    wrong, FastAPI takes: it tells what is wrong.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._thorough = self.app
        self._arguments = Arguments(self)
        self.app = self._serve_fast

    async def _serve_fast(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        body = None
        try:
            body = await request.body() if self.body_field is not None else None
            given = await self._arguments.of(request, body)
        except (FallbackNeeded, ValidationError, ClientDisconnect):
            await self._thorough(scope, receive if body is None else _again(body, receive), send)
            return
        response: Response = await self.endpoint(**given)
        await response(scope, receive, send)


def _again(body: bytes, receive: Receive) -> Receive:
    """What a request is received by whose body was read already."""
    read = [body]

    async def again() -> Message:
        return {"type": "http.request", "body": read.pop(), "more_body": False} if read else await receive()

    return again


class Arguments:
    """How an endpoint's arguments are made."""

    def __init__(self, route: APIRoute) -> None:
        one = route.dependant
        self._path = [(field.name, field.alias, _adapter(field)) for field in one.path_params]
        self._defaults = {field.name: field.get_default() for field in one.header_params}
        self._query = {field.name: field.get_default() for field in one.query_params if not _model_of(field)}
        self._models = [(field.name, model) for field in one.query_params if (model := _model_of(field))]
        self._body = [(field.name, _adapter(field)) for field in one.body_params]
        self._calls = [(each.name, each.call, each.request_param_name) for each in one.dependencies]
        everything = [one, *one.dependencies]
        self._headers = {field.alias.encode(): (field.name, _adapter(field)) for field in one.header_params}
        self._others = frozenset(field.alias.encode() for each in one.dependencies for field in each.header_params)
        assert len(self._body) <= 1
        assert not any(each.dependencies or each.path_params or each.body_params for each in one.dependencies)
        asked = [field for each in everything for field in (*each.header_params, *each.query_params)]
        assert not any(field.field_info.is_required() for field in asked if not _model_of(field))

    async def of(self, request: Request, body: bytes | None) -> dict[str, Any]:
        """Return the arguments of the endpoint for a request.

        Raises:
            FallbackNeeded: FastAPI has to handle the request.
            ValidationError: The body or the query is invalid.
        """
        scope = request.scope
        given: dict[str, Any] = {}
        for header, value in scope["headers"]:
            if header in self._others:
                raise FallbackNeeded
            if header in self._headers:
                name, adapter = self._headers[header]
                if name in given:  # there twice
                    raise FallbackNeeded
                given[name] = adapter.validate_python(value.decode("latin-1"))
        given = {**self._defaults, **self._query, **given}
        if self._models:
            for name, model in self._models:
                given[name] = _query(request, model)
        elif scope["query_string"]:
            raise FallbackNeeded
        for name, alias, adapter in self._path:
            given[name] = adapter.validate_python(scope["path_params"][alias])
        for name, adapter in self._body:
            if body is None or request.headers.get("content-type") not in JSON:
                raise FallbackNeeded
            given[name] = adapter.validate_json(body)
        for argument, call, wants in self._calls:
            assert call is not None
            value = await (call(**{wants: request}) if wants else call())
            if argument is not None:
                given[argument] = value
        return given


def _adapter(field: ModelField) -> TypeAdapter[Any]:
    kind: Any = field.field_info.annotation
    for constraint in field.field_info.metadata:
        kind = Annotated[kind, constraint]
    return TypeAdapter(kind)


def _model_of(field: ModelField) -> type[BaseModel] | None:
    kind = field.field_info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _query(request: Request, model: type[BaseModel]) -> BaseModel:
    """The query as a model. Raises :class:`FallbackNeeded` if something is there twice, or is a list, or empty."""
    given = request.query_params.multi_items()
    values = dict(given)
    fields = model.model_fields
    for name, value in given:
        if not value or name not in fields or fields[name].annotation not in SINGLE:
            raise FallbackNeeded
    if len(values) < len(given):
        raise FallbackNeeded
    return model.model_validate(values)
