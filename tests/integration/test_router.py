"""Both slash forms without a redirect, and errors that are always JSON with a ``detail``."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from starlette.testclient import TestClient

from realtime.api.error_handlers import validation_errors
from realtime.api.router import toggle_slash
from tests.support.harness import note_in
from tests.support.http import refused_handshake


def test_get_paths_work_with_and_without_a_trailing_slash(client: TestClient) -> None:
    for _ in range(2):
        client.post("/notes/", json=note_in())
    client.delete("/notes/2/")
    documented = client.get("/openapi.json").json()["paths"]
    paths = {
        path.replace("/trash/{id}", "/trash/2")
        .replace("{id}", "1")
        .replace("{version}", "1")
        .replace("{versions}", "1..1")
        for path, operations in documented.items()
        if "get" in operations and "401" not in operations["get"]["responses"]
    } - {"/events", "/notes/1/access"}  # one never ends, and the other requires accounts
    for path in paths | {"/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"}:
        given, other = (client.get(form, follow_redirects=False) for form in (path, toggle_slash(path)))
        assert (given.status_code, other.status_code) == (200, 200), path
        assert given.headers["Content-Type"] == other.headers["Content-Type"], path


def test_writes_work_with_and_without_a_trailing_slash(client: TestClient) -> None:
    for slash in ("", "/"):
        made = client.post(f"/notes{slash}", json=note_in(), follow_redirects=False)
        assert made.status_code == 201
        note = made.headers["Location"].rstrip("/") + slash
        for method in ("PUT", "PATCH"):
            assert client.request(method, note, json=note_in("other"), follow_redirects=False).status_code == 200
        base, trashed = note.rstrip("/"), note.rstrip("/").replace("notes", "trash")
        for path, body in (
            (f"{base}/content{slash}", [{"op": "append", "text": "x"}]),
            (f"{base}/restore{slash}", {"version": 1}),
        ):
            assert client.post(path, json=body, follow_redirects=False).status_code == 200
        assert client.delete(note, follow_redirects=False).status_code == 200
        assert client.post(f"{trashed}/restore{slash}", follow_redirects=False).status_code == 200
        assert client.delete(note, follow_redirects=False).status_code == 200
        assert client.delete(trashed + slash, follow_redirects=False).status_code == 204
        upload = {"files": ("note.md", b"# A note")}
        assert client.post(f"/import{slash}", files=upload, follow_redirects=False).status_code == 200


def test_openapi_documents_each_path_once(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {path: "".join(sorted(operations)) for path, operations in paths.items()} == {
        "/ping": "get",
        "/notes/{id}/access": "getput",
        "/auth/links": "post",
        "/healthz": "get",
        "/readyz": "get",
        "/metrics": "get",
        "/notes/": "getpost",
        "/notes/{id}/": "deletegetpatchput",
        "/notes/{id}/content": "post",
        "/notes/{id}/restore": "post",
        "/notes/{id}/history/": "get",
        "/notes/{id}/history/{version}/": "get",
        "/notes/{id}/history/{versions}/diff": "get",
        "/tags/": "get",
        "/trash/": "get",
        "/trash/{id}/": "deleteget",
        "/trash/{id}/restore": "post",
        "/export": "get",
        "/import": "post",
        "/auth/me": "get",
        "/auth/sign-up": "post",
        "/auth/sign-in": "post",
        "/auth/sign-out": "post",
        "/auth/failed-sign-ins": "delete",
        "/auth/password": "post",
        "/auth/token": "post",
        "/auth/sessions": "deleteget",
        "/auth/sessions/{id}": "delete",
        "/auth/tokens": "getpost",
        "/auth/tokens/{id}": "delete",
        "/auth/ticket": "post",
        "/users": "get",
        "/users/{name}/disable": "post",
        "/users/{name}/enable": "post",
        "/users/{name}/promote": "post",
        "/users/{name}/demote": "post",
        "/users/{name}": "delete",
        "/auth/account": "delete",
        "/auth/confirm": "post",
        "/invites": "getpost",
        "/invites/{id}": "delete",
        "/audit": "get",
        "/events": "get",
        "/changes": "get",
        "/asyncapi.json": "get",
    }


def test_openapi_documents_the_range_of_note_ids(client: TestClient) -> None:
    for operation in client.get("/openapi.json").json()["paths"]["/notes/{id}/"].values():
        (id,) = (parameter["schema"] for parameter in operation["parameters"] if parameter["in"] == "path")
        assert (id["type"], id["minimum"], id["maximum"]) == ("integer", 1, 2**53 - 1)


def test_openapi_describes_errors_by_the_fields_of_their_classes(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    answers = document["paths"]["/notes/{id}/"]["patch"]["responses"]

    def validate(status: int, body: Any) -> None:
        schema = {**answers[str(status)]["content"]["application/json"]["schema"], "components": document["components"]}
        jsonschema_rs.validate(schema, body)

    created = client.post("/notes/", json=note_in(content="one word")).json()
    path = f"/notes/{created['id']}/"
    client.patch(path, json={"content": "another word"})
    for status, body, headers, query in (
        (400, b"\xff", {}, ""),
        (404, {"content": "x"}, {}, ""),
        (409, {"content": "my word"}, {}, "?base_version=1"),
        (409, {"content": "my word"}, {}, "?base_version=77"),
        (412, {"content": "x"}, {"If-Match": '"1"'}, ""),
        (422, {"title": "x"}, {}, ""),
    ):
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        where = "/notes/999/" if status == 404 else path
        answer = client.patch(where + query, content=text, headers={"Content-Type": "application/json", **headers})
        assert answer.status_code == status, answer.text
        validate(status, answer.json())
    validate(422, {"detail": "This Idempotency-Key was used for another request"})
    conflict = client.patch(path + "?base_version=1", json={"content": "my word"}).json()
    del conflict["conflicts"][0]["base"]
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(
            {"$ref": "#/components/schemas/MergeConflict", "components": document["components"]}, conflict
        )


def test_openapi_documents_examples_and_errors_of_every_route(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    def has_example(content: Any) -> bool:
        schema = content.get("schema", {})
        schema = schema.get("items", schema)
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return "example" in content or "examples" in content or bool(schema.get("examples"))

    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            answers = operation["responses"]
            bodies = [content for answer in answers.values() for content in answer.get("content", {}).values()]
            binary = [body for body in bodies if body.get("schema", {}).get("format") == "binary"]
            assert all(map(has_example, (body for body in bodies if body not in binary))), where
            assert all(map(has_example, operation.get("requestBody", {}).get("content", {}).values())) or (
                path == "/import"
            ), where
            if operation.get("parameters"):
                assert "422" in answers, where
            if path not in ("/ping", "/healthz", "/metrics", "/asyncapi.json", "/events"):
                assert "503" in answers, where
            if "{id}" in path:
                assert "404" in answers, where
            if method != "get":
                assert {"403", "413", "422", "503"} <= set(answers), where


def test_note_lists_match_the_openapi_schema(client: TestClient) -> None:
    client.post("/notes/", json=note_in())
    document = client.get("/openapi.json").json()
    answers = document["paths"]["/notes/"]["get"]["responses"]
    schema = {**answers["200"]["content"]["application/json"]["schema"], "components": document["components"]}
    for query in ("", "?content=false", "?q=title", "?q=title&content=false"):
        listed = client.get(f"/notes/{query}").json()
        assert listed
        jsonschema_rs.validate(schema, listed)


def test_wrong_method_returns_405_with_allowed_methods(client: TestClient) -> None:
    for method, path, allowed in (
        ("PUT", "/notes/", {"GET", "POST"}),
        ("DELETE", "/notes", {"GET", "POST"}),
        ("POST", "/notes/1/", {"GET", "PUT", "PATCH", "DELETE"}),
        ("POST", "/", {"GET"}),
        ("POST", "/ping", {"GET"}),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
        assert set(answer.headers["Allow"].split(", ")) == {*allowed, "HEAD", "OPTIONS"}, path


def test_options_returns_allowed_methods_of_known_paths(client: TestClient) -> None:
    for path in ("/", "/ping", "/readyz", "/healthz/", "/notes/", "/notes/1", "/docs", "/asyncapi.json"):
        answer = client.options(path)
        assert (answer.status_code, answer.content) == (204, b""), path
        assert {"GET", "HEAD", "OPTIONS"} <= set(answer.headers["Allow"].split(", ")), path
    assert client.options("/nothing").status_code == 404


def test_unknown_path_returns_404(client: TestClient) -> None:
    for path in ("/nothing", "/notes/1/more", "/%00", "/%ff"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), path


def test_websocket_paths_accept_both_slash_forms_and_others_return_404(client: TestClient) -> None:
    client.post("/notes/", json=note_in())
    for path in ("/ws", "/ws/", "/sync/1", "/sync/1/"):
        with client.websocket_connect(path):
            pass
    for path in ("/", "/wss", "/ws/1", "/sync", "/notes/"):
        assert refused_handshake(client, path).status_code == 404, path


def test_validation_errors_omit_the_input_and_have_encodable_locations() -> None:
    error = {"type": "t", "loc": ("body", "\ud800" + "x" * 1000, 3), "msg": "m", "input": "secret", "ctx": {}}
    (reported,) = validation_errors([error])
    assert reported == {"type": "t", "loc": ["body", ("\\ud800" + "x" * 1000)[:100], 3], "msg": "m"}
