"""The facts in the documentation: settings, routes, frames, close codes, metrics, links, and examples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from realtime.core.close_codes import CLOSE_REASONS, CloseCode, may_reconnect
from realtime.feed import messages
from realtime.metrics import Metrics
from realtime.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
WITH_EXAMPLES = [ROOT / "README.md", DOCS / "tutorials" / "first-note.md", DOCS / "reference" / "rest.md"]


def reference(name: str) -> str:
    return (DOCS / "reference" / f"{name}.md").read_text()


def table_rows(text: str, first_cell: str) -> list[list[str]]:
    """Return the cells of the table rows whose first cell matches."""
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if re.fullmatch(first_cell, row[0].strip())]


def test_settings_are_documented_with_their_defaults() -> None:
    rows = table_rows(reference("settings"), r"`REALTIME_\w+`")
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows}
    defaults = {
        f"REALTIME_{name.upper()}": "" if field.default in (None, "") else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert documented == defaults
    assert len(rows) == len(documented)


@pytest.mark.parametrize("code", CloseCode)
def test_close_code_is_documented_in_every_section(code: CloseCode) -> None:
    page = reference("close-codes")
    general, sync, operators = re.split(r"^## On `/sync`$|^## For operators$", page, flags=re.MULTILINE)
    ((_, reason, reconnect, cause),) = table_rows(general, str(code.value))
    assert reason == CLOSE_REASONS[code]
    assert reconnect == ("yes" if may_reconnect(code) else "no")
    assert cause
    for part in (sync, operators):
        assert len(table_rows(part, str(code.value))) == 1


def test_feed_message_types_are_documented() -> None:
    union, _ = get_args(messages.ServerMessage)
    types = {message.model_fields["type"].default for message in get_args(union)}
    documented = {
        match[1]
        for row in table_rows(reference("feed"), r"`\{\"type\".*")
        if (match := re.match(r'`\{"type": "([^"]+)"', row[0]))
    }
    assert documented == types


def test_metrics_are_documented() -> None:
    documented = {re.match(r"`(\w+)", row[0])[1] for row in table_rows(reference("metrics"), r"`realtime_.*")}  # type: ignore[index]  # the pattern matches
    families = text_string_to_metric_families(Metrics().render().decode())
    exposed = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert documented == exposed


def test_routes_are_documented(client: TestClient) -> None:
    pages = reference("rest") + reference("feed")
    paths = client.get("/openapi.json").json()["paths"]
    assert [path for path in paths if path not in pages] == []


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_curl_examples_in_the_documentation_succeed(client: TestClient, page: Path) -> None:
    found = re.findall(r"^\$ curl -X (\w+) http://127.0.0.1:8000(\S+)(?:.*-d '(.*)')?$", page.read_text(), re.MULTILINE)
    assert found
    for method, url, body in found:
        answer = client.request(method, url, content=body or None, headers={"Content-Type": "application/json"})
        assert answer.is_success, answer.text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_local_links_point_to_existing_files(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [target for target in targets if not re.match(r"[a-z]+:", target) and not target.startswith("/")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_pages_are_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in navigation and f"- {page}\n" not in navigation] == []
