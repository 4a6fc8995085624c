"""Connection slots, which limit the WebSockets, event streams and long polls per user or network over all workers.

In contrast, :mod:`realtime.auth.open_connections` limits all TCP connections of one process. Redis counts the slots.
While Redis is unavailable, each worker counts only its own.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from realtime.core.networks import network_of
from realtime.errors import BusUnavailable, TooManyRequests

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.eventlog.bus import Bus

REDIS_TIMEOUT_SECONDS = 0.25
"""Time to wait for Redis. After that, the connection is accepted if this worker has a free slot."""
MAX_BATCH = 500

Slot = tuple[str, str]
"""The Redis key of a user or network, and the id of the connection that holds the slot."""
SlotOperation = Literal["take", "keep", "leave"]


class ConnectionSlots:
    """The open connections of this worker, each of which holds a slot of its user or network.

    Args:
        bus: Redis, which counts the slots of all workers.
        limit: Number of slots of each user; 0 means no limit.
        guest_limit: Number of slots of each network for connections without sign-in; 0 means no limit.
        lease: Seconds after which a slot that is not renewed becomes free, such as the slots of a killed worker.
    """

    def __init__(self, bus: Bus, limit: int, guest_limit: int = 0, lease: float = 15.0) -> None:
        self._bus = bus
        self._limit = limit
        self._guest_limit = guest_limit
        self._lease = lease
        self._script = bus.script("slots.lua")
        self._held: defaultdict[str, set[str]] = defaultdict(set)
        self._released: list[Slot] = []
        self._release_pending = asyncio.Event()

    @property
    def held(self) -> Mapping[str, Set[str]]:
        """The ids of this worker's connections that hold slots, by the Redis key of their user or network."""
        return self._held

    async def acquire(self, principal: Principal, address: str = "") -> Slot | None:
        """Acquire a slot, which has to be released with :meth:`release`.

        Args:
            principal: The user. A guest acquires a slot of the network.
            address: The address of the client.

        Returns:
            The slot, or ``None`` if there is no limit.

        Raises:
            TooManyRequests: All slots are in use.
        """
        limit = self._limit if principal.name is not None else self._guest_limit
        if not limit:
            return None
        name = principal.name if principal.name is not None else f"~{network_of(address)}"
        slot = self._bus.key(f"places:{name}"), secrets.token_hex(8)
        key, holder = slot
        self._held[key].add(holder)
        try:
            if len(self._held[key]) > limit or not await self._is_free(slot, limit):
                raise TooManyRequests(self._lease / 3)
        except BaseException:
            self.release(slot)
            raise
        return slot

    def release(self, slot: Slot | None) -> None:
        """Release a slot. Do nothing for ``None``."""
        if slot is None:
            return
        key, holder = slot
        self._held[key].remove(holder)
        if not self._held[key]:
            del self._held[key]
        self._released.append(slot)
        self._release_pending.set()

    async def _is_free(self, slot: Slot, limit: int) -> bool:
        if self._bus.available:
            with suppress(BusUnavailable, TimeoutError):
                async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
                    return await self._call("take", [slot], limit)
        return True

    async def _call(self, operation: SlotOperation, slots: Sequence[Slot], limit: int = 0) -> bool:
        arguments = [operation, limit, self._lease, *(holder for _, holder in slots)]
        return all(await self._bus.call(self._script, [key for key, _ in slots], arguments))

    async def run(self) -> None:
        """Release slots in Redis and renew the leases of the slots in use, until cancelled."""
        loop = asyncio.get_running_loop()
        next_renewal = loop.time() + self._lease / 3
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_renewal):
                    await self._release_pending.wait()
            self._release_pending.clear()
            released, self._released = self._released, []
            await self._call_in_batches("leave", released)
            if loop.time() >= next_renewal:
                next_renewal = loop.time() + self._lease / 3
                await self._call_in_batches(
                    "keep", [(key, holder) for key, holders in self._held.items() for holder in holders]
                )

    async def _call_in_batches(self, operation: SlotOperation, slots: Sequence[Slot]) -> None:
        with suppress(BusUnavailable):  # released slots expire, and the next run renews the others
            for start in range(0, len(slots), MAX_BATCH):
                await self._call(operation, slots[start : start + MAX_BATCH])
