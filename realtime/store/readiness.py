"""The readiness check of MongoDB: whether it can commit a write on a majority of its members."""

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

CHECK_TIMEOUT_SECONDS = 2.0
"""The time limit of the write that checks readiness."""
CHECK_INTERVAL_SECONDS = 1.0
"""A successful check is reused for this time."""
STANDALONE = (
    "this mongod is not a member of a replica set, so writes cannot be retried after a lost connection. Start it with"
    " --replSet, and run rs.initiate()"
)
NOT_PRIMARY = (
    "it is not the primary, and does not accept writes. List the members of the replica set in the URL, without"
    " directConnection"
)

FIRST_FIXED_PATCH = {(4, 4): 30, (5, 0): 32, (6, 0): 27, (7, 0): 28, (8, 0): 17, (8, 2): 3}
"""The first patch release of each MongoDB series in which CVE-2025-14847 is fixed."""
LEAKS = (
    "version {} lets clients that can connect read its memory, including private notes, without a password"
    " (CVE-2025-14847). Upgrade it to {}, or start it with --networkMessageCompressors disabled"
)


def leaks_memory(version: Sequence[int]) -> bool:
    """Return whether a version of MongoDB, such as ``[7, 0, 28, 0]``, has CVE-2025-14847."""
    series = (version[0], version[1])
    return series <= max(FIRST_FIXED_PATCH) and (
        series not in FIRST_FIXED_PATCH or version[2] < FIRST_FIXED_PATCH[series]
    )


def _fixed_version(version: Sequence[int]) -> str:
    """Return the nearest version that is not older and has the fix."""
    series = min(fixed for fixed in FIRST_FIXED_PATCH if fixed >= (version[0], version[1]))
    return f"{series[0]}.{series[1]}.{FIRST_FIXED_PATCH[series]} or later"


class Readiness:
    """Checks that writes can be committed by making one, at most once per :data:`CHECK_INTERVAL_SECONDS`."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._checks = connection.database.checks
        self._last_success = float("-inf")
        self._probes: Batcher[None, None] = Batcher(
            self._probe, share=True, timeout=2 * CHECK_TIMEOUT_SECONDS, error=Unavailable, concurrency=1
        )
        self.warning: str | None = None
        """A problem of the deployment that does not prevent the server from working."""

    async def check(self) -> None:
        """Raise :class:`Unavailable`, with the reason, if a majority does not confirm a write in time."""
        if asyncio.get_running_loop().time() - self._last_success > CHECK_INTERVAL_SECONDS:
            await self._probes.put(None)

    async def _probe(self, waiting: Sequence[None]) -> list[Exception | None]:
        try:
            with pymongo.timeout(CHECK_TIMEOUT_SECONDS):
                await self._checks.update_one({"_id": "majority write"}, {"$inc": {"count": 1}}, upsert=True)
        except PyMongoError as error:
            return [Unavailable(f"MongoDB cannot commit a write: {_reason(error)}")] * len(waiting)
        self._last_success = asyncio.get_running_loop().time()
        return [None] * len(waiting)

    async def inspect(self) -> None:
        """Log a warning if MongoDB is not a replica set or has CVE-2025-14847. Raises :class:`Unavailable`."""
        with self._connection.reading():
            # CVE-2025-14847 is in the zlib decompression; the server replies with the compressors that it accepts.
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
        return "no primary is reachable at the addresses in its URL"
    if isinstance(error, OperationFailure):
        return f"{(error.details or {}).get('codeName', 'error')} ({error.code})"
    return "it did not answer in time" if error.timeout else "the connection was lost"
