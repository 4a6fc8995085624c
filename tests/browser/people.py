"""Shared helpers of the browser tests with accounts: a server per module, and browsers of users."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from playwright.async_api import Locator, Page, expect

from realtime.settings import Settings
from tests.browser.page import Open
from tests.support.accounts import PASSWORD, add_user, with_accounts
from tests.support.harness import ServerProcess, rest_client
from tests.support.http import server_processes

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(module_settings: Settings, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Start a server with accounts and with the ``CHANGES`` of settings that the test module defines."""
    settings = with_accounts(module_settings, port=0, **getattr(request.module, "CHANGES", {}))
    asyncio.run(add_user(settings))
    with server_processes(settings) as start:
        yield start()


@asynccontextmanager
async def signed_in_client(server: ServerProcess, name: str) -> AsyncIterator[httpx.AsyncClient]:
    """Return an HTTP client of a user, who signs up first if necessary."""
    async with rest_client(server.url) as rest:
        # With a separate address, because sign-ins are limited per address.
        rest.headers["X-Forwarded-For"] = f"10.0.0.{next(_numbers)}"
        answer = await rest.post("/auth/sign-up", json={"name": name, "password": PASSWORD})
        if answer.status_code == 409:
            answer = await rest.post("/auth/sign-in", json={"name": name, "password": PASSWORD})
        assert answer.is_success, answer.text
        yield rest


async def fill(page: Page, name: str, password: str = PASSWORD) -> None:
    """Fill in name and password."""
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Password", exact=True).fill(password)


async def sign_in(page: Page, name: str, password: str = PASSWORD) -> None:
    """Sign in with the form."""
    await fill(page, name, password)
    await button(page, "Sign in").click()


async def sign_up(opened: Open, name: str, path: str = "/") -> Page:
    """Open the page as a new user."""
    page = await opened(path)
    await page.get_by_role("button", name="Make an account").click()
    await fill(page, name)
    await button(page, "Sign up").click()
    await expect(page.locator(".sidebar")).to_be_visible()
    return page


def button(page: Page, name: str) -> Locator:
    """Return the button of the current form."""
    return page.locator("form").get_by_role("button", name=name, exact=True)


async def menu(page: Page, item: str) -> None:
    """Select an item of the menu."""
    await page.get_by_label("More").click()
    await page.locator(".menu").get_by_text(item).click()
