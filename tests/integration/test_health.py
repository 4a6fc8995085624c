"""Liveness, readiness, metrics and the request log, with and without MongoDB."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from starlette.testclient import TestClient

from realtime.server import logs
from realtime.settings import Settings
from realtime.store.readiness import FIRST_FIXED_PATCH, leaks_memory
from tests.faults.daemons import Standalone, Valkey
from tests.support.accounts import Browser, accounts_server
from tests.support.harness import ServerProcess, create_note, eventually, note_in, rest_client
from tests.support.http import Serve

SERVICES = Path(__file__).parents[2] / "docs" / "how-to" / "mongodb-and-redis.md"
UNREACHABLE_MONGO_URL = "mongodb://127.0.0.1:1/?directConnection=true&serverSelectionTimeoutMS=200"


def _samples(text: str) -> dict[tuple[str, ...], float]:
    """Return the value of each sample by its name and label values."""
    families = text_string_to_metric_families(text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_readyz_lists_the_checked_dependencies(client: TestClient) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    checks = {name: check["ok"] for name, check in answer.json()["checks"].items()}
    assert checks == {"mongodb": True, "redis": True, "feed": True, "accepting": True}


async def test_server_without_mongodb_stays_alive_and_returns_503(serve: Serve) -> None:
    server = serve(mongo_url=UNREACHABLE_MONGO_URL, write_timeout=0.5, read_timeout=0.5, allow_public=True)
    async with rest_client(server.url) as rest:
        write, keyed, read, listed, ready, alive, metrics = await asyncio.gather(
            rest.post("/notes/", json=note_in()),
            rest.put("/notes/1/", json=note_in(), headers={"Idempotency-Key": "key"}),
            rest.get("/notes/1/"),
            rest.get("/notes/"),
            rest.get("/readyz"),
            rest.get("/healthz"),
            rest.get("/metrics"),
        )
        refused = (write, keyed, read, listed)
        assert [answer.status_code for answer in refused] == [503] * 4
        assert [answer.json().get("outcome") for answer in refused] == ["unknown", "unknown", None, None]
        assert all(int(answer.headers["Retry-After"]) > 0 and answer.json()["detail"] for answer in refused)

        assert (ready.status_code, alive.status_code, metrics.status_code) == (503, 200, 200)
        checks = ready.json()["checks"]
        assert (checks["mongodb"]["ok"], checks["redis"]["ok"]) == (False, True)
        assert (await rest.get("/ping")).status_code == 200
    assert server.stop() == 0


async def test_redis_user_with_the_documented_permissions_is_sufficient(settings: Settings, tmp_path: Path) -> None:
    documented = re.search(r"^ACL SETUSER realtime (on .*)$", SERVICES.read_text(), re.MULTILINE)
    assert documented
    async with Valkey(tmp_path / "valkey") as valkey, Redis.from_url(valkey.url) as redis:
        rules = documented[1].replace("{realtime}", f"{{{settings.database}}}").split()
        await redis.execute_command("ACL", "SETUSER", "realtime", *rules)  # type: ignore[no-untyped-call]  # untyped in the library

        def use() -> None:
            url = valkey.url.replace("//", "//realtime:password@")
            with accounts_server(settings, redis_url=url) as host:
                ann = Browser(host).sign_up()
                note = create_note(ann)["id"]
                with ann.open_feed() as socket:
                    assert socket.receive_json()["type"] in ("note.created", "ready")
                    socket.send_json({"type": "presence", "id": note, "state": {}})
                    while socket.receive_json()["type"] != "presence":
                        pass
                with ann.open_room(note) as socket:
                    assert socket.receive_bytes()
                assert host.get("/readyz").json()["status"] == "ready"

        await asyncio.to_thread(use)
        assert await redis.execute_command("ACL", "LOG") == []  # type: ignore[no-untyped-call]  # as above


async def _check_warning(server: ServerProcess, name: str, *parts: str) -> None:
    """Check that a database is ready, but with a warning that contains some words."""
    async with rest_client(server.url) as rest:
        check = (await rest.get("/readyz")).json()["checks"][name]
    assert check["ok"] is True
    assert [part for part in parts if part not in check.get("warning", "")] == []


async def test_redis_that_evicts_keys_causes_a_warning(serve: Serve, tmp_path: Path) -> None:
    async with Valkey(tmp_path / "valkey") as valkey, Redis.from_url(valkey.url) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        server = serve(redis_url=valkey.url)
        await eventually(partial(_check_warning, server, "redis", "maxmemory-policy is allkeys-lru"))
        assert "maxmemory-policy is allkeys-lru" in server.log()
        server.kill()


async def test_server_without_redis_is_degraded_but_ready(serve: Serve, tmp_path: Path) -> None:
    async with Valkey(tmp_path / "valkey") as valkey:
        server = serve(redis_url=valkey.url)
        async with rest_client(server.url) as rest:

            async def status(expected: str) -> bool:
                answer = await rest.get("/readyz")
                assert answer.status_code == 200
                return answer.json()["status"] == expected  # type: ignore[no-any-return]

            await eventually(lambda: status("ready"))
            valkey.kill()
            await eventually(lambda: status("degraded"), within=20)
            checks = (await rest.get("/readyz")).json()["checks"]
            assert (checks["mongodb"]["ok"], checks["redis"]["ok"]) == (True, False)
            assert (await rest.post("/notes/", json=note_in())).status_code == 201
            await valkey.start()
            await eventually(lambda: status("ready"), within=20)
        server.kill()


@pytest.mark.parametrize(
    ("version", "leaks"),
    [
        ("4.2.25", True), ("4.4.29", True), ("4.4.30", False), ("5.0.31", True), ("5.0.32", False),
        ("6.0.26", True), ("6.0.27", False), ("7.0.27", True), ("7.0.28", False), ("8.0.16", True), ("8.0.17", False),
        ("8.1.9", True), ("8.2.2", True), ("8.2.3", False), ("8.3.0", False), ("9.0.0", False),
    ],
)  # fmt: skip
def test_mongodb_versions_that_leak_memory_are_detected(version: str, leaks: bool) -> None:
    assert leaks_memory([*map(int, version.split(".")), 0]) == leaks
    fixed = {".".join(map(str, (*series, patch))) for series, patch in FIRST_FIXED_PATCH.items()}
    assert version not in fixed or version in SERVICES.read_text()


async def test_leaking_standalone_mongodb_causes_a_warning(serve: Serve, tmp_path: Path) -> None:
    async with Standalone(tmp_path / "mongod") as mongod:
        server = serve(mongo_url=mongod.url)
        await eventually(partial(_check_warning, server, "mongodb", "not a member of a replica set", "CVE-2025-14847"))
        for part in ("read its memory", "Upgrade it to 6.0.27 or later", "--replSet"):
            assert part in server.log()
        server.kill()


async def test_embedded_mongodb_without_compression_causes_no_warning(server: ServerProcess) -> None:
    async with rest_client(server.url) as rest:
        assert "warning" not in (await rest.get("/readyz")).json()["checks"]["mongodb"]
    assert "CVE" not in server.log()


def test_metrics_count_writes_and_requests(client: TestClient) -> None:
    client.post("/notes/", json=note_in())
    client.put("/notes/1/", json=note_in())
    client.patch("/notes/1/", json={"title": "other"})
    client.put("/notes/1/", json=note_in(), headers={"If-Match": '"v9"'})
    client.delete("/notes/1/")
    client.delete("/notes/1/")
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = _samples(answer.text)
    for action, times in (("create", 1), ("update", 2), ("delete", 1)):
        assert samples["realtime_writes_total", action] == times
    assert samples["realtime_publishes_total", "ok"] == 4
    assert samples["realtime_request_seconds_count", "DELETE", "404"] == 1


async def test_each_request_logs_one_line_without_private_data(server: ServerProcess) -> None:
    async with rest_client(server.url) as rest:
        await rest.get("/changes", params={"since": "hidden-query", "timeout": 0})
        await rest.post("/notes/", json=note_in("hidden-body"), headers={"Idempotency-Key": "hidden-key"})
        await rest.put("/notes/1/", json={"hidden-field": 1}, headers={"Authorization": "Bearer hidden-token"})
        await rest.get("/notes/hidden", headers={"Cookie": "hidden-cookie"})

    def lines() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in server.log().splitlines()]
        requests = [line for line in found if line["event"] == "request"]
        assert len(requests) >= 4
        return requests

    logged = await eventually(lines)
    assert [(line["method"], line["path"], line["status"]) for line in logged] == [
        ("GET", "/changes", 200),
        ("POST", "/notes/", 201),
        ("PUT", "/notes/1/", 422),
        ("GET", "/notes/hidden", 422),
    ]
    assert all(line["ms"] >= 0 and line["client"] == "127.0.0.1" for line in logged)
    assert "hidden-" not in server.log()
    assert "mongodb://" not in server.log()


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b[31mred", "a\nb", "\x00", "\x7f", "\x9b2J", "\r", "\u202e", "\u2028", "plain ä 🦜"]
)
def test_console_log_escapes_control_characters(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.configure(Settings(log_format="console"))
        capsys.readouterr()
        for name in ("realtime.other", "uvicorn.error"):
            log = logging.getLogger(name)
            log.warning("%s", text)
            log.warning("logged", extra={"path": text, "deep": [text, {text: text}], text: 1})
            try:
                raise ValueError(text)
            except ValueError:
                log.exception("failed")
        written = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().err)  # the colors of the renderer
    finally:
        root.handlers[:], _ = before
        root.setLevel(before[1])
    assert written.count("failed") == 2
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", written)
    assert "Traceback" in written
    if text == "a\nb":
        assert "a\\nb" in written
    if text.startswith("plain"):
        assert text in written
    else:
        assert repr(text)[1:-1].casefold() in written.casefold()


@pytest.fixture(scope="module")
def host(module_settings: Settings) -> Iterator[TestClient]:
    """Return a client of a server with accounts."""
    with accounts_server(module_settings, security_contact="mailto:security@notes.example") as client:
        yield client


def _local_client(host: TestClient) -> Browser:
    """Return a client on the machine of the server."""
    return Browser(host, address="127.0.0.1")


def test_health_details_require_an_admin_or_a_local_client(host: TestClient) -> None:
    root = Browser(host).sign_up()  # the first account is an admin
    token = {"Authorization": f"Bearer {root.token(scope='read')['token']}"}
    user, stranger = Browser(host).sign_up(), Browser(host)
    assert stranger.get("/metrics").status_code == 401
    assert user.get("/metrics").status_code == 403
    for caller, headers in ((root, {}), (stranger, token), (_local_client(host), {})):
        assert "realtime_writes_total" in caller.get("/metrics", headers=headers).text
        assert "mongodb" in caller.get("/readyz", headers=headers).json()["checks"]
    for caller in (user, stranger):
        assert caller.get("/readyz").json() == {"status": "ready"}
    for header in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP"):
        assert _local_client(host).get("/metrics/", headers={header: "10.0.0.1"}).status_code == 401
        assert "checks" not in _local_client(host).get("/readyz/", headers={header: "10.0.0.1"}).json()


def test_health_details_without_mongodb_require_a_local_client(settings: Settings) -> None:
    with accounts_server(settings, mongo_url=UNREACHABLE_MONGO_URL, read_timeout=0.5) as host:
        stranger = Browser(host)
        for headers in ({}, {"Authorization": "Bearer rt_token"}):
            answer = stranger.get("/readyz", headers=headers)
            assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})
        assert not _local_client(host).get("/readyz").json()["checks"]["mongodb"]["ok"]
        assert stranger.get("/metrics").status_code == 401


def test_security_txt_contains_the_configured_contact(host: TestClient, client: TestClient) -> None:
    for path in ("/.well-known/security.txt", "/.well-known/security.txt/"):
        answer = host.get(path)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        fields = dict(line.split(": ", 1) for line in answer.text.splitlines())
        assert fields["Contact"] == "mailto:security@notes.example"
        left = datetime.fromisoformat(fields["Expires"]) - datetime.now(UTC)
        assert timedelta(days=28) < left < timedelta(days=31)
    answer = client.get("/.well-known/security.txt")
    assert (answer.status_code, "REALTIME_SECURITY_CONTACT" in answer.json()["detail"]) == (404, True)


def test_https_responses_have_strict_transport_security(host: TestClient) -> None:
    secure = Browser(host, "https://notes.example")
    for path in ("/", "/notes/", "/icon.svg", "/nowhere"):
        assert secure.get(path).headers["Strict-Transport-Security"] == "max-age=31536000"
        assert "Strict-Transport-Security" not in host.get(path).headers
    proxied = _local_client(host).get("/", headers={"X-Forwarded-Proto": "https"})
    assert "Strict-Transport-Security" in proxied.headers
