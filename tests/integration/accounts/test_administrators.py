"""MongoDB's operators instead of each text in the API: each is rejected, and none reaches a query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from realtime import create_app
from realtime.settings import Settings
from tests.support.accounts import HERE, Browser, with_accounts
from tests.support.harness import Json, note_in

OPERATORS: list[Any] = [{"$gt": ""}, {"$ne": None}, ["root"], {"$regex": ".*"}, 7, True]


def _whole(document: Json, schema: Json) -> Json:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _texts(document: Json, schema: Json, value: Any) -> Iterator[Any]:
    """Yield a value once for each text in it, with that text replaced by ``...``. The keys of a map do not count."""
    schema = _whole(document, schema)
    kinds = [_whole(document, one) for one in schema.get("anyOf", (schema,))]
    if any(kind.get("type") == "string" or "const" in kind or "enum" in kind for kind in kinds):
        yield ...
    for kind in kinds:
        if kind.get("type") == "array":
            for one in _texts(document, kind["items"], value[0] if isinstance(value, list) and value else {}):
                yield [one]
        for name, part in kind.get("properties", {}).items():
            given = value if isinstance(value, dict) else {}
            for one in _texts(document, part, given.get(name)):
                yield {**given, name: one}


def _with(value: Any, operator: Any) -> Any:
    if value is ...:
        return operator
    if isinstance(value, dict):
        return {name: _with(part, operator) for name, part in value.items()}
    return [_with(part, operator) for part in value] if isinstance(value, list) else value


def _bodies(document: Json, operation: Json) -> Iterator[Any]:
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        if kind == "application/json":
            schema = _whole(document, content["schema"])
            examples = content.get("examples", {}).values()
            example = next((one["value"] for one in examples), (schema.get("examples") or [{}])[0])
            yield from _texts(document, schema, example)


@pytest.fixture(scope="module")
def host(module_settings: Settings) -> Iterator[TestClient]:
    """Start a server without a write limit."""
    with TestClient(create_app(with_accounts(module_settings, max_writes_per_second=10_000)), base_url=HERE) as client:
        yield client


@pytest.fixture(scope="module")
def described(host: TestClient) -> Json:
    """Return the OpenAPI description."""
    document: Json = host.get("/openapi.json").json()
    return document


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_operators_are_no_text(described: Json, root: Browser, operator: Any) -> None:
    id = str(root.post("/notes/", json=note_in()).json()["id"])
    tried = 0
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            for body in _bodies(described, operation):
                sent = _with(body, operator)
                answer = root.request(method, path.replace("{id}", id), json=sent)
                assert answer.status_code == 422, (method, path, sent, answer.text)
                tried += 1
    assert tried >= 25
    assert root.get(f"/notes/{id}/").json()["version"] == 1


def test_operators_are_no_part_of_a_query(described: Json, root: Browser) -> None:
    for path, operations in described["paths"].items():
        parameters = operations.get("get", {}).get("parameters", ())
        for name in [one["name"] for one in parameters if one["in"] == "query"]:
            answer = root.get(path.replace("{id}", "1").replace("{version}", "1"), params={f"{name}[$ne]": "x"})
            assert answer.status_code in (404, 422), (path, name)
