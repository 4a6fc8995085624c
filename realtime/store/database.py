"""The stores of one MongoDB database. They convert models and translate errors; they contain no domain rules."""

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

BUILD_TIMEOUT_SECONDS = 24 * 3600.0


class Store:
    """Gives access to one database: notes, history, shared texts, claims, and the collections of accounts."""

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
        self.archiver = Archiver(self._connection, self.history, self.texts, failpoints)
        self.claims = IdempotencyClaims(self._connection)
        self.users = UserStore(self._connection)
        self.sessions = SessionStore(self._connection)
        self.one_time_tokens = OneTimeTokens(self._connection)
        self.revocations = RevocationStore(self._connection)
        self.audit = Audit(self._connection)
        self.readiness = Readiness(self._connection)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()

    async def prepare(self, *, accounts: bool = False) -> None:
        """Create the indexes and, with ``accounts``, also those for accounts. Raises :class:`Unavailable`."""
        dirty = IndexModel([("dirty", ASCENDING)], name="dirty", partialFilterExpression={"dirty": True})
        origin = IndexModel(
            [("origin", ASCENDING)],
            name="origin",
            unique=True,
            partialFilterExpression={"origin": {"$exists": True}},
        )
        await self.ping(self._connection.write_timeout)
        await self.readiness.inspect()
        with self._connection.reading(BUILD_TIMEOUT_SECONDS):
            await self._connection.database.notes.create_indexes([dirty, origin, *indexes(accounts=accounts)])
            await self.searched.prepare()
            await self.history.prepare()
            await self.texts.prepare()
            await self.claims.prepare()
            if accounts:
                for store in (
                    self.sizes,
                    self.users,
                    self.sessions,
                    self.one_time_tokens,
                    self.revocations,
                    self.audit,
                ):
                    await store.prepare()
        self._connection.prepared.set()

    async def ping(self, timeout: float) -> None:
        """Check that the primary answers within ``timeout`` seconds. Raises :class:`Unavailable`."""
        await self._connection.ping(timeout)
