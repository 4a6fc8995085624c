"""A real browser for the tests: the Chromium of the system, or that of Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Playwright, async_playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ELSEWHERE = "notes.test"
"""A name of this machine that is not loopback for the browser, so plain HTTP there is not a secure context."""

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]
INSTALL_HINT = "install one: apt-get install chromium-headless-shell, or .venv/bin/playwright install chromium"


def _path(playwright: Playwright) -> str | None:
    own = playwright.chromium.executable_path
    return next(filter(None, map(shutil.which, NAMES)), own if Path(own).exists() else None)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start a browser. If none is installed, skip the test, except in CI."""
    async with async_playwright() as playwright:
        path = _path(playwright)
        if path is None:
            if os.environ.get("CI"):
                pytest.fail(f"no browser: {INSTALL_HINT}")
            pytest.skip(f"NO BROWSER, so the page is not tested: {INSTALL_HINT}")
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()
