"""Real reverse proxies in front of a server: nginx, Apache, HAProxy and Caddy, configured as documented."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from realtime.embedded import process
from tests.support.harness import ServerProcess, eventually

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "how-to" / "reverse-proxy.md").read_text()
NAMES = ("nginx", "apache", "haproxy", "caddy")
PROGRAMS = {"nginx": "nginx", "apache": "apache2", "haproxy": "haproxy", "caddy": "caddy"}

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{site}
}}
"""
APACHE = """
ServerRoot {folder}
ServerName 127.0.0.1
PidFile {folder}/pid
ErrorLog {folder}/error.log
Listen 127.0.0.1:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
{site}
"""
CADDY = """
{{
    admin off
    auto_https off
}}
{site}
"""


def documented(name: str) -> str:
    """Return the first documented configuration of a proxy."""
    block = re.search(rf"```{name}\n(.*?)```", DOCUMENTED, re.DOTALL)
    assert block, name
    return block[1]


def _prepare(name: str, site: str, server: ServerProcess, port: int, folder: Path) -> list[str]:
    """Write the configuration of a proxy for a site on a port, and return its command-line arguments."""
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    match name:
        case "nginx":
            site = site.replace("listen 80;", f"listen 127.0.0.1:{port};")
            arguments = ["-p", str(folder), "-c", "config"]
            text = NGINX.format(folder=folder, site=site)
        case "apache":
            site = site.replace("*:80>", f"127.0.0.1:{port}>")
            arguments = ["-X", "-d", str(folder), "-f", "config"]
            text = APACHE.format(folder=folder, port=port, modules="/usr/lib/apache2/modules", site=site)
        case "haproxy":
            site = site.replace("bind :80", f"bind 127.0.0.1:{port}")
            arguments = ["-db", "-f", "config"]
            text = site
        case _:
            site = site.replace("notes.example", f"http://127.0.0.1:{port}")
            arguments = ["run", "--adapter", "caddyfile", "--config", "config"]
            text = CADDY.format(site=site)
    folder.mkdir()
    (folder / "config").write_text(text)
    return arguments


def _start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=process.die_with_parent,  # noqa: PLW1509  # no locks are held when the process is started
        )


@asynccontextmanager
async def reverse_proxy(name: str, server: ServerProcess, folder: Path, site: str | None = None) -> AsyncIterator[str]:
    """Run a proxy in front of a server, by default as documented, and yield its URL."""
    program = shutil.which(PROGRAMS[name]) or shutil.which(f"/usr/sbin/{PROGRAMS[name]}")
    if program is None:
        pytest.fail(f"no {name}: apt-get install nginx-light apache2 haproxy caddy")
    port = free_port()
    arguments = _prepare(name, site or documented(name), server, port, folder)
    process = _start([program, *arguments], folder)

    def listens() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended: {(folder / 'output.txt').read_text()[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        await eventually(listens, within=20)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
