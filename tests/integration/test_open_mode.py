"""Open mode serves only local clients: it refuses databases with accounts and requests through a proxy."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from starlette.testclient import TestClient

from realtime import create_app
from realtime.auth import open_mode
from realtime.auth.open_mode import OpenModeCheck
from realtime.auth.startup_checks import HAS_ACCOUNTS
from realtime.errors import RealtimeError, Unavailable
from realtime.settings import Settings
from tests.support.accounts import add_user, parts_of, run, with_accounts
from tests.support.harness import UNIT, note_in, refusal
from tests.support.http import Serve, read_until_close, refused_handshake
from tests.support.workers import environment_of


class TestDatabaseWithAccounts:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """Return settings of a server in open mode whose database has a user."""
        asyncio.run(add_user(with_accounts(settings)))
        return settings

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_serve_command_refuses_to_start_and_names_both_settings(self, settings: Settings, workers: str) -> None:
        message = refusal("serve", "--workers", workers, **environment_of(settings))
        assert message == HAS_ACCOUNTS
        for way in ("REALTIME_AUTH=accounts", "--auth accounts", "REALTIME_ALLOW_PUBLIC=true", "--allow-public"):
            assert way in message

    def test_uvicorn_refuses_to_start(self, settings: Settings) -> None:
        ended = subprocess.run(
            [sys.executable, "-m", "uvicorn", "realtime.main:app", "--port", "0"],
            env={**os.environ, **environment_of(settings)},
            capture_output=True,
            text=True,
            timeout=60 * UNIT,
            check=False,
        )
        assert ended.returncode == 3, ended.stderr
        assert HAS_ACCOUNTS in ended.stderr

    def test_application_refuses_to_start(self, settings: Settings) -> None:
        with pytest.raises(RealtimeError, match="the database has accounts"), TestClient(create_app(settings)):
            pass

    def test_database_is_served_with_allow_public_or_accounts(self, settings: Settings, serve: Serve) -> None:
        with TestClient(create_app(settings.model_copy(update={"allow_public": True}))) as client:
            assert client.get("/notes/").status_code == 200
        serve(allow_public=True)
        serve(auth="accounts")


def test_server_stops_serving_when_an_account_is_added_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_mode, "CHECK_INTERVAL_SECONDS", 0.02)
    with TestClient(create_app(settings)) as client:
        assert client.post("/notes/", json=note_in()).status_code == 201
        with client.websocket_connect("/ws") as socket:
            assert socket.receive_json()["type"] == "ready"
            run(client, lambda: add_user(with_accounts(settings)))
            assert read_until_close(socket)[0] == 1012
        for path in ("/notes/", "/notes/1/", "/export", "/changes"):
            answer = client.get(path)
            assert (answer.status_code, HAS_ACCOUNTS in answer.json()["detail"]) == (503, True), path
        assert client.post("/notes/", json=note_in()).status_code == 503
        refused_handshake(client, "/ws")
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert HAS_ACCOUNTS in ready.json()["checks"]["mongodb"]["detail"]


async def test_requests_are_refused_until_the_check_for_accounts_succeeds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise Unavailable

    def send_requests() -> None:
        with TestClient(create_app(settings)) as client:
            open_mode = parts_of(client).open_mode
            assert client.get("/changes").status_code == 200
            open_mode.has_accounts = None
            assert client.get("/changes").status_code == 200
            open_mode.has_accounts = None
            monkeypatch.setattr(open_mode, "read", fail)
            for path in ("/notes/", "/changes", "/tags/"):
                assert client.get(path).status_code == 503
            refused_handshake(client, "/ws")
            assert client.get("/ping").status_code == 200

    await asyncio.to_thread(send_requests)


class TestProxies:
    @pytest.mark.parametrize(
        "header",
        [
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "x-forwarded-prefix",
            "X-Real-IP",
            "Via",
        ],
    )
    def test_request_through_a_proxy_is_refused(self, client: TestClient, header: str) -> None:
        headers = {header: "127.0.0.1", "Host": "127.0.0.1:8000"}
        for method, path in (("GET", "/notes/"), ("POST", "/notes/"), ("GET", "/"), ("GET", "/events")):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 421
            for named in (header.lower(), "reALTIME_AUTH=accounts", "REALTIME_ALLOW_PUBLIC=true"):
                assert named.lower() in answer.json()["detail"].lower()
        for path in ("/ws", "/sync/1"):
            assert refused_handshake(client, path, **headers).status_code == 421

    @pytest.mark.parametrize("changes", [{"allow_public": True}, {"auth": "accounts"}])
    def test_request_through_a_proxy_is_served_with_allow_public_or_accounts(
        self, settings: Settings, changes: dict[str, object]
    ) -> None:
        with TestClient(create_app(settings.model_copy(update=changes))) as client:
            for header in ("Forwarded", "X-Forwarded-For", "X-Real-IP"):
                assert client.get("/notes/", headers={header: "192.0.2.7"}).status_code == 200


async def test_open_mode_check_runs_until_an_account_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_mode, "CHECK_INTERVAL_SECONDS", 0)

    class FakeUserStore:
        """A user store that has a user from the third call on."""

        answers = iter([False, False, True])

        async def any(self) -> bool:
            return next(self.answers)

    check = OpenModeCheck(FakeUserStore())  # type: ignore[arg-type]  # the only method that it calls
    stopped = asyncio.Event()

    async def stop() -> None:
        stopped.set()

    await check.check()
    await check.run(stop)
    assert stopped.is_set()
    with pytest.raises(Unavailable, match="the database has accounts"):
        await check.check()
