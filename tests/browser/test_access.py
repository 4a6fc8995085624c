"""The page is in nobody's way: contrast, names, roles, small screens, motion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.browser.page import Open, editor, make
from tests.harness import ServerProcess, note_in, rest_client

AXE = Path(__file__).parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"


async def test_phone_shows_one_thing_at_a_time(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in("On the phone", content="# Heading"))
    page = await opened(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    await page.get_by_role("link", name="On the phone").tap()
    await expect(page.locator(".sidebar")).to_be_hidden()
    await expect(editor(page)).to_be_visible()
    await page.get_by_role("button", name="Read", exact=True).tap()
    await expect(page.get_by_role("heading", name="Heading")).to_be_visible()
    await expect(editor(page)).to_be_hidden()
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not await page.evaluate(wide)
    await page.get_by_role("button", name="‹ Notes").tap()
    await expect(page.locator(".sidebar")).to_be_visible()
    assert not await page.evaluate(wide)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
async def test_nothing_serious_is_in_anybodys_way(
    browser: Browser, server: ServerProcess, scheme: Any, width: int
) -> None:
    await make(
        server,
        note_in("Title", content="# Heading\n\n[link](https://example.org) `code`", tags=["tag"]),
        note_in("Gone"),
    )
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "# Heading\n\nother"})
        await rest.delete("/notes/2/")
    context = await browser.new_context(
        base_url=server.url, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True
    )
    page = await context.new_page()
    for path in ("/", "/n/1", "/n/1/history", "/deleted", "/n/99", "help"):
        if path == "help":
            await page.goto("/")
            await page.keyboard.press("?")
        else:
            await page.goto(path)
        await expect(page.locator(".brand")).to_be_visible()
        await page.wait_for_load_state("networkidle")
        await page.add_script_tag(path=AXE)
        found = await page.evaluate("axe.run()")
        serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        told = [(one["id"], [node["html"][:150] for node in one["nodes"]]) for one in serious]
        assert told == [], json.dumps(told, indent=2)
