"""Token buckets: the refill rate and the capacity."""

from __future__ import annotations

from realtime.core.token_bucket import TokenBucket
from realtime.rooms.participants import MIN_BROADCAST_DELAY_SECONDS
from realtime.rooms.peer import STATES_BURST, STATES_PER_SECOND


def test_tokens_refill_at_a_constant_rate() -> None:
    allowance = TokenBucket(10, 30, 0)
    assert allowance.consume(30, 0)
    assert allowance.consume(10, 1)
    assert not allowance.consume(1, 1)
    assert allowance.remaining(1) == -1
    assert not allowance.consume(0, 1.05)
    assert allowance.consume(0, 1.15)


def test_tokens_do_not_exceed_the_capacity() -> None:
    assert not TokenBucket(10, 30, 0).consume(31, 100)


def test_standard_client_can_move_its_cursor_in_every_frame() -> None:
    """A frame takes 1/60 s, and the client sends back every packet of states that it receives."""
    allowance = TokenBucket(STATES_PER_SECOND, STATES_BURST, 0)
    moves = [frame / 60 for frame in range(60 * 60)]
    echoes = [number * MIN_BROADCAST_DELAY_SECONDS for number in range(int(60 / MIN_BROADCAST_DELAY_SECONDS))]
    assert all(allowance.consume(1, now) for now in sorted([*moves, *echoes]))
