"""The page of a server that has no user yet."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.page import Open
from tests.browser.people import button, fill, menu
from tests.support.harness import ServerProcess
from tests.support.http import Serve, printed_lines


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    """Start a server without users and with sign-up closed."""
    return serve(auth="accounts", sign_up="closed", password_memory=8)


async def test_setup_link_creates_the_first_administrator_once(opened: Open, server: ServerProcess) -> None:
    link = printed_lines(server, 3)[2].split()[1]
    stranger = await opened("/")
    await expect(stranger.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(stranger.get_by_role("button", name="Make an account")).to_have_count(0)
    page = await opened(link.removeprefix(server.url))
    await expect(page).to_have_url(f"{server.url}/")
    await expect(page.get_by_text("the first administrator")).to_be_visible()
    await fill(page, "root")
    await button(page, "Sign up").click()
    await expect(page.locator(".sidebar")).to_be_visible()
    await menu(page, "People")
    await expect(page.get_by_role("heading", name="People")).to_be_visible()
    late = await opened(link.removeprefix(server.url))
    await fill(late, "late")
    await button(late, "Sign up").click()
    await expect(late.get_by_role("alert")).to_contain_text("This setup link is not valid")
    # A setup link that is pasted into the address bar of an open page.
    await stranger.evaluate("location.hash = '#setup=abc'")
    await expect(stranger.get_by_role("heading", name="Make an account")).to_be_visible()
    await expect(stranger).to_have_url(f"{server.url}/")
