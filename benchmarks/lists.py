"""Pages of lists: compares the time of a page in collections of 100 and of 100,000 notes.

Starts a server with real databases, fills it, and requests pages of 100 notes in every order: the first page and one
from the middle, with and without a tag. Prints the median of several runs in milliseconds, and the ratio to the first
page of a collection with 100 notes, measured alternately.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import httpx
from pymongo import MongoClient

from benchmarks.processes import free_port, listening
from realtime.api.pagination import encode_page_token
from realtime.embedded.pair import EmbeddedServers
from realtime.notes.listing import Sort
from realtime.notes.snippets import folded

ORDERS = [order for order in get_args(Sort) if order != "relevance"]
WORDS = [f"{first}{last}" for first in "bdfgklmnprst" for last in ("adel", "eno", "ira", "oto", "umi")]
SEED = 1
Json = dict[str, Any]


def notes(many: int, example: Json) -> Iterator[Json]:
    """Yield documents like one created by the server, with titles, dates and tags in random order."""
    draw = random.Random(SEED)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for id in range(1, many + 1):
        title = " ".join(draw.choices(WORDS, k=3))
        content = " ".join(draw.choices(WORDS, k=100))
        yield {
            **example,
            "_id": id,
            "title": title,
            "title_key": folded(title),
            "content": content,
            "words": content,
            "tags": ["even" if id % 2 else "odd", draw.choice(WORDS)],
            "created_date": start + timedelta(seconds=draw.randrange(10**7)),
            "updated_date": start + timedelta(seconds=draw.randrange(10**7)),
        }


@contextmanager
def served(embedded: EmbeddedServers, database: str) -> Iterator[str]:
    """Run a server on a database, and yield its URL."""
    environment = {
        "REALTIME_MONGO_URL": embedded.mongo_url,
        "REALTIME_REDIS_URL": embedded.redis_url,
        "REALTIME_DATABASE": database,
        "REALTIME_LOG_LEVEL": "warning",
    }
    port = free_port()
    with listening([sys.executable, "-m", "realtime", "serve", "--port", str(port)], port, environment):
        yield f"http://127.0.0.1:{port}"


def filled(embedded: EmbeddedServers, url: str, database: str, many: int) -> None:
    """Fill the database of the server."""
    httpx.post(f"{url}/notes/", json={"title": "example", "description": "example"}).raise_for_status()
    time.sleep(0.5)  # until the note is published and archived
    with MongoClient[Json](embedded.mongo_url) as mongo:
        collection = mongo[database].notes
        example = collection.find_one_and_delete({})
        assert example is not None
        batch: list[Json] = []
        for note in notes(many, example):
            batch.append(note)
            if len(batch) == 1000 or note["_id"] == many:
                collection.insert_many(batch)
                batch.clear()


def milliseconds(client: httpx.Client, path: str, query: Json) -> float:
    """Return the time of a page in milliseconds."""
    started = time.perf_counter()
    answer = client.get(path, params=query)
    elapsed = (time.perf_counter() - started) * 1000
    assert answer.status_code == 200, answer.text
    assert len(answer.json()) == 100
    return elapsed


def middle(client: httpx.Client, many: int, order: str) -> str:
    """Return the page token of a note in the middle of a list."""
    note = client.get(f"/notes/{many // 2}/").json()
    key: Any = note["id"]
    match order.removeprefix("-"):
        case "title":
            key = "mira noto"
        case "created" | "updated":
            moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=10**7 // 2)
            key = int(moment.timestamp() * 1000)
    return encode_page_token(order, key, note["id"])


def main() -> None:
    """Run the benchmark and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=100_000, help="notes in the large collection")
    parser.add_argument("--runs", type=int, default=31, help="measurements of each page")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    rows: list[Json] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServers(Path(folder)) as embedded,
        served(embedded, "small") as small_url,
        served(embedded, "large") as large_url,
    ):
        filled(embedded, small_url, "small", 100)
        filled(embedded, large_url, "large", arguments.notes)
        with httpx.Client(base_url=small_url) as small, httpx.Client(base_url=large_url, timeout=60) as large:
            for order in ORDERS:
                for tag in ({}, {"tag": "odd"}):
                    for place in ("first", "middle"):
                        query = {"sort": order, **tag}
                        if place == "middle":
                            query["after"] = middle(large, arguments.notes, order)
                        pairs = [
                            (milliseconds(small, "/notes/", {}), milliseconds(large, "/notes/", query))
                            for _ in range(arguments.runs)
                        ]
                        base, page = (statistics.median(times) for times in zip(*pairs, strict=True))
                        rows.append(
                            {
                                "order": order,
                                "tag": bool(tag),
                                "page": place,
                                "small_ms": round(base, 2),
                                "ms": round(page, 2),
                                "ratio": round(page / base, 2),
                            }
                        )
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"A page of 100 of {arguments.notes} notes, and the first of 100; medians of {arguments.runs} runs")
    print(f"{'order':10}{'tag':6}{'page':8}{'of 100':>9}{'of all':>9}{'ratio':>7}")
    for row in rows:
        tagged = "odd" if row["tag"] else ""
        print(f"{row['order']:10}{tagged:6}{row['page']:8}{row['small_ms']:>9.2f}{row['ms']:>9.2f}{row['ratio']:>7.2f}")


if __name__ == "__main__":
    main()
