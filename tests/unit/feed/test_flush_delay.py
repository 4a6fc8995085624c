"""The adaptive delay of the fan-out: it depends only on the events that a delay collects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime.feed.flush_delay import MAX_DELAY_SECONDS, AdaptiveFlushDelay

FAN_OUT = 0.004
Writers = Callable[[float, float], int]
"""Returns the number of events during a delay and the preceding fan-out, given both in seconds."""


def played(
    writers: Writers, seconds: float, took: float = FAN_OUT, pace: AdaptiveFlushDelay | None = None
) -> tuple[float, float]:
    """The events a second, and the mean rest, of the second half of a game between a pace and writers."""
    pace = pace or AdaptiveFlushDelay()
    now, events, told, rests, fan_outs = 0.0, 1, 0, 0.0, 0
    while now < seconds:
        rest = pace.next_delay(now, now + took, events)
        assert 0 <= rest <= MAX_DELAY_SECONDS
        if now > seconds / 2:
            told, rests, fan_outs = told + events, rests + rest, fan_outs + 1
        events = writers(took, rest)
        now += took + rest
        if not events:
            now, events = now + 0.001, 1
    return told / (seconds / 2), rests / fan_outs


def one_who_waits_for_answers(took: float, rest: float) -> int:
    """A write takes 2 ms, of which those of a fan-out are not counted: the loop answers nobody meanwhile."""
    return int(rest / 0.00199) + 1


def one_who_waits_for_arrival(took: float, rest: float) -> int:
    """The next write comes 1 ms after the last one has arrived at everyone."""
    return int(rest >= 0.001)


def many_at_their_own_pace(took: float, rest: float) -> int:
    """A write each millisecond, whatever anybody does."""
    return round(1000 * (took + rest))


def test_it_rests_where_more_goes_out_then() -> None:
    rate, rest = played(one_who_waits_for_answers, 10)
    assert rest > 0.8 * FAN_OUT
    assert rate > 1.4 / FAN_OUT, "and one for each fan-out without a rest"


@pytest.mark.parametrize("writers", [one_who_waits_for_arrival, many_at_their_own_pace])
def test_it_does_not_rest_where_nothing_more_goes_out(writers: Writers) -> None:
    rate, rest = played(writers, 20)
    unhindered = 1000 if writers is many_at_their_own_pace else 1 / (FAN_OUT + 0.001)
    assert rate > 0.9 * unhindered
    assert rest < 0.1 * FAN_OUT, "but for a trial now and then"


def test_a_long_fan_out_does_not_make_a_long_rest() -> None:
    _, rest = played(one_who_waits_for_answers, 60, took=0.1)
    assert 0.5 * MAX_DELAY_SECONDS < rest <= 1.001 * MAX_DELAY_SECONDS


def test_who_is_not_pressed_does_not_rest() -> None:
    pace = AdaptiveFlushDelay()
    played(one_who_waits_for_answers, 10, pace=pace)
    assert pace.next_delay(10.5, 10.5 + FAN_OUT, 1) == 0, "the first event after a while goes on as it comes"
    assert all(pace.next_delay(at, at + FAN_OUT, 1) == 0 for at in range(11, 100))
