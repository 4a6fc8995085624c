"""Chooses the delay between two fan-outs, so that more events share one fan-out.

A fan-out of many events takes the event loop about as long as a fan-out of one. During a delay, clients that wait for
the response to a write can send the next one, which may raise the total throughput. A delay lowers the throughput if
the next write depends on the delivery of the previous event. The server cannot distinguish the two cases, so it
measures: a longer delay is kept if more events per second were delivered with it.
"""

from __future__ import annotations

DELAY_FACTORS = (0.0, 1.0, 3.0)
"""Candidate delays, as multiples of the duration of the last fan-out."""
MAX_DELAY_SECONDS = 0.03
MIN_WINDOW_SECONDS = 0.05
MIN_WINDOW_FLUSHES = 8
"""A delay is evaluated after at least this number of fan-outs and at least ``MIN_WINDOW_SECONDS``."""
MIN_RATIO_FOR_LONGER = 1.2
MIN_RATIO_FOR_SHORTER = 0.9
"""Event rate, relative to that of the best delay so far, above which a longer or a shorter delay replaces it."""
MIN_WINDOWS_BETWEEN_TRIALS, MAX_WINDOWS_BETWEEN_TRIALS = 4, 64
"""Windows until another delay is tried. Doubled after each failed trial, because a failed trial reduces throughput."""


class AdaptiveFlushDelay:
    """Chooses the delays of one hub. Times are in seconds, of any clock."""

    def __init__(self) -> None:
        self._earliest_start = 0.0
        self._reset(0.0)

    def _reset(self, now: float) -> None:
        self._best = self._current = 0
        self._longer_next = True
        self._windows_to_trial = 0
        self._trial_interval = MIN_WINDOWS_BETWEEN_TRIALS
        self._best_rate = 0.0
        self._start_window(now)

    def _start_window(self, now: float) -> None:
        self._window_start = now
        self._events = self._flushes = 0

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
        self._flushes += 1
        if self._flushes >= MIN_WINDOW_FLUSHES and ended - self._window_start >= MIN_WINDOW_SECONDS:
            self._evaluate(self._events / (ended - self._window_start))
            self._start_window(ended)
        delay = min(DELAY_FACTORS[self._current] * duration, MAX_DELAY_SECONDS)
        self._earliest_start = ended + delay
        return delay

    def _evaluate(self, rate: float) -> None:
        if self._current == self._best:
            self._best_rate = rate
            self._windows_to_trial -= 1
            if self._windows_to_trial <= 0:
                self._start_trial()
        elif rate > self._best_rate * (MIN_RATIO_FOR_LONGER if self._current > self._best else MIN_RATIO_FOR_SHORTER):
            self._best = self._current
            self._best_rate = rate
            self._trial_interval = MIN_WINDOWS_BETWEEN_TRIALS
            self._start_trial()
        else:
            self._current = self._best
            self._longer_next = not self._longer_next
            self._trial_interval = min(2 * self._trial_interval, MAX_WINDOWS_BETWEEN_TRIALS)
            self._windows_to_trial = self._trial_interval

    def _start_trial(self) -> None:
        if not 0 <= self._best + (1 if self._longer_next else -1) < len(DELAY_FACTORS):
            self._longer_next = not self._longer_next
        self._current = self._best + (1 if self._longer_next else -1)
