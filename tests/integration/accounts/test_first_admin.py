"""The first administrator: only the operator of the server can create it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from realtime.auth.accounts import NewAccount
from realtime.auth.sign_in_guard import ClientInfo
from realtime.settings import Settings
from tests.support.accounts import PASSWORD, Browser, accounts_server, add_user, parts_of, run, with_accounts
from tests.support.harness import ServerProcess, data_folder, eventually, rest_client
from tests.support.http import Serve, printed_lines, server_processes
from tests.support.workers import environment_of

MODES = ("open", "invite", "closed")
LINK = re.compile(r"^Setup (http://127\.0\.0\.1:\d+)(/\S*)?/#setup=([\w-]{43})  \(", re.MULTILINE)


@pytest.fixture(params=MODES)
def empty(settings: Settings, request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """Start a server without users, in each mode of sign-up."""
    with accounts_server(settings, sign_up=request.param) as host:
        yield host


def sign_up(host: TestClient, name: str, **more: str) -> tuple[int, str]:
    """Try to create an account, and return the status and the text of the response."""
    answer = Browser(host).post("/auth/sign-up", json={"name": name, "password": PASSWORD, **more})
    return answer.status_code, answer.text


def setup_of(host: TestClient) -> str | None:
    """Return the setup token, which exists until there is a user."""
    token: str | None = run(host, parts_of(host).accounts.setup_token)
    return token


def test_sign_up_without_the_setup_token_is_refused(empty: TestClient) -> None:
    for more in ({}, {"invite": "made-up"}, {"setup": "made-up"}, {"setup": ""}, {"setup": "ö"}):
        status, text = sign_up(empty, "passerby", **more)
        assert status == 403, more
        assert "first" not in text
        assert "administrator" not in text
    assert setup_of(empty) is not None


def test_responses_do_not_reveal_that_there_is_no_user(empty: TestClient) -> None:
    guest = Browser(empty)
    before = guest.get("/auth/me").json()
    refused = sign_up(empty, "passerby", setup="made-up")
    assert "first" not in before
    Browser(empty).sign_up()
    assert Browser(empty).get("/auth/me").json() == before
    assert sign_up(empty, "passerby", setup="made-up") == refused


def test_setup_token_creates_one_admin_and_is_then_invalid(empty: TestClient) -> None:
    token = setup_of(empty)
    assert token is not None
    assert sign_up(empty, "root", setup=token)[0] == 201
    assert Browser(empty).sign_in("root").user == {"name": "root", "admin": True, "via": "session"}
    assert setup_of(empty) is None
    assert sign_up(empty, "other", setup=token)[0] == 403
    assert Browser(empty).try_sign_in("other").status_code == 401


def test_setup_token_is_invalid_after_the_operator_added_a_user(settings: Settings) -> None:
    with accounts_server(settings, sign_up="closed") as host:
        token = setup_of(host)
        assert token is not None
        run(host, lambda: add_user(with_accounts(settings), "ann"))
        assert sign_up(host, "root", setup=token)[0] == 403


def test_concurrent_sign_ups_with_the_setup_token_create_one_admin(empty: TestClient) -> None:
    accounts, token = parts_of(empty).accounts, setup_of(empty)

    async def sign_up_concurrently() -> list[object]:
        new = [NewAccount(f"user{number}", PASSWORD, setup=token) for number in range(6)]
        outcomes: list[object] = await asyncio.gather(
            *(accounts.sign_up(one, ClientInfo(), None) for one in new), return_exceptions=True
        )
        return outcomes

    outcomes = run(empty, sign_up_concurrently)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    people = run(empty, accounts.users.all)
    assert [person.admin for person in people] == [True]


class TestPrintedLink:
    def _link(self, server: ServerProcess) -> re.Match[str]:
        lines = printed_lines(server, 3)
        link = LINK.match(lines[2])
        assert link, lines
        return link

    @pytest.mark.parametrize("workers", [1, 2])
    async def test_serve_prints_a_link_that_works_once(self, serve: Serve, workers: int) -> None:
        server = serve(auth="accounts", password_memory=8, workers=workers)
        link = self._link(server)
        assert link[1] == server.url
        async with rest_client(server.url) as rest:
            body = {"name": "root", "password": PASSWORD, "setup": link[3]}
            answer = await rest.post("/auth/sign-up", json=body)
            assert (answer.status_code, answer.json()["user"]["admin"]) == (201, True)
            assert (await rest.post("/auth/sign-up", json={**body, "name": "other"})).status_code == 403
        assert link[3] not in server.log()

    async def test_link_has_the_path_prefix(self, serve: Serve) -> None:
        assert self._link(serve(auth="accounts", root_path="/team"))[2] == "/team"

    async def test_link_is_printed_with_embedded_servers(self, tmp_path: Path) -> None:
        with server_processes(data_folder(tmp_path)) as start:
            self._link(start(auth="accounts"))

    async def test_link_is_not_printed_if_a_user_exists(self, settings: Settings, serve: Serve) -> None:
        await add_user(with_accounts(settings))
        server = serve(auth="accounts")
        assert server.process is not None
        assert server.process.stdout is not None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.stdout.read().decode().splitlines() == [f"Docs  {server.url}/docs", f"Feed  {server.ws}"]

    @pytest.mark.parametrize("workers", ["1", "2"])
    async def test_uvicorn_prints_the_link_once(self, settings: Settings, workers: str) -> None:
        environment = {**os.environ, **environment_of(settings), "REALTIME_AUTH": "accounts"}
        command = [sys.executable, "-m", "uvicorn", "realtime.main:app", "--port", "0", "--workers", workers]
        with tempfile.NamedTemporaryFile("r+") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
            try:
                log = Path(output.name)
                await eventually(lambda: log.read_text().count("startup complete") == int(workers), within=60)
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait)
            output.seek(0)
            assert len(re.findall(r" /#setup=[\w-]{43}$", output.read(), re.MULTILINE)) == 1
