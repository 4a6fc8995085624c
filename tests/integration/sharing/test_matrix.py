"""Every user, every note, every endpoint: each response matches the table and reveals nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import WebSocketTestSession

from realtime.rooms import protocol
from realtime.rooms.crdt import TextDocument
from tests.integration.sharing.conftest import World, word_of
from tests.support.accounts import HERE, Browser, run, scope_of
from tests.support.harness import Json, eventually, take_presence
from tests.support.http import pages_of, refused_handshake
from tests.support.sharing_model import PEOPLE, READ, SHARED, roles, status

ORIGIN = {"Origin": HERE}
STALE = {"If-Match": '"v9999"'}
"""Lets allowed writes fail with 412, so that nothing is written."""
TABLE = roles()
LIVE = [kind for kind in SHARED if kind != "trashed"]

Call = Callable[[Browser, int], Response]
NOTE_CALLS: dict[str, tuple[str, int, Call]] = {
    "read": ("read", 200, lambda who, id: who.get(f"/notes/{id}/")),
    "history": ("read", 200, lambda who, id: who.get(f"/notes/{id}/history/")),
    "version": ("read", 200, lambda who, id: who.get(f"/notes/{id}/history/1/")),
    "diff": ("read", 200, lambda who, id: who.get(f"/notes/{id}/history/1..1/diff")),
    "access": ("read", 200, lambda who, id: who.get(f"/notes/{id}/access")),
    "put": ("write", 412, lambda who, id: who.put(f"/notes/{id}/", json=_note(), headers=STALE)),
    "patch": ("write", 412, lambda who, id: who.patch(f"/notes/{id}/", json={"title": "Another"}, headers=STALE)),
    "empty patch": ("write", 412, lambda who, id: who.patch(f"/notes/{id}/", json={}, headers=STALE)),
    "merge": ("write", 412, lambda who, id: who.put(f"/notes/{id}/?base_version=1", json=_note(), headers=STALE)),
    "edit": ("write", 412, lambda who, id: who.post(f"/notes/{id}/content", json=_edit(), headers=STALE)),
    "restore": ("write", 412, lambda who, id: who.post(f"/notes/{id}/restore", json={"version": 1}, headers=STALE)),
    "delete": ("own", 412, lambda who, id: who.delete(f"/notes/{id}/", headers=STALE)),
    "share": ("own", 412, lambda who, id: who.put(f"/notes/{id}/access", json={}, headers=STALE)),
    "transfer": ("own", 412, lambda who, id: who.put(f"/notes/{id}/access", json={"owner": "max"}, headers=STALE)),
}
TRASH_CALLS: dict[str, tuple[str, int, Call]] = {
    "read": ("read", 200, lambda who, id: who.get(f"/trash/{id}/")),
    "restore": ("own", 412, lambda who, id: who.post(f"/trash/{id}/restore", headers=STALE)),
    "purge": ("own", 412, lambda who, id: who.delete(f"/trash/{id}/", headers=STALE)),
}


def _note() -> Json:
    return {"title": "Another", "description": "and other words"}


def _edit() -> list[Json]:
    return [{"op": "append", "text": "more"}]


def _visible(person: str) -> set[str]:
    return {kind for kind in LIVE if TABLE[kind, person] in READ}


def _mentioned(text: str) -> set[str]:
    """Return the kinds of the notes that a text mentions."""
    return {kind for kind in SHARED if word_of(kind) in text}


CALLS = [("live", *call) for call in NOTE_CALLS.values()] + [("trashed", *call) for call in TRASH_CALLS.values()]


@pytest.mark.parametrize(
    ("state", "needs", "done", "ask"), CALLS, ids=[*NOTE_CALLS, *(f"trash {n}" for n in TRASH_CALLS)]
)
def test_request_returns_the_status_of_the_role(world: World, state: str, needs: str, done: int, ask: Call) -> None:
    violations = []
    for (kind, person), letter in TABLE.items():
        answer = ask(world.people[person], world.notes[kind])
        expected = status(letter if (kind == "trashed") is (state == "trashed") else "-", needs, person, done=done)
        if answer.status_code != expected or (expected in (403, 404) and _mentioned(answer.text)):
            violations.append((kind, person, expected, answer.status_code, answer.text[:200]))
    assert violations == []


@pytest.mark.parametrize("person", PEOPLE)
def test_lists_searches_and_exports_contain_only_visible_notes(world: World, person: str) -> None:
    who, visible = world.people[person], _visible(person)
    for sort in ("id", "-title", "updated"):
        assert _mentioned(who.get("/notes/", params={"sort": sort}).text) == visible
    assert _mentioned(str(list(pages_of(who, "/notes/?limit=2&content=false")))) == visible
    assert _mentioned(who.get("/tags/").text) == visible
    words = " ".join(map(word_of, SHARED))
    assert _mentioned(who.get("/notes/", params={"q": words}).text) == visible
    for kind in LIVE:
        found = [kind] if kind in visible else []
        assert sorted(_mentioned(who.get("/notes/", params={"q": word_of(kind)}).text)) == found
        assert sorted(_mentioned(who.get("/notes/", params={"tag": word_of(kind)}).text)) == found
    exported = who.get("/export")
    assert int(exported.headers["X-Total-Count"]) == len(visible)
    with zipfile.ZipFile(io.BytesIO(exported.content)) as archive:
        assert _mentioned("".join(archive.read(name).decode() for name in archive.namelist())) == visible
    in_trash = {"trashed"} if TABLE["trashed", person] in READ else set()
    assert _mentioned(who.get("/trash/").text) == in_trash
    assert who.get("/audit").status_code == (200 if person == "root" else 401 if who.user is None else 403)


def test_only_users_with_write_access_create_notes(world: World) -> None:
    refused = {"ann_reads": 403, "ed_reads": 403, "linked": 401, "stranger": 401}
    for person in PEOPLE:
        expected = refused.get(person, 201)
        answer = world.people[person].post("/notes/", json=_note())
        assert answer.status_code == expected, person
        imported = world.people[person].post("/import", files={"files": ("one.md", b"# One\n\nwords")})
        assert imported.status_code == (200 if expected == 201 else expected), person
        unread = world.people[person].post("/import", files={"files": ("one.zip", b"no zip")})
        assert unread.status_code == (422 if expected == 201 else expected), person
        made = [] if expected != 201 else [answer.json()["id"], *imported.json()["ids"]]
        for id in made:
            assert world.people[person].delete(f"/notes/{id}/").status_code == 200


ADMIN_CALLS: dict[str, tuple[int, Callable[[Browser], Response]]] = {
    "users": (200, lambda who: who.get("/users")),
    "promote": (404, lambda who: who.post("/users/nobody/promote")),
    "demote": (404, lambda who: who.post("/users/nobody/demote")),
    "disable": (404, lambda who: who.post("/users/nobody/disable")),
    "delete": (404, lambda who: who.delete("/users/nobody")),
    "invites": (200, lambda who: who.get("/invites")),
    "revoke an invite": (404, lambda who: who.delete(f"/invites/{'0' * 32}")),
}


@pytest.mark.parametrize("call", ADMIN_CALLS)
def test_administration_request_requires_an_administrator(world: World, call: str) -> None:
    done, ask = ADMIN_CALLS[call]
    for person in PEOPLE:
        expected = done if person == "root" else 401 if person in ("linked", "stranger") else 403
        assert ask(world.people[person]).status_code == expected, person


def _changes(frames: list[Json]) -> tuple[set[str], set[int]]:
    shown = {
        text for frame in frames if frame["type"] in ("note.created", "note.updated") for text in _mentioned(str(frame))
    }
    return shown, {frame["id"] for frame in frames if frame["type"] == "note.deleted"}


def _check_resumed(world: World, person: str, frames: list[Json]) -> None:
    shown, gone = _changes(frames)
    assert shown == _visible(person), person
    lost = {kind for kind in SHARED if TABLE[kind, person] == "-" or kind == "trashed"}
    # A lost note is reported as deleted. A note that was never visible is not reported.
    was = {"revoked", "trashed"} if TABLE["revoked", person] == "-" else {"trashed"}
    assert gone & set(world.notes.values()) == {world.notes[kind] for kind in lost & was}, person


@pytest.mark.parametrize("person", PEOPLE)
def test_resumed_polls_and_streams_use_the_current_rights(world: World, person: str) -> None:
    who = world.people[person]
    polled = who.get("/changes", params={"since": world.cursor, "limit": 1000, "timeout": 0}).json()
    assert polled["reset"] is False
    _check_resumed(world, person, polled["changes"])
    _check_resumed(world, person, _streamed(who, f"/events?since={world.cursor}"))


def _streamed(who: Browser, path: str) -> list[Json]:
    """Return the frames of an event stream up to ``ready``."""
    raw = bytearray()
    scope = scope_of(who, who.build_request("GET", path))

    async def stream() -> None:
        done = asyncio.Event()
        first = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Json:
            if first:
                return first.pop()
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            raw.extend(message.get("body", b""))
            if b'"type":"ready"' in raw:
                done.set()

        await who.app(scope, receive, send)

    run(who, stream)
    return [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: ")]


@contextlib.contextmanager
def _feed(who: Browser, query: str = "") -> Iterator[WebSocketTestSession]:
    headers = {**ORIGIN, **({"Authorization": who.headers["Authorization"]} if "Authorization" in who.headers else {})}
    with who.websocket_connect(f"ws://127.0.0.1/ws{query}", headers=headers) as socket:
        if "Authorization" not in headers and who.user is None:
            socket.send_json({"type": "auth"})
        yield socket


def _until(socket: WebSocketTestSession, last: Callable[[Json], bool]) -> list[Json]:
    frames: list[Json] = []
    while not frames or not last(frames[-1]):
        frames.append(socket.receive_json())
    return frames


def test_resumed_feed_sockets_receive_only_visible_events(world: World) -> None:
    with contextlib.ExitStack() as stack:
        feeds = {}
        for person in PEOPLE:
            feeds[person] = stack.enter_context(_feed(world.people[person], f"?since={world.cursor}"))
            _check_resumed(world, person, _until(feeds[person], lambda frame: frame["type"] == "ready"))
        for kind in LIVE:
            by = world.people["root" if kind == "unowned" else "ann"]
            assert by.patch(f"/notes/{world.notes[kind]}/", json={"description": "changed now"}).status_code == 200
        last = world.people["ann"].patch(f"/notes/{world.notes['public']}/", json={"description": "the end"}).json()
        for person, feed in feeds.items():
            frames = _until(feed, lambda frame: frame.get("note", {}).get("description") == "the end")
            shown, gone = _changes(frames)
            assert shown == _visible(person), person
            assert gone == set(), person
            assert frames[-1]["version"] == last["version"]


def _received(socket: WebSocketTestSession) -> Iterator[bytes]:
    while True:
        yield socket.receive_bytes()


@pytest.mark.parametrize("person", PEOPLE)
def test_room_accepts_updates_by_role(world: World, person: str) -> None:
    who = world.people[person]
    headers = {**ORIGIN, **({"Authorization": who.headers["Authorization"]} if "Authorization" in who.headers else {})}
    for kind in SHARED:
        letter = "-" if kind == "trashed" else TABLE[kind, person]
        path = f"ws://127.0.0.1/sync/{world.notes[kind]}"
        if letter == "-":
            assert refused_handshake(who, path, **headers).status_code == 404, (kind, person)
            continue
        with who.websocket_connect(path, headers=headers) as socket:
            assert protocol.decode(socket.receive_bytes()).kind is protocol.SyncKind.STATE
            socket.send_bytes(protocol.state(TextDocument().state))
            text = protocol.decode(next(one for one in _received(socket) if one[:2] == b"\0\1")).payload
            assert word_of(kind).encode() in text
            word = f"by{person} "
            socket.send_bytes(protocol.update(TextDocument(client=PEOPLE.index(person) + 1000).edit([(0, 0, word)])))
            answer = next(one for one in _received(socket) if one[:2] == b"\0\2" or one[:1] == b"\2")
            assert (answer[:2] == b"\0\2") is (letter in "OE"), (kind, person)
            if letter not in "OE":
                assert answer == protocol.denied("read only")
    for kind in LIVE:
        reader = world.people["root" if kind == "unowned" else "ann"]
        path = f"/notes/{world.notes[kind]}/"
        asyncio.run(eventually(partial(_check_written, reader, path, person, expected=TABLE[kind, person] in "OE")))


def _check_written(reader: Browser, path: str, person: str, *, expected: bool) -> None:
    """Check whether a note contains the text that a user typed."""
    assert (f"by{person} " in reader.get(path).json()["content"]) is expected, (path, person)


def test_presence_is_sent_only_to_readers_of_the_note(world: World) -> None:
    ids = ",".join(str(world.notes[kind]) for kind in SHARED)
    with contextlib.ExitStack() as stack:
        feeds = {person: stack.enter_context(_feed(world.people[person], f"?notes={ids}")) for person in PEOPLE}
        for feed in feeds.values():
            _until(feed, lambda frame: frame["type"] == "ready")
        for person, feed in feeds.items():
            for kind in SHARED:
                feed.send_json({"type": "presence", "id": world.notes[kind], "state": {"here": f"{person}-{kind}"}})
        expected = {kind: sum(TABLE[kind, person] in READ for person in PEOPLE) for kind in LIVE}
        for person, feed in feeds.items():
            visible = _visible(person)
            people: dict[int, dict[str, Json]] = {}
            while {id: len(there) for id, there in people.items()} != {
                world.notes[kind]: expected[kind] for kind in visible
            }:
                take_presence(people, feed.receive_json())
            for kind in visible:
                there = {state["here"] for state in people[world.notes[kind]].values()}
                assert there == {f"{one}-{kind}" for one in PEOPLE if TABLE[kind, one] in READ}


def test_hidden_notes_are_indistinguishable_from_missing_notes(world: World) -> None:
    nowhere = max(world.notes.values()) + 1000
    for call, (_, _, ask) in NOTE_CALLS.items():
        for person in ("ed", "linked", "stranger"):
            hidden = [world.notes[kind] for kind in ("private", "revoked", "unowned")]
            answers = {ask(world.people[person], id).text for id in [*hidden, nowhere]}
            assert len(answers) == 1, (call, person)
