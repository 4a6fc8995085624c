"""Growth: how the cost of an operation depends on the number of notes, versions, edits and subscribers.

Starts servers with real databases and prints the median times in milliseconds of each operation at each size. Each
operation is repeated; operations on texts also report the longest time of another request, ``GET /ping``, meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pycrdt
from pymongo import MongoClient
from websockets.asyncio.client import connect

from benchmarks.lists import filled, served
from benchmarks.peers import CONTENDERS
from benchmarks.session import Session
from realtime.embedded.pair import EmbeddedServers
from realtime.rooms import protocol
from realtime.rooms.yjs_update import ROOT

REPETITIONS = 21
EDIT_PAUSE_SECONDS = 0.05
"""The delay in seconds between writes to a text, so that each is a write of its own."""
START_SECONDS = 2.0
"""Seconds until a worker knows that there are no others, whose states a room would have to wait for."""
COMPACT_SECONDS = 4.0
"""Seconds until a text that does not change is compacted."""
SEED = 7
Row = dict[str, Any]


def _milliseconds(work: Callable[[], httpx.Response], times: int = REPETITIONS) -> float:
    """Return the median time of a request in milliseconds."""
    elapsed = []
    for _ in range(times):
        started = time.perf_counter()
        work().raise_for_status()
        elapsed.append((time.perf_counter() - started) * 1000)
    return statistics.median(elapsed)


def _retitle(client: httpx.Client, path: str) -> httpx.Response:
    return client.patch(path, json={"title": uuid.uuid4().hex})


def notes(embedded: EmbeddedServers, sizes: list[int]) -> Iterator[Row]:
    """Measure single notes and the first page among many notes."""
    for size in sizes:
        database = f"notes-{size}"
        with served(embedded, database) as url, httpx.Client(base_url=url, timeout=60) as client:
            filled(embedded, url, database, size)
            note = {"title": "a new note", "description": "of some size", "content": "x" * 300}
            yield {
                "notes": size,
                "create": _milliseconds(partial(client.post, "/notes/", json=note)),
                "update": _milliseconds(partial(_retitle, client, "/notes/1/")),
                "read": _milliseconds(partial(client.get, "/notes/1/")),
                "first page": _milliseconds(partial(client.get, "/notes/")),
            }


def versions(embedded: EmbeddedServers, sizes: list[int]) -> Iterator[Row]:
    """Measure one note with many versions."""
    with served(embedded, "versions") as url, httpx.Client(base_url=url, timeout=60) as client:
        for size in sizes:
            note = {"title": "a note", "description": "with many versions", "content": "x" * 300}
            id = client.post("/notes/", json=note).raise_for_status().json()["id"]
            for _ in range(size - 1):
                _retitle(client, f"/notes/{id}/").raise_for_status()
            yield {
                "versions": size,
                "update": _milliseconds(partial(_retitle, client, f"/notes/{id}/")),
                "read": _milliseconds(partial(client.get, f"/notes/{id}/")),
                "first page of the history": _milliseconds(partial(client.get, f"/notes/{id}/history")),
            }


def scattered(edits: int) -> tuple[str, bytes]:
    """Return a text of characters that were inserted one by one at random positions, and its Yjs update."""
    document: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=7)
    text = document.get(ROOT, type=pycrdt.Text)
    choose = random.Random(SEED)
    with document.transaction():
        for length in range(edits):
            text.insert(choose.randrange(length + 1), choose.choice("abcdefgh \n"))
    return str(text), document.get_update()


def edits(embedded: EmbeddedServers, sizes: list[int]) -> Iterator[Row]:
    """Measure a note whose shared text has many scattered edits."""
    for size in sizes:
        database = f"edits-{size}"
        content, update = scattered(size)
        with served(embedded, database) as url, httpx.Client(base_url=url, timeout=60) as client:
            note = {"title": "a note", "description": "with many edits", "content": content}
            id = client.post("/notes/", json=note).raise_for_status().json()["id"]
            with MongoClient[Row](embedded.mongo_url) as mongo:
                lineage = uuid.uuid4().hex
                text = {"_id": lineage, "note": id, "generation": 0, "state": update}
                mongo[database].texts.insert_one(text)
                mongo[database].notes.update_one({"_id": id}, {"$set": {"lineage": lineage}})
            client.patch(f"/notes/{id}/", json={"content": f"{content}!"}).raise_for_status()
            time.sleep(COMPACT_SECONDS)  # from now on, the snapshot is one that the server encoded
        with served(embedded, database) as url:
            yield {"edits": size, **asyncio.run(_edits(url, id)), "pycrdt alone": _applied(update)}


def _applied(update: bytes) -> float:
    """Return the median time that pycrdt takes to apply an update, in milliseconds."""
    elapsed = []
    for _ in range(REPETITIONS // 3):
        document: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
        started = time.perf_counter()
        document.apply_update(update)
        elapsed.append((time.perf_counter() - started) * 1000)
    return statistics.median(elapsed)


async def _edits(url: str, id: int) -> Row:
    """Open the text, and append a character to it repeatedly."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await asyncio.sleep(START_SECONDS)
        opened, ping_opened = await _with_pings(url, partial(_open, url, id))
        elapsed, longest = [], 0.0
        for _ in range(REPETITIONS):
            operation = [{"op": "append", "text": "."}]
            took, ping = await _with_pings(url, partial(client.post, f"/notes/{id}/content", json=operation))
            elapsed.append(took)
            longest = max(longest, ping)
            await asyncio.sleep(EDIT_PAUSE_SECONDS)
    return {
        "open": opened,
        "longest ping while opening": ping_opened,
        "first append": elapsed[0],
        "append": statistics.median(elapsed[1:]),
        "longest ping while appending": longest,
    }


async def _open(url: str, id: int) -> None:
    async with connect(f"{url.replace('http', 'ws', 1)}/sync/{id}", compression=None, max_size=None) as client:
        await client.send(protocol.state(b"\0"))
        while not (await client.recv()).startswith(b"\0\x01"):  # type: ignore[arg-type]  # the payload is binary
            pass


async def _with_pings(url: str, work: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Return the time of some work, and the longest time of a request that was sent meanwhile, in milliseconds."""
    longest, ended = 0.0, asyncio.Event()

    async def ping() -> None:
        nonlocal longest
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while not ended.is_set():
                started = time.perf_counter()
                await client.get("/ping")
                longest = max(longest, (time.perf_counter() - started) * 1000)

    pinging = asyncio.create_task(ping())
    await asyncio.sleep(0.1)
    longest = 0.0
    started = time.perf_counter()
    result = await work()
    elapsed = (time.perf_counter() - started) * 1000
    ended.set()
    await pinging  # the loop may have been blocked the whole time
    if isinstance(result, httpx.Response):
        result.raise_for_status()
    return elapsed, longest


def subscribers(folder: Path, sizes: list[int]) -> Iterator[Row]:
    """Measure the delivery of ten writes per second to many subscribers."""
    with Session(folder, quick=False) as session:
        server = session.server(CONTENDERS["realtime"])
        for size in sizes:
            figures = session.load(server, clients=size, writers=4, rate=10, seconds=6, grace=4)
            yield {
                "subscribers": size,
                "write": figures["request_p50"],
                "delivery, p50": figures["p50"],
                "delivery, p99": figures["p99"],
            }


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _print(row: Row) -> None:
    name, size = next(iter(row.items()))
    figures = ", ".join(f"{key} {value:.1f}" for key, value in list(row.items())[1:])
    print(f"  {size:>9,} {name}: {figures}", flush=True)


def main() -> None:
    """Run the benchmark and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=_numbers, default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--versions", type=_numbers, default=[10, 100, 1_000, 10_000])
    parser.add_argument("--edits", type=_numbers, default=[1_000, 10_000, 100_000])
    parser.add_argument("--subscribers", type=_numbers, default=[10, 100, 1_000, 10_000])
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the rows to a JSON file")
    arguments = parser.parse_args()
    rows: list[Row] = []
    print("median times in milliseconds")
    with tempfile.TemporaryDirectory() as folder:
        with EmbeddedServers(Path(folder) / "data") as embedded:
            for measure, sizes in (
                (edits, arguments.edits),
                (versions, arguments.versions),
                (notes, arguments.notes),
            ):
                for row in measure(embedded, sizes):
                    rows.append(row)
                    _print(row)
        if arguments.subscribers:
            for row in subscribers(Path(folder), arguments.subscribers):
                rows.append(row)
                _print(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
