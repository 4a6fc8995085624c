"""A browser's EventSource on `/events`: it reconnects automatically in every state of the server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from playwright.async_api import Browser
from websockets.asyncio.client import connect

from tests.support.harness import eventually
from tests.support.http import Serve

OPEN = """() => {
  window.sources = [1, 2, 3].map(() => {
    const source = new EventSource("/events");
    source.ready = 0;
    source.onmessage = ({ data }) => { source.ready += JSON.parse(data).type === "ready"; };
    return source;
  });
}"""
STATES = "sources.map(({ readyState }) => readyState)"
READY = "Math.min(...sources.map(({ ready }) => ready))"
CONNECTING, OPENED, CLOSED = range(3)


async def test_event_sources_reconnect_after_a_restart_with_many_clients(browser: Browser, serve: Serve) -> None:
    """An EventSource does not reconnect after a 503, so a draining server must not send one."""
    server = serve(drain_seconds=2)
    page = await browser.new_page(base_url=server.url)
    await page.goto("/icon.svg")
    async with AsyncExitStack() as others:
        for _ in range(100):  # so that draining takes some time
            await others.enter_async_context(connect(server.ws, close_timeout=0.1))
        await page.evaluate(OPEN)
        await eventually(lambda: page.evaluate(f"{READY} === 1"))
        assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(server.start)
        await eventually(lambda: page.evaluate(f"{READY} === 2"), within=30)
    assert await page.evaluate(STATES) == [OPENED] * 3


async def test_event_sources_over_the_accept_limit_reconnect_later(browser: Browser, serve: Serve) -> None:
    server = serve(max_connects_per_second=1)
    page = await browser.new_page(base_url=server.url)
    await page.goto("/icon.svg")
    await page.evaluate(OPEN)
    await eventually(lambda: page.evaluate(f"{READY} > 0"), within=40)
    assert await page.evaluate(STATES) == [OPENED] * 3
