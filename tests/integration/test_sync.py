"""`/sync/{id}` of real server processes: acknowledged updates are never lost, even if servers fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from starlette.testclient import TestClient
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from realtime.core.close_codes import CloseCode
from realtime.rooms import protocol
from realtime.rooms.crdt import TextDocument
from tests.faults.raw import BINARY, frame
from tests.support.harness import UNIT, Json, ServerProcess, eventually, note_in, rest_client
from tests.support.http import Serve, read_until_close, wait_for_close
from tests.support.room_client import Text, Wire, state_of


@pytest.fixture
def server(shared_servers: list[ServerProcess]) -> ServerProcess:
    """Return a shared server, for tests that read only notes of their own."""
    return shared_servers[0]


@pytest.fixture
async def rest(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with rest_client(server.url) as rest:
        yield rest


async def make(rest: httpx.AsyncClient, content: str = "") -> int:
    answer = await rest.post("/notes/", json=note_in(content=content))
    assert answer.status_code == 201
    id: int = answer.json()["id"]
    return id


async def read(rest: httpx.AsyncClient, id: int) -> Json:
    answer: Json = (await rest.get(f"/notes/{id}/")).json()
    return answer


async def close_code_after(url: str, *messages: bytes | str) -> int:
    """Send messages over a new connection, and return its close code."""
    async with connect(url.replace("http", "ws", 1), max_size=None) as socket:
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                await socket.send(message)
        async with asyncio.timeout(10 * UNIT):
            return await wait_for_close(socket)


def test_client_syncs_over_the_plain_asgi_interface(client: TestClient) -> None:
    client.post("/notes/", json=note_in(content="text"))
    text = Text()
    with client.websocket_connect("/sync/1") as socket:
        socket.send_bytes(text.hello())
        while not text.synced:
            if answer := text.take(socket.receive_bytes()):
                socket.send_bytes(answer)
        assert str(text) == "text"
        socket.send_bytes(text.append(" more"))
        while not text.all_acknowledged:
            text.take(socket.receive_bytes())
        socket.send_text("hello")
        assert read_until_close(socket)[0] == CloseCode.BAD_FRAME


async def test_flood_of_requests_is_closed_after_few_responses(server: ServerProcess, rest: httpx.AsyncClient) -> None:
    """Messages are counted when they arrive. Those that still wait are dropped with the connection."""
    id = await make(rest, "x" * 500_000)
    async with connect(f"{server.url.replace('http', 'ws', 1)}/sync/{id}", max_size=None) as socket:
        socket.transport.write(frame(BINARY, Text().hello()) * 900)
        answers = 0
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(20 * UNIT):
                while True:
                    message = await socket.recv()
                    answers += len(message) > 500_000
        assert socket.close_code == CloseCode.TOO_MANY
    assert answers < 20


@pytest.mark.parametrize("id", ["0", "999999999", "x", "1.5", "-1", "01", str(2**53), "9" * 400, "%00", "1%202"])
async def test_room_of_a_missing_note_is_refused(server: ServerProcess, id: str) -> None:
    """The refusal precedes the handshake: stock clients then back off, but reconnect at once after a close."""
    with pytest.raises(InvalidStatus) as refused:
        await close_code_after(f"{server.url}/sync/{id}")
    assert refused.value.response.status_code == 404
    assert json.loads(refused.value.response.body or b"") == {"detail": "Note not found"}


async def test_room_accepts_only_the_matching_created_date(server: ServerProcess, rest: httpx.AsyncClient) -> None:
    id = await make(rest, "text")
    created = (await read(rest, id))["created_date"]
    for other in ("2026-01-01T00:00:00.000Z", "nonsense", ""):
        code = await close_code_after(f"{server.url}/sync/{id}?created={other}", Text().hello())
        assert code == CloseCode.NOTE_GONE
    for query in ("", f"?created={created}", f"?created={created.replace(':', '%3A')}"):
        async with Wire(server.url, f"{id}{query}") as client:
            assert str(client.text) == "text"
            assert client.codes == []


async def test_write_that_keeps_typed_text_is_reported_as_merged(
    server: ServerProcess, rest: httpx.AsyncClient
) -> None:
    id = await make(rest, "one\n")
    async with Wire(server.url, id) as client:
        await client.append("typed\n")
        await eventually(lambda: client.text.all_acknowledged)
        answer = await rest.patch(f"/notes/{id}/?base_version=1", json={"content": "ONE\n"})
    assert (answer.json()["content"], answer.json()["merged"]) == ("ONE\ntyped\n", True)


async def test_deleting_a_note_closes_its_room_on_all_servers(
    shared_servers: list[ServerProcess], rest: httpx.AsyncClient
) -> None:
    id = await make(rest)
    waiting = [
        asyncio.create_task(close_code_after(f"{server.url}/sync/{id}", Text().hello())) for server in shared_servers
    ]
    async with Wire(shared_servers[0].url, id) as one, Wire(shared_servers[1].url, id) as two:
        await rest.delete(f"/notes/{id}/")
        await eventually(lambda: CloseCode.NOTE_GONE in one.codes and CloseCode.NOTE_GONE in two.codes)
    assert await asyncio.gather(*waiting) == [CloseCode.NOTE_GONE] * 2


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", CloseCode.BAD_FRAME),
        ("text", CloseCode.BAD_FRAME),
        (b"\2\0\0", CloseCode.BAD_FRAME),
        (b"\x09", CloseCode.BAD_FRAME),
        (b"\0\3\0", CloseCode.BAD_FRAME),
        (b"\0\2\5ab", CloseCode.BAD_FRAME),
        (b"\0\0\1\1", CloseCode.BAD_FRAME),
        (b"\0\2\6\xff\xff\xff\xff\x0f\0", CloseCode.BAD_FRAME),
        (protocol.update(TextDocument().since()) + b"\0", CloseCode.BAD_FRAME),
        (state_of(1, 1, "nonsense"), CloseCode.BAD_FRAME),
        (state_of(1, 1, "NaN"), CloseCode.BAD_FRAME),
        (state_of(1, 1, '"' + "x" * 9000 + '"'), CloseCode.BAD_FRAME),
        (b"\0" * (1024 * 1024 + 1), CloseCode.TOO_BIG),
    ],
    ids=range(13),
)
async def test_bad_frame_closes_only_its_sender(
    server: ServerProcess, rest: httpx.AsyncClient, message: bytes | str, code: CloseCode
) -> None:
    id = await make(rest, "text")
    async with Wire(server.url, id) as other:
        assert await close_code_after(f"{server.url}/sync/{id}", message) == code
        await other.append(" more")
        await eventually(lambda: other.text.all_acknowledged)
        assert other.codes == []


async def test_hundreds_of_bad_connections_do_not_delay_other_clients(
    server: ServerProcess, rest: httpx.AsyncClient
) -> None:
    id = await make(rest)
    choose = random.Random(5)
    done = asyncio.Event()
    slowest = 0.0

    async def keep_typing(other: Wire) -> int:
        nonlocal slowest
        number = 0
        while not done.is_set():
            started = asyncio.get_running_loop().time()
            await other.append(f"{number};")
            await eventually(lambda: other.text.all_acknowledged)
            slowest = max(slowest, asyncio.get_running_loop().time() - started)
            number += 1
        return number

    async def attack() -> None:
        good = protocol.update(TextDocument(client=choose.randrange(1, 2**32)).edit([(0, 0, "word")]))
        for _ in range(4):
            frames = [choose.randbytes(choose.randrange(1, 50)), good[: choose.randrange(len(good))], b"\0\2\xff\xff"]
            codes = await close_code_after(f"{server.url}/sync/{id}", *frames)
            assert codes == CloseCode.BAD_FRAME

    async with Wire(server.url, id) as other:
        typing = asyncio.create_task(keep_typing(other))
        await asyncio.gather(*(attack() for _ in range(75)))
        done.set()
        number = await typing
        assert other.codes == []
        await eventually(lambda: _content(rest, id, "".join(f"{n};" for n in range(number))))
    assert slowest < 2 * UNIT
    assert "Traceback" not in server.log()


async def _content(rest: httpx.AsyncClient, id: int, text: str) -> bool:
    return bool((await read(rest, id))["content"] == text)


async def test_typed_text_reaches_rest_and_rest_writes_reach_clients(
    shared_servers: list[ServerProcess], rest: httpx.AsyncClient
) -> None:
    id = await make(rest, "start\n")
    async with AsyncExitStack() as stack:
        typists = [await stack.enter_async_context(Wire(server.url, id)) for server in shared_servers]
        await typists[0].append("typed\n")
        await eventually(lambda: _content(rest, id, "start\ntyped\n"), within=2)
        base = await read(rest, id)
        assert base["version"] == 2
        await typists[1].append("more\n")
        # Merged with the text that was typed since then.
        answer = await rest.patch(
            f"/notes/{id}/", json={"content": "START\ntyped\n"}, params={"base_version": base["version"]}
        )
        assert answer.status_code == 200, answer.text
        await eventually(lambda: {str(one.text) for one in typists} == {"START\ntyped\nmore\n"})
        edit = [{"op": "append", "text": "appended\n"}]
        for _ in range(2):
            key = {"Idempotency-Key": f"once-{id}"}
            answer = await rest.post(f"/notes/{id}/content", json=edit, headers=key)
            assert answer.status_code == 200, answer.text
        await eventually(lambda: {str(one.text) for one in typists} == {"START\ntyped\nmore\nappended\n"})
        stale = await rest.put(f"/notes/{id}/", json=note_in(content="no"), headers={"If-Match": '"v1"'})
        assert stale.status_code == 412
        restored = await rest.post(f"/notes/{id}/restore", json={"version": 2})
        assert restored.status_code == 200, restored.text
        await eventually(lambda: {str(one.text) for one in typists} == {"start\ntyped\n"})
        titled = await rest.put(f"/notes/{id}/", json=note_in("other"))
        assert titled.json()["content"] == "start\ntyped\n"
        assert all(one.codes == [] for one in typists)
        revisions = (await rest.get(f"/notes/{id}/history")).json()
        actions = [one["action"] for one in (revisions if isinstance(revisions, list) else revisions["versions"])]
        assert {"create", "type", "update", "edit", "restore"} <= set(actions)


async def test_awareness_state_is_removed_at_disconnect(
    shared_servers: list[ServerProcess], rest: httpx.AsyncClient
) -> None:
    id = await make(rest)
    async with Wire(shared_servers[0].url, id) as one, Wire(shared_servers[1].url, id) as two:
        await one.say(state_of(one.text.client, 1, '{"user":{"name":"Ada"}}'))
        await eventually(lambda: two.text.here == {one.text.client})
        await one.away()
        await eventually(lambda: two.text.here == set())


async def test_typed_text_survives_a_killed_and_a_restarted_server(serve: Serve) -> None:
    servers = [serve(), serve()]
    async with AsyncExitStack() as stack:
        rest = await stack.enter_async_context(rest_client(servers[1].url))
        id = await make(rest, "|")
        clients = [await stack.enter_async_context(Wire(servers[n % 2].url, id)) for n in range(4)]
        for number in range(40):
            client = clients[number % 4]
            await client.append(f"{number};")
            if number == 15:
                servers[0].kill()
                servers[0].start()
            if number == 30:
                assert servers[1].stop() == 0
                servers[1].start()
            await asyncio.sleep(0.01)

        async def converged() -> None:
            texts = {str(client.text) for client in clients}
            assert len(texts) == 1
            words = texts.pop()
            assert sorted(words.strip("|").replace("|", "").split(";")[:-1]) == sorted(map(str, range(40)))
            async with rest_client(servers[1].url) as again:
                assert (await read(again, id))["content"] == words

        await eventually(converged, within=20)
        async with Wire(servers[0].url, id) as fresh:
            assert str(fresh.text) == str(clients[0].text)
    assert not any(code >= 4500 for client in clients for code in client.codes)
