"""The clients that are connected to a room here, and the awareness of all, here and at other workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from realtime.core.close_codes import CloseCode
from realtime.core.frames import FrameBatch
from realtime.rooms import protocol
from realtime.rooms.awareness import GONE, Awareness, ClientState, checked, count_of, decoded
from realtime.rooms.peer import PeerRefused
from realtime.rooms.relay import RelayKind, RelayMessage

if TYPE_CHECKING:
    from realtime.rooms.peer import Peer
    from realtime.rooms.relay import Relay

GATHERED = 0.03
"""Seconds for which news of awareness are collected: editors pass on each that they get."""
SPREAD_BYTES_PER_SECOND = 256 * 1024
"""Awareness sent to each client. After a larger packet, the next one is collected for longer."""
ENTRY_BYTES = 16
"""Bytes that an entry of a message is charged as, whether it is news or not: reading it takes time."""
MAX_CONNECTION_CLIENTS = 32
"""Awareness clients that one connection may speak for."""
MAX_CONNECTION_CHARACTERS = 16 * 1024
"""Characters in the states of one connection."""
MAX_ROOM_CLIENTS = 1000
MAX_ROOM_CHARACTERS = 256 * 1024
"""Characters in all states of a room. Clients that may only read can use half of this, and of the clients."""


class _Speaker(NamedTuple):
    """The user or network that an awareness client belongs to, and its connection if that is open here."""

    caller: str
    member: Peer | None


class Participants:
    """The clients of one room in one worker.

    An awareness client belongs to the connection that used it first, until that is closed. Then it can be used again
    by the same caller, and by others after it is forgotten. Signed-in users can use their clients from several
    connections: after a network failure the server may not have noticed yet that the old connection is dead.
    """

    def __init__(self, note: int, relay: Relay) -> None:
        self.members: set[Peer] = set()
        self._note = note
        self._relay = relay
        self._awareness = Awareness()
        self._speakers: dict[int, _Speaker] = {}
        self._news: set[int] = set()
        self._own_news: set[int] = set()
        self._due = False
        self._delay = GATHERED

    def broadcast(self, messages: Sequence[bytes]) -> int:
        """Send messages to everyone here, and return their size in bytes."""
        packet = FrameBatch(messages)
        for member in self.members:
            member.send(packet)
        return len(packet.framed)

    def everyone(self) -> list[bytes]:
        """Return the message with the states of all clients, if there are any."""
        here = self._awareness.everyone()
        return [protocol.awareness(here)] if here else []

    def leave(self, member: Peer) -> None:
        """Remove a connection, and take its awareness clients for gone."""
        self.members.discard(member)
        gone = self._awareness.leave(member.clients, time.monotonic())
        for client in member.clients:
            self._speakers[client] = _Speaker(member.caller, None)
        if gone:
            self._gather(gone)
            self._tell_others(gone)

    def set_states(self, member: Peer, data: bytes) -> None:
        """Store the states that a connection sent for its own awareness clients, and pass them on.

        States of other connections' clients are ignored. They are either repeated, as stock clients do, or forged.

        Raises:
            MalformedUpdate: The message cannot be read.
            Refused: The connection speaks for too many clients, or their states are too large.
        """
        count = count_of(data)
        member.charge_states(count * ENTRY_BYTES)
        if count > len(self._awareness) + MAX_CONNECTION_CLIENTS:
            return  # neither its own clients nor those that it was told of
        name = member.principal.shown_as
        states = [checked(told, name) for told in decoded(data) if self._may_speak(member, told)]
        named = {told.client for told in states}
        clients = member.clients | named
        size = self._awareness.size(clients - named) + sum(len(told.state) for told in states)
        if len(clients) > MAX_CONNECTION_CLIENTS or size > MAX_CONNECTION_CHARACTERS:
            raise PeerRefused(CloseCode.TOO_MANY)
        news, gone = self._awareness.take(self._fitting(member, states), time.monotonic())
        if gone:
            member.send(FrameBatch([protocol.awareness(gone)]))
        if not news:
            return
        member.charge_states(sum(len(told.state) for told in news))
        for told in news:
            before = self._speakers.get(told.client)
            if before is not None and before.member is not None:
                before.member.clients.discard(told.client)
            self._speakers[told.client] = _Speaker(member.caller, member)
            member.clients.add(told.client)
        self._own_news |= {told.client for told in news}
        self._gather({told.client for told in news})

    def _may_speak(self, member: Peer, told: ClientState) -> bool:
        speaker = self._speakers.get(told.client)
        if speaker is None:
            return told.state != GONE
        if speaker.member is member:
            return True
        same_caller = speaker.caller == member.caller
        if not self._awareness.is_here(told.client):
            return same_caller and told.state != GONE
        if same_caller and member.principal.name is not None:
            return True
        if told.state != GONE and speaker.member is not None and self._awareness.is_news(told):
            speaker.member.probe()  # probably the same client, after its network failed
        return False

    def _fitting(self, member: Peer, states: list[ClientState]) -> list[ClientState]:
        """Return the states for which the room has space."""
        share = 1.0 if member.may_write else 0.5
        known = self._awareness.size({told.client for told in states})
        if len(self._awareness) + len(states) <= share * MAX_ROOM_CLIENTS:
            size = self._awareness.characters - known + sum(len(told.state) for told in states)
            if size <= share * MAX_ROOM_CHARACTERS:
                return states
        return [told for told in states if told.state == GONE]

    def _gather(self, clients: set[int]) -> None:
        self._news |= clients
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(self._delay, self._spread_news)

    def _spread_news(self) -> None:
        self._due = False
        size = self.broadcast([protocol.awareness(self._awareness.states(self._news))])
        self._delay = max(GATHERED, size / SPREAD_BYTES_PER_SECOND)
        if self._own_news:
            self._tell_others(self._own_news)
        self._news, self._own_news = set(), set()

    def _tell_others(self, clients: set[int]) -> None:
        self._relay.enqueue(self._claims(clients))

    def answer(self, query: RelayMessage) -> RelayMessage:
        """Return all states that are known here, for another worker that asked for them."""
        return self._claims(set(self._speakers))._replace(row=query.row)

    def _claims(self, clients: set[int]) -> RelayMessage:
        """Return the states of clients for the other workers, with the callers that they belong to."""
        callers: dict[str, set[int]] = {}
        for client in clients & self._speakers.keys():
            callers.setdefault(self._speakers[client].caller, set()).add(client)
        states = [self._awareness.states(own) for own in callers.values()]
        return RelayMessage(RelayKind.AWARENESS, self._note, updates=states, names=list(callers))

    def receive(self, told: RelayMessage) -> None:
        """Store the states that another worker sent, without those for clients that belong to other callers."""
        for states, caller in zip_longest(told.updates, told.names, fillvalue=""):
            assert isinstance(states, bytes)
            claimed = [one for one in decoded(states) if self._may_claim(str(caller), one.client)]
            news, _ = self._awareness.take(claimed, time.monotonic())
            for one in news:
                before = self._speakers.get(one.client)
                if before is not None and before.member is not None:
                    before.member.clients.discard(one.client)
                self._speakers[one.client] = _Speaker(str(caller), None)
            if news:
                self._gather({one.client for one in news})

    def _may_claim(self, caller: str, client: int) -> bool:
        """Return whether a caller at another worker may speak for a client."""
        speaker = self._speakers.get(client)
        return speaker is None or speaker.caller == caller or not self._awareness.is_here(client)

    def expire(self) -> None:
        """Take for gone the clients that were silent for too long."""
        gone, forgotten = self._awareness.expire(time.monotonic())
        for client in forgotten:
            speaker = self._speakers.pop(client, None)
            if speaker is not None and speaker.member is not None:
                speaker.member.clients.discard(client)
        if gone:
            self.broadcast([protocol.awareness(self._awareness.states(gone))])

    def name_of(self, member: Peer) -> str | None:
        """Return the name of a client's user, or without accounts the name that the client chose."""
        return member.principal.shown_as or self._awareness.name_of(member.clients)
