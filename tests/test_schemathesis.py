"""Schemathesis holds a running server to its OpenAPI: all phases and checks, and nothing found. Also its hooks."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import schemathesis

from tests.accounts.people import PASSWORD
from tests.harness import UNIT, ServerProcess

# What is well-formed may still be refused, or not answered in full, for the state that the notes are in.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 304, 404, 409, 412]

[[operations]]
include-path = "/import"
checks.positive_data_acceptance.expected-statuses = ["2xx", 422]  # a schema cannot tell which bytes are Markdown
"""
COMMAND = """
--config-file schemathesis.toml run {url}/openapi.json --checks all --exclude-path /events
--exclude-path-regex ^/(auth/[^m]|users|invites|audit)
--max-examples 3 --request-timeout 10 --seed 1 --continue-on-failure --no-color --output-sanitize false
"""  # /events never ends, so there is no answer to check; without accounts those of them answer 404, whatever comes

SIGNED_IN = """
--config-file schemathesis.toml run {url}/openapi.json --header Authorization:Bearer%20TOKEN
--checks ignored_auth,use_after_free,ensure_resource_availability,not_a_server_error,status_code_conformance
--exclude-path-regex ^/(events|import|auth/(sign-|password|token|sessions))
--phases examples,fuzzing,stateful --max-examples 3 --request-timeout 10 --seed 1 --continue-on-failure --no-color
--output-sanitize false
"""  # without those of which one ends the session, and those that only so many times a minute are let through

_numbers = itertools.count(1)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Mends what a generator that knows no state and not every pattern gets wrong in a well-formed request."""
    for name, value in list((case.headers or {}).items()):
        if name.lower() == "idempotency-key" and isinstance(value, str) and re.fullmatch("[!-~]{1,255}", value):
            case.headers[name] = f"key-{next(_numbers)}"  # the same key with another request is refused on purpose
        elif name.lower() in ("if-match", "if-none-match") and value == "0":
            case.headers[name] = '"v1"'  # 4.32's coverage phase writes "0" for a pattern with quotes in it
    query = case.query or {}
    if re.fullmatch("[A-Za-z0-9_-]{1,3000}", str(query.get("after", ""))):
        del query["after"]  # opaque, so a pattern cannot tell which there are
    if query.get("sort") == "relevance" and not query.get("q"):
        del query["sort"]


async def _run(server: ServerProcess, folder: Path, command: str, phases: Iterable[str]) -> None:
    (folder / "schemathesis.toml").write_text(CONFIG)
    run = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *(part.replace("%20", " ") for part in command.format(url=server.url).split()),
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": __name__, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(90 * UNIT):
        output, _ = await run.communicate()
    assert run.returncode == 0, output.decode()
    for phase in phases:
        assert re.search(rf"✅  {phase} \(", output.decode()), output.decode()
    assert server.process
    assert server.process.poll() is None
    assert "Traceback" not in server.log()


async def test_server_keeps_its_openapi(server: ServerProcess, tmp_path: Path) -> None:
    await _run(server, tmp_path, COMMAND, ("Examples", "Coverage", "Fuzzing", "Stateful"))


async def test_nothing_that_needs_signing_in_goes_without(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = serve(auth="accounts", sign_up="open", password_memory=8, writes=10_000)
    async with httpx.AsyncClient(base_url=server.url) as client:
        ann = {"name": "ann", "password": PASSWORD}
        assert (await client.post("/auth/sign-up", json=ann)).status_code == 201
        form = {"username": "ann", "password": PASSWORD}
        token = (await client.post("/auth/token", data=form)).json()["access_token"]
    await _run(server, tmp_path, SIGNED_IN.replace("TOKEN", token), ("Examples", "Fuzzing", "Stateful"))
