"""Revoked access rights close open connections on every worker within a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from realtime.auth import revocations
from realtime.auth.permissions import Principal, key_of
from realtime.auth.revocations import Handler, LiveSessions, Revocations, RevocationSubjects
from realtime.core.close_codes import CloseCode
from realtime.errors import Unavailable
from realtime.feed.query import FeedQuery
from realtime.settings import Settings
from realtime.store.database import Store
from tests.support.accounts import Browser, accounts_server, bearer, parts_of, run
from tests.support.harness import UNIT, create_note, note_in
from tests.support.http import read_until_close
from tests.support.workers import open_stores


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with open_stores(settings, 1) as (store,):
        yield store


async def none_expired(_: object) -> set[str]:
    """Report that all sessions are valid."""
    return set()


async def test_revocation_is_passed_once_to_its_handler_on_each_worker(store: Store) -> None:
    handled: list[tuple[str, RevocationSubjects]] = []

    def handler_of(kind: str) -> Handler:
        async def handle(subjects: RevocationSubjects) -> None:
            handled.append((kind, subjects))

        return handle

    workers = [
        Revocations(
            store.revocations,
            {"session": handler_of("session"), "note": handler_of("note")},
            LiveSessions(set, none_expired),
        )
        for _ in range(2)
    ]
    principal = Principal(keys=frozenset(), name="ann", session="a")
    await store.revocations.add([("session", "a"), ("session", "b"), ("note", 7)])
    await store.revocations.add([])
    assert not workers[0].ended(principal)
    for worker in workers:
        await worker.read()
        assert sorted(handled) == [("note", frozenset({7})), ("session", frozenset({"a", "b"}))]
        handled.clear()
        assert worker.ended(principal)
    await workers[0].read()
    assert handled == []
    await store.revocations.add([("session", "c")])
    await workers[0].read()
    assert handled == [("session", frozenset({"c"}))]


async def test_role_read_after_an_older_change_is_not_outdated(store: Store) -> None:
    async def handle(_: RevocationSubjects) -> None:
        pass

    worker = Revocations(store.revocations, {"promoted": handle, "demoted": handle}, LiveSessions(set, none_expired))
    await store.revocations.add([("promoted", "a")])
    before = Principal(keys=frozenset(), name="ann", session="a", read_at=time.monotonic())
    await worker.read()
    after = replace(before, read_at=time.monotonic())  # demoted in between, which this worker has not read yet
    assert (worker.ended(before), worker.ended(after)) == (True, False)
    await store.revocations.add([("demoted", "a")])
    await worker.read()
    assert not worker.ended(after)
    assert worker.ended(replace(after, admin=True))


async def test_failed_handler_is_called_again_at_the_next_read(store: Store) -> None:
    handled: list[RevocationSubjects] = []

    async def handle(subjects: RevocationSubjects) -> None:
        handled.append(subjects)
        if len(handled) == 1:
            raise Unavailable

    worker = Revocations(store.revocations, {"note": handle}, LiveSessions(set, none_expired))
    await store.revocations.add([("note", 7)])
    with pytest.raises(Unavailable):
        await worker.read()
    await worker.read()
    await worker.read()
    assert handled == [frozenset({7})] * 2


async def test_expired_session_without_a_revocation_is_found_by_the_check(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "CHECK_INTERVAL_SECONDS", 0)
    found = asyncio.get_running_loop().create_future()

    async def expired(sessions: object) -> set[str]:
        return {"b"} if sessions == {"a", "b"} else set()

    async def end(sessions: RevocationSubjects) -> None:
        found.set_result(sessions)

    worker = Revocations(store.revocations, {"session": end}, LiveSessions(lambda: {"a", "b"}, expired))
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(5 * UNIT):
        assert await found == {"b"}
    task.cancel()


@pytest.fixture(scope="module")
def workers(module_settings: Settings) -> Iterator[list[TestClient]]:
    """Start two applications on one database."""
    with accounts_server(module_settings) as one, accounts_server(module_settings) as two:
        yield [one, two]


@pytest.fixture(scope="module")
def root(workers: list[TestClient]) -> Browser:
    """Return the browser of the admin."""
    return Browser(workers[0]).sign_up("root")


EndSession = Callable[[Browser, Browser], object]


@pytest.mark.parametrize(
    "end",
    [
        lambda ann, root: ann.post("/auth/sign-out"),
        lambda ann, root: root.post(f"/users/{ann.name}/disable"),
        lambda ann, root: Browser(root).sign_in(ann.name).delete("/auth/sessions"),
    ],
    ids=["sign-out", "disabled-user", "all-other-sessions"],
)
def test_ended_session_closes_its_connections_on_other_workers(
    workers: list[TestClient], root: Browser, end: EndSession
) -> None:
    here, there = workers
    ann = Browser(here).sign_up()
    away = Browser(there)
    away.cookies = ann.cookies
    note = create_note(ann)["id"]
    with away.open_feed() as feed, away.open_room(note) as room:
        assert feed.receive_json()["type"] == "ready"
        room.receive_bytes()
        secret = ann.secret
        end(ann, root)
        started = time.monotonic()
        assert {read_until_close(feed)[0], read_until_close(room)[0]} == {CloseCode.NOT_SIGNED_IN}
        assert time.monotonic() - started < UNIT
    away.cookies.set("realtime", secret, domain="127.0.0.1")
    assert away.user is None


def test_revoked_token_is_refused_by_other_workers(workers: list[TestClient]) -> None:
    here, there = workers
    ann, program = Browser(here).sign_up(), Browser(there)
    token = ann.token()
    header = bearer(token["token"])
    assert program.get("/auth/me", headers=header).status_code == 200
    with program.websocket_connect("ws://127.0.0.1/ws", headers=header) as feed:
        assert feed.receive_json()["type"] == "ready"
        ann.delete(f"/auth/tokens/{token['id']}")
        started = time.monotonic()
        assert read_until_close(feed)[0] == CloseCode.NOT_SIGNED_IN
        assert time.monotonic() - started < UNIT
    assert program.get("/auth/me", headers=header).status_code == 401


def test_subscriber_with_an_ended_session_is_closed(workers: list[TestClient]) -> None:
    """Access rights that were read just before can be outdated when the subscriber is registered."""
    here, there = workers
    ann = Browser(here).sign_up()
    parts = parts_of(there)
    principal = Principal(keys=frozenset({"*"}), name=ann.name, session=ann.get("/auth/sessions").json()[0]["id"])
    ann.post("/auth/sign-out")

    async def join() -> CloseCode:
        while True:
            client = parts.feed.join(FeedQuery(), principal)
            parts.feed.leave(client)
            if client.closing.done():
                code: CloseCode = client.closing.result()
                return code
            await asyncio.sleep(0.02)

    started = time.monotonic()
    assert run(there, join) is CloseCode.NOT_SIGNED_IN
    assert time.monotonic() - started < UNIT


def test_peer_with_an_ended_session_is_closed(workers: list[TestClient]) -> None:
    here, there = workers
    ann = Browser(here).sign_up()
    note = ann.post("/notes/", json=note_in()).json()["id"]
    parts = parts_of(there)
    principal = Principal(frozenset({key_of(ann.name)}), ann.name, ann.get("/auth/sessions").json()[0]["id"])
    ann.post("/auth/sign-out")

    async def join() -> CloseCode:
        while True:
            member = parts.rooms.create_peer(SimpleNamespace(send=lambda *_: True, buffered=0), principal, ann.name)
            (await parts.rooms.join(note, member)).leave(member)
            if member.closing.done():
                code: CloseCode = member.closing.result()
                return code
            await asyncio.sleep(0.02)

    async def join_with_timeout() -> CloseCode:
        async with asyncio.timeout(UNIT):
            return await join()

    assert run(there, join_with_timeout) is CloseCode.NOT_SIGNED_IN
