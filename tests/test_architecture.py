"""One module reads the environment, and all are documented and of a readable size."""

from __future__ import annotations

import ast
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

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
PROMETHEUS = {"server.serve", "metrics"}
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


@pytest.mark.parametrize("module", sorted(SOURCES.keys() - {"settings"}))
def test_settings_alone_read_the_environment(module: str) -> None:
    assert not _touches_environment(module, SOURCES[module])


@pytest.mark.parametrize("module", SOURCES)
def test_module_is_documented_and_short(module: str) -> None:
    source = SOURCES[module]
    assert ast.get_docstring(ast.parse(source))
    assert len(source.splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app", "import os\nhome = os.environ['HOME']"),
        ("app", "import os\nhome = os.getenv('HOME')"),
        ("app", "from os import environ as settings"),
        ("server.serve", "import os\nhome = os.environ['HOME']"),
        ("app", "import os\nfolder = os.environ[MULTIPROCESS]"),
    ],
)
def test_use_of_the_environment_is_noticed(module: str, source: str) -> None:
    assert _touches_environment(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("server.serve", "import os\nos.environ[MULTIPROCESS] = folder"),
        ("embedded.lock", "import os\nos.getpid()"),
    ],
)
def test_allowed_use_of_os_is_no_breach(module: str, source: str) -> None:
    assert not _touches_environment(module, source)
