"""The server behind real reverse proxies, with documented and with common configurations."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.types import Message, Scope
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from realtime import create_app
from realtime.api.middleware.addressing import Addressing
from realtime.api.requests import host_of
from realtime.settings import Settings
from tests.support.accounts import HERE, Browser, with_accounts
from tests.support.files import zipped
from tests.support.harness import UNIT, ServerProcess, eventually, note_in, rest_client
from tests.support.http import Serve
from tests.support.reverse_proxies import DOCUMENTED, NAMES, documented, reverse_proxy
from tests.support.room_client import Wire

MINIMAL = {
    "nginx": "server { listen 80; location / { proxy_pass http://127.0.0.1:8000; } }",
    "apache": '<VirtualHost *:80>\nProxyPass "/" "http://127.0.0.1:8000/" upgrade=websocket\n</VirtualHost>',
    "haproxy": (
        "defaults\n mode http\n timeout connect 5s\n timeout client 50s\n timeout server 50s\n"
        "frontend f\n bind :80\n default_backend b\n"
        "backend b\n option httpchk\n server s 127.0.0.1:8000 check inter 100\n"
    ),
    "caddy": "notes.example {\n reverse_proxy 127.0.0.1:8000\n}",
}
"""Configurations as written without reading any documentation."""
USUAL = (
    "server { listen 80; location / { proxy_pass http://127.0.0.1:8000; proxy_http_version 1.1;"
    " proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_set_header Host $host;"
    " proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
    " proxy_set_header X-Forwarded-Proto $scheme; } }"
)
"""The nginx snippet of most guides. ``$host`` does not include the port."""


async def check_reads_and_writes(url: str) -> None:
    """Use the REST API as a page at the proxy's address does."""
    async with rest_client(url) as rest:
        headers = {"Origin": url}
        made = await rest.post("/notes/", json=note_in("proxied"), headers=headers)
        assert made.status_code == 201, made.text
        path = made.headers["Location"]
        changed = await rest.patch(path, json={"title": "changed"}, headers={**headers, "If-Match": '"v1"'})
        assert (changed.status_code, changed.json()["version"]) == (200, 2)
        assert (await rest.get(path, headers={"If-None-Match": '"v2"'})).status_code == 304
        listed = await rest.get("/notes/?limit=1&sort=-id")
        assert listed.json()[0]["title"] == "changed"
        for method in ("HEAD", "OPTIONS", "GET"):
            for probe in ("/healthz", "/readyz", "/"):
                answer = await rest.request(method, probe)
                assert answer.is_success, (method, probe, answer.status_code)


async def check_feed_and_room(url: str) -> None:
    """Receive a write over each transport of the feed, and type in a room."""
    async with rest_client(url) as rest, asyncio.timeout(20 * UNIT):
        headers = {"Origin": url}
        cursor = (await rest.get("/notes/?limit=1")).headers["X-Cursor"]
        async with (
            connect(f"{url.replace('http', 'ws')}/ws", origin=url) as socket,  # type: ignore[arg-type]  # an origin
            rest.stream("GET", "/events") as events,
        ):
            assert json.loads(await socket.recv())["type"] == "ready"
            lines = events.aiter_lines()
            while "ready" not in await anext(lines):
                pass
            made = (await rest.post("/notes/", json=note_in("followed"), headers=headers)).json()
            while (frame := json.loads(await socket.recv()))["type"] != "note.created":
                pass
            assert frame["note"] == made
            while not (line := await anext(lines)).startswith("data: "):
                pass
            assert json.loads(line[6:])["note"] == made
            polled = (await rest.get("/changes", params={"since": cursor})).json()
            assert polled["changes"][-1]["note"] == made
        async with Wire(url, made["id"]) as typist:
            await typist.append("typed")
            await eventually(lambda: typist.text.all_acknowledged)
        await eventually(lambda: _has(rest, made["id"], "typed"))


async def _has(rest: httpx.AsyncClient, id: int, content: str) -> None:
    assert (await rest.get(f"/notes/{id}/")).json()["content"] == content


async def check_large_import(url: str) -> None:
    """Import more than a proxy accepts by default."""
    packed = zipped({f"{number}.md": f"# Large {number}\n\n" + "x" * 900_000 for number in range(4)})
    async with rest_client(url) as rest:
        answer = await rest.post("/import", files={"files": ("large.zip", packed)}, headers={"Origin": url})
        assert (answer.status_code, answer.json()["imported"]) == (200, 4)


class TestRealProxies:
    @pytest.fixture
    def server(self, serve: Serve) -> ServerProcess:
        return serve(allow_public=True)

    @pytest.mark.parametrize("name", NAMES)
    async def test_documented_configuration_supports_all_requests(
        self, server: ServerProcess, tmp_path: Path, name: str
    ) -> None:
        async with reverse_proxy(name, server, tmp_path / name) as url:
            await check_reads_and_writes(url)
            await check_feed_and_room(url)
            await check_large_import(url)
        assert '"client": "127.0.0.1"' in server.log()

    @pytest.mark.parametrize("name", NAMES)
    async def test_minimal_configuration_supports_reads_and_writes(
        self, server: ServerProcess, tmp_path: Path, name: str
    ) -> None:
        async with reverse_proxy(name, server, tmp_path / name, MINIMAL[name]) as url:
            async with rest_client(url) as rest:
                headers = {"Origin": url, "Sec-Fetch-Site": "same-origin"}  # as from a page on this machine

                async def is_up() -> None:
                    assert (await rest.get("/ping")).status_code == 200  # HAProxy checks its health first

                await eventually(is_up)
                assert (await rest.post("/notes/", json=note_in(), headers=headers)).status_code == 201
            if name != "nginx":  # its minimal configuration forwards no WebSockets
                await check_reads_and_writes(url)
                await check_feed_and_room(url)

    async def test_host_header_without_the_port_is_accepted(self, server: ServerProcess, tmp_path: Path) -> None:
        async with reverse_proxy("nginx", server, tmp_path / "nginx", USUAL) as url:
            await check_reads_and_writes(url)
            await check_feed_and_room(url)
            foreign = "http://evil.example"
            async with rest_client(url) as rest:
                answer = await rest.post("/notes/", json=note_in(), headers={"Origin": foreign})
                assert answer.status_code == 403
                assert "X-Forwarded-Host" in answer.json()["detail"]
            with pytest.raises(InvalidStatus):
                await connect(f"{url.replace('http', 'ws')}/ws", origin=foreign)  # type: ignore[arg-type]  # an origin

    @pytest.mark.parametrize("strips", [True, False])
    @pytest.mark.parametrize("prefix", ["/notes", "/a/deep-path"])
    async def test_path_prefix_is_served_and_used_in_links(
        self, serve: Serve, tmp_path: Path, prefix: str, strips: bool
    ) -> None:
        assert "location /notes/ {" in DOCUMENTED
        server = serve(root_path=prefix, allow_public=True)
        site = documented("nginx").replace("location / {", f"location {prefix}/ {{")
        if strips:
            site = site.replace("127.0.0.1:8000;", "127.0.0.1:8000/;")
        async with reverse_proxy("nginx", server, tmp_path / "nginx", site) as host:
            url = host + prefix
            async with rest_client(host) as rest:
                for _ in range(2):
                    made = await rest.post(f"{prefix}/notes/", json=note_in())
                assert made.headers["Location"] == f"{prefix}/notes/2/"
                assert (await rest.get(made.headers["Location"])).json() == made.json()
                page = await rest.get(f"{prefix}/notes/?limit=1")
                assert page.links["next"]["url"].startswith(f"{prefix}/notes/?")
                assert (await rest.get(page.links["next"]["url"])).json() == [made.json()]
                described = (await rest.get(f"{prefix}/openapi.json")).json()
                assert described["servers"] == [{"url": prefix}]
                for path in ("/", "/n/1", "/docs", "/redoc", "/asyncapi.json", "/ping"):
                    assert (await rest.get(prefix + path, headers={"Accept": "text/html"})).status_code == 200, path
            async with connect(f"{url.replace('http', 'ws')}/ws") as socket:
                assert json.loads(await socket.recv())["type"] == "ready"
            async with Wire(url, 1) as typist:
                await typist.append("typed")
                await eventually(lambda: typist.text.all_acknowledged)


async def _scope(
    headers: dict[str, str],
    client: str | None = "127.0.0.1",
    proxies: str = "127.0.0.1",
    kind: str = "http",
) -> Scope:
    """Return the scope that the application receives."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(scope)

    scope = {
        "type": kind,
        "scheme": "ws" if kind == "websocket" else "http",
        "client": None if client is None else (client, 1),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    await Addressing(app, proxies)(scope, _never, _never)
    return seen[0]


async def _never(*_: Any) -> Any:
    raise AssertionError


class TestTrustedProxies:
    async def test_trusted_proxy_sets_address_scheme_and_host(self) -> None:
        headers = {"Host": "inner:8000", "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
        scope = await _scope({**headers, "X-Forwarded-Host": "notes.example"})
        assert (scope["client"][0], scope["scheme"], host_of(scope)) == ("203.0.113.9", "https", "notes.example")
        assert host_of(await _scope(headers)) == "inner:8000"

    async def test_headers_of_untrusted_clients_are_ignored(self) -> None:
        headers = {"Host": "inner", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "x"}
        for client in ("192.0.2.1", None):
            scope = await _scope(headers, client)
            assert (scope["scheme"], host_of(scope)) == ("http", "inner")
            assert client is None or scope["client"][0] == client

    @pytest.mark.parametrize(
        ("proto", "scheme"),
        [
            *(("https,http", "https"), (" HTTPS , http", "https"), ("http, https", "http"), ("wss", "https")),
            *(("", "http"), ("gopher", "http"), (",https", "http")),
        ],
    )
    async def test_first_scheme_of_a_list_is_used(self, proto: str, scheme: str) -> None:
        assert (await _scope({"X-Forwarded-Proto": proto}))["scheme"] == scheme
        socket = await _scope({"X-Forwarded-Proto": proto}, kind="websocket")
        assert socket["scheme"] == {"http": "ws", "https": "wss"}[scheme]

    async def test_first_host_of_a_list_is_used(self) -> None:
        scope = await _scope({"Host": "b", "X-Forwarded-Host": "notes.example:8443 , inner"}, "10.0.0.7", "10.0.0.0/8")
        assert host_of(scope) == "notes.example:8443"

    def test_request_is_refused_if_host_or_forwarded_host_is_foreign(self, settings: Settings) -> None:
        """After DNS rebinding, a page can set any header except ``Host``."""
        with TestClient(create_app(settings), client=("127.0.0.1", 1)) as client:
            for forwarded in ("localhost", "127.0.0.1", ""):
                headers = {"Host": "evil.example", "X-Forwarded-Host": forwarded}
                assert client.get("/notes/", headers=headers).status_code == 421
            for forwarded in ("evil.example", "localhost, evil.example"):
                headers = {"Host": "localhost", "X-Forwarded-Host": forwarded}
                assert client.get("/notes/", headers=headers).status_code == 421

    def test_only_the_origin_of_the_forwarded_host_may_write(self, settings: Settings) -> None:
        app = create_app(settings.model_copy(update={"allow_public": True}))
        with TestClient(app, client=("127.0.0.1", 1)) as client:
            headers = {"Host": "inner:8000", "X-Forwarded-Host": "notes.example"}
            for origin, status in (("https://notes.example", 201), ("http://inner:8000", 403), ("https://evil", 403)):
                answer = client.post("/notes/", json=note_in(), headers={**headers, "Origin": origin})
                assert answer.status_code == status, origin

    def test_origin_with_another_port_is_refused_with_accounts(self, settings: Settings) -> None:
        with TestClient(create_app(with_accounts(settings)), base_url=HERE, client=("127.0.0.1", 1)) as host:
            ann = Browser(host).sign_up()
            headers = {"X-Forwarded-For": "127.0.0.1", "Origin": "http://127.0.0.1:8080"}
            assert ann.post("/notes/", json=note_in(), headers=headers).status_code == 403


class TestRootPath:
    FIRST = frozenset({"n", "notes", "docs", "assets", "ws", "ping"})

    async def _path(self, prefix: str, path: str, accept: str = "*/*", server: str = "") -> tuple[str, str]:
        seen: list[Scope] = []

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            seen.append(scope)

        scope = {"type": "http", "path": server + path, "root_path": server, "headers": [(b"accept", accept.encode())]}
        await Addressing(app, "", prefix, self.FIRST)(scope, _never, _never)
        return seen[0]["root_path"], seen[0]["path"]

    @pytest.mark.parametrize("path", ["/", "/n/1", "/notes/", "/notes/1/", "/docs", "/nothing", "/teams", "/n/team"])
    async def test_path_has_the_prefix_exactly_once(self, path: str) -> None:
        assert await self._path("/team", path) == ("/team", f"/team{path}")
        if path != "/nothing" and path != "/teams":  # these are not routes
            assert await self._path("/team", f"/team{path}") == ("/team", f"/team{path}")
        assert await self._path("", path, server="/team") == ("/team", f"/team{path}"), "set by uvicorn"

    async def test_prefix_equal_to_a_route_is_distinguished(self) -> None:
        for path in ("/notes/1/", "/notes/1/history", "/notes/?q=a", "/notes/17"):
            assert await self._path("/notes", path) == ("/notes", f"/notes{path}"), "removed by the proxy"
        for path in ("/n/1", "/notes/1/", "/assets/a.js", "/ws", "/notes"):
            assert await self._path("/notes", f"/notes{path}") == ("/notes", f"/notes{path}"), "kept by the proxy"
        for path in ("/notes", "/notes/"):
            assert await self._path("/notes", path) == ("/notes", f"/notes{path}"), "a program requests the list"
            opened = await self._path("/notes", path, "text/html,application/xhtml+xml,*/*;q=0.8")
            assert opened == ("/notes", "/notes/"), "a browser opens the page"

    async def test_response_links_get_the_prefix(self) -> None:
        sent: list[Message] = []

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            headers = [(b"location", b"/notes/1/"), (b"link", b'</notes/?after=x>; rel="next"'), (b"etag", b'"v1"')]
            await send({"type": "http.response.start", "status": 201, "headers": headers})

        async def send(message: Message) -> None:
            sent.append(message)

        await Addressing(app, "", "/team", self.FIRST)({"type": "http", "path": "/notes/", "headers": []}, _never, send)
        assert sent[0]["headers"] == [
            (b"location", b"/team/notes/1/"),
            (b"link", b'</team/notes/?after=x>; rel="next"'),
            (b"etag", b'"v1"'),
        ]

    @pytest.mark.parametrize("value", ["notes", "/", "/notes/", "//a", "/a b", "/ä", "/a?b", "https://a"])
    def test_invalid_root_path_setting_is_refused(self, value: str) -> None:
        with pytest.raises(ValueError, match="root_path"):
            Settings(root_path=value)
