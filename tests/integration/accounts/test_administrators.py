"""MongoDB operators in place of strings in the API are rejected, and never reach a query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.accounts import Browser
from tests.support.harness import Json, note_in

CHANGES = {"max_writes_per_second": 10_000}
OPERATORS: list[Any] = [{"$gt": ""}, {"$ne": None}, ["root"], {"$regex": ".*"}, 7, True]


def _resolved(document: Json, schema: Json) -> Json:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _with_placeholders(document: Json, schema: Json, value: Any) -> Iterator[Any]:
    """Yield a value once for each string in it, with that string replaced by ``...``. Keys of maps are kept."""
    schema = _resolved(document, schema)
    kinds = [_resolved(document, one) for one in schema.get("anyOf", (schema,))]
    if any(kind.get("type") == "string" or "const" in kind or "enum" in kind for kind in kinds):
        yield ...
    for kind in kinds:
        if kind.get("type") == "array":
            for one in _with_placeholders(
                document, kind["items"], value[0] if isinstance(value, list) and value else {}
            ):
                yield [one]
        for name, part in kind.get("properties", {}).items():
            given = value if isinstance(value, dict) else {}
            for one in _with_placeholders(document, part, given.get(name)):
                yield {**given, name: one}


def _filled(value: Any, operator: Any) -> Any:
    if value is ...:
        return operator
    if isinstance(value, dict):
        return {name: _filled(part, operator) for name, part in value.items()}
    return [_filled(part, operator) for part in value] if isinstance(value, list) else value


def _bodies(document: Json, operation: Json) -> Iterator[Any]:
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        if kind == "application/json":
            schema = _resolved(document, content["schema"])
            examples = content.get("examples", {}).values()
            example = next((one["value"] for one in examples), (schema.get("examples") or [{}])[0])
            yield from _with_placeholders(document, schema, example)


@pytest.fixture(scope="module")
def described(host: TestClient) -> Json:
    """Return the OpenAPI description."""
    document: Json = host.get("/openapi.json").json()
    return document


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_operator_in_a_body_is_refused(described: Json, root: Browser, operator: Any) -> None:
    id = str(root.post("/notes/", json=note_in()).json()["id"])
    requests = 0
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            for body in _bodies(described, operation):
                sent = _filled(body, operator)
                answer = root.request(method, path.replace("{id}", id), json=sent)
                assert answer.status_code == 422, (method, path, sent, answer.text)
                requests += 1
    assert requests >= 25
    assert root.get(f"/notes/{id}/").json()["version"] == 1


def test_operator_in_a_query_is_refused(described: Json, root: Browser) -> None:
    for path, operations in described["paths"].items():
        parameters = operations.get("get", {}).get("parameters", ())
        for name in [one["name"] for one in parameters if one["in"] == "query"]:
            answer = root.get(path.replace("{id}", "1").replace("{version}", "1"), params={f"{name}[$ne]": "x"})
            assert answer.status_code in (404, 422), (path, name)
