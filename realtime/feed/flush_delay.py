"""How long to rest between two fan-outs, so that more events share one.

A fan-out takes the loop as long for one event as for many. Whoever writes and waits for the answer may send more in the
end if the loop has time for that in between; or less, if the next write only comes once this one has arrived. Which of
both it is cannot be seen from here, so it is tried: a longer rest stays if more events went out with it.
"""

from __future__ import annotations

RESTS = (0.0, 1.0, 3.0)
"""To choose from, in times that a fan-out takes."""
LONGEST = 0.03
"""Seconds of a rest, at most."""
WINDOW = 0.05
FAN_OUTS = 8
"""Seconds and fan-outs after which a rest is judged."""
MORE = 1.2
AS_MANY = 0.9
"""Of the events before, how many must go out for a longer rest to stay, and for a shorter one."""
IMPATIENCE, PATIENCE = 4, 64
"""Windows between two trials, at first and at most: each that failed has cost something."""


class AdaptiveFlushDelay:
    """The rests of one hub. Times are in seconds, of any clock."""

    def __init__(self) -> None:
        self._end = 0.0
        self._begin(0.0)

    def _begin(self, now: float) -> None:
        self._chosen = self._tried = 0
        self._up = True
        self._left = 0
        self._patience = IMPATIENCE
        self._rate = 0.0
        self._open(now)

    def _open(self, now: float) -> None:
        self._since = now
        self._events = self._fan_outs = 0

    def rest(self, started: float, ended: float, events: int) -> float:
        """Seconds to rest after a fan-out of so many events. At rest that is none: it is for who is pressed only."""
        took = ended - started
        if started - self._end > 2 * took:  # it could have been earlier: nothing presses
            self._begin(started)
        self._events += events
        self._fan_outs += 1
        if self._fan_outs >= FAN_OUTS and ended - self._since >= WINDOW:
            self._judge(self._events / (ended - self._since))
            self._open(ended)
        rest = min(RESTS[self._tried] * took, LONGEST)
        self._end = ended + rest
        return rest

    def _judge(self, rate: float) -> None:
        if self._tried == self._chosen:
            self._rate = rate
            self._left -= 1
            if self._left <= 0:
                self._try()
        elif rate > self._rate * (MORE if self._tried > self._chosen else AS_MANY):
            self._chosen = self._tried
            self._rate = rate
            self._patience = IMPATIENCE
            self._try()
        else:
            self._tried = self._chosen
            self._up = not self._up
            self._patience = min(2 * self._patience, PATIENCE)
            self._left = self._patience

    def _try(self) -> None:
        if not 0 <= self._chosen + (1 if self._up else -1) < len(RESTS):
            self._up = not self._up
        self._tried = self._chosen + (1 if self._up else -1)
