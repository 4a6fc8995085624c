"""Notes in MongoDB: documents to models and back, driver errors to domain errors. No rules."""

from __future__ import annotations

from pymongo import ASCENDING, IndexModel

from realtime.failpoints import OFF, FailPoints
from realtime.store.archiver import Archiver
from realtime.store.audit import Audit
from realtime.store.claims import IdempotencyClaims
from realtime.store.connection import MongoConnection
from realtime.store.history import History
from realtime.store.lists import Lists, indexes
from realtime.store.notes import NoteStore
from realtime.store.one_time_tokens import OneTimeTokens
from realtime.store.readiness import Readiness
from realtime.store.revocations import RevocationStore
from realtime.store.searched_text import SearchedText
from realtime.store.sessions import SessionStore
from realtime.store.sizes import Sizes
from realtime.store.texts import TextStore
from realtime.store.users import UserStore

BUILD_TIMEOUT = 24 * 3600.0


class Store:
    """One database: notes, with lists, history, texts and claims on ``Idempotency-Key``; people and their rights."""

    def __init__(
        self,
        url: str,
        database: str,
        *,
        write_timeout: float,
        read_timeout: float,
        failpoints: FailPoints = OFF,
    ) -> None:
        self._connection = MongoConnection(url, database, write_timeout=write_timeout, read_timeout=read_timeout)
        self.history = History(self._connection)
        self.notes = NoteStore(self._connection, self.history)
        self.lists = Lists(self._connection)
        self.searched = SearchedText(self._connection)
        self.sizes = Sizes(self._connection)
        self.texts = TextStore(self._connection, failpoints)
        self.archive = Archiver(self._connection, self.history, self.texts, failpoints)
        self.claims = IdempotencyClaims(self._connection)
        self.people = UserStore(self._connection)
        self.sessions = SessionStore(self._connection)
        self.passes = OneTimeTokens(self._connection)
        self.revocations = RevocationStore(self._connection)
        self.audit = Audit(self._connection)
        self.readiness = Readiness(self._connection)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._connection.aclose()

    async def prepare(self, *, accounts: bool = False) -> None:
        """Makes the indexes, those of accounts too if there are any. Raises :class:`Unavailable`."""
        dirty = IndexModel([("dirty", ASCENDING)], name="dirty", partialFilterExpression={"dirty": True})
        origin = IndexModel(
            [("origin", ASCENDING)],
            name="origin",
            unique=True,
            partialFilterExpression={"origin": {"$exists": True}},
        )
        await self.ping(self._connection.write_timeout)
        await self.readiness.inspect()
        with self._connection.reading(BUILD_TIMEOUT):
            await self._connection.database.notes.create_indexes([dirty, origin, *indexes(accounts=accounts)])
            await self.searched.prepare()
            await self.history.prepare()
            await self.texts.prepare()
            await self.claims.prepare()
            if accounts:
                for part in (self.sizes, self.people, self.sessions, self.passes, self.revocations, self.audit):
                    await part.prepare()
        self._connection.prepared.set()

    async def ping(self, timeout: float) -> None:
        """Asks the server for a sign of life from its primary. Raises :class:`Unavailable`."""
        await self._connection.ping(timeout)
