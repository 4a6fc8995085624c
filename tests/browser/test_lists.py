"""Lists in the page: search, order, and arbitrary length."""

from __future__ import annotations

import statistics

from playwright.async_api import expect
from pymongo import MongoClient

from realtime.settings import Settings
from tests.browser.notes import create_notes
from tests.browser.page import Open
from tests.support.harness import Json, ServerProcess, eventually, note_in, rest_client


async def test_search_tags_and_order_change_the_list(opened: Open, server: ServerProcess) -> None:
    await create_notes(
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


async def test_ten_thousand_notes_scroll_smoothly(opened: Open, server: ServerProcess, settings: Settings) -> None:
    await create_notes(server, note_in(content="text"))
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
    await eventually(lambda: page.evaluate(TO_THE_END), within=20)
    await expect(page.locator("ol[aria-label='10000 notes']")).to_be_attached()

    # Row by row: only the rows that come into view are created.
    steps = await page.evaluate(SCROLL, [84 * (3000 + step) for step in range(60)])
    assert max(step["rows"] for step in steps) < ROWS
    assert max(step["made"] for step in steps[1:]) <= 2, steps
    # Jumps: the view is filled after at most three frames.
    jumps = await page.evaluate(SCROLL, [84 * ((step * 3571) % 9900) for step in range(60)])
    assert max(jump["rows"] for jump in jumps) < ROWS
    assert max(jump["made"] for jump in jumps) < ROWS
    assert max(jump["blank"] for jump in jumps) <= 3, jumps

    async def smooth() -> bool:
        """Return whether frames take at most three times as long as idle frames."""
        idle = await page.evaluate(SCROLL, [0] * 30)
        busy = await page.evaluate(SCROLL, [84 * ((step * 3571) % 9900) for step in range(60)])
        return bool(_median(busy) <= 3 * _median(idle))

    await eventually(smooth, within=20)  # other processes may slow down the machine
    await page.evaluate(SCROLL, [84 * 5000])
    await expect(page.locator(".row", has_text="Note 05004")).to_be_visible()


def _median(steps: list[Json]) -> float:
    return statistics.median(float(step["gap"]) for step in steps)


ROWS = 60
"""The maximum number of rows in the document, for a list of any length."""

TO_THE_END = """async () => {
    const rows = document.querySelector(".rows");
    rows.scrollTop = rows.scrollHeight;
    await new Promise(requestAnimationFrame);
    return document.querySelector("ol[aria-label='10000 notes']") !== null;
}"""

SCROLL = """async (places) => {
    const rows = document.querySelector(".rows"), box = rows.getBoundingClientRect(), steps = [];
    let made = 0;
    const watch = new MutationObserver((all) => { for (const one of all) made += one.addedNodes.length; });
    watch.observe(rows.querySelector("ol"), { childList: true });
    const filled = () => {
        const shown = [...rows.querySelectorAll("li")].map((row) => row.getBoundingClientRect());
        return Math.min(...shown.map((row) => row.top)) <= box.top
            && Math.max(...shown.map((row) => row.bottom)) >= box.bottom;
    };
    await new Promise(requestAnimationFrame);
    for (const place of places) {
        const before = performance.now();
        rows.scrollTop = place;
        await new Promise(requestAnimationFrame);
        let blank = 0;
        while (!filled() && blank < 60) {
            blank++;
            await new Promise(requestAnimationFrame);
        }
        await new Promise(requestAnimationFrame);
        const gap = performance.now() - before;
        steps.push({ gap, blank, rows: rows.querySelectorAll("li").length, made });
        made = 0;
    }
    watch.disconnect();
    return steps;
}"""
"""Scroll to each position, and return for each the times of its frames, the number of frames until the view was filled,
and the numbers of existing and of created rows.
"""
