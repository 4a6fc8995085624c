"""How many connections of a user or of a network without sign-in are open, over all workers.

They are counted in Redis; while it is away, each worker counts for itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from realtime.core.networks import network_of
from realtime.errors import BusUnavailable, TooManyRequests

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.eventlog.bus import Bus

PATIENCE = 0.25
"""Seconds that Redis has to answer in before somebody is let in without it."""
BATCH = 500

Slot = tuple[str, str]
"""The key of a user or a network, and who of the connections holds it."""
Act = Literal["take", "keep", "leave"]


class ConnectionSlots:
    """The open connections of this worker, each with a place of its user or network.

    Args:
        bus: Redis, where the places of all workers are counted.
        most: Places of each user.
        most_guests: Places of each network, for connections without sign-in; 0 is all.
        lease: Seconds after which the places of a worker that was killed are free.
    """

    def __init__(self, bus: Bus, most: int, most_guests: int = 0, lease: float = 15.0) -> None:
        self._bus = bus
        self._most = most
        self._most_guests = most_guests
        self._lease = lease
        self._script = bus.script("places.lua")
        self._held: defaultdict[str, set[str]] = defaultdict(set)
        self._left: list[Slot] = []
        self._due = asyncio.Event()

    async def acquire(self, principal: Principal, address: str = "") -> Slot | None:
        """Return a place, to :meth:`release` in the end; ``None`` where there is no limit.

        Args:
            viewer: The user. One who is not signed in takes a place of the network.
            address: The address of the client.

        Raises:
            TooMany: All places are taken.
        """
        most = self._most if principal.name is not None else self._most_guests
        if not most:
            return None
        name = principal.name if principal.name is not None else f"~{network_of(address)}"
        place = self._bus.key(f"places:{name}"), secrets.token_hex(8)
        key, holder = place
        self._held[key].add(holder)
        try:
            if len(self._held[key]) > most or not await self._is_free(place, most):
                raise TooManyRequests(self._lease / 3)
        except BaseException:
            self.release(place)
            raise
        return place

    def release(self, place: Slot | None) -> None:
        """Gives a place up."""
        if place is None:
            return
        key, holder = place
        self._held[key].remove(holder)
        if not self._held[key]:
            del self._held[key]
        self._left.append(place)
        self._due.set()

    async def _is_free(self, place: Slot, most: int) -> bool:
        if self._bus.available:
            with suppress(BusUnavailable, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    return await self._tell("take", [place], most)
        return True

    async def _tell(self, act: Act, places: Sequence[Slot], most: int = 0) -> bool:
        arguments = [act, most, self._lease, *(holder for _, holder in places)]
        return all(await self._bus.call(self._script, [key for key, _ in places], arguments))

    async def run(self) -> None:
        """Gives up places that were left, and keeps the others, for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._lease / 3
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._due.wait()
            self._due.clear()
            left, self._left = self._left, []
            await self._tell_all("leave", left)
            if loop.time() >= due:
                due = loop.time() + self._lease / 3
                await self._tell_all("keep", [(key, one) for key, holders in self._held.items() for one in holders])

    async def _tell_all(self, act: Act, places: Sequence[Slot]) -> None:
        with suppress(BusUnavailable):  # what was left is free when its lease ends, and the rest is kept next time
            for start in range(0, len(places), BATCH):
                await self._tell(act, places[start : start + BATCH])
