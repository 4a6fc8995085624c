"""Conventions of the package: names, sizes of modules, and the use of the environment."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "realtime"
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text()
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py" or path.parent == PACKAGE or path.read_text().strip()
}
"""Every module by its name within the package; the first part of a name is its package."""

LONGEST_MODULE = 600

REPLACED_NAMES = frozenset(
    [
        "Act",
        "Allowance",
        "Batches",
        "Behind",
        "Caller",
        "Company",
        "Credits",
        "Deed",
        "Detour",
        "Follower",
        "Housekeeping",
        "Insecure",
        "Ledger",
        "Listener",
        "NoRoom",
        "NotThere",
        "Occupancy",
        "Occupant",
        "Outlet",
        "Pace",
        "Packet",
        "Parts",
        "Passes",
        "Places",
        "Queued",
        "Reads",
        "Recent",
        "Shown",
        "Space",
        "Standing",
        "Told",
        "Typist",
        "Unusual",
        "Viewer",
        "Viewers",
        "Walk",
        "Wire",
        "WouldNotFit",
        "eras",
        "neighbourhood",
        "parts_of",
        "viewer",
        "walked",
    ]
)
"""Names that the glossary replaced."""
UNITS = frozenset(["BYTES", "CHARACTERS", "CODE", "DAYS", "FACTOR", "KIB", "LINES", "MIB", "RATIO", "SECONDS", "SHARE"])
"""Words in the names of constants that are quantities with a unit."""
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
PROMETHEUS = {"server.serve", "metrics"}
"""The modules that may use the one environment variable that prometheus_client reads."""


def _statements(node: ast.AST, *, types: bool) -> Iterator[ast.AST]:
    """Yield all nodes; without ``types``, skip those under ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if not types and isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _statements(ast.Module(child.orelse, []), types=types)
            continue
        yield child
        yield from _statements(child, types=types)


@cache
def _imports(source: str, *, types: bool = False) -> set[str]:
    """Return every module that a source imports, at the top or within a function, with its parent packages."""
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


def identifiers(source: str) -> set[str]:
    """Return all identifiers of a module."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def public_constants(source: str) -> Iterator[tuple[str, ast.expr]]:
    """Yield the name and value of each public constant of a module."""
    for node in ast.parse(source).body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper() and not target.id.startswith("_"):
                assert isinstance(node, (ast.Assign, ast.AnnAssign))
                if node.value is not None:
                    yield target.id, node.value


def number(value: ast.expr) -> float | int | None:
    """Return the value of a number or of a product of numbers; ``None`` for other expressions."""
    if isinstance(value, ast.Constant) and type(value.value) in (int, float):
        return value.value  # type: ignore[return-value]  # checked above
    if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Mult, ast.Pow)):
        left, right = number(value.left), number(value.right)
        return None if left is None or right is None else left * right
    return None


def test_class_names_are_unique() -> None:
    trees = map(ast.parse, SOURCES.values())
    counts = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("module", SOURCES)
def test_replaced_names_are_not_used(module: str) -> None:
    assert identifiers(SOURCES[module]) & REPLACED_NAMES == set()


@pytest.mark.parametrize("module", SOURCES)
def test_numeric_constants_have_a_noun_and_a_unit(module: str) -> None:
    wrong = []
    for name, value in public_constants(SOURCES[module]):
        size = number(value)
        words = name.split("_")
        if (isinstance(size, float) and not UNITS & set(words)) or (isinstance(size, int) and len(words) == 1):
            wrong.append(name)
    assert [name for name in wrong if name != "MIB"] == []


@pytest.mark.parametrize("module", sorted(SOURCES.keys() - {"settings"}))
def test_module_other_than_settings_does_not_read_the_environment(module: str) -> None:
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
def test_use_of_the_environment_is_detected(module: str, source: str) -> None:
    assert _touches_environment(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("server.serve", "import os\nos.environ[MULTIPROCESS] = folder"),
        ("embedded.lock", "import os\nos.getpid()"),
    ],
)
def test_allowed_use_of_os_is_not_reported(module: str, source: str) -> None:
    assert not _touches_environment(module, source)
