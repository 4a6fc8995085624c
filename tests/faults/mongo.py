"""MongoDB whose primary steps down, dies, freezes, or answers with errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.faults.daemons import ReplicaSet
from tests.faults.ledger import Broken
from tests.faults.load import crowd
from tests.faults.scenario import Figures, Run, scenario
from tests.harness import Json, eventually, note_in, rest_client

SURVIVES = "acknowledged writes survive, none is doubled"
NETWORK: tuple[Json, ...] = (
    {"failCommands": ["findAndModify", "insert", "update"], "closeConnection": True},
    {"failCommands": ["find", "aggregate", "getMore"], "closeConnection": True},
    {"failCommands": ["findAndModify", "insert", "update"], "errorCode": 91},  # ShutdownInProgress
    {"failCommands": ["findAndModify", "insert", "update"], "errorCode": 10107},  # NotWritablePrimary
)
UNCONFIRMED: tuple[Json, ...] = (
    {"code": 64, "errmsg": "waiting for replication timed out"},
    {"code": 100, "errmsg": "not enough members"},
)
OURS = "realtime"
"""The name under which the server, and nobody else, calls."""


async def _gaps(run: Run, members: ReplicaSet, fault: Callable[[], Awaitable[None]]) -> Figures:
    settings = await run.stand.settings(mongo_url=members.url)
    fleet = await run.stand.fleet(settings, 2, run.random)
    longest = 0.0
    async with crowd(run, fleet.url, settings, within=30) as load:
        for number in range(run.times):
            await load.writers.more(run.load(200))
            load.writers.gap = 0
            await fault()
            await load.writers.more(run.load(200))
            longest = max(longest, load.writers.gap)
            run.progress(number + 1)
    fleet.check()
    load.figures.faults = run.times
    load.figures.extra["write gap"] = f"{longest:.1f} s at most"
    load.figures.must(longest <= 20)
    return load.figures


@scenario(
    "mongodb-step-down",
    invariant=SURVIVES,
    mark="3 nodes, 30 times, 0 lost, write gap ≤ 20 s",
    unit="step-downs",
    full=30,
    slice=1,
)
async def step_down(run: Run) -> Figures:
    """The primary of three nodes gives way to another."""
    async with ReplicaSet(run.stand.folder, 3) as members:
        return await _gaps(run, members, members.step_down)


@scenario(
    "mongodb-primary-killed",
    invariant=SURVIVES,
    mark="3 nodes, 30 times, 0 lost, write gap ≤ 20 s",
    unit="kills",
    full=30,
    slice=1,
)
async def primary_killed(run: Run) -> Figures:
    """The primary of three nodes is killed with -9; the others choose another, and it comes back."""
    # Ten seconds is MongoDB's own patience.
    async with ReplicaSet(run.stand.folder, 3, patience=10 if run.thorough else 1) as members:

        async def fault() -> None:
            primary = await members.primary()
            primary.kill()
            await members.primary(whole=False)
            await primary.start()

        return await _gaps(run, members, fault)


@scenario(
    "mongodb-errors",
    invariant="never a false 2xx",
    mark="1 000 network errors and unconfirmed writes, 0",
    unit="errors",
    full=1000,
    slice=40,
)
async def errors(run: Run) -> Figures:
    """Connections break within commands, and writes are made that MongoDB does not confirm."""
    async with ReplicaSet(run.stand.folder, 1) as members:
        settings = await run.stand.settings(mongo_url=members.url)
        fleet = await run.stand.fleet(settings, 2, run.random)

        async def arm(mode: object, **data: object) -> int:
            told = await members.command(
                members.nodes[0], "configureFailPoint", "failCommand", mode=mode, data={"appName": OURS, **data}
            )
            return int(told["count"])

        async with crowd(run, fleet.url, settings) as load:
            broken = 0
            while broken < run.times // 2:
                await arm({"activationProbability": 0.05}, **run.random.choice(NETWORK))
                await load.writers.more(run.load(100))
                broken += await arm("off")
                run.progress(broken)
        async with rest_client(fleet.url()) as rest:
            for number in range(run.times // 2):
                await arm({"times": 1}, failCommands=["insert"], writeConcernError=run.random.choice(UNCONFIRMED))
                key = {"Idempotency-Key": f'"unconfirmed-{number}"'}
                refused = await rest.post("/notes/", json=note_in("unconfirmed", f"n{number}"), headers=key)
                if refused.status_code != 503 or refused.json()["outcome"] != "unknown":
                    raise Broken(f"what MongoDB did not confirm was answered with {refused.status_code}")
                made = await rest.post("/notes/", json=note_in("unconfirmed", f"n{number}"), headers=key)
                assert made.status_code == 201, made.text
                run.progress(broken + number + 1)
            found = (await rest.get("/notes/", params={"q": "unconfirmed", "limit": 1000})).json()
            if len(found) != run.times // 2:
                raise Broken(f"{run.times // 2} notes were made {len(found)} times")
        fleet.check()
    load.figures.faults = broken + run.times // 2
    return load.figures


@scenario(
    "mongodb-frozen",
    invariant="what MongoDB cannot confirm in time is answered with 503, and is there at most once",
    mark="10 times, 0",
    unit="freezes",
    full=10,
    slice=1,
)
async def frozen(run: Run) -> Figures:
    """MongoDB stops answering for longer than a write may take, and dies, and comes back."""
    async with ReplicaSet(run.stand.folder, 1) as members:
        settings = await run.stand.settings(mongo_url=members.url, write_timeout=1, read_timeout=1)
        fleet = await run.stand.fleet(settings, 1, run.random)
        node = members.nodes[0]
        async with crowd(run, fleet.url, settings) as load, rest_client(fleet.url()) as rest:

            async def ready(expected: int) -> bool:
                return (await rest.get("/readyz")).status_code == expected

            for number in range(run.times):
                await load.writers.more(run.load(200))
                node.freeze()
                load.writers.refused = 0
                await eventually(lambda: load.writers.refused, within=20)
                assert await ready(503)
                if number % 2:
                    node.thaw()
                else:
                    node.kill()
                    await node.start()
                await load.writers.more(run.load(200))
                await eventually(lambda: ready(200), within=20)
                run.progress(number + 1)
        fleet.check()
    load.figures.faults = run.times
    return load.figures
