"""A bounded queue that schedules expensive work fairly between networks, and a thread pool that uses it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from realtime.core.helper_process import HelperProcess
from realtime.core.turns import PAUSE_FACTOR
from realtime.errors import TooManyRequests

T = TypeVar("T")


class QueueLimits(NamedTuple):
    """The maximum number of waiting requests.

    Attributes:
        member: Requests of one user, device, session or client network.
        group: Requests of one network.
        lane: Requests in one lane, of which there is a trusted and an untrusted one. If each request takes 0.2 s, the
            last one waits for less than 30 s.
    """

    member: int = 8
    group: int = 16
    lane: int = 128


TRUSTED_IN_A_ROW = 3
"""Consecutive turns of the trusted lane before the other lane gets one, so that neither can block the other."""
RETRY_SECONDS = 5.0


class Requester(NamedTuple):
    """The origin of a request for work.

    Attributes:
        group: The network of the client, or its user. Groups take turns.
        member: The user, device, session or smaller network in that group. Members of a group take turns.
        trusted: Whether the request is served before untrusted ones.
    """

    group: str
    member: str
    trusted: bool = False


@dataclass(eq=False, slots=True)
class QueueTicket:
    """A request in the queue.

    Attributes:
        requester: The origin of the request.
        turn: Completes when the work can start. Fails with :class:`TooManyRequests` if the ticket is dropped.
        ready: Whether the ticket can be served.
    """

    requester: Requester
    turn: asyncio.Future[None]
    ready: bool = False


Members = OrderedDict[str, deque[QueueTicket]]


class _Lane:
    """The tickets of one priority, by group and member, each in the order of their next turn."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._groups: OrderedDict[str, Members] = OrderedDict()
        self._size = 0

    def admit(self, ticket: QueueTicket) -> None:
        """Add a ticket. In a full lane, it replaces a ticket of the requester with the most tickets.

        Raises:
            TooManyRequests: The limit is reached, and no other requester has more tickets.
        """
        group, member, _ = ticket.requester
        members = self._groups.get(group, OrderedDict())
        own = len(members.get(member, ()))
        if own >= self._limits.member:
            raise TooManyRequests(RETRY_SECONDS)
        if _count(members) >= self._limits.group:
            if max(map(len, members.values())) <= own + 1:
                raise TooManyRequests(RETRY_SECONDS)
            self._drop_newest(members)
        elif self._size >= self._limits.lane:
            largest = max(self._groups.values(), key=_count)
            if _count(largest) <= _count(members) + 1:
                raise TooManyRequests(RETRY_SECONDS)
            self._drop_newest(largest)
        self._groups.setdefault(group, OrderedDict()).setdefault(member, deque()).append(ticket)
        self._size += 1

    def _drop_newest(self, members: Members) -> None:
        """Drop the newest ticket of the member with the most tickets."""
        dropped = max(members.values(), key=len)[-1]
        self.discard(dropped)
        if not dropped.turn.done():
            dropped.turn.set_exception(TooManyRequests(RETRY_SECONDS))

    def discard(self, ticket: QueueTicket) -> None:
        """Remove a ticket if it is in the lane."""
        group, member, _ = ticket.requester
        members = self._groups.get(group)
        tickets = None if members is None else members.get(member)
        if members is None or tickets is None or ticket not in tickets:
            return
        tickets.remove(ticket)
        self._size -= 1
        if not tickets:
            del members[member]
        if not members:
            del self._groups[group]

    def pop(self) -> QueueTicket | None:
        """Remove and return the next ticket, or ``None`` if none is ready."""
        ticket = next(self._ready(), None)
        if ticket is None:
            return None
        group, member, _ = ticket.requester
        self.discard(ticket)
        if group in self._groups:
            self._groups.move_to_end(group)
            if member in self._groups[group]:
                self._groups[group].move_to_end(member)
        return ticket

    def _ready(self) -> Iterator[QueueTicket]:
        for members in self._groups.values():
            for tickets in members.values():
                yield from (ticket for ticket in tickets if ticket.ready)


def _count(members: Members) -> int:
    return sum(map(len, members.values()))


class FairQueue:
    """A queue of tickets with a trusted and an untrusted lane, bounded per member, per group and per lane.

    The groups in a lane take turns, and so do the members of a group: a network that sends a flood of requests delays a
    request from another network by only one ticket. When a lane is full, the group with the most tickets loses one.
    """

    def __init__(self, limits: QueueLimits = QueueLimits()) -> None:  # noqa: B008  # immutable
        self._lanes = {True: _Lane(limits), False: _Lane(limits)}
        self._in_a_row = 0

    def admit(self, requester: Requester) -> QueueTicket:
        """Return a new ticket, which waits until it is marked as ready. Raises :class:`TooManyRequests`."""
        ticket = QueueTicket(requester, asyncio.get_running_loop().create_future())
        self._lanes[requester.trusted].admit(ticket)
        return ticket

    def discard(self, ticket: QueueTicket) -> None:
        """Remove a ticket if it is in the queue."""
        self._lanes[ticket.requester.trusted].discard(ticket)

    def pop(self) -> QueueTicket | None:
        """Remove and return the next ticket, or ``None`` if none is ready."""
        trusted_first = self._in_a_row < TRUSTED_IN_A_ROW
        for trusted in (trusted_first, not trusted_first):
            ticket = self._lanes[trusted].pop()
            if ticket is not None:
                self._in_a_row = self._in_a_row + 1 if trusted else 0
                return ticket
        return None


class FairPool:
    """Runs functions in one dedicated thread or process, in the order of a :class:`FairQueue`.

    Args:
        name: The name of the thread.
        limits: The maximum number of waiting requests.
        pauses: Whether the thread pauses after each function, as :class:`~realtime.core.turns.Turns` do, according to
            the processor time that it took. Use it for functions that hold Python's global interpreter lock and
            therefore block the event loop.
    """

    def __init__(
        self,
        name: str,
        limits: QueueLimits = QueueLimits(),  # noqa: B008  # immutable
        *,
        pauses: bool = False,
    ) -> None:
        self._pauses = pauses
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._helper = HelperProcess()
        self._queue = FairQueue(limits)
        self._busy = False

    async def aclose(self) -> None:
        """Stop the thread after the function that is running, and its helper process."""
        await asyncio.to_thread(self._executor.shutdown)
        await asyncio.to_thread(self._helper.close)

    async def run_in_process(self, requester: Requester, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in another process when it is the requester's turn, and return its result.

        Use it for Python code that may take longer than a few milliseconds.

        Raises:
            TooManyRequests: Too many requests are waiting.
            HelperLost: The process ended repeatedly.
        """
        return await self.run(requester, lambda: self._helper.call(function, *arguments))

    async def run(self, requester: Requester, work: Callable[[], T], delay: float = 0.0) -> T:
        """Run a function in the thread when it is the requester's turn, and return its result.

        Args:
            requester: The origin of the request.
            work: The function.
            delay: Seconds to wait first. A delayed request occupies a place in the queue.

        Raises:
            TooManyRequests: Too many requests are waiting.
        """
        ticket = self._queue.admit(requester)
        try:
            if delay > 0:
                await asyncio.wait([ticket.turn], timeout=delay)  # returns early if the ticket is dropped
            ticket.ready = True
            self._serve_next()
            await ticket.turn
        except BaseException:
            self._queue.discard(ticket)
            if ticket.turn.done() and not ticket.turn.cancelled() and ticket.turn.exception() is None:
                self._release()  # the caller was cancelled after its turn had started
            raise
        loop = asyncio.get_running_loop()
        seconds = 0.0

        def timed_work() -> T:
            nonlocal seconds
            started = time.thread_time()
            try:
                return work()
            finally:
                seconds = time.thread_time() - started

        result = loop.run_in_executor(self._executor, timed_work)

        def end_turn(_: object) -> None:
            if self._pauses:
                loop.call_later(PAUSE_FACTOR * seconds, self._release)
            else:
                self._release()

        # The thread continues if the caller is cancelled, so the turn ends with the work of the thread.
        result.add_done_callback(end_turn)
        return await asyncio.shield(result)

    def _serve_next(self) -> None:
        while not self._busy:
            ticket = self._queue.pop()
            if ticket is None:
                return
            if not ticket.turn.done():
                self._busy = True
                ticket.turn.set_result(None)

    def _release(self) -> None:
        self._busy = False
        self._serve_next()
