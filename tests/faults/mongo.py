"""MongoDB faults: a primary that steps down, dies, freezes, or returns errors."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from itertools import cycle

import httpx

from tests.faults.daemons import ReplicaSet, Standalone
from tests.faults.ledger import Broken
from tests.faults.load import crowd
from tests.faults.scenario import Figures, Run, scenario
from tests.support.harness import Json, ServerProcess, eventually, note_in, rest_client

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
TOGETHER = 7
"""The number of concurrent writes that MongoDB does not confirm."""
OURS = "realtime"
"""The application name of the server, which no other client uses."""


@scenario(
    "mongodb-primary",
    invariant="acknowledged writes survive, and none is applied twice",
    mark="3 nodes, 30 step-downs and 30 kills, 0 lost, write gap ≤ 20 s",
    unit="primaries",
    full=60,
    slice=2,
)
async def primary(run: Run) -> Figures:
    """Make the primary of three nodes step down, or kill it with SIGKILL and restart it, alternately."""
    # Ten seconds is the default election timeout of MongoDB.
    async with ReplicaSet(run.testbed.folder, 3, patience=10 if run.thorough else 1) as members:
        settings = await run.testbed.settings(mongo_url=members.url)
        fleet = await run.testbed.fleet(settings, 2, run.random)
        gaps = {"stepped down": 0.0, "killed": 0.0}
        async with crowd(run, fleet.url, settings, within=30) as load:
            for number in range(run.times):
                await load.writers.more(run.load(200))
                load.writers.gap = 0
                if number % 2:
                    node = await members.primary()
                    node.kill()
                    await load.writers.more(run.load(200))
                    await node.start()
                else:
                    await members.step_down()
                    await load.writers.more(run.load(200))
                what = "killed" if number % 2 else "stepped down"
                gaps[what] = max(gaps[what], load.writers.gap)
                run.progress(number + 1)
        fleet.check()
    load.figures.faults = run.times
    load.figures.extra |= {f"write gap, {what}": f"{gap:.1f} s at most" for what, gap in gaps.items()}
    load.figures.must(max(gaps.values()) <= 20)
    return load.figures


@scenario(
    "mongodb-errors",
    invariant="never a false 2xx",
    mark="1 000 network errors and unconfirmed writes, 0",
    unit="errors",
    full=1000,
    slice=40,
)
async def errors(run: Run) -> Figures:
    """Break connections during commands, and prevent MongoDB from confirming writes."""
    async with ReplicaSet(run.testbed.folder, 1) as members:
        settings = await run.testbed.settings(mongo_url=members.url)
        fleet = await run.testbed.fleet(settings, 2, run.random)

        async def arm(mode: object, **data: object) -> int:
            told = await members.command(
                members.nodes[0], "configureFailPoint", "failCommand", mode=mode, data={"appName": OURS, **data}
            )
            return int(told["count"])

        notes = f"{settings.database}.notes"
        done = 0
        async with crowd(run, fleet.url, settings) as load, rest_client(fleet.url()) as rest:

            async def write(token: str, method: str, path: str, *expected: int) -> None:
                answer = await rest.request(
                    method, path, json=note_in("unconfirmed", token), headers={"Idempotency-Key": f'"{token}"'}
                )
                if answer.status_code not in expected:
                    raise Broken(f"{method} was answered with {answer.status_code}, not {expected}: {answer.text}")
                if answer.is_success:
                    load.ledger.acknowledge(token, answer.json()["id"], answer.json()["version"])

            while done < run.times // 2:
                await arm({"activationProbability": 0.05}, **run.random.choice(NETWORK))
                await load.writers.more(run.load(100))
                done += await arm("off")
                run.progress(done)
            while done < run.times:
                tokens = [load.ledger.token("d") for _ in range(TOGETHER)]
                load.ledger.unknown.update(tokens)
                ways = [("PUT", f"/notes/{id}/") for id in load.writers.notes] if done % 2 else [("POST", "/notes/")]
                calls = list(zip(tokens, cycle(ways), strict=False))
                failure = run.random.choice(UNCONFIRMED)
                commands = ["insert", "findAndModify", "update"]
                await arm("alwaysOn", failCommands=commands, namespace=notes, writeConcernError=failure)
                await asyncio.gather(*(write(token, *way, 503) for token, way in calls))
                await arm("off")
                await asyncio.gather(*(write(token, *way, 200, 201) for token, way in calls))
                done += TOGETHER
                run.progress(done)
        fleet.check()
    load.figures.faults = done
    return load.figures


@scenario(
    "mongodb-misconfigured",
    invariant="a server is ready only if a majority can confirm its writes, and reads what was acknowledged",
    mark="6 configurations, 0 stale reads, 0 false ready",
    unit="configurations",
    full=6,
    slice=6,
)
async def misconfigured(run: Run) -> Figures:
    """Use a wrong URL, or a wrong deployment."""
    figures = Figures(faults=run.times)
    folder = run.testbed.folder
    async with ReplicaSet(folder, 3, patience=1) as members, Standalone(folder / "standalone") as standalone:
        primary = await members.primary()
        secondary = next(node for node in members.nodes if node is not primary)

        async def serve(url: str) -> ServerProcess:
            settings = await run.testbed.settings(mongo_url=url, write_timeout=2, read_timeout=2)
            return await run.testbed.serve(settings)

        async def is_not_ready(url: str, reason: str) -> None:
            server = await serve(url)
            async with rest_client(server.url) as rest:
                answer = await rest.get("/readyz")
                if answer.status_code != 503 or reason not in answer.json()["checks"]["mongodb"]["detail"]:
                    raise Broken(f"{reason}: {answer.status_code} {answer.text}")
                refused = await rest.post("/notes/", json=note_in())
                if refused.status_code != 503:
                    raise Broken(f"{reason}: a write was answered with {refused.status_code}")
            server.kill()

        # Reads from a secondary
        server = await serve(f"{members.url}&readPreference=secondary")
        async with rest_client(server.url) as rest:
            await eventually(partial(_is_ready, rest), within=20)
            for number in range(run.load(500)):
                made = (await rest.post("/notes/", json=note_in(f"note {number}"))).json()
                await rest.patch(f"/notes/{made['id']}/", json={"title": f"changed {number}"})
                read = await rest.get(f"/notes/{made['id']}/")
                listed = await rest.get("/notes/?sort=-id&limit=1")
                if read.status_code != 200 or read.json()["version"] != 2 or listed.json() != [read.json()]:
                    raise Broken(f"after a 201: {read.status_code} {read.text} {listed.text}")
                figures.acknowledged += 2
        server.kill()

        direct = f"mongodb://127.0.0.1:{secondary.port}/?directConnection=true"
        await is_not_ready(direct, "it is not the primary")
        await is_not_ready(members.url.replace("=faults", "=other"), "no primary is reachable")
        whole = await run.testbed.settings()
        assert whole.mongo_url is not None
        await is_not_ready(re.sub("//.*@", "//", whole.mongo_url), "Unauthorized (13)")

        # Without a replica set: it works, and logs a warning
        server = await serve(standalone.url)
        async with rest_client(server.url) as rest:
            await eventually(partial(_is_ready, rest), within=20)
            made = await rest.post("/notes/", json=note_in(), headers={"Idempotency-Key": "once"})
            again = await rest.post("/notes/", json=note_in(), headers={"Idempotency-Key": "once"})
            assert (made.status_code, again.json()) == (201, made.json())
            assert "replica set" in (await rest.get("/readyz")).json()["checks"]["mongodb"]["warning"]
        assert "rs.initiate()" in server.log()

        # Without a majority
        server = await serve(members.url)
        async with rest_client(server.url) as rest:
            await eventually(partial(_is_ready, rest), within=20)
            lost = [node for node in members.nodes if node is not primary]
            for node in lost:
                node.kill()

            async def noticed() -> None:
                assert (await rest.get("/readyz")).status_code == 503

            await eventually(noticed, within=20)
            await asyncio.gather(*(node.start() for node in lost))
            await eventually(partial(_is_ready, rest), within=60)
    return figures


async def _is_ready(rest: httpx.AsyncClient) -> None:
    answer = await rest.get("/readyz")
    assert answer.status_code == 200, answer.text


@scenario(
    "mongodb-frozen",
    invariant="a write that MongoDB cannot confirm in time gets 503, and is applied at most once",
    mark="10 times, 0",
    unit="freezes",
    full=10,
    slice=1,
)
async def frozen(run: Run) -> Figures:
    """Freeze MongoDB for longer than the timeout of a write, or kill it, and let it recover."""
    async with ReplicaSet(run.testbed.folder, 1) as members:
        settings = await run.testbed.settings(mongo_url=members.url, write_timeout=1, read_timeout=1)
        fleet = await run.testbed.fleet(settings, 1, run.random)
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
