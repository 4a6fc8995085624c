"""The contenders of the comparison, and how each is installed, started and called.

Each is one server process with the same job: write notes over REST to MongoDB, publish them on Redis, and send them to
every WebSocket client. The floor only does the last part.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import HERE, NODE, NotInstalled, compiled, from_npm, from_pypi
from realtime.version import __version__

PROGRAMS = HERE / "contenders"
BUN = ["bun@1.4.5", "mongodb@7.9.0"]
WS = ["ws@8.23.0", "mongodb@7.9.0", "redis@6.3.1"]
SOCKETIO = ["python-socketio==5.18.1"]
CHANNELS = ["channels==4.3.2", "channels-redis==4.3.0", "django==5.2.19"]


def _own(*packages: str) -> list[str]:
    """Return packages with the versions that this program uses."""
    return [f"{one}=={version(one.partition('[')[0])}" for one in packages]


@dataclass(frozen=True)
class Contender:
    """A server to measure. The first call of ``command`` installs it, and raises ``NotInstalled`` if that fails."""

    name: str
    title: str
    version: str
    command: Callable[[int], list[str]]
    """Returns the command that serves on a port of loopback. Other parameters are in the environment."""
    path: str = "/ws"
    """The path of the WebSocket."""
    hello: str = ""
    """The first message of a client."""
    write: dict[str, str] = field(default_factory=lambda: {"method": "PUT", "http": "/notes/%d/"})
    rest: bool = True
    """Whether it stores notes."""
    channel: str = ""
    """The Redis channel whose messages reach the clients; empty if there is none."""
    template: str = "%s"
    """The format of a message on that channel, with ``%s`` for the note."""


def _realtime(port: int) -> list[str]:
    return [sys.executable, "-m", "realtime", "serve", "--port", str(port)]


def _floor(port: int) -> list[str]:
    return [str(compiled("floor")), str(port)]


def _uvicorn(app: str, packages: Sequence[str] = ()) -> Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        python = from_pypi(packages) if packages else Path(sys.executable)
        serve = [
            str(python),
            "-m",
            "uvicorn",
            f"benchmarks.contenders.{app}:app",
            "--app-dir",
            str(HERE.parent),
            "--port",
            str(port),
        ]
        return [*serve, "--no-access-log", "--log-level", "error"]

    return command


def _node(port: int) -> list[str]:
    return [str(NODE), _with_packages(WS, "ws_app.mjs")]


def _bun(port: int) -> list[str]:
    app = _with_packages(BUN, "bun_app.mjs")
    for program in sorted(Path(app).parent.glob("node_modules/@oven/*/bin/bun")):
        if subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0:
            return [str(program), app]
    raise NotInstalled(f"npm has no Bun that runs on {platform.system()} {platform.machine()}")


def _with_packages(packages: Sequence[str], app: str) -> str:
    """Return the path of an app in the folder of its packages, so that imports find them."""
    folder = from_npm(packages)
    for name in (app, "notes.mjs"):
        shutil.copy(PROGRAMS / name, folder)
    return str(folder / app)


_FASTAPI = _own("fastapi", "motor", "redis[hiredis]", "uvicorn[standard]")
_EMITTED = '{"method":"emit","event":"note","data":%s,"namespace":"/","room":null,"skip_sid":null,"callback":null}'

CONTENDERS = {
    one.name: one
    for one in (
        Contender("realtime", "realtime", __version__, _realtime, channel="realtime:realtime"),
        Contender("tutorial", "tutorial app", " ".join(_FASTAPI), _uvicorn("tutorial_app"), channel="tutorial"),
        Contender("bun", "Bun", " ".join(BUN), _bun, channel="bun"),
        Contender("ws", "Node ws", " ".join(WS), _node, channel="ws"),
        Contender(
            "socketio",
            "python-socketio",
            " ".join(SOCKETIO),
            _uvicorn("socketio_app", [*SOCKETIO, *_FASTAPI]),
            path="/socket.io/?EIO=4&transport=websocket",
            hello="40",
            channel="socketio-rooms",
            template=_EMITTED,
        ),
        Contender(
            "channels",
            "Django Channels",
            " ".join(CHANNELS),
            _uvicorn("channels_app", [*CHANNELS, *_own("motor", "redis[hiredis]", "uvicorn[standard]")]),
        ),
        Contender("floor", "floor", "", _floor, write={"method": "POST", "http": "/"}, rest=False),
    )
}
"""All contenders by name. The first one is this program, which the ratios compare with the others."""
