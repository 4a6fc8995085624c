"""``compose.yaml`` and the image: started services, their order, and published ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis import AuthenticationError, Redis
from starlette.testclient import TestClient

from realtime import create_app
from realtime.embedded.programs import find_program, packaged_mongod, packaged_valkey
from realtime.server.serve import SHUTDOWN_TIMEOUT_SECONDS
from realtime.settings import Settings
from realtime.store.readiness import leaks_memory
from tests.support.harness import eventually

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())


def _instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def _executed(name: str) -> list[str]:
    """Return the argument vector of an instruction in the exec form."""
    vector: list[str] = json.loads(_instructions(name)[-1])
    return vector


def _seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Create the secrets with the documented command, and return their folder."""
    subprocess.run(["sh", ROOT / "compose-secrets.sh"], cwd=tmp_path, check=True)
    return tmp_path / "secrets"


def test_app_environment_sets_two_workers_and_the_service_urls(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    app = SERVICES["app"]
    assert app["build"] == "."
    for name, value in app["environment"].items():
        assert name.removeprefix("REALTIME_").lower() in Settings.model_fields
        monkeypatch.setenv(name, value.replace("/run/secrets", str(secrets)))
    settings = Settings()
    assert (settings.host, settings.workers, settings.auth) == ("0.0.0.0", 2, "accounts")
    assert not settings.exposed
    assert re.fullmatch(r"mongodb://realtime:\w{64}@mongodb:27017/\?replicaSet=realtime", settings.mongo_url or "")
    assert re.fullmatch(r"redis://:\w{64}@redis:6379/0", settings.redis_url or "")


def test_secrets_script_creates_private_random_secrets_once(secrets: Path) -> None:
    made = {path.name: path.read_text() for path in secrets.iterdir()}
    assert set(made) == set(COMPOSE["secrets"])
    assert {secret["file"] for secret in COMPOSE["secrets"].values()} == {f"./secrets/{name}" for name in made}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    # The containers run as other users, and only these files are mounted in them.
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o644}
    random = [word for text in made.values() for word in re.findall(r"[0-9a-f]{64}", text)]
    assert len(random) == 4
    assert len(set(random)) == 3  # the password of Redis is in two files
    subprocess.run(["sh", ROOT / "compose-secrets.sh"], cwd=secrets.parent, check=True)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == made


def test_secrets_are_excluded_from_the_repository_and_the_image() -> None:
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert not any("secrets" in line for line in (ROOT / ".dockerignore").read_text().splitlines())


def test_services_declare_all_secrets_that_they_use() -> None:
    text = {name: json.dumps(service) for name, service in SERVICES.items()}
    for name, service in SERVICES.items():
        assert service["secrets"] == sorted(service["secrets"], key=service["secrets"].index)
        used = set(re.findall(r"/run/secrets/(\w+)", text[name]))
        assert used <= set(service["secrets"])
    assert SERVICES["app"]["secrets"] == ["realtime_mongo_url", "realtime_redis_url"]  # not the key of MongoDB


def test_only_the_app_port_is_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"app"}
    assert SERVICES["app"]["ports"] == [f"{Settings().port}:{Settings().port}"]
    assert not any(service.get("network_mode") for service in SERVICES.values())


def test_app_starts_after_its_dependencies_are_ready() -> None:
    waits = {name: {of: how["condition"] for of, how in service.get("depends_on", {}).items()}
             for name, service in SERVICES.items()}  # fmt: skip
    assert waits == {
        "app": {"prepare": "service_completed_successfully", "redis": "service_healthy"},
        "prepare": {"mongodb": "service_healthy"},
        "mongodb": {},
        "redis": {},
    }
    assert all("test" in SERVICES[name]["healthcheck"] for name in ("mongodb", "redis"))


@pytest.mark.parametrize("name", SERVICES)
def test_containers_run_with_minimal_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" in service or "USER" in DOCKERFILE
    assert service.get("privileged") is None


@pytest.mark.parametrize(("name", "minimum"), [("mongodb", (7, 0, 28)), ("redis", (8, 1, 4))])
def test_database_images_have_patched_versions(name: str, minimum: tuple[int, ...]) -> None:
    found = re.search(r":(\d+)\.(\d+)\.(\d+)", SERVICES[name]["image"])
    assert found
    version = tuple(map(int, found.groups()))
    assert version[:2] == minimum[:2]
    assert version >= minimum
    assert name != "mongodb" or not leaks_memory(version)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def services(secrets: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start MongoDB and Redis with the commands of their services, but with local programs and free ports.

    The URLs in the secrets get these ports.
    """
    ports = {"mongodb": _free_port(), "redis": _free_port()}
    for name, file, port in (("mongodb", "realtime_mongo_url", 27017), ("redis", "realtime_redis_url", 6379)):
        url = (secrets / file).read_text()
        (secrets / file).write_text(url.replace(f"{name}:{port}", f"127.0.0.1:{ports[name]}"))
    data = tmp_path / "db"
    data.mkdir()
    mongod = find_program(packaged_mongod(), ["mongod"], "")
    here = f"--dbpath {data} --port {ports['mongodb']} --bind_ip 127.0.0.1 --nounixsocket"
    replacements = {
        "/run/secrets": str(secrets),
        "/tmp/key": str(tmp_path / "key"),
        "docker-entrypoint.sh mongod": f"{mongod} {here}",
        "--bind_ip_all": "",
    }
    commands = {"mongodb": SERVICES["mongodb"]["command"], "redis": SERVICES["redis"]["command"]}
    valkey = find_program(packaged_valkey(), ["valkey-server"], "")
    commands["redis"] = [valkey, *commands["redis"][1:], "--bind", "127.0.0.1", "--port", str(ports["redis"])]
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            words = list(command)
            for old, new in replacements.items():
                words = [word.replace(old, new) for word in words]
            output = stack.enter_context((tmp_path / f"{name}.txt").open("wb"))
            process = subprocess.Popen(words, cwd=tmp_path, stdout=output, stderr=output)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield {name: f"127.0.0.1:{port}" for name, port in ports.items()}


def _prepare(secrets: Path) -> None:
    *_, module, key = SERVICES["prepare"]["entrypoint"]
    command = [sys.executable, "-m", module, key.replace("/run/secrets", str(secrets))]
    subprocess.run(command, env={"REALTIME_SECRETS": str(secrets)}, check=True)


async def test_databases_accept_only_connections_with_the_secrets(
    services: dict[str, str], secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SERVICES["prepare"]["environment"] == {"REALTIME_SECRETS": "/run/secrets"}
    await asyncio.to_thread(_prepare, secrets)
    await asyncio.to_thread(_prepare, secrets)  # running it again changes nothing
    with MongoClient[dict[str, Any]](f"mongodb://{services['mongodb']}/?directConnection=true") as stranger:
        for command in ("listDatabases", "usersInfo", "replSetGetConfig"):
            with pytest.raises(OperationFailure, match="requires authentication"):
                stranger.admin.command(command, 1)
    with Redis.from_url(f"redis://{services['redis']}/0") as redis, pytest.raises(AuthenticationError):
        redis.ping()
    monkeypatch.setenv("REALTIME_SECRETS", str(secrets))
    settings = Settings(auth="accounts")
    with MongoClient[dict[str, Any]](settings.mongo_url) as app:
        with pytest.raises(OperationFailure, match="not authorized"):
            app.other.notes.insert_one({})
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:

        async def ready() -> bool:
            return (await asyncio.to_thread(client.get, "/readyz")).status_code == 200

        await eventually(ready, within=20)


async def test_prepare_applies_a_changed_mongodb_password(services: dict[str, str], secrets: Path) -> None:
    file = secrets / "realtime_mongo_url"
    await asyncio.to_thread(_prepare, secrets)
    file.write_text(re.sub(r":\w{64}@", ":n%40w@", file.read_text()))
    await asyncio.to_thread(_prepare, secrets)
    with MongoClient[dict[str, Any]](file.read_text().strip()) as app:
        assert app.realtime.notes.count_documents({}) == 0


@pytest.mark.parametrize("url", ["", "mongodb://mongodb:27017/", "mongodb://name@mongodb/"])
def test_prepare_with_an_incomplete_mongodb_url_fails(url: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key")
    command = [sys.executable, "-m", "realtime.store.bootstrap", str(tmp_path / "key")]
    run = subprocess.run(command, env={"REALTIME_MONGO_URL": url}, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == ("MongoDB cannot be prepared: REALTIME_MONGO_URL must name a user, a password and a host\n")


def test_mongodb_data_is_stored_in_named_volumes() -> None:
    mounts = dict(mount.split(":") for mount in SERVICES["mongodb"]["volumes"])
    assert set(mounts.values()) == {"/data/db", "/data/configdb"}
    assert set(mounts) == set(COMPOSE["volumes"])


def test_long_running_services_restart_unless_stopped() -> None:
    restarts = {name: service.get("restart") for name, service in SERVICES.items()}
    assert restarts == {"prepare": None, **dict.fromkeys(("app", "mongodb", "redis"), "unless-stopped")}


def test_stop_grace_period_exceeds_the_drain_time() -> None:
    assert _seconds(SERVICES["app"]["stop_grace_period"]) > Settings().drain_seconds + SHUTDOWN_TIMEOUT_SECONDS


def test_image_names_have_no_registry_address() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    images += [line.split()[0] for line in _instructions("FROM")]
    assert all(re.fullmatch(r"[a-z]+(/[a-z]+)?:[\w.-]+", image) for image in images)


def test_image_requires_accounts_by_default() -> None:
    assert "REALTIME_AUTH=accounts" in _instructions("ENV")[-1].split()


def test_image_runs_the_server_as_an_unprivileged_user() -> None:
    assert _executed("ENTRYPOINT") == ["realtime", "serve"]
    assert _instructions("USER") == ["realtime"]
    assert DOCKERFILE.rindex("USER realtime") < DOCKERFILE.rindex("ENTRYPOINT")


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_image_health_check_reflects_the_readyz_status(status: int, healthy: bool) -> None:
    options, command = _instructions("HEALTHCHECK")[0].split("CMD ")
    assert {"--interval", "--timeout", "--retries"} <= {option.split("=")[0] for option in options.split()}
    python, *arguments = json.loads(command)
    assert python == "python"

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that the library calls
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


def test_image_copies_existing_files_included_by_dockerignore() -> None:
    sources = [name for copy in _instructions("COPY") if "--from" not in copy for name in copy.split()[:-1]]
    assert all((ROOT / name).exists() for name in sources)
    shown = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(shown) == sorted(sources)
    assert "constraints.txt" in sources
