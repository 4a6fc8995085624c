"""``compose.yaml`` and the image: what is started, in which order, and what is open to the outside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from realtime.server import GRACE
from realtime.settings import Settings

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())


def _instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def _executed(name: str) -> list[str]:
    """The argument vector of an instruction in the exec form."""
    vector: list[str] = json.loads(_instructions(name)[-1])
    return vector


def _seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_app_has_two_workers_on_the_urls_of_the_other_services(monkeypatch: pytest.MonkeyPatch) -> None:
    app = SERVICES["app"]
    assert app["build"] == "."
    for name, value in app["environment"].items():
        assert name.removeprefix("REALTIME_").lower() in Settings.model_fields
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.host, settings.workers, settings.auth) == ("0.0.0.0", 2, "accounts")
    assert not settings.exposed
    assert settings.mongo_url == "mongodb://mongodb:27017/?replicaSet=realtime"
    assert settings.redis_url == "redis://redis:6379/0"


def test_only_the_port_of_the_app_is_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"app"}
    assert SERVICES["app"]["ports"] == [f"{Settings().port}:{Settings().port}"]
    assert not any(service.get("network_mode") for service in SERVICES.values())


def test_app_waits_for_servers_that_are_healthy() -> None:
    needed = SERVICES["app"]["depends_on"]
    assert needed == {name: {"condition": "service_healthy"} for name in set(SERVICES) - {"app"}}
    assert all("healthcheck" in SERVICES[name] for name in needed)


def test_mongodb_is_a_replica_set_that_initiates_itself() -> None:
    mongodb = SERVICES["mongodb"]
    assert mongodb["image"] == "mongo:7"
    assert mongodb["command"][:3] == ["mongod", "--replSet", "realtime"]
    how, program, *_, script = mongodb["healthcheck"]["test"]
    assert (how, program) == ("CMD", "mongosh")
    assert "rs.status()" in script
    assert 'rs.initiate({_id: "realtime", members: [{_id: 0, host: "mongodb:27017"}]})' in script
    assert "$" not in script  # compose would take it for a variable of its own


def test_what_mongodb_keeps_is_in_named_volumes() -> None:
    mounts = dict(mount.split(":") for mount in SERVICES["mongodb"]["volumes"])
    assert set(mounts.values()) == {"/data/db", "/data/configdb"}
    assert set(mounts) == set(COMPOSE["volumes"])


def test_everything_is_restarted() -> None:
    assert {service["restart"] for service in SERVICES.values()} == {"unless-stopped"}


def test_app_has_the_time_to_drain() -> None:
    assert _seconds(SERVICES["app"]["stop_grace_period"]) > Settings().drain + GRACE


def test_images_have_no_registry_address() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    images += [line.split()[0] for line in _instructions("FROM")]
    assert all(re.fullmatch(r"[a-z]+(/[a-z]+)?:[\w.-]+", image) for image in images)


def test_image_lets_nobody_in_without_an_account() -> None:
    assert "REALTIME_AUTH=accounts" in _instructions("ENV")[-1].split()


def test_image_runs_the_server_as_an_ordinary_user() -> None:
    assert _executed("ENTRYPOINT") == ["realtime", "serve"]
    assert _instructions("USER") == ["realtime"]
    assert DOCKERFILE.rindex("USER realtime") < DOCKERFILE.rindex("ENTRYPOINT")


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_image_checks_its_health(status: int, healthy: bool) -> None:
    options, command = _instructions("HEALTHCHECK")[0].split("CMD ")
    assert {"--interval", "--timeout", "--retries"} <= {option.split("=")[0] for option in options.split()}
    python, *arguments = json.loads(command)
    assert python == "python"

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    asked: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        environment = {"REALTIME_PORT": str(server.server_port)}
        check = subprocess.run([sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL, check=False)
        thread.join()
    assert asked == ["/readyz"]
    assert (check.returncode == 0) == healthy


def test_image_is_built_from_what_is_there() -> None:
    sources = [name for copy in _instructions("COPY") if "--from" not in copy for name in copy.split()[:-1]]
    assert all((ROOT / name).exists() for name in sources)
    shown = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(shown) == sorted(sources)
    assert "constraints.txt" in sources
