"""Chooses the delay between two fan-outs, so that more events share one fan-out.

A fan-out of many events takes the event loop about as long as a fan-out of one. During a delay, clients that wait for
the response to a write can send the next one, which may raise the total throughput. A delay lowers the throughput if
the next write depends on the delivery of the previous event. The server cannot distinguish the two cases, so it
measures: it tries the other choice from time to time, and delays as long as more events per second are delivered.
"""

from __future__ import annotations

DELAY_FACTOR = 3.0
"""The delay, as a multiple of the duration of the last fan-out. With one writer and 1,000 clients, this factor raises
the event rate 2.9 times, and a factor of 1 only 1.2 times."""
MAX_DELAY_SECONDS = 0.03
"""A limit on the latency that a delay adds. It applies from about 2,500 clients, to whom a fan-out takes 10 ms."""
MIN_GAIN_RATIO = 1.5
"""Event rate with a delay, relative to the rate without, above which delays are worth their latency. With one writer,
the ratio is 2.9. With 32, it is 1.1, and the mean time until the delivery would be 1.4 times as long."""
WINDOW_SECONDS = 0.3
"""Time in which a rate is measured. With 0.1 seconds, the rates of 32 writers vary so much that delays are often chosen
without need: the mean time until the delivery was 1.4 times as long, and with 0.3 seconds 1.1 times."""
WINDOWS_WITH_DELAY, WINDOWS_WITHOUT_DELAY = 8, 32
"""Windows between two trials of the other choice. A writer that waits for deliveries loses about two thirds of its rate
during a trial, which takes 3 % of the time. Trials without a delay cost less, and correct a wrong choice sooner."""


class AdaptiveFlushDelay:
    """Chooses the delays of one hub. Times are in seconds, of any clock."""

    def __init__(self) -> None:
        self._earliest_start = 0.0
        self._reset(0.0)

    def _reset(self, now: float) -> None:
        self._delaying = self._in_trial = False
        self._usual_rate = 0.0
        self._windows_to_trial = 1
        self._start_window(now)

    def _start_window(self, now: float) -> None:
        self._window_start = now
        self._events = 0

    def next_delay(self, started: float, ended: float, events: int) -> float:
        """Return the delay before the next fan-out in seconds; zero unless the event loop is saturated.

        Args:
            started: Time when the last fan-out started.
            ended: Time when it ended.
            events: Number of events that it delivered.
        """
        duration = ended - started
        if started - self._earliest_start > 2 * duration:  # the loop was idle: it is not saturated
            self._reset(started)
        self._events += events
        if ended - self._window_start >= WINDOW_SECONDS:
            self._evaluate(self._events / (ended - self._window_start))
            self._start_window(ended)
        delay = min(DELAY_FACTOR * duration, MAX_DELAY_SECONDS) if self._delaying else 0.0
        self._earliest_start = ended + delay
        return delay

    def _evaluate(self, rate: float) -> None:
        """Choose whether to delay in the next window, based on the rate of the last one in events per second."""
        if self._in_trial:
            with_delay, without = (rate, self._usual_rate) if self._delaying else (self._usual_rate, rate)
            self._delaying = with_delay > MIN_GAIN_RATIO * without
            self._in_trial = False
            self._windows_to_trial = WINDOWS_WITH_DELAY if self._delaying else WINDOWS_WITHOUT_DELAY
        else:
            self._usual_rate = rate
            self._windows_to_trial -= 1
            if not self._windows_to_trial:
                self._in_trial, self._delaying = True, not self._delaying
