"""Pages of other origins cannot read, write or embed anything, unless their origins are configured."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from realtime import create_app
from realtime.settings import Settings
from tests.support.harness import note_in
from tests.support.http import refused_handshake

FOREIGN_ORIGINS = [
    "http://evil.example", "null", "http://testserver.evil.example", "http://testserver:8000", "https://",
    "http://[testserver", "http://testserver/", "http://x@testserver",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_write_and_websocket_from_a_foreign_origin_are_refused(client: TestClient, origin: str) -> None:
    answer = client.post("/notes/", json=note_in(), headers={"Origin": origin})
    assert answer.status_code == 403
    assert "origin" in answer.json()["detail"]
    assert refused_handshake(client, "/ws", Origin=origin).status_code == 403
    assert client.get("/notes/", headers={"Origin": origin}).json() == []


OWN, ALLOWED, EVIL = "http://testserver", "https://notes.example", "http://evil.example"


@pytest.fixture(scope="module")
def configured(module_settings: Settings) -> Iterator[TestClient]:
    """Run a server with two configured origins."""
    settings = module_settings.model_copy(update={"origins": f"{ALLOWED} http://other.example:8080"})
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.mark.parametrize(
    ("site", "origin", "accepted"),
    [
        (None, None, True),  # a program
        (None, OWN, True),  # an old browser
        (None, ALLOWED, True),
        (None, "http://other.example:8080", True),
        (None, EVIL, False),
        (None, "null", False),
        (None, "http://notes.example", False),
        (None, ALLOWED + ".evil.example", False),
        ("same-origin", OWN, True),
        ("same-origin", None, True),
        ("same-origin", "https://public.example", True),  # the proxy has a different host name
        ("none", None, True),  # typed into the address bar
        ("none", "null", True),
        ("same-site", None, False),
        ("same-site", "http://app.testserver", False),
        ("same-site", ALLOWED, True),
        ("cross-site", None, False),
        ("cross-site", EVIL, False),
        ("cross-site", "null", False),
        ("cross-site", OWN, False),
        ("cross-site", ALLOWED, True),
        ("", EVIL, False),
        ("something-new", None, False),
    ],
)
def test_fetch_metadata_and_origin_decide_about_writes_and_websockets(
    configured: TestClient, site: str | None, origin: str | None, accepted: bool
) -> None:
    sent = {"Sec-Fetch-Site": site, "Origin": origin}
    headers = {name: value for name, value in sent.items() if value is not None}
    answer = configured.post("/notes/", json=note_in(), headers=headers)
    assert answer.status_code == (201 if accepted else 403)
    assert configured.get("/ping", headers=headers).status_code == 200
    if accepted:
        with configured.websocket_connect("/ws", headers=headers) as socket:
            assert socket.receive_json()["type"] == "ready"
    else:
        refused_handshake(configured, "/ws", **headers)


READS = ["/notes/", "/notes/1/", "/notes/1", "/notes", "/changes?timeout=0", "/export", "/tags/", "/trash/", "/metrics",
         "/openapi.json", "/asyncapi.json", "/auth/me", "/notes/1/history/", "/docs", "/"]  # fmt: skip
EMBEDDING = [
    "audio", "audioworklet", "embed", "fencedframe", "font", "frame", "iframe", "image", "json", "manifest", "object",
    "paintworklet", "report", "script", "serviceworker", "sharedworker", "style", "track", "video", "webidentity",
    "worker", "xslt", "something-new",
]  # fmt: skip


@pytest.mark.parametrize("purpose", EMBEDDING)
def test_api_request_for_embedding_is_refused(client: TestClient, purpose: str) -> None:
    client.post("/notes/", json=note_in())
    for method in ("GET", "HEAD"):
        for path in ("/notes/1/", "/changes?timeout=60", "/export", "/events", "/"):
            answer = client.request(method, path, headers={"Sec-Fetch-Dest": purpose, "Sec-Fetch-Site": "same-origin"})
            assert answer.status_code == 403, (method, path)
            assert method == "HEAD" or "Sec-Fetch-Dest" in answer.json()["detail"]


@pytest.mark.parametrize("path", READS)
def test_api_request_by_fetch_or_navigation_is_accepted(client: TestClient, path: str) -> None:
    client.post("/notes/", json=note_in())
    for headers in (
        {},
        {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ):
        assert client.get(path, headers=headers).status_code == 200
    refused = client.get(path, headers={"Sec-Fetch-Dest": "image", "Sec-Fetch-Site": "same-origin"})
    assert refused.status_code == 403


def test_page_assets_can_be_embedded(client: TestClient) -> None:
    paths = ["/icon.svg", *re.findall(r'"(/assets/[^"]+)"', client.get("/").text)]
    for path in paths:
        for purpose in ("image", "script", "style", "worker"):
            assert client.get(path, headers={"Sec-Fetch-Dest": purpose}).status_code == 200


def test_cross_origin_read_without_a_configured_origin_is_refused(client: TestClient, configured: TestClient) -> None:
    for site in ("cross-site", "same-site", "something-new"):
        sent = {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
        for host in (client, configured):
            answer = host.get("/notes/?q=word", headers=sent)
            assert answer.status_code == 403
            assert "origin" in answer.json()["detail"]
            assert host.get("/notes/", headers={**sent, "Origin": EVIL}).status_code == 403
            assert host.get("/readyz", headers=sent).status_code == 200
        assert configured.get("/notes/", headers={**sent, "Origin": ALLOWED}).status_code == 200


def test_resource_policy_is_same_origin_unless_origins_are_configured(
    client: TestClient, configured: TestClient
) -> None:
    client.post("/notes/", json=note_in())
    policy = "cross-origin-resource-policy"
    for path in ("/", "/icon.svg", "/notes/", "/notes/1/", "/notes/9/", "/export", "/docs", "/nowhere"):
        assert client.get(path).headers[policy] == "same-origin"
        assert policy not in configured.get(path).headers


def cors(answer: Response) -> dict[str, str]:
    """Return the CORS headers of a response."""
    prefix = "access-control-"
    return {name.removeprefix(prefix): value for name, value in answer.headers.items() if name.startswith(prefix)}


def preflight(client: TestClient, origin: str, method: str = "PUT", headers: str = "if-match,content-type") -> Response:
    """Send the preflight request that a browser sends for a page of a different origin."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.options("/notes/1/", headers={"Origin": origin, **asked})


def test_cors_headers_are_omitted_for_unconfigured_origins(client: TestClient, configured: TestClient) -> None:
    for origin in (OWN, ALLOWED, EVIL, "null"):
        assert cors(client.get("/notes/", headers={"Origin": origin})) == {}
        assert cors(preflight(client, origin)) == {}
    for origin in (OWN, EVIL, "null", "http://notes.example", ALLOWED + ".evil.example"):
        answer = configured.get("/notes/", headers={"Origin": origin})
        assert "allow-origin" not in cors(answer)
        assert "Origin" in answer.headers["Vary"]
        assert "allow-origin" not in cors(preflight(configured, origin))


def test_cors_headers_allow_configured_origins(configured: TestClient) -> None:
    answer = configured.post("/notes/", json=note_in(), headers={"Origin": ALLOWED})
    assert cors(answer) == {
        "allow-origin": ALLOWED,
        "allow-credentials": "true",
        "expose-headers": "ETag, Link, Location, Retry-After, X-Cursor, X-Incomplete, X-Total-Count",
    }
    assert answer.headers["Vary"] == "Origin"
    for refused in (
        configured.get("/notes/0/", headers={"Origin": ALLOWED}),
        configured.get("/x", headers={"Origin": ALLOWED}),
    ):
        assert cors(refused)["allow-origin"] == ALLOWED
    headers = "authorization,content-type,idempotency-key,if-match,if-none-match,last-event-id"
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        asked = preflight(configured, ALLOWED, method, headers)
        assert asked.status_code == 200
        assert cors(asked)["allow-origin"] == ALLOWED
        assert cors(asked)["allow-credentials"] == "true"
    assert preflight(configured, ALLOWED, "PUT", "x-other").status_code == 400
    assert preflight(configured, ALLOWED, "TRACE").status_code == 400


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8000", "localhost.evil.example", "a.b:80", "[:"]
)
def test_unknown_host_name_is_refused(client: TestClient, configured: TestClient, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    for method, path in (("GET", "/notes/"), ("GET", "/"), ("POST", "/notes/")):
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, "REALTIME_ORIGINS" in answer.json()["detail"]) == (421, True)
        assert configured.request(method, path, headers=headers).status_code == 421
    assert refused_handshake(client, "/ws", **headers).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "a.localhost", "laptop", "192.168.0.7"])
def test_local_host_name_is_accepted(client: TestClient, host: str) -> None:
    assert client.get("/notes/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(("address", "status"), [("10.0.0.7", 421), ("127.0.0.5", 200)])
def test_open_mode_serves_only_loopback_addresses(settings: Settings, address: str, status: int) -> None:
    """The address of the request decides, whichever address ``fastapi run`` or uvicorn listens on."""
    with TestClient(create_app(settings), base_url=f"http://{address}:8000") as client:
        assert client.get("/notes/").status_code == status
    with TestClient(
        create_app(settings.model_copy(update={"allow_public": True})), base_url=f"http://{address}"
    ) as client:
        assert client.get("/notes/").status_code == 200


def test_host_name_is_accepted_by_configured_origin_or_public_mode(configured: TestClient, settings: Settings) -> None:
    assert configured.get("/notes/", headers={"Host": "notes.example"}).status_code == 200
    for changes in ({"allow_public": True}, {"auth": "accounts"}):
        with TestClient(create_app(settings.model_copy(update=changes))) as client:
            assert client.get("/ping", headers={"Host": "notes.example"}).status_code == 200
