"""Access rights that are revoked at random while clients read, write and type: a second later, access is denied.

``TEST_REVOCATIONS`` sets the number, and ``TEST_SEED`` the seed, which a failure reports.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from realtime.rooms import protocol
from realtime.rooms.crdt import TextDocument
from realtime.settings import Settings
from tests.support.accounts import PASSWORD, add_user, with_accounts
from tests.support.harness import Json, ServerProcess, note_in
from tests.support.http import Serve

REVOCATIONS = int(os.environ.get("TEST_REVOCATIONS", "12"))
SEED = int(os.environ.get("TEST_SEED", "0")) or random.randrange(1, 2**31)
NOTES, MEMBERS = 4, 4
MAX_DELAY_SECONDS = 1.0
"""Seconds after a revocation from which access must be denied."""


@dataclass
class Person:
    """A user with an API token, who uses both servers."""

    name: str
    token: str
    client: httpx.AsyncClient

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def call(self, method: str, url: str, **more: object) -> httpx.Response:
        return await self.client.request(method, url, headers=self.headers, **more)  # type: ignore[arg-type]


@dataclass
class Right:
    """The access of a member to a note, with the time and the version of its last revocation."""

    member: Person
    note: int
    since: float | None = None
    version: int = 0
    closed: list[float] = field(default_factory=list)

    def ended(self, moment: float) -> bool:
        """Return whether access must be denied at a time."""
        return self.since is not None and moment > self.since + MAX_DELAY_SECONDS


class Storm:
    """The users, their rights, and the violations that were observed."""

    def __init__(self, servers: list[ServerProcess], seed: int) -> None:
        self.urls = [server.url for server in servers]
        self.random = random.Random(seed)
        self.violations: list[str] = []
        self.rights: list[Right] = []
        self.revoked = 0
        self.left = REVOCATIONS
        self.signed_out: list[float] = []
        self.seen = {"reads": 0, "writes": 0, "frames": 0, "letters": 0, "refused": 0}
        self._numbers = itertools.count(1)

    def any_url(self) -> str:
        """Return the URL of a random server."""
        return self.random.choice(self.urls)

    async def sign_up(self, name: str) -> Person:
        """Sign up a user, and create a token."""
        client = httpx.AsyncClient(timeout=30)
        signed_up = await client.post(f"{self.urls[0]}/auth/sign-up", json={"name": name, "password": PASSWORD})
        assert signed_up.status_code == 201, signed_up.text
        made = await client.post(f"{self.urls[0]}/auth/tokens", json={"name": "storm"})
        client.cookies.clear()
        return Person(name, made.json()["token"], client)

    async def share(self, owner: Person, note: int) -> int:
        """Share a note with the members that have access now, and return the version."""
        members = [
            {"name": right.member.name, "role": "editor"}
            for right in self.rights
            if right.note == note and right.since is None
        ]
        answer = await owner.call("PUT", f"{self.any_url()}/notes/{note}/access", json={"members": members})
        assert answer.status_code == 200, answer.text
        return int(answer.headers["ETag"].strip('"v'))

    async def revoke(self, owner: Person, note: int) -> None:
        """Revoke random rights to a note and restore them, one after the other."""
        rights = [right for right in self.rights if right.note == note]
        while self.left > 0:
            self.left -= 1
            right = self.random.choice(rights)
            await asyncio.sleep(self.random.uniform(0.05, 0.2))
            # Not before the response: until then, the right may or may not be revoked.
            pending, right.since, right.version = time.monotonic(), float("inf"), 2**53
            version = await self.share(owner, note)
            right.since, right.version = time.monotonic(), version
            assert right.since >= pending
            await asyncio.sleep(MAX_DELAY_SECONDS + self.random.uniform(0.1, 0.3))
            self.revoked += 1
            right.since = None
            await self.share(owner, note)

    async def read_and_write(self, right: Right) -> None:
        """Read and write over REST until cancelled."""
        while True:
            await asyncio.sleep(self.random.uniform(0.02, 0.1))
            started = time.monotonic()
            path = f"{self.any_url()}/notes/{right.note}/"
            if self.random.random() < 0.7:
                answer = await right.member.call("GET", path)
                kind = "reads"
            else:
                body = {"description": f"by {right.member.name} {next(self._numbers)}"}
                answer = await right.member.call("PATCH", path, json=body)
                kind = "writes"
            if answer.status_code == 200:
                self.seen[kind] += 1
                if right.ended(started):
                    self.violations.append(f"{kind} of {right.member.name} at {right.note}")
            elif answer.status_code == 404:
                self.seen["refused"] += 1
                assert right.since is not None or started < time.monotonic(), "refused without a reason"
            else:
                assert answer.status_code in (404, 409, 429), answer.text

    async def follow(self, member: Person) -> None:
        """Follow the feed, and check that no event after a revocation is received."""
        rights = {right.note: right for right in self.rights if right.member is member}
        url = self.any_url().replace("http", "ws")
        async with connect(f"{url}/ws", additional_headers=member.headers) as socket:
            async for text in socket:
                frame: Json = json.loads(text)
                right = rights.get(frame.get("id", 0))
                if right is None or frame["type"] == "note.deleted":
                    continue
                self.seen["frames"] += 1
                if right.since is not None and frame["version"] > right.version:
                    self.violations.append(f"event {frame['version']} of note {right.note} for {member.name}")

    async def type(self, right: Right) -> None:
        """Type in the room, and rejoin it whenever access is restored."""
        url = f"{self.any_url().replace('http', 'ws')}/sync/{right.note}"
        while True:
            await asyncio.sleep(0.1)
            try:
                async with connect(url, additional_headers=right.member.headers) as socket:
                    await self._type(socket, right)
            except InvalidStatus as refused:
                if refused.response.status_code != 404:
                    raise
            except ConnectionClosed as closed:
                code = 0 if closed.rcvd is None else closed.rcvd.code
                if code == 4503 and right.since is not None:  # possibly before the owner received the response
                    right.closed.append(max(0.0, time.monotonic() - right.since))
                assert code in (4503, 4504, 4010), code

    async def _type(self, socket: ClientConnection, right: Right) -> None:
        document = TextDocument(client=self.random.randrange(1, 2**31))
        length = 0

        async def write() -> None:
            nonlocal length
            while True:
                await asyncio.sleep(self.random.uniform(0.05, 0.15))
                sent.append(time.monotonic())
                await socket.send(protocol.update(document.edit([(length, length, "x")])))
                length += 1

        sent: list[float] = []
        writing = asyncio.create_task(write())
        try:
            async for message in socket:
                assert isinstance(message, bytes)
                if message[:2] != b"\0\2":
                    continue
                self.seen["letters"] += 1
                if right.ended(sent[0] if sent else time.monotonic()) and right.since != float("inf"):
                    self.violations.append(f"a letter in note {right.note} at {right.member.name}")
                del sent[:1]
        finally:
            writing.cancel()

    async def lose_tokens(self) -> None:
        """Create tokens and revoke them, one after the other, each while it is in use on the other server."""
        here, there = self.urls
        async with httpx.AsyncClient(base_url=here, timeout=30) as person, httpx.AsyncClient(base_url=there) as program:
            body = {"name": "loser", "password": PASSWORD}
            assert (await person.post("/auth/sign-up", json=body)).status_code == 201
            while self.left > 0:
                made = (await person.post("/auth/tokens", json={"name": "storm"})).json()
                headers = {"Authorization": f"Bearer {made['token']}"}
                async with connect(f"{there.replace('http', 'ws')}/ws", additional_headers=headers) as socket:
                    assert (await program.get("/notes/", headers=headers)).status_code == 200
                    assert (await person.delete(f"/auth/tokens/{made['id']}")).status_code == 204
                    revoked = time.monotonic()
                    await socket.wait_closed()
                    assert socket.close_code == 4501
                    self.signed_out.append(time.monotonic() - revoked)
                assert (await program.get("/notes/", headers=headers)).status_code == 401


async def test_revocations_take_effect_within_a_second_under_load(settings: Settings, serve: Serve) -> None:
    await add_user(with_accounts(settings))  # so that the others can sign up
    options = {"auth": "accounts", "sign_up": "open", "password_memory": 8, "log_level": "error"}
    storm = Storm([serve(**options), serve(**options)], SEED)
    owners = [await storm.sign_up(f"owner{number}") for number in range(NOTES)]
    members = [await storm.sign_up(f"member{number}") for number in range(MEMBERS)]
    for owner in owners:
        note = (await owner.call("POST", f"{storm.any_url()}/notes/", json=note_in())).json()["id"]
        storm.rights += [Right(member, note) for member in members]
        await storm.share(owner, note)
    notes = sorted({right.note for right in storm.rights})
    load = [
        *(asyncio.create_task(storm.read_and_write(right)) for right in storm.rights),
        *(asyncio.create_task(storm.follow(member)) for member in members),
        *(asyncio.create_task(storm.type(right)) for right in storm.rights),
    ]
    everything: list[Coroutine[Any, Any, None]] = [
        storm.lose_tokens(),
        *(storm.revoke(*one) for one in zip(owners, notes, strict=True)),
    ]
    work = asyncio.gather(*everything)
    try:
        running: list[asyncio.Future[Any]] = [*load, work]
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for person in (*owners, *members):
            await person.client.aclose()
    assert storm.violations == [], f"TEST_SEED={SEED}"
    assert storm.revoked == REVOCATIONS
    assert all(storm.seen.values()), storm.seen
    closed = [seconds for right in storm.rights for seconds in right.closed]
    assert closed
    assert storm.signed_out
    assert max(*closed, *storm.signed_out) < MAX_DELAY_SECONDS, f"TEST_SEED={SEED}"
    sys.stdout.write(
        f"{storm.revoked} revocations, {storm.seen}, rooms closed after at most {max(closed):.3f} s;"
        f" {len(storm.signed_out)} tokens, feeds closed after at most {max(storm.signed_out):.3f} s\n"
    )
