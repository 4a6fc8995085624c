"""Schemathesis checks a server against its OpenAPI description: all phases and checks, including authentication.

This module also contains its hooks.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import schemathesis

from tests.faults.scenario import Figures, Run, scenario
from tests.support.accounts import PASSWORD, add_user
from tests.support.harness import UNIT, ServerProcess

# Valid requests can get these responses because of the state of the notes.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 304, 404, 409, 412]

[[operations]]
include-path = "/import"
checks.positive_data_acceptance.expected-statuses = ["2xx", 422]  # a schema cannot tell which bytes are Markdown
"""
PHASES = ("Examples", "Coverage", "Fuzzing", "Stateful")
COMMON = "--tls-verify false --request-timeout 10 --continue-on-failure --no-color --output-sanitize false"
OPEN = """
--config-file schemathesis.toml run {url}/openapi.json --checks all
--exclude-path-regex ^/(events|auth/[^m]|users|invites|audit|notes/{id}/access)
"""  # /events never ends; without accounts, the others always answer 404

SIGNED_IN = """
--config-file schemathesis.toml run {url}/openapi.json --header Authorization:Bearer%20{token}
--checks ignored_auth,use_after_free,ensure_resource_availability,not_a_server_error,status_code_conformance
--exclude-path-regex ^/(events|import|auth/(sign-|password|token|sessions))
"""  # without routes that end the session or that have a rate limit per minute

_numbers = itertools.count(1)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Fix well-formed requests that depend on state or on patterns that the generator does not support."""
    for name, value in list((case.headers or {}).items()):
        if name.lower() == "idempotency-key" and isinstance(value, str) and re.fullmatch("[!-~]{1,255}", value):
            case.headers[name] = f"key-{os.getpid()}-{next(_numbers)}"  # the server rejects another request's key
        elif name.lower() in ("if-match", "if-none-match") and value == "0":
            case.headers[name] = '"v1"'  # 4.32's coverage phase writes an unquoted "0"
    query = case.query or {}
    if re.fullmatch("[A-Za-z0-9_-]{1,3000}", str(query.get("after", ""))):
        del query["after"]  # opaque, so a pattern cannot describe valid values
    if query.get("sort") == "relevance" and not query.get("q"):
        del query["sort"]


async def _cases(run: Run, server: ServerProcess, command: str, phases: Sequence[str], token: str = "") -> int:
    """Run Schemathesis, and return the number of its cases. Raise ``AssertionError`` with its failures."""
    folder = run.testbed.folder
    (folder / "schemathesis.toml").write_text(CONFIG)
    seed = run.random.randrange(2**31) if run.thorough else 1
    more = f"--phases {','.join(phases).lower()} --max-examples {40 if run.thorough else 1} --seed {seed}"
    words = command.replace("{url}", server.url).replace("{token}", token)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *(part.replace("%20", " ") for part in f"{words} {COMMON} {more}".split()),
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": __name__, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(900 * UNIT):
            output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output
    for phase in phases:
        assert re.search(rf"✅  {phase} \(", output), output
    assert server.process is not None
    assert server.process.poll() is None
    assert "Traceback" not in server.log()
    found = re.search(r"(\d+) generated", output)
    assert found, output
    return int(found[1])


@scenario(
    "openapi",
    invariant="every answer matches the OpenAPI description, and no sequence of calls breaks the server",
    mark="≥ 20 000 cases, 0",
    unit="cases",
    full=20_000,
    slice=1,
)
async def openapi(run: Run) -> Figures:
    """Test examples, schema boundaries, random requests and sequences of them, without and with accounts."""
    cases = 0
    while cases < run.times:
        server = await run.testbed.serve(await run.testbed.settings())
        if run.thorough:
            cases += await _cases(run, server, OPEN, PHASES)
        else:  # the boundary cases take as long as all others; one path has some of every kind
            cases += await _cases(run, server, OPEN, [phase for phase in PHASES if phase != "Coverage"])
            cases += await _cases(run, server, f"{OPEN} --include-path /notes/{{id}}/", ["Coverage"])
        server.kill()
        settings = await run.testbed.settings(
            auth="accounts", sign_up="open", password_memory=8, max_writes_per_second=10_000
        )
        await add_user(settings, "ann")
        server = await run.testbed.serve(settings)
        async with httpx.AsyncClient(base_url=server.url) as client:
            form = {"username": "ann", "password": PASSWORD}
            token = (await client.post("/auth/token", data=form)).json()["access_token"]
        cases += await _cases(run, server, SIGNED_IN, [phase for phase in PHASES if phase != "Coverage"], token)
        server.kill()
        run.progress(min(cases, run.times))
    return Figures(faults=cases)
