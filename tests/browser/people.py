"""What the tests of the page with accounts share: a server of their module, and people at their browsers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from playwright.async_api import Locator, Page, expect

from realtime.settings import Settings
from tests.accounts.people import PASSWORD, add_user, with_accounts
from tests.browser.page import Open
from tests.harness import Json, ServerProcess, rest_client

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(module_settings: Settings) -> Iterator[ServerProcess]:
    """A server with accounts, where everybody may sign up."""
    settings = with_accounts(module_settings, port=0)
    asyncio.run(add_user(settings))
    process = ServerProcess(settings)
    process.start()
    yield process
    process.kill()


@asynccontextmanager
async def program(server: ServerProcess, name: str) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody at a browser of their own, without the page; signs up at first."""
    async with rest_client(server.url) as rest:
        # Of an address of its own: so many a minute may sign in from one.
        rest.headers["X-Forwarded-For"] = f"10.0.0.{next(_numbers)}"
        answer = await rest.post("/auth/sign-up", json={"name": name, "password": PASSWORD})
        if answer.status_code == 409:
            answer = await rest.post("/auth/sign-in", json={"name": name, "password": PASSWORD})
        assert answer.is_success, answer.text
        yield rest


async def shared(rest: httpx.AsyncClient, note: Json, **access: object) -> Json:
    """A new note, and who may do what with it."""
    made = (await rest.post("/notes/", json=note)).json()
    answer = await rest.put(f"/notes/{made['id']}/access", json=access)
    assert answer.is_success, answer.text
    return {**made, **answer.json()}


async def fill(page: Page, name: str, password: str = PASSWORD) -> None:
    """Fills in who one is."""
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Password", exact=True).fill(password)


async def sign_in(page: Page, name: str, password: str = PASSWORD) -> None:
    """Signs in at the view that asks for it."""
    await fill(page, name, password)
    await button(page, "Sign in").click()


async def sign_up(opened: Open, name: str, path: str = "/") -> Page:
    """The page of somebody new."""
    page = await opened(path)
    await page.get_by_role("button", name="Make an account").click()
    await fill(page, name)
    await button(page, "Sign up").click()
    await expect(page.locator(".sidebar")).to_be_visible()
    return page


def button(page: Page, name: str) -> Locator:
    """The button of the form that one is in."""
    return page.locator("form").get_by_role("button", name=name, exact=True)


async def menu(page: Page, item: str) -> None:
    """Chooses something from the menu."""
    await page.get_by_label("More").click()
    await page.locator(".menu").get_by_text(item).click()
