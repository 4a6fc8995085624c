"""Shared helpers of the browser tests: example notes, and locators of page elements by name."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from playwright.async_api import BrowserContext, Locator, Page, WebSocketRoute, expect

from tests.support.harness import UNIT, ServerProcess

Open = Callable[..., Awaitable[Page]]
"""Opens a path in a new profile, with the options of a Playwright context."""

SECOND = 1000 * UNIT

_BLOCK_STORE = """async () => {
  for (const { name } of await indexedDB.databases()) {
    if (!name.startsWith("%s")) continue;
    const opening = indexedDB.open(name);
    await new Promise((done) => { opening.onsuccess = done; });
    const first = opening.result.transaction("%s", "readwrite");
    const again = () => { first.objectStore("%s").count().onsuccess = again; };
    again();
  }
}"""
BLOCK_UPDATES = _BLOCK_STORE % ("text-", "updates", "updates")
"""Blocks the storage of text updates in the browser from now on."""

BLOCK_DRAFTS = _BLOCK_STORE % ("notes", "drafts", "drafts")
"""Blocks the storage and deletion of drafts in the browser until the page is closed."""

UNSTORED_TEXT_KEYS = "Object.keys(localStorage).filter((key) => key.startsWith('left:'))"
"""The keys under which the page keeps its latest text that is not in IndexedDB yet."""

expect.set_options(timeout=20 * SECOND)  # generous, because four tests share two cores


class Cable:
    """A connection of a browser that can be cut. The offline mode of the browser does not close open WebSockets."""

    def __init__(self, context: BrowserContext) -> None:
        self._context = context
        self._open: list[WebSocketRoute] = []
        self._whole = True

    @classmethod
    async def install(cls, context: BrowserContext) -> Cable:
        """Route all new connections of the browser through the cable."""
        cable = cls(context)
        await context.route_web_socket(re.compile(r"/(ws|sync)\b"), cable._connect)
        return cable

    async def _connect(self, socket: WebSocketRoute) -> None:
        if self._whole:
            socket.connect_to_server()
            self._open.append(socket)
        else:
            await socket.close(code=1001)

    async def cut(self) -> None:
        """Cut the network."""
        self._whole = False
        await self._context.set_offline(True)
        for socket in self._open:
            await socket.close(code=1001)
        self._open.clear()

    async def restore(self) -> None:
        """Restore the network."""
        self._whole = True
        await self._context.set_offline(False)


def title(page: Page) -> Locator:
    """Return the title field of the open note."""
    return page.get_by_label("Title", exact=True)


def editor(page: Page) -> Locator:
    """Return the editor of the open note."""
    return page.get_by_role("textbox", name="Text", exact=True)


def light(page: Page, state: str) -> Locator:
    """Return the status light if it has this state."""
    return page.locator(f'.light[data-state="{state}"]')


async def wait_until_saved(page: Page) -> None:
    """Wait until all text is on the server."""
    await expect(light(page, "saved")).to_be_visible()


async def expect_saved_text(page: Page, text: str) -> None:
    """Wait until the editor shows a text, and all text is on the server."""
    await expect(editor(page)).to_have_text(text)
    await wait_until_saved(page)


async def append_text(page: Page, words: str) -> None:
    """Type at the end of the text."""
    await editor(page).press("Control+End")
    await editor(page).press_sequentially(words)


def is_own_url(url: str, server: ServerProcess) -> bool:
    """Return whether an address belongs to the server of the page."""
    return url.startswith((server.url, "data:", "blob:"))
