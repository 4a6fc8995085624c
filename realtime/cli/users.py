"""The accounts of a database from outside the server, for whoever has the machine: ``realtime user``."""

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


async def act(settings: Settings, do: Callable[[Accounts], Awaitable[T]]) -> T:
    """Does something with the accounts of the database that a server with these settings uses, running or not.

    Raises :class:`RealtimeError`.
    """
    with _mongo_url(settings) as url:
        async with _accounts(settings, url) as accounts:
            return await do(accounts)


@contextmanager
def _mongo_url(settings: Settings) -> Iterator[str]:
    """The URL that is set, else that of the embedded server: of the one that runs, or of one for the moment."""
    if settings.mongo_url:
        try:
            check_url(settings.mongo_url)
        except ValueError as error:
            raise RealtimeError(f"mongo_url: {error}") from None
        yield settings.mongo_url
        return
    found = running(settings.data)
    if found is not None and found[0]:
        yield found[0]
        return
    embedded = EmbeddedServers(settings.data, redis=False)
    embedded.start()
    try:
        yield embedded.mongo_url
    finally:
        embedded.stop()


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
