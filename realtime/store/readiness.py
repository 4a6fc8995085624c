"""Checks whether MongoDB can commit a write on a majority of its members."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pymongo
from pymongo.errors import NotPrimaryError, OperationFailure, PyMongoError, ServerSelectionTimeoutError

from realtime.errors import Unavailable
from realtime.store.batcher import Batcher
from realtime.store.connection import is_refusal

if TYPE_CHECKING:
    from realtime.store.connection import MongoConnection

log = logging.getLogger(__name__)

TIMEOUT = 2.0
"""Seconds that a write may take."""
INTERVAL = 1.0
"""Seconds for which the result of a successful check is used again."""
STANDALONE = (
    "this mongod is not a member of a replica set: after a lost connection the server cannot tell whether a write was"
    " made. Start it with --replSet, and run rs.initiate()"
)
NOT_PRIMARY = (
    "it is not the primary, and takes no writes: name the members of the replica set in the URL, without"
    " directConnection"
)

FIXED = {(4, 4): 30, (5, 0): 32, (6, 0): 27, (7, 0): 28, (8, 0): 17, (8, 2): 3}
"""The first patch of each release series of MongoDB without CVE-2025-14847."""
LEAKS = (
    "version {} gives away its memory, private notes included, to everyone who can connect to it, without a password"
    " (CVE-2025-14847). Upgrade it to {}, or start it with --networkMessageCompressors disabled"
)


def leaks_memory(version: Sequence[int]) -> bool:
    """Return whether a version of MongoDB has CVE-2025-14847, given as ``[7, 0, 28, …]``."""
    series = (version[0], version[1])
    return series <= max(FIXED) and (series not in FIXED or version[2] < FIXED[series])


def _fixed_version(version: Sequence[int]) -> str:
    """Return the nearest version that is not older and has the fix."""
    series = min(fixed for fixed in FIXED if fixed >= (version[0], version[1]))
    return f"{series[0]}.{series[1]}.{FIXED[series]} or later"


class Readiness:
    """Proves that writes can be committed, by making one, at most once per :data:`INTERVAL`."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._checks = connection.database.checks
        self._proved = float("-inf")
        self._probes: Batcher[None, None] = Batcher(
            self._probe, lambda _: None, share=True, timeout=2 * TIMEOUT, error=Unavailable, under_way=1
        )
        self.warning: str | None = None
        """A problem of the deployment that does not stop the server."""

    async def check(self) -> None:
        """Raise :class:`Unavailable`, with the reason, if a majority does not confirm a write in time."""
        if asyncio.get_running_loop().time() - self._proved > INTERVAL:
            await self._probes.put(None)

    async def _probe(self, waiting: Sequence[None]) -> list[Exception | None]:
        try:
            with pymongo.timeout(TIMEOUT):
                await self._checks.update_one({"_id": "majority write"}, {"$inc": {"count": 1}}, upsert=True)
        except PyMongoError as error:
            return [Unavailable(f"MongoDB cannot commit a write: {_reason(error)}")] * len(waiting)
        self._proved = asyncio.get_running_loop().time()
        return [None] * len(waiting)

    async def inspect(self) -> None:
        """Log a warning if MongoDB is not a replica set, or lacks an important fix. Raises :class:`Unavailable`."""
        with self._connection.reading():
            # The fault is in the decompression of zlib: the server names the compression methods that it accepts.
            hello = await self._connection.database.command({"hello": 1, "compression": ["zlib"]})
            build = await self._connection.database.command("buildInfo")
        warnings = []
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            warnings.append(STANDALONE)
        if "zlib" in hello.get("compression", ()) and leaks_memory(build["versionArray"]):
            warnings.append(LEAKS.format(build["version"], _fixed_version(build["versionArray"])))
        for warning in warnings:
            log.warning("MongoDB: %s", warning)
        self.warning = "; ".join(warnings) or None


def _reason(error: PyMongoError) -> str:
    if isinstance(error, NotPrimaryError):
        return NOT_PRIMARY
    if isinstance(error, ServerSelectionTimeoutError) and is_refusal(error):
        return "the user or the password in its URL is wrong"
    if isinstance(error, ServerSelectionTimeoutError):
        return "no primary answers at the addresses in its URL"
    if isinstance(error, OperationFailure):
        return f"{(error.details or {}).get('codeName', 'error')} ({error.code})"
    return "it did not answer in time" if error.timeout else "the connection was lost"
