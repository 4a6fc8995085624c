"""The cost of storing and opening a note that was edited for months.

A seeded generator creates a trace like B4 of the crdt-benchmarks (a paper of about 105,000 characters, written in about
260,000 single-character operations): an author types runs of characters, moves back, deletes recent characters, and
sometimes moves to a different position. The updates are compacted like in a room, 500 at a time. Prints the size of the
stored snapshot, the time to open it and the memory that it needs, compared with a note with the same text from one
paste.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time

import psutil
import pycrdt

from realtime.rooms.crdt import TextDocument, compact, genesis, new_client_id

SESSION = 2000
"""The number of operations after which a new client continues, as after a reload."""
FOLD = 500
LETTERS = "etaoin shrdlu cmfwyp vbgkjqxz "


def trace(operations: int, seed: int) -> tuple[list[bytes], str]:
    """Return the updates of all operations, and the final text."""
    draw = random.Random(seed)
    updates: list[bytes] = []
    state = b"\0\0"
    cursor = length = done = 0
    text = ""
    while done < operations:
        document: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=new_client_id())
        shared = document.get("content", type=pycrdt.Text)
        document.apply_update(state)
        subscription = document.observe(lambda event: updates.append(event.update))
        until = min(operations, done + SESSION)
        while done < until:
            if draw.random() < 0.02:
                cursor = draw.randint(0, length)
            for _ in range(min(draw.randint(5, 40), until - done)):
                shared.insert(cursor, draw.choice(LETTERS))
                cursor, length, done = cursor + 1, length + 1, done + 1
            for _ in range(min(draw.randint(0, 18), until - done, cursor)):
                del shared[cursor - 1]
                cursor, length, done = cursor - 1, length - 1, done + 1
        document.unobserve(subscription)
        state, text = document.get_update(), str(shared)
    return updates, text


def folded(updates: list[bytes]) -> bytes:
    """Return a snapshot of all updates."""
    snapshot = b"\0\0"
    for start in range(0, len(updates), FOLD):
        snapshot = compact([snapshot, *updates[start : start + FOLD]])
    return snapshot


def opened(snapshot: bytes, runs: int) -> tuple[float, float]:
    """Return the time to open a text in milliseconds, and its memory in MiB."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        len(str(TextDocument([snapshot])))
        times.append(1000 * (time.perf_counter() - started))
    gc.collect()
    before = psutil.Process().memory_info().rss
    kept = [TextDocument([snapshot]) for _ in range(10)]
    memory = (psutil.Process().memory_info().rss - before) / len(kept) / 2**20
    return statistics.median(times), memory


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--operations", type=int, default=260_000)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--seed", type=int, default=4)
    arguments = parser.parse_args()
    updates, text = trace(arguments.operations, arguments.seed)
    started = time.perf_counter()
    snapshot = folded(updates)
    took = time.perf_counter() - started
    assert str(TextDocument([snapshot])) == text
    print(f"{len(updates):,} operations, seed {arguments.seed}, {len(text.encode()):,} bytes of text in the end")
    print(f"folded, {FOLD} at a time, in {1e6 * took / len(updates):.0f} µs an update")
    for name, one in (("typed", snapshot), ("pasted", genesis(text))):
        milliseconds, memory = opened(one, arguments.runs)
        print(f"  {name:7} stored {len(one):>10,} bytes, opened in {milliseconds:7.2f} ms, {memory:6.2f} MiB of memory")


if __name__ == "__main__":
    main()
