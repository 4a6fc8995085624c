"""Checks of the database before a server starts: whether it is safe to serve, and whether it needs an administrator."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from typing import TYPE_CHECKING

from realtime.auth.tokens import setup_token
from realtime.errors import RealtimeError, Unavailable
from realtime.store.database import Store

if TYPE_CHECKING:
    from realtime.settings import Settings

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 2.0
NO_ANSWER = (
    "the database does not respond. If it has no users yet, add the first administrator with: realtime user add --admin"
    " NAME"
)


async def inspect(settings: Settings) -> str | None:
    """Check the database of a server that is about to start.

    Args:
        settings: The settings, with the URL of MongoDB.

    Returns:
        The path of the setup page with the setup token if there are no users yet, otherwise ``None``.

    Raises:
        RealtimeError: The database has accounts, but the server would serve it in open mode.
    """
    if settings.auth == "open" and settings.allow_public:
        return None
    assert settings.mongo_url
    store = Store(
        settings.mongo_url,
        settings.database,
        write_timeout=TIMEOUT_SECONDS,
        read_timeout=TIMEOUT_SECONDS,
    )
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            has_users = await store.users.any()
            if settings.auth == "open" and has_users:
                raise RealtimeError(HAS_ACCOUNTS)
            if settings.auth == "open" or has_users:
                return None
            return setup_path(settings, setup_token(settings.secret or await store.users.secret()))
    except (TimeoutError, Unavailable):  # the server starts even so, and checks again later
        if settings.auth == "accounts":
            log.warning(NO_ANSWER)
        return None
    finally:
        await store.aclose()


def setup_path(settings: Settings, token: str) -> str:
    """Return the path in the web app at which the first administrator signs up."""
    return f"{settings.root_path}/#setup={token}"


def is_first_worker() -> bool:
    """Return whether this is the only process of a server, or the first worker of uvicorn."""
    return multiprocessing.parent_process() is None or multiprocessing.current_process().name.endswith("-1")


HAS_ACCOUNTS = (
    "the database has accounts, but without sign-in everyone could read and write all notes. Require sign-in"
    " (REALTIME_AUTH=accounts, or --auth accounts), or allow public access (REALTIME_ALLOW_PUBLIC=true, or"
    " --allow-public)"
)
