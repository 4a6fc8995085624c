"""The adaptive delay of the fan-out: it depends only on the events that a delay collects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime.feed.flush_delay import MAX_DELAY_SECONDS, AdaptiveFlushDelay

FAN_OUT = 0.004
Writers = Callable[[float, float], int]
"""Returns the number of events during a delay and the preceding fan-out, given both in seconds."""


def simulate(
    writers: Writers, seconds: float, took: float = FAN_OUT, flush_delay: AdaptiveFlushDelay | None = None
) -> tuple[float, float]:
    """Simulate fan-outs. Return the events per second and the mean delay in seconds, both of the second half."""
    flush_delay = flush_delay or AdaptiveFlushDelay()
    now, events, delivered, delays, fan_outs = 0.0, 1, 0, 0.0, 0
    while now < seconds:
        delay = flush_delay.next_delay(now, now + took, events)
        assert 0 <= delay <= MAX_DELAY_SECONDS
        if now > seconds / 2:
            delivered, delays, fan_outs = delivered + events, delays + delay, fan_outs + 1
        events = writers(took, delay)
        now += took + delay
        if not events:
            now, events = now + 0.001, 1
    return delivered / (seconds / 2), delays / fan_outs


def writer_awaiting_responses(took: float, delay: float) -> int:
    """A write takes 2 ms. The event loop sends no responses during a fan-out, so only the delay counts."""
    return int(delay / 0.00199) + 1


def writer_awaiting_delivery(took: float, delay: float) -> int:
    """Each write follows 1 ms after the previous one is delivered to all clients."""
    return int(delay >= 0.001)


def independent_writers(took: float, delay: float) -> int:
    """A write each millisecond, independent of fan-outs and delays."""
    return round(1000 * (took + delay))


def test_delay_is_kept_if_it_raises_the_event_rate() -> None:
    rate, delay = simulate(writer_awaiting_responses, 10)
    assert delay > 0.8 * FAN_OUT
    assert rate > 1.4 / FAN_OUT, "without a delay it is one event per fan-out"


@pytest.mark.parametrize("writers", [writer_awaiting_delivery, independent_writers])
def test_delay_is_avoided_without_a_higher_event_rate(writers: Writers) -> None:
    rate, delay = simulate(writers, 20)
    unhindered = 1000 if writers is independent_writers else 1 / (FAN_OUT + 0.001)
    assert rate > 0.9 * unhindered
    assert delay < 0.1 * FAN_OUT, "apart from occasional trials"


def test_delay_ends_when_it_no_longer_raises_the_event_rate() -> None:
    elapsed = 0.0

    def writers(took: float, delay: float) -> int:
        nonlocal elapsed
        elapsed += took + delay
        return (writer_awaiting_responses if elapsed < 5 else writer_awaiting_delivery)(took, delay)

    rate, delay = simulate(writers, 20)
    assert rate > 0.9 / (FAN_OUT + 0.001)
    assert delay < 0.1 * FAN_OUT


def test_delay_after_a_long_fan_out_is_limited() -> None:
    _, delay = simulate(writer_awaiting_responses, 60, took=0.1)
    assert 0.5 * MAX_DELAY_SECONDS < delay <= 1.001 * MAX_DELAY_SECONDS


def test_delay_is_zero_if_the_loop_is_not_saturated() -> None:
    flush_delay = AdaptiveFlushDelay()
    simulate(writer_awaiting_responses, 10, flush_delay=flush_delay)
    assert flush_delay.next_delay(10.5, 10.5 + FAN_OUT, 1) == 0, "the first event after a pause is not delayed"
    assert all(flush_delay.next_delay(now, now + FAN_OUT, 1) == 0 for now in range(11, 100))
