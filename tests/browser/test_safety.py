"""Nothing that anybody writes is ever executed, or asks another server."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Browser, expect

from tests.browser.page import make, own, title
from tests.harness import ServerProcess, note_in

NASTY = [
    "<img src=x onerror=pwned()>",
    "<script>pwned()</script>",
    '"><svg onload=pwned()>',
    "[a](javascript:pwned())",
    "<a href='javascript:pwned()'>a</a>",
    "<iframe srcdoc='<script>parent.pwned()</script>'></iframe>",
    "<math><mtext><table><mglyph><style><img src=x onerror=pwned()>",
    '![a](x" onerror="pwned())',
    "<form action=javascript:pwned()><button>x</button></form>",
    "<style>@import 'https://example.org'</style><link rel=stylesheet href=https://example.org>",
    "<img src=https://example.org/pixel.png>",
]


async def test_markup_in_notes_does_nothing(browser: Browser, server: ServerProcess) -> None:
    matter = "---\ntitle: <img src=x onerror=pwned()>\n---\n"
    await make(
        server,
        note_in(NASTY[0], NASTY[1], content=matter + "\n\n".join(NASTY), tags=[nasty[:50] for nasty in NASTY[:6]]),
        *(note_in(nasty[:50], nasty[:50], tags=[nasty[:50]], content=nasty) for nasty in NASTY),
    )
    context = await browser.new_context(base_url=server.url)
    called: list[Any] = []
    foreign: list[str] = []
    await context.expose_function("pwned", lambda *args: called.append(args))
    page = await context.new_page()
    page.on("request", lambda asked: None if own(asked.url, server) else foreign.append(asked.url))
    await page.add_init_script("localStorage.setItem('mode', 'both')")
    for path in ("/n/1", "/n/2", "/n/7", "/n/1/history", "/?"):
        await page.goto(path)
        await expect(page.locator(".row").first).to_be_visible()
        await page.get_by_role("button", name="Tags").click()
        await page.get_by_label("Search").fill("pwned")
        await expect(page.locator(".row mark").first).to_be_visible()
        for link in await page.locator(".preview a").all():
            assert not (await link.get_attribute("href") or "").startswith("javascript")
    await page.goto("/n/1")
    await expect(page.locator(".preview")).to_be_visible()
    assert (
        await page.locator(
            ".preview :is(script, iframe, style, link, form, object, embed, [onerror], [onload])"
        ).count()
        == 0
    )
    await expect(title(page)).to_have_value(NASTY[0])
    assert called == []
    assert foreign == []
