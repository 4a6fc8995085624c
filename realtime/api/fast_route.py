"""Routes with a fast path for ordinary requests that skips FastAPI's dependency resolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

if TYPE_CHECKING:
    from fastapi._compat import ModelField
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON = (None, "application/json")
SCALARS = (int, bool, str, int | None, str | None, bool | None)
"""The types of query parameters that the fast path handles."""


class FallbackNeeded(Exception):
    """Raised if FastAPI has to handle the request."""


class FastRoute(APIRoute):
    """A route whose endpoint returns a :class:`Response`.

    It is declared like any other FastAPI route, and has the same OpenAPI schema. The fast path handles a request only
    if its path, query, headers and body are valid and it has none of the headers that dependencies declare. FastAPI
    handles all other requests, including invalid ones, and generates the error messages. It also handles all requests
    while an application has ``dependency_overrides``, as in tests.

    Attributes:
        fallback: FastAPI's handler of the route.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._arguments = Arguments(self)
        self.set_fallback(self.app)

    def set_fallback(self, handler: ASGIApp) -> None:
        """Set FastAPI's handler of the route."""
        self.fallback = handler
        self.app = self._serve_fast

    async def _serve_fast(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["app"].dependency_overrides:
            await self.fallback(scope, receive, send)
            return
        request = Request(scope, receive, send)
        body = None
        try:
            body = await request.body() if self.body_field is not None else None
            arguments = await self._arguments.resolve(request, body)
        except (FallbackNeeded, ValidationError, ClientDisconnect):
            await self.fallback(scope, receive if body is None else _replay(body, receive), send)
            return
        response: Response = await self.endpoint(**arguments)
        await response(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` callable that replays a body that was already read."""
    chunks = [body]

    async def replay() -> Message:
        return {"type": "http.request", "body": chunks.pop(), "more_body": False} if chunks else await receive()

    return replay


class Arguments:
    """Resolves the arguments of a route's endpoint."""

    def __init__(self, route: APIRoute) -> None:
        dependant = route.dependant
        self._path = [(field.name, field.alias, _adapter(field)) for field in dependant.path_params]
        self._defaults = {field.name: field.get_default() for field in dependant.header_params}
        self._defaults |= {field.name: field.get_default() for field in dependant.query_params if not _model_of(field)}
        self._models = [(field.name, model) for field in dependant.query_params if (model := _model_of(field))]
        self._body = [(field.name, _adapter(field)) for field in dependant.body_params]
        self._calls = [(each.name, each.call, each.request_param_name) for each in dependant.dependencies]
        self._headers = {field.alias.encode(): (field.name, _adapter(field)) for field in dependant.header_params}
        self._dependency_headers = frozenset(
            field.alias.encode() for each in dependant.dependencies for field in each.header_params
        )
        assert len(self._body) <= 1
        assert not any(each.dependencies or each.path_params or each.body_params for each in dependant.dependencies)
        optional = [
            field
            for each in (dependant, *dependant.dependencies)
            for field in (*each.header_params, *each.query_params)
        ]
        assert not any(field.field_info.is_required() for field in optional if not _model_of(field))

    async def resolve(self, request: Request, body: bytes | None) -> dict[str, Any]:
        """Return the arguments of the endpoint for a request.

        Raises:
            FallbackNeeded: FastAPI has to handle the request.
            ValidationError: The body or the query is invalid.
        """
        scope = request.scope
        arguments = {**self._defaults, **self._from_headers(scope)}
        if self._models:
            for name, model in self._models:
                arguments[name] = _query(request, model)
        elif scope["query_string"]:
            raise FallbackNeeded
        for name, alias, adapter in self._path:
            arguments[name] = adapter.validate_python(scope["path_params"][alias])
        for name, adapter in self._body:
            if body is None or request.headers.get("content-type") not in JSON:
                raise FallbackNeeded
            arguments[name] = adapter.validate_json(body)
        for argument, call, request_name in self._calls:
            assert call is not None
            value = await (call(**{request_name: request}) if request_name else call())
            if argument is not None:
                arguments[argument] = value
        return arguments

    def _from_headers(self, scope: Scope) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for header, value in scope["headers"]:
            if header in self._dependency_headers:
                raise FallbackNeeded
            if header in self._headers:
                name, adapter = self._headers[header]
                if name in arguments:  # a repeated header
                    raise FallbackNeeded
                arguments[name] = adapter.validate_python(value.decode("latin-1"))
        return arguments


def _adapter(field: ModelField) -> TypeAdapter[Any]:
    annotation: Any = field.field_info.annotation
    for constraint in field.field_info.metadata:
        annotation = Annotated[annotation, constraint]
    return TypeAdapter(annotation)


def _model_of(field: ModelField) -> type[BaseModel] | None:
    annotation = field.field_info.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _query(request: Request, model: type[BaseModel]) -> BaseModel:
    """Return the query as a model.

    Raises:
        FallbackNeeded: A parameter is repeated, empty or unknown, or its type is not one of :data:`SCALARS`.
        ValidationError: The query is invalid.
    """
    items = request.query_params.multi_items()
    values = dict(items)
    fields = model.model_fields
    for name, value in items:
        if not value or name not in fields or fields[name].annotation not in SCALARS:
            raise FallbackNeeded
    if len(values) < len(items):
        raise FallbackNeeded
    return model.model_validate(values)
