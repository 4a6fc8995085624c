"""The command-line clients: they send a token, and report when it is rejected."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from realtime.cli.main import app
from realtime.cli.watch import ConnectionRefused, follow
from realtime.settings import Settings
from tests.support.accounts import PASSWORD, add_user, bearer, with_accounts
from tests.support.harness import UNIT, note_in
from tests.support.http import Serve


async def test_commands_send_a_token_and_report_its_rejection(settings: Settings, serve: Serve, tmp_path: Path) -> None:
    await add_user(with_accounts(settings), "ann")
    server = serve(auth="accounts", password_memory=8)
    async with httpx.AsyncClient(base_url=server.url, verify=False) as ann:
        signed_in = await ann.post("/auth/sign-in", json={"name": "ann", "password": PASSWORD})
        assert signed_in.status_code == 200, signed_in.text
        token = (await ann.post("/auth/tokens", json={"name": "programs"})).json()["token"]
        made = (await ann.post("/notes/", json=note_in(), headers=bearer(token))).json()

        def run(command: str, *arguments: str, token: str) -> tuple[int, str]:
            environment = {"REALTIME_TOKEN": token, "REALTIME_URL": server.url, "NO_COLOR": "1"}
            ended = CliRunner().invoke(app, [command, *arguments], env=environment)
            return ended.exit_code, ended.output

        target = str(tmp_path / "notes.zip")
        assert await asyncio.to_thread(run, "export", target, token=token) == (0, f"1 note exported to {target}\n")
        assert await asyncio.to_thread(run, "import", target, token=token) == (0, "1 note imported\n")
        for command in ("import", "export"):
            code, said = await asyncio.to_thread(
                run, command, target + ("" if command == "import" else "2"), token="rt_x"
            )
            assert (code, said) == (1, "realtime: The token is invalid, expired or revoked\n")

        async with asyncio.timeout(10 * UNIT):
            async with aclosing(follow(server.url, None, print, token)) as frames:
                assert (await anext(frames))["type"] == "ready"
                await ann.put(f"/notes/{made['id']}/", json=note_in("other"))
                assert (await anext(frames))["note"]["title"] == "other"
            with pytest.raises(ConnectionRefused, match="The token is invalid"):
                await anext(follow(server.url, None, print, "rt_x"))
    assert token not in server.log()
    assert "rt_x" not in server.log()
