"""The ledger: compares the outcome of every operation with MongoDB, its change stream, the history and all clients.

Each operation has a unique token: ``d…`` is the entire description of a note, and ``c…;`` is appended to its content.
The token of an acknowledged operation must occur exactly once, of an operation with unknown outcome at most once, and
of an operation that was never sent not at all.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Self

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from realtime.settings import Settings
from tests.faults.scenario import Figures
from tests.support.harness import Json, eventually

TOKEN = re.compile(r"[cd][0-9]+(?=;|$)")
SHOWN = 5
SETTLE = 30.0
"""The time in seconds after which all operations are published, archived and stored in their notes."""


class Broken(AssertionError):
    """A guarantee was broken."""


class Ledger:
    """The outcomes of all operations."""

    def __init__(self) -> None:
        self.ok: dict[str, tuple[int, int] | None] = {}
        """The note and the version of each acknowledgement, if it contained them."""
        self.unknown: set[str] = set()
        self.deleted: set[int] = set()
        """The notes whose deletion was acknowledged."""
        self._issued = 0

    def token(self, kind: str) -> str:
        """Return a new token for a description (``d``), a content (``c``), or a deletion (``x``, never stored)."""
        self._issued += 1
        return f"{kind}{self._issued:06}"

    def acknowledge(self, token: str, note: int | None = None, version: int = 0) -> None:
        """Record an acknowledged operation."""
        self.unknown.discard(token)
        self.ok[token] = None if note is None else (note, version)

    def check(self, found: Counter[str], where: str, figures: Figures) -> None:
        """Check that each token occurs as often as it must, or raise :class:`Broken`."""
        lost = [token for token in self.ok if not found[token]]
        doubled = [token for token, times in found.items() if times > 1]
        made_up = [token for token in found if token not in self.ok and token not in self.unknown]
        figures.lost += len(lost)
        figures.doubled += len(doubled)
        _none(lost, f"acknowledged, but not in {where}")
        _none(doubled, f"more than once in {where}")
        _none(made_up, f"never sent, but in {where}")


def _none(wrong: Collection[object], what: str) -> None:
    if wrong:
        raise Broken(f"{len(wrong)} {what}: {', '.join(map(str, list(wrong)[:SHOWN]))}")


class Auditor:
    """Follows the change stream of MongoDB, independently of the server."""

    def __init__(self, settings: Settings) -> None:
        assert settings.mongo_url is not None
        self._client: AsyncMongoClient[Json] = AsyncMongoClient(settings.mongo_url)
        self._database = self._client.get_database(settings.database, read_concern=ReadConcern("majority"))
        self._task: asyncio.Task[None] | None = None
        self.versions: dict[int, int] = {}
        self.tokens: dict[str, list[tuple[int, int]]] = {}
        self.holes: list[str] = []

    async def __aenter__(self) -> Self:
        ready = asyncio.Event()
        self._task = asyncio.create_task(self._follow(ready))
        await ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._client.close()

    async def _follow(self, ready: asyncio.Event) -> None:
        after = None
        while True:
            with suppress(PyMongoError):  # continues at the last position
                async with await self._database.notes.watch(resume_after=after) as stream:
                    ready.set()
                    async for change in stream:
                        self._take(change)
                        after = change["_id"]
            await asyncio.sleep(0.1)

    def _take(self, change: Mapping[str, Any]) -> None:
        id = int(change["documentKey"]["_id"])
        if change["operationType"] == "update":
            fields = change["updateDescription"]["updatedFields"]
        else:
            fields = change.get("fullDocument") or {}
        version = fields.get("version")
        if version is None:
            return
        if version != self.versions.get(id, 0) + 1:
            self.holes.append(f"note {id} went from version {self.versions.get(id, 0)} to {version}")
        self.versions[id] = version
        for token in TOKEN.findall(fields.get("description", "")):
            self.tokens.setdefault(token, []).append((id, version))

    async def check(self, ledger: Ledger, figures: Figures) -> dict[int, Json]:
        """Compare the ledger with MongoDB, and return the current notes. Raise :class:`Broken` if they differ."""

        notes: dict[int, Json] = {}

        async def settled() -> None:
            nonlocal notes
            notes = {int(note["_id"]): note async for note in self._database.notes.find({})}
            assert self.versions == {id: note["version"] for id, note in notes.items()}
            unfinished = [id for id, note in notes.items() if note.get("dirty") or note.get("recent")]
            assert not unfinished, f"unpublished or not archived: {unfinished}"
            assert self._found(notes).keys() >= ledger.ok.keys()  # shared texts are stored in their notes with a delay

        failure: AssertionError | None = None
        try:
            await eventually(settled, SETTLE)
        except AssertionError as error:
            failure = error
        _none(self.holes, "versions skipped or repeated")
        ledger.check(self._found(notes), "MongoDB", figures)
        _none([id for id in ledger.deleted if not notes[id]["deleted"]], "notes whose deletion was lost")
        if failure is not None:
            raise failure
        misplaced = [
            token for token, told in ledger.ok.items() if told and token[0] == "d" and self.tokens[token] != [told]
        ]
        _none(misplaced, "not at the version that was told")
        await self._check_history()
        return notes

    def _found(self, notes: Mapping[int, Json]) -> Counter[str]:
        descriptions = Counter({token: len(places) for token, places in self.tokens.items()})
        return descriptions + counted(note["content"] for note in notes.values())

    async def _check_history(self) -> None:
        kept: dict[int, set[int]] = {}
        wrong: list[str] = []
        async for row in self._database.history.find({}, {"description": True}):
            note, version = int(row["_id"]["note"]), int(row["_id"]["version"])
            kept.setdefault(note, set()).add(version)
            wrong += [
                token
                for token in TOKEN.findall(row["description"])
                if not any(at[0] == note and at[1] <= version for at in self.tokens.get(token, ()))
            ]
        _none(wrong, "in the history, but never committed there")
        holes = [id for id, version in self.versions.items() if kept.get(id, set()) != set(range(1, version + 1))]
        _none(holes, "notes whose history has holes")


def counted(contents: Iterable[str]) -> Counter[str]:
    """Return how often each token occurs in the contents."""
    found: Counter[str] = Counter()
    for content in contents:
        found.update(TOKEN.findall(content))
    return found
