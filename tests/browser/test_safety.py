"""User content is never executed and never causes requests to other hosts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, FilePayload, Page, Response, Route, expect

from tests.browser.notes import create_notes
from tests.browser.page import is_own_url, title, wait_until_saved
from tests.support.harness import ServerProcess, eventually, note_in

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


DANGEROUS = ".preview :is(script, iframe, style, link, form, object, embed, [onerror], [onload])"


@pytest_asyncio.fixture(loop_scope="session")
async def monitored_page(browser: Browser, server: ServerProcess) -> AsyncIterator[Page]:
    """Return a page in which no script of :data:`NASTY` may run or send a request to another server."""
    context = await browser.new_context(base_url=server.url)
    detected = await _monitor(context, server)
    await context.add_init_script("localStorage.setItem('mode', 'both')")
    yield await context.new_page()
    assert detected == []


async def _monitor(context: BrowserContext, server: ServerProcess) -> list[str]:
    """Return the executed scripts and the requests to other hosts, without those that the policy blocks."""
    detected: list[str] = []

    async def stop(route: Route) -> None:
        detected.append(route.request.url)
        await route.abort()

    await context.expose_function("pwned", lambda *_: detected.append("pwned"))
    await context.route(lambda url: not is_own_url(url, server), stop)
    return detected


async def test_monitor_detects_scripts_and_external_requests(browser: Browser, server: ServerProcess) -> None:
    context = await browser.new_context()
    detected = await _monitor(context, server)
    page = await context.new_page()
    await page.set_content(NASTY[0] + NASTY[-1])
    await eventually(lambda: {"pwned", "https://example.org/pixel.png"} <= set(detected))


async def test_markup_in_notes_is_not_executed(monitored_page: Page, server: ServerProcess) -> None:
    page = monitored_page
    matter = "---\ntitle: <img src=x onerror=pwned()>\n---\n"
    await create_notes(
        server,
        note_in(NASTY[0], NASTY[1], content=matter + "\n\n".join(NASTY), tags=[nasty[:50] for nasty in NASTY[:6]]),
        *(note_in(nasty[:50], nasty[:50], tags=[nasty[:50]], content=nasty) for nasty in NASTY),
    )
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
    await expect(page.locator(DANGEROUS)).to_have_count(0)
    await expect(title(page)).to_have_value(NASTY[0])


@pytest.mark.parametrize("policy", [True, False], ids=["with policy", "without policy"])
async def test_images_in_notes_cannot_request_api_routes(browser: Browser, server: ServerProcess, policy: bool) -> None:
    """Sixty long polls would block the page, because a browser opens only six connections to a server."""
    paths = ["/changes?timeout=60&limit={}", "/export?{}", "/notes/1/history/?{}", "/events?{}"]
    content = "\n\n".join(f"![]({paths[number % 4].format(number + 1)})" for number in range(60))
    await create_notes(server, note_in("Pictures", content=content), note_in("Mine", content="read me"))
    context = await browser.new_context(base_url=server.url, bypass_csp=not policy)
    await context.add_init_script("localStorage.setItem('mode', 'both')")
    page = await context.new_page()
    statuses: set[int] = set()
    page.on("response", lambda got: statuses.add(got.status) if "/icon" not in got.url and _is_image(got) else None)
    await page.goto("/n/1")
    await expect(page.locator(".preview img")).to_have_count(60)
    if not policy:
        await eventually(lambda: statuses)
    await page.get_by_text("Mine").first.click()
    await expect(page.locator(".preview")).to_contain_text("read me")
    assert statuses == (set() if policy else {403})
    await context.close()


def _is_image(got: Response) -> bool:
    return got.request.resource_type == "image"


async def test_icon_can_be_loaded_as_an_image(browser: Browser, server: ServerProcess) -> None:
    context = await browser.new_context(base_url=server.url)
    page = await context.new_page()
    await page.goto("/")
    loaded = await page.evaluate(
        """() => new Promise((resolve) => {
            const image = new Image();
            image.onload = () => resolve(true);
            image.onerror = () => resolve(false);
            image.src = "/icon.svg";
        })"""
    )
    assert loaded
    await context.close()


async def test_markup_in_imported_front_matter_is_not_executed(monitored_page: Page, server: ServerProcess) -> None:
    page = monitored_page
    files: list[FilePayload] = [
        {"name": f"{number}.md", "mimeType": "text/markdown", "buffer": _with_front_matter(nasty).encode()}
        for number, nasty in enumerate(NASTY)
    ]
    await page.goto("/")
    await page.get_by_label("Files to import").set_input_files(files)
    await expect(page.locator(".notice")).to_have_text(f"{len(NASTY)} notes imported")
    await page.get_by_role("button", name="Tags").click()
    for id, nasty in enumerate(NASTY, 1):
        short = nasty[:50].strip()
        await page.locator(f".row[href='/n/{id}']").click()
        await expect(title(page)).to_have_value(short)
        await expect(page.locator(".row[aria-current] b")).to_have_text(short)
        await expect(page.get_by_role("button", name=f"Remove the tag {short}", exact=True)).to_be_visible()
        await expect(page.locator(".preview")).to_be_visible()
        await expect(page.locator(DANGEROUS)).to_have_count(0)


def _with_front_matter(nasty: str) -> str:
    short = json.dumps(nasty[:50].strip())  # JSON strings are valid YAML
    lines = ["---", f"title: {short}", f"description: {short}", f"tags: [{short}]", f"other: {short}", "---"]
    return "\n".join([*lines, nasty])


async def test_names_of_other_users_are_displayed_as_text(
    monitored_page: Page, browser: Browser, server: ServerProcess
) -> None:
    await create_notes(server, note_in("Looked at"))
    await monitored_page.goto("/n/1")
    await wait_until_saved(monitored_page)
    other = await browser.new_page(base_url=server.url)
    await other.add_init_script(f"localStorage.setItem('name', {json.dumps(NASTY[0])})")
    await other.goto("/n/1")
    people = monitored_page.locator(".people")
    await expect(people).to_contain_text(NASTY[0])
    await expect(people.locator("*")).to_have_count(0)
    await other.get_by_label("More").click()
    await expect(other.get_by_role("button", name=f"Your name: {NASTY[0]}")).to_be_visible()
    await expect(other.locator(".menu img")).to_have_count(0)
