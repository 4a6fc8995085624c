"""Both slash forms without a redirect, and errors that are always JSON with a ``detail``."""

from __future__ import annotations

from starlette.testclient import TestClient

from realtime.routing import other_form, problems
from tests.harness import note_in


def test_every_path_works_in_both_forms(client: TestClient) -> None:
    client.post("/notes/", json=note_in())
    paths = {path.replace("{id}", "1") for path in client.get("/openapi.json").json()["paths"]} - {"/events"}
    for path in paths | {"/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"}:
        given, other = (client.get(form, follow_redirects=False) for form in (path, other_form(path)))
        assert (given.status_code, other.status_code) == (200, 200), path
        assert given.headers["Content-Type"] == other.headers["Content-Type"], path


def test_writes_work_in_both_forms(client: TestClient) -> None:
    for slash in ("", "/"):
        made = client.post(f"/notes{slash}", json=note_in(), follow_redirects=False)
        assert made.status_code == 201
        note = made.headers["Location"].rstrip("/") + slash
        for method in ("PUT", "PATCH"):
            assert client.request(method, note, json=note_in("other"), follow_redirects=False).status_code == 200
        assert client.delete(note, follow_redirects=False).status_code == 200


def test_openapi_documents_one_form_of_every_path(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/ping", "/notes/", "/notes/{id}/", "/changes", "/events", "/healthz", "/readyz", "/metrics"} == set(paths)
    assert set(paths["/notes/{id}/"]) == {"get", "put", "patch", "delete"}


def test_openapi_tells_the_range_of_ids(client: TestClient) -> None:
    for operation in client.get("/openapi.json").json()["paths"]["/notes/{id}/"].values():
        (id,) = (parameter["schema"] for parameter in operation["parameters"] if parameter["in"] == "path")
        assert (id["type"], id["minimum"], id["maximum"]) == ("integer", 1, 2**53 - 1)


def test_openapi_tells_what_refusals_look_like(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for operation in (paths["/notes/"]["post"], *(paths["/notes/{id}/"][method] for method in ("put", "patch"))):
        for status in ("400", "413", "422", "503"):  # 422 has a list for a bad field, a text for a key that was reused
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema["properties"]["detail"] == {}, status


def test_other_methods_are_told_which_are_allowed(client: TestClient) -> None:
    for method, path, allowed in (
        ("PUT", "/notes/", {"GET", "POST"}),
        ("DELETE", "/notes", {"GET", "POST"}),
        ("POST", "/notes/1/", {"GET", "PUT", "PATCH", "DELETE"}),
        ("OPTIONS", "/notes/1", {"GET", "PUT", "PATCH", "DELETE"}),
        ("POST", "/ping", {"GET"}),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
        assert set(answer.headers["Allow"].split(", ")) - {"HEAD"} == allowed, path


def test_unknown_path(client: TestClient) -> None:
    for path in ("/nothing", "/notes/1/more", "/%00", "/%ff"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), path


def test_problems_leave_out_the_input_and_keep_their_place_encodable() -> None:
    error = {"type": "t", "loc": ("body", "\ud800" + "x" * 1000, 3), "msg": "m", "input": "secret", "ctx": {}}
    (told,) = problems([error])
    assert told == {"type": "t", "loc": ["body", ("\\ud800" + "x" * 1000)[:100], 3], "msg": "m"}
