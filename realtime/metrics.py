"""The metrics of ``/metrics``, in the Prometheus text format."""

from __future__ import annotations

import os
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client; if it is set, each worker reports for all


LAG_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class FeedStats(Protocol):
    """The counters of the hub since it started."""

    deliveries: int
    resets: int
    too_slow_count: int


class Metrics:
    """The metrics of one application. With several workers, each value is a sum, maximum or minimum."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped in prometheus_client
        self._registry = CollectorRegistry()
        names: Any = {"namespace": "realtime", "registry": self._registry}
        self.writes = Counter("writes", "Committed writes to notes", ["action"], **names)
        self.publishes = Counter("publishes", "Events appended to the log in Redis", ["result"], **names)
        self.requests = Histogram(
            "request_seconds", "Duration of HTTP requests in seconds", ["method", "status"], **names
        )
        self.loop_lag = Histogram(
            "loop_lag_seconds", "How late the event loop runs, in seconds", buckets=LAG_BUCKETS_SECONDS, **names
        )
        self.dirty = Gauge(
            "dirty_notes", "Notes whose latest change may not be published yet", multiprocess_mode="max", **names
        )
        clients = Gauge("clients", "Connected clients", ["transport"], multiprocess_mode="livesum", **names)
        self.clients = {transport: clients.labels(transport) for transport in ("ws", "sse", "sync")}
        self.rooms = Gauge("rooms", "Open rooms of shared texts", multiprocess_mode="livesum", **names)
        self._lag = Gauge(
            "feed_lag_events", "Events in the log that were not delivered yet", multiprocess_mode="livemax", **names
        )
        self._connected = Gauge(
            "feed_connected", "Whether the worker is connected to the event log", multiprocess_mode="livemin", **names
        )
        self._deliveries = Counter("deliveries", "Events delivered to clients", **names)
        self._resets = Counter("resets", "Resets sent to clients", **names)
        self._too_slow = Counter("too_slow", "Clients disconnected because they read too slowly", **names)
        self._previous = (0, 0, 0)

    def sample(self, stats: FeedStats, *, lag: int, connected: bool) -> None:
        """Update the metrics of the feed. Call this once a second instead of at each delivery, which has to be fast.

        Args:
            stats: The counters of the hub.
            lag: Events in the log that this worker has not delivered yet.
            connected: Whether this worker receives events.
        """
        counts = (stats.deliveries, stats.resets, stats.too_slow_count)
        for counter, count, previous in zip(
            (self._deliveries, self._resets, self._too_slow), counts, self._previous, strict=True
        ):
            counter.inc(count - previous)
        self._previous = counts
        self._lag.set(lag)
        self._connected.set(connected)

    def render(self) -> bytes:
        """Return all metrics as text."""
        if MULTIPROCESS not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # untyped in prometheus_client
        return generate_latest(registry)
