"""Who is in a room: the clients that are connected here, and the awareness of all, here and at other workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from realtime.errors import CloseCode
from realtime.frames import Packet
from realtime.rooms import protocol
from realtime.rooms.awareness import Awareness, signed
from realtime.rooms.member import Refused
from realtime.rooms.relay import Kind, Told

if TYPE_CHECKING:
    from realtime.rooms.member import Member
    from realtime.rooms.relay import Relay

GATHERED = 0.03
"""Seconds for which news of who is where are gathered: editors pass on each that they get."""
MOST_CLIENTS = 32
"""Clients of the awareness protocol that one connection may speak for."""


class Company:
    """The clients of one room in one worker."""

    def __init__(self, note: int, relay: Relay) -> None:
        self.members: set[Member] = set()
        self._note = note
        self._relay = relay
        self._awareness = Awareness()
        self._news: set[int] = set()
        self._own_news: set[int] = set()
        self._due = False

    def spread(self, messages: Sequence[bytes]) -> None:
        """Sends messages to everyone here."""
        packet = Packet(messages)
        for member in self.members:
            member.send(packet)

    def everyone(self) -> list[bytes]:
        """The message that tells of all, if there is anyone."""
        here = self._awareness.everyone()
        return [protocol.awareness(here)] if here else []

    def leave(self, member: Member) -> None:
        """Takes a client for gone."""
        self.members.discard(member)
        if gone := self._awareness.leave(member.clients, time.monotonic()):
            self._gather(self._awareness.named(gone))
            self._relay.tell(Told(Kind.AWARENESS, self._note, updates=[gone]))

    def speak(self, member: Member, states: bytes) -> None:
        """Takes what a client says of itself, under its user's name where there are accounts.

        Raises :class:`MalformedUpdate`, :class:`Refused`.
        """
        if member.viewer.shown_as is not None:
            states = signed(states, member.viewer.shown_as)
        news, arrived, gone = self._awareness.take(states, time.monotonic())
        member.count_states(len(news))
        if gone:
            member.send(Packet([protocol.awareness(gone)]))
        if not news:
            return
        # Who spoke last for a client goes with it: it may be back before its old connection is gone.
        clients = arrived | self._awareness.named(news)
        for other in self.members:
            other.clients -= clients
        member.clients |= clients
        self._own_news |= clients
        self._gather(clients)
        if len(member.clients) > MOST_CLIENTS:
            raise Refused(CloseCode.TOO_MANY)

    def _gather(self, clients: set[int]) -> None:
        self._news |= clients
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(GATHERED, self._tell_news)

    def _tell_news(self) -> None:
        self._due = False
        self.spread([protocol.awareness(self._awareness.states(self._news))])
        if self._own_news:
            self._relay.tell(Told(Kind.AWARENESS, self._note, updates=[self._awareness.states(self._own_news)]))
        self._news, self._own_news = set(), set()

    def hear(self, told: Told) -> None:
        """Takes what another worker tells."""
        for states in told.updates:
            news, _, _ = self._awareness.take(states, time.monotonic())
            if news:
                self._gather(self._awareness.named(news))

    def expire(self) -> None:
        """Takes for gone who said nothing for too long."""
        if gone := self._awareness.expire(time.monotonic()):
            self.spread([protocol.awareness(gone)])

    def name_of(self, member: Member) -> str | None:
        """The name that a client goes by: its user's, or without accounts the one that it tells."""
        return member.viewer.shown_as or self._awareness.name_of(member.clients)
