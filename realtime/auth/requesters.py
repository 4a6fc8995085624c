"""The requesters of expensive work, which take turns in a :class:`realtime.core.fair_queue.FairQueue`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.auth.permissions import key_of
from realtime.core.fair_queue import Requester
from realtime.core.networks import network_of, wide_network_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from realtime.auth.permissions import Principal


def requester_of(principal: Principal, address: str) -> Requester:
    """Return the requester for a user, or for an address without sign-in. Its group is the network of the address."""
    member = network_of(address) if principal.name is None else key_of(principal.name)
    return Requester(wide_network_of(address), member, trusted=principal.name is not None)


def writer_of(principal: Principal, note: int) -> Requester:
    """Return the requester of a write: a user, or all guests of a note together."""
    (name,) = writers_of([] if principal.name is None else [principal.name], note)
    return Requester(name, name, trusted=principal.name is not None)


def writers_of(names: Sequence[str], note: int) -> list[str]:
    """Return the groups of these users or, without names, the group of all guests of a note."""
    return [key_of(name) for name in names] or [f"note {note}"]
