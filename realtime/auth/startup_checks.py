"""Checks of the database before a server starts: whether it may be served, and how to set it up."""

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
    "The database does not answer. If it has no users yet, add the first administrator with: realtime user add --admin"
    " NAME"
)


async def inspect(settings: Settings) -> str | None:
    """Look at the database of a server that is about to start.

    Args:
        settings: The settings, with the URL of MongoDB.

    Returns:
        A line to print, if the first administrator has to be set up: the path of the page with the setup token.

    Raises:
        RealtimeError: The database has accounts, and the server would serve it in open mode.
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
            has_users = await store.people.any()
            if settings.auth == "open" and has_users:
                raise RealtimeError(HAS_ACCOUNTS)
            if settings.auth == "open" or has_users:
                return None
            return setup_path(settings, setup_token(settings.secret or await store.people.secret()))
    except (TimeoutError, Unavailable):  # the server starts all the same, and looks again
        if settings.auth == "accounts":
            log.warning(NO_ANSWER)
        return None
    finally:
        await store.aclose()


def setup_path(settings: Settings, token: str) -> str:
    """Return the path of the page at which the first administrator signs up."""
    return f"{settings.root_path}/#setup={token}"


def is_first_worker() -> bool:
    """Return whether this is the only process of a server, or the first one that uvicorn started."""
    return multiprocessing.parent_process() is None or multiprocessing.current_process().name.endswith("-1")


HAS_ACCOUNTS = (
    "the database has accounts, and without sign-in everyone could read and write all notes: have people sign in"
    " (REALTIME_AUTH=accounts, or --auth accounts), or say that it is meant (REALTIME_ALLOW_PUBLIC=true, or"
    " --allow-public)"
)
