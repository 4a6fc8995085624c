"""The files of the page: headers for security, caching and compression."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from realtime import create_app
from realtime.api.webapp import STATIC
from realtime.settings import Settings

FRONTEND = Path(__file__).parents[2] / "frontend"
JAVASCRIPT_BUDGET = 250 * 1024


@pytest.mark.parametrize(
    "path", ["/", "/n/12", "/n/12/history", "/new/abc", "/deleted", "/account", "/people", "/invite"]
)
def test_deep_link_returns_the_page(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert '<div id="app">' in answer.text


@pytest.mark.parametrize(
    ("host", "images"),
    [
        ("notes.example:8443", "notes.example:8443/icon.svg notes.example:8443/files/"),
        ("[::1]:8000", "'self'"),
        ("evil; script-src *", "'self'"),
        ("evil,script-src", "'self'"),
    ],
)
def test_image_policy_allows_only_note_files_and_the_icon(settings: Settings, host: str, images: str) -> None:
    with TestClient(create_app(settings.model_copy(update={"allow_public": True}))) as client:
        for path in ("/", "/docs"):
            policy = client.get(path, headers={"Host": host}).headers["Content-Security-Policy"]
            assert re.search(r"img-src ([^;]*?)( data:)?;", policy)[1] == images  # type: ignore[index]  # it exists


def test_image_policy_uses_the_root_path_and_forwarded_host(settings: Settings) -> None:
    changes = {"allow_public": True, "root_path": "/notes", "proxies": "*"}
    with TestClient(create_app(settings.model_copy(update=changes))) as client:
        policy = client.get("/notes/n/1", headers={"X-Forwarded-Host": "notes.example"}).headers[
            "Content-Security-Policy"
        ]
    assert "img-src notes.example:*/notes/icon.svg notes.example:*/notes/files/;" in policy


def test_permissions_policy_disables_devices(client: TestClient) -> None:
    for path in ("/", "/n/1", "/docs", "/redoc", "/icon.svg"):
        assert "camera=()" in client.get(path).headers["Permissions-Policy"]


def test_page_has_no_foreign_urls_and_no_inline_code(client: TestClient) -> None:
    text = client.get("/").text
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)
    assert "<style" not in text
    assert not re.search(r"<script(?![^>]*src=)", text)


@pytest.mark.parametrize("accepted", ["gzip;q=0, br;q=0", "identity", "", "zstd", "GZIPPED"])
def test_assets_are_uncompressed_without_an_accepted_encoding(client: TestClient, accepted: str) -> None:
    (path, *_) = re.findall(r'"(/assets/[^"]+js)"', client.get("/").text)
    assert "content-encoding" not in client.get(path, headers={"Accept-Encoding": accepted}).headers


def _scripts(text: str) -> set[str]:
    """Return all scripts that a text references, directly or through other scripts."""
    found: set[str] = set()
    while new := set(re.findall(r"[\w-]+-[\w-]{8}\.js(?![\w.])", text)) - found:
        found |= new
        text = "".join((STATIC / "assets" / name).read_text() for name in new)
    return found


def test_javascript_size_is_within_its_budget() -> None:
    scripts = _scripts((STATIC / "index.html").read_text())
    # No scripts of the API reference. The bundler may write its runtime to a separate file.
    assert {name.partition("-")[0] for name in scripts} - {"rolldown"} == {
        "index",
        "editor",
        "accounts",
        "previewWorker",
    }
    packed = sum(len(gzip.compress((STATIC / "assets" / name).read_bytes())) for name in scripts)
    assert packed < JAVASCRIPT_BUDGET


def test_lock_file_has_no_urls_and_only_sha512_hashes() -> None:
    packages = json.loads((FRONTEND / "package-lock.json").read_text())["packages"]
    installed = {name: package for name, package in packages.items() if name}
    assert len(installed) > 50
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [name for name, package in installed.items() if not package["integrity"].startswith("sha512-")] == []


def test_stale_types_are_refused() -> None:
    schema = subprocess.run([sys.executable, FRONTEND / "schema.py"], capture_output=True, check=True).stdout
    assert _check_types(schema) == (0, "")
    changed = json.loads(schema)
    del changed["$defs"]["Note"]["properties"]["version"]
    code, errors = _check_types(json.dumps(changed).encode())
    assert code == 1
    assert "stale: run make types" in errors


def _check_types(schema: bytes) -> tuple[int, str]:
    node = Path(sys.executable).with_name("node")
    ended = subprocess.run([node, FRONTEND / "types.mjs", "--check"], input=schema, capture_output=True, check=False)
    return ended.returncode, ended.stderr.decode()


def test_wheel_contains_the_page_and_sdist_its_sources(tmp_path: Path) -> None:
    # Without the hook, which would rebuild the page during other tests: the existing build is packed.
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", tmp_path],
        cwd=FRONTEND.parent,
        env={**os.environ, "HATCH_BUILD_NO_HOOKS": "true"},
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    built = {path for path in STATIC.rglob("*") if path.is_file()}
    assert {path.suffix for path in built} >= {".html", ".js", ".css", ".br", ".gz"}
    assert {f"realtime/static/{path.relative_to(STATIC)}" for path in built} <= packed
    licences = "".join(path.read_text() for path in built if path.parent.name == "licences")
    assert all(f"## {name} - " in licences for name in ("yjs", "preact", "redoc", "swagger-ui-dist"))
    # Packages that the last two contain, and the notice that the last one requires.
    assert all(words in licences for words in ("perfect-scrollbar", "Recursive object extending", "SmartBear"))

    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as sources:
        names = {name.partition("/")[2] for name in sources.getnames()}
    needed = {"hatch_build.py", "realtime/api/webapp.py", "frontend/.npmrc", "frontend/package-lock.json"}
    needed |= {f"frontend/{path.relative_to(FRONTEND)}" for path in (FRONTEND / "src").rglob("*") if path.is_file()}
    assert needed <= names
    assert [name for name in names if "node_modules" in name] == []


@pytest.mark.parametrize(
    "path", ["/assets/", "/assets/missing.js", "/assets/../index.html", "/assets/%2e%2e/index.html", "/n/", "/new/"]
)
def test_unknown_page_path_returns_404(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_icon_is_served_as_svg(client: TestClient) -> None:
    assert client.get("/icon.svg").headers["Content-Type"] == "image/svg+xml"
