"""The scenarios of the comparison. Each runs a load on a contender and returns figures.

A run takes at most 20 seconds for each contender, or 3 seconds with ``--quick``, without the time to connect clients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from benchmarks.peers import Contender
from benchmarks.processes import memory
from benchmarks.session import Failed, Figures, Server, Session, Watch

SECONDS = 3
"""The duration of full load."""
WRITERS = 4
"""The number of writers with a constant rate, high enough that no write waits for another."""
Measure = Callable[[Session, Contender], Figures]
Which = Callable[[Contender], bool]


@dataclass(frozen=True)
class Scenario:
    """A measurement of some contenders. The figures have the names in :data:`benchmarks.report.METRICS`."""

    name: str
    group: str
    title: str
    measure: Measure
    who: Which = lambda contender: contender.rest
    against: str = ""
    """The scenario of the same contender that ratios compare with. By default, they compare with other contenders."""


def _deliveries(said: Figures) -> Figures:
    share = 100 * said["delivered"] / said["expected"] if said["expected"] else 0.0
    figures = {"deliveries": said["deliveries"], "delivered": share}
    return {**figures, "p50": said["p50"], "p99": said["p99"]} if said["delivered"] else figures


def _fan_out(writers: int, clients: int) -> Measure:
    def measure(session: Session, contender: Contender) -> Figures:
        seconds = 1 if session.quick else SECONDS
        server = session.server(contender)
        return _deliveries(session.load(server, clients=clients, writers=writers, seconds=seconds, grace=seconds))

    return measure


def _alone(flight: int) -> Measure:
    def measure(session: Session, contender: Contender) -> Figures:
        server = session.server(contender)
        seconds = 1 if session.quick else SECONDS
        target = session.publisher(contender) if contender.rest else server.port
        return _deliveries(
            session.load(
                server,
                method="POST",
                http="/",
                target=target,
                clients=1000,
                writers=flight,
                flight=flight,
                seconds=seconds,
                grace=2,
            )
        )

    return measure


def _writes(clients: int) -> Measure:
    def measure(session: Session, contender: Contender) -> Figures:
        server = session.server(contender)
        said = session.load(server, clients=clients, writers=32, seconds=1 if session.quick else SECONDS)
        return {"writes": said["requests_per_second"], "answer": said["request_p50"]}

    return measure


def _reads(path: str) -> Measure:
    def measure(session: Session, contender: Contender) -> Figures:
        server = session.server(contender)
        server.fill()
        said = session.load(server, method="GET", http=path, writers=32, seconds=1 if session.quick else SECONDS)
        return {"reads": said["requests_per_second"], "answer": said["request_p50"]}

    return measure


def _idle(session: Session, contender: Contender) -> Figures:
    clients = 1000 if session.quick else 10_000
    if session.files < clients + 200:
        raise Failed(f"{clients} clients need a limit of {clients + 200} open files (ulimit -Hn)")
    with session.fresh(contender) as server:
        session.load(server, clients=100)  # initialize everything that is created once
        before = memory(server.process)
        with session.holding(server, clients=clients, limit=30, settle=1, hold=1):
            held = memory(server.process) - before
    return {"held": held / clients / 1000}


def _connects(at_once: int) -> Measure:
    def measure(session: Session, contender: Contender) -> Figures:
        server = session.server(contender)
        clients = 500 if session.quick else 3000
        return {"connects": session.load(server, clients=clients, at_once=at_once, settle=0)["connects"]}

    return measure


def _latency(session: Session, contender: Contender) -> Figures:
    server = session.server(contender)
    seconds = 2 if session.quick else 6
    said = session.load(server, clients=1000, writers=WRITERS, rate=10, seconds=seconds, grace=2)
    figures = _deliveries(said)
    del figures["deliveries"]
    return figures


def _resume(session: Session, contender: Contender) -> Figures:
    clients, missed = (200, 1000) if session.quick else (1000, 1000)
    server = session.server(contender)
    cursor = httpx.get(f"{server.url}/notes/").headers["X-Cursor"]
    session.load(
        server, method="POST", http="/", target=session.publisher(contender), writers=32, most=missed, seconds=5
    )
    said = session.load(server, path=f"/ws?since={cursor}", until='"type":"ready"', clients=clients, settle=0)
    if said["caught_up"] < clients * missed:
        raise Failed(f"only {said['caught_up']} of {clients * missed} events came")
    return {"resumes": said["connects"], "resumed": clients / said["connects"]}


def _workers(many: int) -> Measure:
    def measure(session: Session, contender: Contender) -> Figures:
        seconds = 1 if session.quick else SECONDS
        with session.fresh(contender, workers=many) as server:
            fan_out = session.load(server, alone=True, clients=1000, writers=32, seconds=seconds, grace=seconds)
            writes = session.load(server, alone=True, clients=1, writers=32, seconds=seconds)
        figures = _deliveries(fan_out)
        return {**figures, "writes": writes["requests_per_second"]}

    return measure


def _frozen(session: Session, contender: Contender) -> Figures:
    frozen, seconds, patience = (100, 2, 3) if session.quick else (100, 12, 16)
    with session.fresh(contender) as server:
        with Watch(server) as usual:
            without = _steady(session, server, 2 if session.quick else 4)
        with Watch(server) as watch:
            said = _steady(session, server, seconds, frozen, patience)
    figures = {
        "delivered": 100 * said["delivered"] / said["expected"] if said["expected"] else 0.0,
        "before": without["p99"],
        "frozen": max(0.0, watch.bytes - usual.bytes) / frozen / 2**20,
    }
    if said["delivered"]:
        figures |= {"p99": said["p99"], "slower": said["p99"] / without["p99"]}
    closed, at = watch.closed(frozen)
    figures["closed"] = closed if closed > WRITERS else 0  # the connection of an idle writer can be closed, too
    if closed == frozen:
        figures["until"] = at - said["burst_at"]
    return figures


def _steady(session: Session, server: Server, seconds: int, frozen: int = 0, patience: int = 0) -> Figures:
    """Measure writes at a constant rate.

    The run begins with a burst of large notes, which fills the socket buffers of clients that do not read.
    """
    return session.load(
        server,
        frozen=frozen,
        burst=80,
        burst_size=100_000,
        clients=900,
        writers=WRITERS,
        rate=10,
        seconds=seconds,
        grace=1,
        patience=patience,
    )


def _publishable(contender: Contender) -> bool:
    return bool(contender.channel) or not contender.rest


def _everyone(contender: Contender) -> bool:
    return True


def _this(contender: Contender) -> bool:
    return contender.name == "realtime"


WHOLE = "Fan-out over the whole path: PUT, MongoDB, Redis, clients"
ALONE = "Fan-out alone: published straight into Redis, 1 000 clients"
WRITES = "Writes: 32 writers"
READS = "Reads: 32 readers"
MEMORY = "Memory: idle clients"
CONNECTS = "Connecting"
LATENCY = "Latency: 10 writes a second"
RESUME = "Resuming, all at once"
WORKERS = "Workers: 32 writers × 1 000 clients, then 32 writers"
FROZEN = "Frozen: 100 of 1 000 clients never read"

SCENARIOS = [
    *(
        Scenario(
            f"fanout-{writers}x{clients}",
            WHOLE,
            f"{writers} writer{'s' * (writers > 1)}, {clients:,} clients".replace(",", " "),
            _fan_out(writers, clients),
        )
        for writers in (1, 32)
        for clients in (100, 1000, 5000)
    ),
    Scenario("alone-1", ALONE, "one message at a time", _alone(1), _publishable),
    Scenario("alone-2", ALONE, "the next message on its way", _alone(2), _publishable),
    Scenario("alone-32", ALONE, "32 messages on their way", _alone(32), _publishable),
    Scenario("writes-1", WRITES, "1 client", _writes(1)),
    Scenario("writes-0", WRITES, "no client", _writes(0)),
    Scenario("reads-note", READS, "one note", _reads("/notes/%d/")),
    Scenario("reads-page", READS, "a page of 100", _reads("/notes/")),
    Scenario("connects-1", CONNECTS, "one after the other", _connects(1), _everyone),
    Scenario("connects-64", CONNECTS, "64 at a time", _connects(64), _everyone),
    Scenario("latency", LATENCY, "1 000 clients", _latency, _everyone),
    Scenario("resume", RESUME, "1 000 clients, 1 000 missed writes (quick: 200 clients)", _resume, _this),
    Scenario("memory", MEMORY, "10 000 clients (quick: 1 000)", _idle),
    Scenario("workers-1", WORKERS, "1 worker", _workers(1), _this),
    Scenario("workers-2", WORKERS, "2 workers", _workers(2), _this, against="workers-1"),
    Scenario("workers-4", WORKERS, "4 workers", _workers(4), _this, against="workers-1"),
    Scenario("frozen", FROZEN, "10 writes a second", _frozen),
]
