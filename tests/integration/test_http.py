"""HTTP conformance (RFC 9110, 9112) beyond uvicorn and FastAPI, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import NamedTuple

import httpx
import pytest

from tests.support.harness import UNIT, Json, ServerProcess, note_in, rest_client
from tests.support.websocket import sent_request

OFFER = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)
JSON = "Content-Type: application/json"


class Answer(NamedTuple):
    """A raw response."""

    status: int
    head: str
    body: bytes

    @property
    def json(self) -> Json:
        """The body as JSON."""
        value: Json = json.loads(self.body)
        return value


def head(request: str, *lines: str, host: str | None = "Host: 127.0.0.1") -> bytes:
    """Return the head of a request."""
    return "\r\n".join([request, *([host] if host else []), *lines, "", ""]).encode()


async def send_raw(server: ServerProcess, *pieces: bytes) -> Answer:
    """Send a request in pieces, and return the response. The server has to close the connection after it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)  # so that the pieces arrive separately
        async with asyncio.timeout(20 * UNIT):
            received = await reader.read()
    finally:
        writer.transport.abort()
    top, _, body = received.partition(b"\r\n\r\n")
    return Answer(int(top.split()[1]), top.decode().lower(), body)


async def post(server: ServerProcess, *lines: str, body: bytes) -> Answer:
    """Send a new note."""
    top = head("POST /notes/ HTTP/1.1", JSON, "Connection: close", *lines)
    return await send_raw(server, top + body)


@pytest.fixture
def server(shared_servers: list[ServerProcess]) -> ServerProcess:
    """Return a shared server, for tests that read only notes of their own."""
    return shared_servers[0]


class TestUpgradeOffers:
    """Java's HttpClient and ``curl --http2`` offer HTTP/2 with the first request of a connection."""

    body = json.dumps(note_in("From Java", content="ä" * 3000)).encode()
    length = f"Content-Length: {len(body)}"
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    pieces: tuple[Callable[[bytes], list[bytes]], ...] = (
        lambda data: [data],
        lambda data: [data[:40], data[40:]],
        lambda data: [*data.partition(b"\r\n\r\n")],
        lambda data: [data[at : at + 700] for at in range(0, len(data), 700)],
    )

    @pytest.mark.parametrize("cut", range(len(pieces)))
    @pytest.mark.parametrize("sized", [True, False])
    async def test_request_with_an_unsupported_offer_keeps_its_body(
        self, server: ServerProcess, cut: int, sized: bool
    ) -> None:
        framing, body = (self.length, self.body) if sized else ("Transfer-Encoding: chunked", self.chunked)
        data = head("POST /notes/ HTTP/1.1", JSON, *OFFER, framing) + body
        following = head("GET /ping HTTP/1.1", "Connection: close")
        answer = await send_raw(server, *self.pieces[cut](data), following)
        assert answer.status == 201
        first, _, second = answer.body.partition(b"HTTP/1.1 200 OK")
        assert json.loads(first)["content"] == "ä" * 3000
        assert second.endswith(b'{"ping":"pong!"}')

    @pytest.mark.parametrize("offer", ["h2c", "TLS/1.0", "h2c, foo/2"])
    async def test_pipelined_requests_without_bodies_are_answered_in_order(
        self, server: ServerProcess, offer: str
    ) -> None:
        request = head("GET /ping HTTP/1.1", "Connection: Upgrade", f"Upgrade: {offer}")
        last = head("GET /healthz HTTP/1.1", "Connection: close")
        answer = await send_raw(server, request + request, request, last)
        assert answer.body.count(b"pong!") == 3
        assert answer.body.endswith(b'{"status":"alive"}')

    async def test_websocket_offer_in_any_header_line_is_accepted(self, server: ServerProcess) -> None:
        handshake = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")
        for offer in (
            ("Connection: keep-alive", "Connection: Upgrade", "Upgrade: websocket"),
            ("Connection: Upgrade, keep-alive", "Upgrade: h2c, WebSocket"),
            ("Connection: Upgrade", "Upgrade: websocket", "Connection: HTTP2-Settings", "Upgrade: h2c"),
        ):
            async with sent_request(server.port, head("GET /ws HTTP/1.1", *offer, *handshake)) as (reader, _):
                assert (await reader.readline()).startswith(b"HTTP/1.1 101")


class TestHandshakes:
    lines = (
        *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )

    @pytest.mark.parametrize(("length", "status"), [("0", b"101"), ("1", b"400"), ("00", b"400")])
    async def test_handshake_accepts_only_a_content_length_of_zero(
        self, server: ServerProcess, length: str, status: bytes
    ) -> None:
        """Java's client sends ``Content-Length: 0`` with each handshake."""
        request = head("GET /ws HTTP/1.1", *self.lines, f"Content-Length: {length}") + b"a"
        async with sent_request(server.port, request) as (reader, _):
            assert (await reader.readline()).split()[1] == status

    async def test_handshake_with_too_many_bytes_returns_400(self, server: ServerProcess) -> None:
        path = "/ws?notes=" + ",".join(map(str, range(1, 9000)))
        assert (await send_raw(server, head(f"GET {path} HTTP/1.1", *self.lines))).status == 400

    async def test_handshake_on_an_unknown_path_returns_404(self, server: ServerProcess) -> None:
        answer = await send_raw(server, head("GET /nothing HTTP/1.1", *self.lines))
        assert (answer.status, answer.json) == (404, {"detail": "Not Found"})


class TestHosts:
    @pytest.mark.parametrize("host", [None, "Host: a\r\nHost: b", "Host: a\r\nhost: a"])
    @pytest.mark.parametrize("lines", [(), ("Upgrade: websocket", "Connection: Upgrade")])
    async def test_request_without_exactly_one_host_is_refused(
        self, server: ServerProcess, host: str | None, lines: tuple[str, ...]
    ) -> None:
        answer = await send_raw(server, head("GET /ws HTTP/1.1", *lines, host=host))
        assert answer.status == 400
        assert answer.json["detail"].startswith("An HTTP/1.1 request must have exactly one Host header")

    @pytest.mark.parametrize(
        "host", ["a b", "evil/", "127.0.0.1:1:2", "localhost:abc", "user@localhost", "[::1", "[x]"]
    )
    async def test_invalid_host_is_refused(self, server: ServerProcess, host: str) -> None:
        assert (await send_raw(server, head("GET /ping HTTP/1.1", host=f"Host: {host}"))).status == 400

    @pytest.mark.parametrize("host", ["", "localhost", "127.0.0.1:80", "[::1]:8000", "my_host", "localhost:"])
    async def test_valid_host_is_accepted(self, server: ServerProcess, host: str) -> None:
        answer = await send_raw(server, head("GET /ping HTTP/1.1", "Connection: close", host=f"Host: {host}"))
        assert answer.status == 200

    async def test_http_1_0_request_without_host_is_accepted(self, server: ServerProcess) -> None:
        assert (await send_raw(server, head("GET /ping HTTP/1.0", host=None))).json == {"ping": "pong!"}
        assert (await send_raw(server, head("GET /ping HTTP/1.0", host="Host: a\r\nHost: b"))).status == 400

    async def test_malformed_request_gets_a_json_error(self, server: ServerProcess) -> None:
        for data in (b"no request\r\n\r\n", head("GET /ping HTTP/1.1", "a b: c"), head("GET /ping HTTP/7.1")):
            answer = await send_raw(server, data)
            assert (answer.status, answer.json) == (400, {"detail": "Invalid HTTP request received."})


class TestHttp10:
    """Nginx uses HTTP/1.0 for upstream servers by default."""

    async def test_stream_is_sent_without_chunks_until_the_connection_closes(self, server: ServerProcess) -> None:
        async with rest_client(server.url) as rest:
            await rest.post("/notes/", json=note_in())
        answer = await send_raw(server, head("GET /export HTTP/1.0"))
        assert answer.status == 200
        assert "transfer-encoding" not in answer.head
        assert answer.body.startswith(b"PK\x03\x04")
        assert answer.body[-22:].startswith(b"PK\x05\x06")

    async def test_body_of_known_length_has_a_content_length(self, server: ServerProcess) -> None:
        answer = await send_raw(server, head("GET /openapi.json HTTP/1.0"))
        assert f"content-length: {len(answer.body)}" in answer.head

    async def test_expect_header_gets_no_100_continue(self, server: ServerProcess) -> None:
        body = json.dumps(note_in()).encode()
        top = head("POST /notes/ HTTP/1.0", JSON, "Expect: 100-continue", f"Content-Length: {len(body)}")
        assert (await send_raw(server, top, body)).status == 201

    async def test_event_stream_is_sent_without_buffering(self, server: ServerProcess) -> None:
        async with sent_request(server.port, head("GET /events HTTP/1.0")) as (reader, _):
            top = await reader.readuntil(b"\r\n\r\n")
            assert b"chunked" not in top
            assert await reader.readuntil(b"\n\n") == b"retry: 1000\n\n"
            assert b'data: {"type":"ready"' in await reader.readuntil(b"\n\n")


class TestHead:
    async def test_head_response_equals_get_without_the_body(self, server: ServerProcess) -> None:
        async with rest_client(server.url) as rest:
            made = (await rest.post("/notes/", json=note_in())).json()
            path = f"/notes/{made['id']}/"
            paths = ("/ping", "/healthz", "/readyz/", "/metrics", "/", "/docs", "/openapi.json", "/icon.svg", "/tags/")
            for target in (*paths, path, f"{path}history/", "/notes/?limit=1", "/notes/0/", "/nothing", "/notes/?q="):
                got, headed = await rest.get(target), await rest.head(target)
                assert headed.status_code == got.status_code, target
                assert headed.content == b"", target
                assert headed.headers.keys() == got.headers.keys(), target
            assert (await rest.head(path)).headers["ETag"] == '"v1"'
            assert (await rest.head(path, headers={"If-None-Match": '"v1"'})).status_code == 304

    async def test_head_of_a_stream_returns_immediately(self, server: ServerProcess) -> None:
        async with rest_client(server.url) as rest:
            for path, kind in (("/events", "text/event-stream; charset=utf-8"), ("/export", "application/zip")):
                async with asyncio.timeout(5 * UNIT):
                    answer = await rest.head(path)
                assert (answer.status_code, answer.headers["Content-Type"], answer.content) == (200, kind, b"")
            assert (await rest.get("/ping")).status_code == 200
        assert "Traceback" not in server.log()

    async def test_head_of_a_post_only_route_returns_405(self, server: ServerProcess) -> None:
        async with rest_client(server.url) as rest:
            answer = await rest.head("/import")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "OPTIONS, POST")

    async def test_options_request_returns_the_allowed_methods(self, server: ServerProcess) -> None:
        for target in ("*", "/"):
            answer = await send_raw(server, head(f"OPTIONS {target} HTTP/1.1", "Connection: close"))
            assert answer.status == 204
            assert "allow: " in answer.head


class TestRepeatedHeaders:
    """A list may be split over several lines (RFC 9110, section 5.3). Proxies do that with long lists."""

    async def _call(self, server: ServerProcess, method: str, *lines: tuple[str, str]) -> httpx.Response:
        async with rest_client(server.url) as rest:
            made = (await rest.post("/notes/", json=note_in())).json()
            body = note_in() if method == "PUT" else None
            return await rest.request(method, f"/notes/{made['id']}/", json=body, headers=[*lines])

    @pytest.mark.parametrize("tags", [('"v7"', '"v1"'), ('"v1"', '"v7"'), ('"v7", "v8"', 'W/"v1"', '"v1"')])
    async def test_preconditions_in_all_header_lines_are_evaluated(
        self, server: ServerProcess, tags: tuple[str, ...]
    ) -> None:
        match = [("If-Match", tag) for tag in tags]
        none_match = [("If-None-Match", tag) for tag in tags]
        assert (await self._call(server, "PUT", *match)).status_code == 200
        assert (await self._call(server, "GET", *none_match)).status_code == 304
        assert (await self._call(server, "PUT", *none_match)).status_code == 412
        assert (await self._call(server, "PUT", *match, *none_match)).status_code == 412

    @pytest.mark.parametrize("tags", [', "v1",, "v9"', '"v1",', ',"v1"', '"v9" , , "v1" ,'])
    async def test_empty_elements_of_a_list_are_ignored(self, server: ServerProcess, tags: str) -> None:
        assert (await self._call(server, "PUT", ("If-Match", tags))).status_code == 200
        assert (await self._call(server, "GET", ("If-None-Match", tags))).status_code == 304
        assert (await self._call(server, "PUT", ("If-None-Match", '"v1"'), ("If-None-Match", ""))).status_code == 412

    async def test_entity_tags_with_apache_compression_suffixes_match(self, server: ServerProcess) -> None:
        for suffix in ("-gzip", "-br"):
            tag = f'"v1{suffix}"'
            assert (await self._call(server, "GET", ("If-None-Match", tag))).status_code == 304
            assert (await self._call(server, "PUT", ("If-Match", tag))).status_code == 200

    async def test_accepted_types_in_all_header_lines_are_considered(self, server: ServerProcess) -> None:
        files = {"files": ("a.md", b"# Title\n")}
        accepted = [("Accept", "text/plain"), ("Accept", "application/x-ndjson")]
        async with rest_client(server.url) as rest:
            answer = await rest.post("/import", files=files, headers=accepted)
        assert answer.headers["Content-Type"] == "application/x-ndjson"


class TestPreconditionsOfWrites:
    @pytest.fixture
    async def note(self, server: ServerProcess) -> Json:
        async with rest_client(server.url) as rest:
            await rest.post("/notes/", json=note_in())
            made: Json = (await rest.post("/notes/", json=note_in())).json()
            path = f"/notes/{made['id']}/"
            changed: Json = (await rest.put(path, json=note_in("changed"))).json()
        return changed

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PUT", "", note_in("again")),
            ("PATCH", "", {"title": "again"}),
            ("PATCH", "", {}),
            ("PATCH", "?base_version=1", {"content": "again"}),
            ("POST", "content", [{"op": "append", "text": "again"}]),
            ("POST", "restore", {"version": 1}),
            ("DELETE", "", None),
        ],
    )
    async def test_matching_if_none_match_refuses_the_write(
        self, server: ServerProcess, note: Json, method: str, path: str, body: object
    ) -> None:
        async with rest_client(server.url) as rest:
            at = f"/notes/{note['id']}/"
            for tags, status in (("*", 412), ('"v2"', 412), ('W/"v2"', 412), ('"v1", "v2"', 412), ('"v1"', 200)):
                answer = await rest.request(method, at + path, json=body, headers={"If-None-Match": tags})
                assert answer.status_code == status, tags
                if status == 412:
                    assert answer.json()["note"] == note
                    assert answer.headers["ETag"] == '"v2"'
                    assert (await rest.get(at)).json() == note

    async def test_weak_tag_in_if_match_is_refused_with_a_hint(self, server: ServerProcess, note: Json) -> None:
        async with rest_client(server.url) as rest:
            at = f"/notes/{note['id']}/"
            weak = await rest.put(at, json=note_in(), headers={"If-Match": 'W/"v2"'})
            strong = await rest.put(at, json=note_in(), headers={"If-Match": '"v1"'})
        assert (weak.status_code, strong.status_code) == (412, 412)
        assert "without W/" in weak.json()["detail"]
        assert "W/" not in strong.json()["detail"]

    async def test_key_reused_with_another_precondition_is_refused(self, server: ServerProcess, note: Json) -> None:
        async with rest_client(server.url) as rest:
            key = {"Idempotency-Key": f"once-{note['id']}"}
            calls = [
                await rest.patch(f"/notes/{note['id']}/", json={"title": "keyed"}, headers={**key, **more})
                for more in ({"If-None-Match": '"v9"'}, {"If-None-Match": '"v9"'}, {"If-None-Match": '"v8"'}, {})
            ]
        assert [call.status_code for call in calls] == [200, 200, 422, 422]


class TestBodies:
    body = json.dumps(note_in()).encode()

    @pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "GZIP"])
    async def test_compressed_body_is_refused_with_the_accepted_encoding(
        self, server: ServerProcess, encoding: str
    ) -> None:
        data = gzip.compress(self.body)
        answer = await post(server, f"Content-Encoding: {encoding}", f"Content-Length: {len(data)}", body=data)
        assert answer.status == 415
        assert "accept-encoding: identity" in answer.head
        assert encoding in answer.json["detail"]

    async def test_identity_content_encoding_is_accepted(self, server: ServerProcess) -> None:
        for lines in (("Content-Encoding: identity",), ("Content-Encoding:",)):
            answer = await post(server, *lines, f"Content-Length: {len(self.body)}", body=self.body)
            assert answer.status == 201

    @pytest.mark.parametrize(
        ("encoding", "status"),
        [("latin-1", 400), ("cp1252", 400), ("utf-8-sig", 201), ("utf-16", 201), ("utf-32", 201)],
    )
    async def test_json_is_accepted_only_in_unicode(self, server: ServerProcess, encoding: str, status: int) -> None:
        data = json.dumps(note_in("Café"), ensure_ascii=False).encode(encoding)
        answer = await post(server, f"Content-Length: {len(data)}", body=data)
        assert answer.status == status
        if status == 201:
            assert answer.json["title"] == "Café"
        else:
            assert answer.json == {"detail": "The body is not UTF-8 (at byte 14). Send JSON as UTF-8"}
