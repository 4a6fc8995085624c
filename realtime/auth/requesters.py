"""The parties that work is done for, so that they can take turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.auth.permissions import key_of
from realtime.core.fair_queue import Requester
from realtime.core.networks import neighbourhood, wide_network

if TYPE_CHECKING:
    from realtime.auth.permissions import Viewer


def requester_of(viewer: Viewer, address: str) -> Requester:
    """Return the party that work is done for: a user or an address, in a network."""
    member = neighbourhood(address) if viewer.name is None else key_of(viewer.name)
    return Requester(wide_network(address), member, trusted=viewer.name is not None)


def writer_of(viewer: Viewer, note: int) -> Requester:
    """Return the party that a write is merged for: a user, or everyone who writes to a note without sign-in."""
    name = f"note {note}" if viewer.name is None else key_of(viewer.name)
    return Requester(name, name, trusted=viewer.name is not None)
