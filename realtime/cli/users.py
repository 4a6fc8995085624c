"""Access to user accounts without the server, for the operator: the commands of ``realtime user``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

from realtime.auth.accounts import Accounts
from realtime.auth.authenticator import Authenticator
from realtime.auth.passwords import Passwords
from realtime.auth.sign_in_guard import SignInGuard, UnlimitedCounters
from realtime.embedded.pair import EmbeddedServers, running
from realtime.errors import RealtimeError
from realtime.store.bootstrap import check_url
from realtime.store.database import Store

if TYPE_CHECKING:
    from realtime.settings import Settings

T = TypeVar("T")


async def run_action(settings: Settings, action: Callable[[Accounts], Awaitable[T]]) -> T:
    """Run an action on the accounts in the database that these settings select.

    Args:
        settings: The settings. Without a MongoDB URL, the embedded MongoDB is used, and started if it is not running.
        action: Called with the accounts.

    Returns:
        The result of the action.

    Raises:
        RealtimeError: The database cannot be used, or the action failed.
    """
    with _mongo_url(settings) as url:
        async with _accounts(settings, url) as accounts:
            return await action(accounts)


@contextmanager
def _mongo_url(settings: Settings) -> Iterator[str]:
    """Yield the configured URL, or the URL of the embedded MongoDB, which is started if it is not running."""
    if settings.mongo_url:
        try:
            check_url(settings.mongo_url)
        except ValueError as error:
            raise RealtimeError(f"mongo_url: {error}") from None
        yield settings.mongo_url
        return
    urls = running(settings.data)
    if urls is not None and urls.mongo:
        yield urls.mongo
        return
    with EmbeddedServers(settings.data, redis=False) as embedded:
        yield embedded.mongo_url


@asynccontextmanager
async def _accounts(settings: Settings, url: str) -> AsyncIterator[Accounts]:
    store = Store(url, settings.database, write_timeout=settings.write_timeout, read_timeout=settings.read_timeout)
    authenticator = Authenticator(store, settings.secret)
    guard = SignInGuard(UnlimitedCounters(), Passwords(settings.password_memory), authenticator.key)
    try:
        await store.prepare(accounts=True)
        yield Accounts(store, authenticator, guard, settings.sign_up)
    finally:
        await guard.aclose()
        await store.aclose()
