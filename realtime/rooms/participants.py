"""The connections to a room at this worker, and the awareness states of all workers' clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from realtime.core.close_codes import CloseCode
from realtime.core.frames import FrameBatch
from realtime.rooms import protocol
from realtime.rooms.awareness import NULL_STATE, Awareness, ClientState, check_state, count_states, decode_states
from realtime.rooms.peer import PeerRefused
from realtime.rooms.relay import RelayKind, RelayMessage

if TYPE_CHECKING:
    from realtime.rooms.peer import Peer
    from realtime.rooms.relay import Relay

MIN_BROADCAST_DELAY_SECONDS = 0.03
"""Minimum time for which awareness changes are collected: stock clients repeat every change that they receive."""
BROADCAST_BYTES_PER_SECOND = 256 * 1024
"""Maximum rate of awareness bytes to each client. After a large batch, the next one is collected for longer."""
ENTRY_BYTES = 16
"""Bytes charged for reading an entry of a message, whether it is new or not."""
MAX_CONNECTION_CLIENTS = 32
"""Maximum number of awareness clients of one connection."""
MAX_CONNECTION_CHARACTERS = 16 * 1024
"""Maximum number of characters in the states of one connection."""
MAX_ROOM_CLIENTS = 1000
"""Maximum number of awareness clients of a room. Read-only clients can use half of it."""
MAX_ROOM_CHARACTERS = 256 * 1024
"""Maximum number of characters in all states of a room. Read-only clients can use half of it."""


class _ClientOwner(NamedTuple):
    """The user or network that an awareness client belongs to, and its connection if that is open at this worker."""

    caller: str
    peer: Peer | None


class Participants:
    """Tracks the connections to one room at this worker, and the awareness states of the room.

    An awareness client belongs to the connection that used it first, until that connection is closed. Then the same
    caller can use it again, and others can once it is forgotten. Signed-in users can use their clients from several
    connections: after a network failure, the server may not have noticed yet that the old connection is closed.
    """

    def __init__(self, note: int, relay: Relay) -> None:
        self.peers: set[Peer] = set()
        self._note = note
        self._relay = relay
        self._awareness = Awareness()
        self._owners: dict[int, _ClientOwner] = {}
        self._changed: set[int] = set()
        self._changed_here: set[int] = set()
        self._broadcast_scheduled = False
        self._delay = MIN_BROADCAST_DELAY_SECONDS

    def broadcast(self, messages: Sequence[bytes]) -> int:
        """Send messages to all connections, and return the size of the messages in bytes."""
        batch = FrameBatch(messages)
        for peer in self.peers:
            peer.send(batch)
        return len(batch.framed)

    def awareness_messages(self) -> list[bytes]:
        """Return a message with all present states, in a list; an empty list if there are none."""
        states = self._awareness.encode_present()
        return [protocol.awareness(states)] if states else []

    def remove(self, peer: Peer) -> None:
        """Remove a connection, and mark its awareness clients as gone."""
        self.peers.discard(peer)
        gone = self._awareness.remove(peer.clients, time.monotonic())
        for client in peer.clients:
            self._owners[client] = _ClientOwner(peer.caller, None)
        if gone:
            self._schedule_broadcast(gone)
            self._relay_states(gone)

    def set_states(self, peer: Peer, data: bytes) -> None:
        """Store the states that a connection sent for its own awareness clients, and broadcast them.

        States of other connections' clients are ignored. They are either repeated, as stock clients do, or forged.

        Raises:
            MalformedUpdate: The message cannot be read.
            PeerRefused: The connection has too many clients, or their states are too large.
        """
        count = count_states(data)
        peer.charge_states(count * ENTRY_BYTES)
        if count > len(self._awareness) + MAX_CONNECTION_CLIENTS:
            return  # more entries than the known clients and new ones of this connection
        name = peer.principal.shown_as
        states = [check_state(update, name) for update in decode_states(data) if self._may_set_state(peer, update)]
        named = {update.client for update in states}
        clients = peer.clients | named
        size = self._awareness.size(clients - named) + sum(len(update.state) for update in states)
        if len(clients) > MAX_CONNECTION_CLIENTS or size > MAX_CONNECTION_CHARACTERS:
            raise PeerRefused(CloseCode.TOO_MANY)
        new_states, gone = self._awareness.apply(self._within_limits(peer, states), time.monotonic())
        if gone:
            peer.send(FrameBatch([protocol.awareness(gone)]))
        if not new_states:
            return
        peer.charge_states(sum(len(update.state) for update in new_states))
        for update in new_states:
            before = self._owners.get(update.client)
            if before is not None and before.peer is not None:
                before.peer.clients.discard(update.client)
            self._owners[update.client] = _ClientOwner(peer.caller, peer)
            peer.clients.add(update.client)
        self._changed_here |= {update.client for update in new_states}
        self._schedule_broadcast({update.client for update in new_states})

    def _may_set_state(self, peer: Peer, update: ClientState) -> bool:
        owner = self._owners.get(update.client)
        if owner is None:
            return update.state != NULL_STATE
        if owner.peer is peer:
            return True
        same_caller = owner.caller == peer.caller
        if not self._awareness.is_present(update.client):
            return same_caller and update.state != NULL_STATE
        if same_caller and peer.principal.name is not None:
            return True
        if update.state != NULL_STATE and owner.peer is not None and self._awareness.is_newer(update):
            owner.peer.probe()  # probably the same client, after its network failed
        return False

    def _within_limits(self, peer: Peer, states: list[ClientState]) -> list[ClientState]:
        """Return the states if the room has space for all of them, otherwise only those of clients that leave."""
        share = 1.0 if peer.may_write else 0.5
        known = self._awareness.size({update.client for update in states})
        if len(self._awareness) + len(states) <= share * MAX_ROOM_CLIENTS:
            size = self._awareness.characters - known + sum(len(update.state) for update in states)
            if size <= share * MAX_ROOM_CHARACTERS:
                return states
        return [update for update in states if update.state == NULL_STATE]

    def _schedule_broadcast(self, clients: set[int]) -> None:
        self._changed |= clients
        if not self._broadcast_scheduled:
            self._broadcast_scheduled = True
            asyncio.get_running_loop().call_later(self._delay, self._broadcast_changed)

    def _broadcast_changed(self) -> None:
        self._broadcast_scheduled = False
        size = self.broadcast([protocol.awareness(self._awareness.encode(self._changed))])
        self._delay = max(MIN_BROADCAST_DELAY_SECONDS, size / BROADCAST_BYTES_PER_SECOND)
        if self._changed_here:
            self._relay_states(self._changed_here)
        self._changed, self._changed_here = set(), set()

    def _relay_states(self, clients: set[int]) -> None:
        self._relay.enqueue(self._states_message(clients))

    def answer_query(self, query: RelayMessage) -> RelayMessage:
        """Return all states known here, in response to another worker's query."""
        return self._states_message(set(self._owners))._replace(row=query.row)

    def _states_message(self, clients: set[int]) -> RelayMessage:
        """Return a message for the other workers with the states of clients and the callers that own them."""
        callers: dict[str, set[int]] = {}
        for client in clients & self._owners.keys():
            callers.setdefault(self._owners[client].caller, set()).add(client)
        states = [self._awareness.encode(own) for own in callers.values()]
        return RelayMessage(RelayKind.AWARENESS, self._note, updates=states, names=list(callers))

    def receive_relayed(self, message: RelayMessage) -> None:
        """Store the states that another worker sent, except those of clients that belong to other callers."""
        for states, caller in zip_longest(message.updates, message.names, fillvalue=""):
            assert isinstance(states, bytes)
            claimed = [update for update in decode_states(states) if self._may_set_remotely(str(caller), update.client)]
            new_states, _ = self._awareness.apply(claimed, time.monotonic())
            for update in new_states:
                before = self._owners.get(update.client)
                if before is not None and before.peer is not None:
                    before.peer.clients.discard(update.client)
                self._owners[update.client] = _ClientOwner(str(caller), None)
            if new_states:
                self._schedule_broadcast({update.client for update in new_states})

    def _may_set_remotely(self, caller: str, client: int) -> bool:
        """Return whether a caller at another worker may set the state of a client."""
        owner = self._owners.get(client)
        return owner is None or owner.caller == caller or not self._awareness.is_present(client)

    def expire(self) -> None:
        """Mark clients as gone that have not sent a state for too long."""
        gone, forgotten = self._awareness.expire(time.monotonic())
        for client in forgotten:
            owner = self._owners.pop(client, None)
            if owner is not None and owner.peer is not None:
                owner.peer.clients.discard(client)
        if gone:
            self.broadcast([protocol.awareness(self._awareness.encode(gone))])

    def name_of(self, peer: Peer) -> str | None:
        """Return the name of a client's user or, without accounts, the name that the client chose."""
        return peer.principal.shown_as or self._awareness.name_of(peer.clients)
