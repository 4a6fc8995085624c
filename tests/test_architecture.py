"""The import table of the design holds, and modules stay small enough to read."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "realtime"
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text()
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py" or path.parent == PACKAGE or path.read_text().strip()
}
"""Every module by its name within the package; the first part of a name is its room."""

LONGEST_MODULE = 600

OWNERS = {
    "motor": {"store"},
    "pymongo": {"store"},
    "bson": {"store"},
    "redis": {"bus"},
    "limits": {"limits"},
    "pycrdt": {"crdt"},
    "pwdlib": {"auth"},
    "zxcvbn_rs_py": {"password_rules"},
    "jwt": {"auth"},
    "diff_match_patch": {"merge"},
    "yaml": {"front_matter"},
    "uvicorn": {"server", "handshakes", "heads", "proxies"},
    "websockets": {"connections", "handshakes", "watch"},
    "structlog": {"logs"},
    "typer": {"cli"},
    "rich": {"cli"},
    "prometheus_client": {"metrics", "workers"},
    "pydantic_settings": {"settings"},
}
"""Who may import a library, even if only for its types."""

IO = {"asyncio", "http", "httpx", "io", "os", "pathlib", "shutil", "socket", "subprocess", "urllib", "websockets"}
WEB = {"fastapi", "starlette"}
FORBIDDEN = {
    "notes": WEB | {"motor", "redis", "realtime.store", "realtime.eventlog.bus", "realtime.feed.hub"},
    "writes": WEB | {"motor", "redis", "realtime.store", "realtime.eventlog.bus", "realtime.feed.hub"},
    "accounts": WEB | {"motor", "redis", "realtime.store", "realtime.eventlog.bus", "realtime.feed.hub"},
    "people": WEB | IO,
    "viewers": WEB | {"motor", "redis", "realtime.store", "realtime.eventlog.bus", "realtime.feed.hub"},
    "auth": WEB | {"motor", "redis", "realtime.store"},
    "crdt": WEB | IO,
    "lib0": WEB | IO,
    "rest": {"realtime.store", "realtime.eventlog.bus", "realtime.eventlog.outbox"},
    "bus": {"realtime.feed.hub", "realtime.notes.service", "realtime.notes.models", "realtime.feed.messages"},
    "errors": WEB,
    "models": WEB | IO,
    "edits": WEB | IO,
    "merge": WEB | IO,
    "search": WEB | IO,
    "queries": WEB
    | {"motor", "redis", "realtime.store", "realtime.eventlog.bus", "realtime.feed.hub", "realtime.eventlog.outbox"},
    "events": WEB | IO,
    "cursor": WEB | IO,
}
"""What a module must not import at run time, a library or a module of ours."""

FAN_OUT = {"hub", "client", "pace", "recent", "frames"}
"""What need nothing but the standard library, and each other."""

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
PROMETHEUS = {"server", "metrics"}
"""Who may touch the one variable of the environment that prometheus_client reads by itself."""


def _statements(node: ast.AST, *, types: bool) -> Iterator[ast.AST]:
    """All nodes; without ``types``, those under ``if TYPE_CHECKING:`` are left out."""
    for child in ast.iter_child_nodes(node):
        if not types and isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _statements(ast.Module(child.orelse, []), types=types)
            continue
        yield child
        yield from _statements(child, types=types)


@cache
def _imports(source: str, *, types: bool = False) -> set[str]:
    """Every module that a source imports, at the top or within a function, with the packages that it lives in."""
    names: set[str] = set()
    for node in _statements(ast.parse(source), types=types):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["realtime" if node.level else "", node.module]))
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return {".".join(name.split(".")[: depth + 1]) for name in names for depth in range(name.count(".") + 1)}


def _touches_environment(module: str, source: str) -> bool:
    tree = ast.parse(source)
    if {f"os.{name}" for name in ENVIRONMENT} & _imports(source):
        return True
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    uses = [
        ast.unparse(parents[node])
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and ast.unparse(node.value) == "os"
    ]
    return any(module not in PROMETHEUS or "MULTIPROCESS" not in use for use in uses)


def violations(module: str, source: str) -> list[str]:
    """What a module does that the table forbids."""
    at_run_time = _imports(source)
    room = module.split(".")[0]
    found = [
        f"{module} imports {library}, which only {' and '.join(sorted(owners))} may"
        for library, owners in OWNERS.items()
        if room not in owners and library in _imports(source, types=True)
    ]
    found += [f"{module} imports {name}" for name in FORBIDDEN.get(room, set()) & at_run_time]
    if module in FAN_OUT:
        allowed = {"realtime", *(f"realtime.{name}" for name in FAN_OUT)}
        strange = {name for name in at_run_time if name.split(".")[0] not in sys.stdlib_module_names}
        found += [
            f"{module} imports {name}, which is not in the standard library"
            for name in strange
            if not any(name == one or (name.startswith(f"{one}.") and one != "realtime") for one in allowed)
        ]
    if module != "settings" and _touches_environment(module, source):
        found.append(f"{module} touches the environment")
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_module_keeps_the_table(module: str) -> None:
    assert violations(module, SOURCES[module]) == []


@pytest.mark.parametrize("module", SOURCES)
def test_module_is_documented_and_short(module: str) -> None:
    source = SOURCES[module]
    assert ast.get_docstring(ast.parse(source))
    assert len(source.splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rest", "from motor.motor_asyncio import AsyncIOMotorClient"),
        ("rest.notes", "import pymongo"),
        ("rest.trash", "from realtime.store.lists import Lists"),
        ("edits", "import asyncio"),
        ("rest", "def read():\n    import bson.json_util"),
        ("feed", "if TYPE_CHECKING:\n    from redis.asyncio import Redis"),
        ("rest", "from realtime import store"),
        ("rest", "from .outbox import Outbox"),
        ("rest", "if TYPE_CHECKING:\n    pass\nelse:\n    import realtime.eventlog.bus"),
        ("hub", "import pydantic"),
        ("hub", "from realtime.eventlog.bus import Bus"),
        ("bus", "from realtime.feed.hub import Hub"),
        ("notes", "from starlette.requests import Request"),
        ("errors", "import fastapi"),
        ("models", "from pathlib import Path"),
        ("workers", "import uvicorn.config"),
        ("feed", "import prometheus_client as metrics"),
        ("app", "import os\nhome = os.environ['HOME']"),
        ("app", "import os\nhome = os.getenv('HOME')"),
        ("app", "from os import environ as settings"),
        ("server", "import os\nhome = os.environ['HOME']"),
        ("app", "import os\nfolder = os.environ[MULTIPROCESS]"),
    ],
)
def test_breach_is_noticed(module: str, source: str) -> None:
    assert violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rest", "if TYPE_CHECKING:\n    from realtime.store import Store"),
        ("store.lists", "from pymongo import TEXT"),
        ("hub", "import asyncio\nif TYPE_CHECKING:\n    from realtime.eventlog.cursor import Cursor"),
        ("server", "import os\nos.environ[MULTIPROCESS] = folder"),
        ("embedded", "import os\nos.getpid()"),
    ],
)
def test_what_is_allowed_is_no_breach(module: str, source: str) -> None:
    assert violations(module, source) == []
