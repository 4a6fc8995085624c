"""Password guesses from 100 networks at once. The owner can still sign in from any of their browsers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.testclient import TestClient

from realtime.auth import sign_in_guard
from realtime.settings import Settings
from tests.support.accounts import PASSWORD, Browse, Browser, add_user, parts_of, run
from tests.support.harness import UNIT, eventually, rest_client
from tests.support.http import Serve

NETWORKS = 100
NEAR = "192.0.2.7"
NEW_PASSWORD = "another horse and another staple"
WRONG = {"name": "ann", "password": "wrong wrong wrong wrong"}


@asynccontextmanager
async def attack(url: str) -> AsyncIterator[Counter[int]]:
    """Guess ann's password from 100 networks while the block runs. Yield the statuses of the responses so far."""
    statuses: Counter[int] = Counter()

    async def guess(rest: httpx.AsyncClient, number: int) -> None:
        while True:
            headers = {"X-Forwarded-For": f"10.{number}.0.{1 + number}"}
            answer = await rest.post("/auth/sign-in", json=WRONG, headers=headers, timeout=120)
            statuses[answer.status_code] += 1

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits) as rest:
        tasks = [asyncio.create_task(guess(rest, number)) for number in range(NETWORKS)]
        try:
            yield statuses
            assert not any(task.done() for task in tasks), "the attack continued to the end"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def browser(url: str, address: str) -> AsyncIterator[httpx.AsyncClient]:
    """Open a browser with its own cookies at an address."""
    async with rest_client(url) as rest:
        rest.headers["X-Forwarded-For"] = address
        rest.timeout = httpx.Timeout(90 * UNIT)
        yield rest


async def sign_in(rest: httpx.AsyncClient, password: str = PASSWORD) -> None:
    """Sign in as ann."""
    answer = await rest.post("/auth/sign-in", json={"name": "ann", "password": password})
    assert answer.status_code == 200, answer.text


async def test_attack_from_100_networks_does_not_lock_out_the_owner(settings: Settings, serve: Serve) -> None:
    options = {"auth": "accounts", "password_memory": 8192}
    await add_user(settings.model_copy(update=options), "ann")
    server = serve(**options)
    async with browser(server.url, "192.0.2.1") as known, browser(server.url, "198.51.100.1") as new:
        await sign_in(known)
        async with attack(server.url) as statuses:
            await eventually(lambda: statuses[401] > NETWORKS, within=60)
            for _ in range(5):
                assert (await known.post("/auth/sign-out")).status_code == 204
                await sign_in(known)
            async with asyncio.timeout(60 * UNIT):
                await sign_in(new)
            changed = await known.post("/auth/password", json={"old": PASSWORD, "new": NEW_PASSWORD})
            assert changed.status_code == 204
            await sign_in(known, NEW_PASSWORD)
            assert set(statuses) <= {401, 429}


class TestDeviceCookie:
    @pytest.fixture(autouse=True)
    def _no_delay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sign_in_guard, "MAX_DELAY_SECONDS", 0)

    def _exhaust_attempts(self, neighbor: Browser, name: str) -> None:
        """Fail to sign in until the network of a browser is blocked."""
        statuses = [neighbor.try_sign_in(name, "wrong wrong wrong wrong").status_code for _ in range(11)]
        assert statuses == [401] * 10 + [429]

    def test_known_browser_signs_in_from_a_blocked_network(self, browse: Browse) -> None:
        ann, neighbor = browse(address=NEAR).sign_up(), browse(address=NEAR)
        ann.post("/auth/sign-out")
        self._exhaust_attempts(neighbor, ann.name)
        refused = neighbor.try_sign_in(ann.name)
        assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (429, True)
        ann.sign_in(ann.name)

    def test_password_change_forgets_all_devices_except_its_own(self, browse: Browse) -> None:
        ann = browse().sign_up()
        phone = browse(address=NEAR).sign_in(ann.name)
        assert ann.post("/auth/password", json={"old": PASSWORD, "new": NEW_PASSWORD}).status_code == 204
        self._exhaust_attempts(browse(address=NEAR), ann.name)
        assert phone.try_sign_in(ann.name, NEW_PASSWORD).status_code == 429
        ann.post("/auth/sign-out")
        ann.sign_in(ann.name, NEW_PASSWORD)

    def test_password_reset_by_the_operator_forgets_all_devices(self, host: TestClient, browse: Browse) -> None:
        ann = browse(address=NEAR).sign_up()
        run(host, lambda: parts_of(host).accounts.users.reset(ann.name, NEW_PASSWORD))
        self._exhaust_attempts(browse(address=NEAR), ann.name)
        assert ann.try_sign_in(ann.name, NEW_PASSWORD).status_code == 429

    def test_browser_has_a_separate_device_per_user(self, browse: Browse) -> None:
        ann, other = browse().sign_up(), browse(address=NEAR).sign_up()
        mine, theirs = ann.name, other.name
        ann.sign_in(theirs)
        self._exhaust_attempts(browse(address=NEAR), mine)
        assert other.try_sign_in(mine).status_code == 429
        ann.sign_in(mine)
        assert len(ann.cookies["realtime-device"].split(".")) == 2
