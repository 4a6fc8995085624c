"""The README tells the truth: every setting, route, frame and close code is in it, with its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from starlette.testclient import TestClient

from realtime.core.close_codes import CLOSE_REASONS, CloseCode, may_reconnect
from realtime.feed import messages
from realtime.settings import Settings

README = (Path(__file__).parent.parent / "README.md").read_text()


def table_rows(first_cell: str) -> list[list[str]]:
    """The cells of the README's table rows whose first cell matches."""
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in README.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if re.fullmatch(first_cell, row[0].strip())]


def test_every_setting_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in table_rows(r"`REALTIME_\w+`")}
    defaults = {
        f"REALTIME_{name.upper()}": "" if field.default in (None, "") else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert documented == defaults


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_says_what_to_do(code: CloseCode) -> None:
    assert len(table_rows(str(code.value))) == 1
    come_back, stay_away = README.index("Come back, after"), README.index("Do not come back:")
    row = README.index(f"| {code.value} |")
    assert (come_back < row < stay_away) is may_reconnect(code)
    assert code in CLOSE_REASONS


def test_every_frame() -> None:
    union, _ = get_args(messages.ServerMessage)
    types = {message.model_fields["type"].default for message in get_args(union)}
    documented = {
        match[1] for row in table_rows(r"`\{\"type\".*") if (match := re.match(r'`\{"type": "([^"]+)"', row[0]))
    }
    assert documented == types


def test_every_route(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert [path for path in paths if path not in README] == []


def test_every_route_in_both_slash_forms_without_redirect(client: TestClient) -> None:
    paths = [
        path
        for path, operations in client.get("/openapi.json").json()["paths"].items()
        if "{" not in path and path != "/events" and "get" in operations and "401" not in operations["get"]["responses"]
    ]
    for path in [*paths, "/docs", "/redoc", "/openapi.json"]:
        for form in (path.rstrip("/"), path.rstrip("/") + "/"):
            assert client.get(form, follow_redirects=False).status_code == 200, form


def test_the_examples_in_the_readme(client: TestClient) -> None:
    for method, url, body in re.findall(r"curl -X (\w+) http://127.0.0.1:8000(\S+)(?:.*-d '(.*)')?", README):
        answer = client.request(method, url, content=body or None, headers={"Content-Type": "application/json"})
        assert answer.is_success, answer.text
