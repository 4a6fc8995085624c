"""How much a client may do."""

from __future__ import annotations

import pytest

from realtime.rooms.company import GATHERED
from realtime.rooms.member import STATES_BURST, STATES_PER_SECOND, Allowance, Refused


def test_so_many_a_second_and_a_burst() -> None:
    allowance = Allowance(10, 30, 0)
    allowance.take(30, 0)
    allowance.take(10, 1)
    with pytest.raises(Refused):
        allowance.take(1, 1)
    again = Allowance(10, 30, 0)
    with pytest.raises(Refused):
        again.take(31, 100)  # what is left over does not add up for ever


def test_a_stock_client_may_move_its_cursor_with_every_frame_among_many() -> None:
    """A frame takes 1/60 s, and each that is told of others the client sends back."""
    allowance = Allowance(STATES_PER_SECOND, STATES_BURST, 0)
    moves = [frame / 60 for frame in range(60 * 60)]
    echoes = [number * GATHERED for number in range(int(60 / GATHERED))]
    for now in sorted([*moves, *echoes]):
        allowance.take(1, now)
