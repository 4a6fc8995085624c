"""Lists: found, ordered, and as long as they like."""

from __future__ import annotations

from playwright.async_api import expect
from pymongo import MongoClient

from realtime.settings import Settings
from tests.browser.page import Open, make
from tests.harness import Json, ServerProcess, eventually, note_in, rest_client


async def test_search_tags_and_order(opened: Open, server: ServerProcess) -> None:
    await make(
        server,
        note_in("Bananas", content="yellow fruit", tags=["fruit"]),
        note_in("Apples", content="red fruit", tags=["fruit", "red"]),
        note_in("Carrots", content="a root", tags=["red"]),
    )
    page = await opened()
    titles = page.locator(".row b")
    await expect(titles).to_have_text(["Carrots", "Apples", "Bananas"])
    await page.get_by_label("Order").select_option("title")
    await expect(titles).to_have_text(["Apples", "Bananas", "Carrots"])
    await page.get_by_role("button", name="Tags").click()
    await page.get_by_role("button", name="fruit").click()
    await page.get_by_role("button", name="red 2").click()
    await expect(titles).to_have_text(["Apples"])
    await page.get_by_role("button", name="red 2").click()
    await page.get_by_label("Search").fill("banan")
    await expect(titles).to_have_text(["Bananas"])
    await page.get_by_label("Search").fill("yellow")
    await expect(page.locator(".row mark")).to_have_text("yellow")
    async with rest_client(server.url) as rest:
        await rest.post("/notes/", json=note_in("Lemons", content="yellow, too", tags=["fruit"]))
    await expect(titles).to_have_count(2)


async def test_ten_thousand_notes_scroll(opened: Open, server: ServerProcess, settings: Settings) -> None:
    await make(server, note_in(content="text"))
    with MongoClient[Json](settings.mongo_url) as mongo:
        collection = mongo[settings.database].notes
        await eventually(lambda: collection.count_documents({"dirty": True}) == 0)
        note = collection.find_one() or {}
        collection.insert_many(
            [{**note, "_id": id, "title": f"Note {id:05}", "title_key": f"note {id:05}"} for id in range(2, 10_001)]
        )
    page = await opened()
    await page.get_by_label("Order").select_option("title")
    await expect(page.locator(".row").first).to_contain_text("Note 00002")
    for _ in range(60):
        await page.locator(".rows").evaluate("element => { element.scrollTop = element.scrollHeight }")
        if await page.locator("ol[aria-label='10000 notes']").count():
            break
        await page.wait_for_timeout(100)
    await expect(page.locator("ol[aria-label='10000 notes']")).to_be_attached()
    assert await page.locator(".row").count() < 60
    frames = await page.evaluate(
        """async () => {
            const rows = document.querySelector(".rows"), gaps = [];
            let last = performance.now();
            for (let step = 0; step < 60; step++) {
                rows.scrollTop = (rows.scrollHeight - rows.clientHeight) * ((step * 7) % 60) / 60;
                await new Promise(requestAnimationFrame);
                gaps.push(performance.now() - last);
                last = performance.now();
            }
            return gaps.sort((a, b) => a - b);
        }"""
    )
    assert len(frames) == 60
    await page.locator(".rows").evaluate("element => { element.scrollTop = 84 * 5000 }")
    await expect(page.locator(".row", has_text="Note 05004")).to_be_visible()
