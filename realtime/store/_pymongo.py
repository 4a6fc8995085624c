"""The internal names of PyMongo that the server uses, all in this module.

PyMongo has no public API to use a connection of its pool directly, which the journal and the updates of notes need (see
ADR 4). ``pyproject.toml`` limits PyMongo to the versions that are tested.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pymongo
from pymongo import AsyncMongoClient
from pymongo.asynchronous.pool import AsyncConnection

from realtime.errors import RealtimeError

if TYPE_CHECKING:
    from realtime.store.bson_mapping import BsonDocument

_REQUIRED = ((AsyncMongoClient, "_conn_for_writes"), (AsyncConnection, "close_conn"))


def check_version() -> None:
    """Raise :class:`RealtimeError`, with the version, if this version of PyMongo cannot be used."""
    missing = [name for owner, name in _REQUIRED if not hasattr(owner, name)]
    if missing:
        raise RealtimeError(
            f"PyMongo {pymongo.version} is not supported: it has no {' and no '.join(missing)}."
            " Install a version that pyproject.toml allows: pip install 'pymongo>=4.15,<4.21'"
        )


@dataclass(frozen=True, slots=True)
class PrimaryConnection:
    """A connection to the primary, connected and authenticated by the driver.

    Attributes:
        protocol: The driver's protocol of the connection.
        transport: The transport, whose protocol can be replaced.
        is_stale: Returns whether the driver has invalidated the connection, because the server failed.
        supports_retries: Whether the server recognizes repeated writes.
    """

    protocol: asyncio.BaseProtocol
    transport: asyncio.Transport
    is_stale: Callable[[], bool]
    supports_retries: bool


async def check_out(client: AsyncMongoClient[BsonDocument], stack: AsyncExitStack) -> PrimaryConnection:
    """Check a connection to the primary out of the driver's pool. It is closed with the stack.

    Raises:
        PyMongoError: There is no connection to the primary.
    """
    connection = await stack.enter_async_context(await client._conn_for_writes(None, "insert"))
    stack.push_async_callback(connection.close_conn, None)
    protocol = connection.conn.get_conn
    return PrimaryConnection(
        protocol=protocol,
        transport=protocol.transport,
        is_stale=partial(connection.pool_gen.stale, connection.generation, connection.service_id),
        supports_retries=bool(connection.supports_sessions) and not connection.is_standalone,
    )
