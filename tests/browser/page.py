"""What the tests of the page share: notes to look at, and the places of a page by their names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from playwright.async_api import Locator, Page, expect

from tests.harness import UNIT, Json, ServerProcess, rest_client

Open = Callable[..., Awaitable[Page]]
"""Opens a path in a profile of its own; takes the options of a Playwright context."""

SECOND = 1000 * UNIT

expect.set_options(timeout=5 * SECOND)


async def make(server: ServerProcess, *notes: Json) -> list[Json]:
    """Makes notes over REST."""
    async with rest_client(server.url) as rest:
        return [(await rest.post("/notes/", json=note)).json() for note in notes]


async def read_note(server: ServerProcess, id: int = 1) -> Json:
    """A note as the server has it."""
    async with rest_client(server.url) as rest:
        note: Json = (await rest.get(f"/notes/{id}/")).json()
        return note


def title(page: Page) -> Locator:
    """The field of the open note's title."""
    return page.get_by_label("Title", exact=True)


def editor(page: Page) -> Locator:
    """The field of the open note's text."""
    return page.get_by_role("textbox", name="Text", exact=True)


def light(page: Page, state: str) -> Locator:
    """The light that tells where the words are, if it is in this state."""
    return page.locator(f'.light[data-state="{state}"]')


async def saved(page: Page) -> None:
    """Waits until all words are on the server."""
    await expect(light(page, "saved")).to_be_visible()


def own(url: str, server: ServerProcess) -> bool:
    """Whether an address is within the page's own server."""
    return url.startswith((server.url, "data:", "blob:"))
