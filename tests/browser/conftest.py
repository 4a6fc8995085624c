"""Fixtures: one browser per run, and a separate profile for each page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.chromium import chromium
from tests.browser.page import Open, is_own_url
from tests.support.harness import ServerProcess


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run the tests of this folder in one event loop, that of the browser."""
    item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _chromium() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def browser(_chromium: Browser) -> AsyncIterator[Browser]:
    """Start a browser that no other test uses."""
    yield _chromium
    for context in _chromium.contexts:
        await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def opened(browser: Browser, server: ServerProcess) -> AsyncIterator[Open]:
    """Return a function that opens a page in a new profile. The page may only call the server and log no errors."""
    complaints: list[str] = []

    async def open_page(path: str = "/", **options: Any) -> Page:
        context = await browser.new_context(base_url=server.url, **options)
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
        page.on("request", lambda sent: None if is_own_url(sent.url, server) else complaints.append(sent.url))
        await page.goto(path)
        return page

    yield open_page
    assert complaints == []
