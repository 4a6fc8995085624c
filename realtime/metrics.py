"""What ``/metrics`` shows, in the format of Prometheus."""

from __future__ import annotations

import os
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # the library's own variable: with it, any worker answers for all


class FeedStats(Protocol):
    """What the hub counted since it started."""

    deliveries: int
    resets: int
    too_slow: int


class Metrics:
    """The metrics of one application. With several workers the values are sums over all of them, or the largest."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it open
        self._registry = CollectorRegistry()
        names: Any = {"namespace": "realtime", "registry": self._registry}
        self.writes = Counter("writes", "Committed writes of notes", ["action"], **names)
        self.publishes = Counter("publishes", "Events appended to the log in Redis", ["result"], **names)
        self.requests = Histogram("request_seconds", "Time to answer an HTTP request", ["method", "status"], **names)
        self.dirty = Gauge(
            "dirty_notes", "Notes whose last change may not be published", multiprocess_mode="max", **names
        )
        clients = Gauge("clients", "Connected clients of the feed", ["transport"], multiprocess_mode="livesum", **names)
        self.clients = {transport: clients.labels(transport) for transport in ("ws", "sse", "sync")}
        self.rooms = Gauge("rooms", "Shared texts that are open", multiprocess_mode="livesum", **names)
        self._lag = Gauge(
            "feed_lag_events", "Events in the log not handed out yet", multiprocess_mode="livemax", **names
        )
        self._connected = Gauge(
            "feed_connected", "Whether the worker follows the feed", multiprocess_mode="livemin", **names
        )
        self._deliveries = Counter("deliveries", "Events handed to clients", **names)
        self._resets = Counter("resets", "Clients told to start over", **names)
        self._too_slow = Counter("too_slow", "Clients closed because they took nothing", **names)
        self._seen = (0, 0, 0)

    def sample(self, stats: FeedStats, *, lag: int, connected: bool) -> None:
        """Take over the counts of the hub. Called once a second, so that a delivery costs an addition only.

        Args:
            stats: The counts since the start.
            lag: Events in the log that this worker has not delivered yet.
            connected: Whether this worker receives events.
        """
        counts = (stats.deliveries, stats.resets, stats.too_slow)
        for counter, now, before in zip(
            (self._deliveries, self._resets, self._too_slow), counts, self._seen, strict=True
        ):
            counter.inc(now - before)
        self._seen = counts
        self._lag.set(lag)
        self._connected.set(connected)

    def render(self) -> bytes:
        """All metrics as text."""
        if MULTIPROCESS not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library leaves it open
        return generate_latest(registry)
