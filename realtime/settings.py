"""The settings: the only reader of the environment."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from realtime.failpoints import FailPoints

MIB = 1024 * 1024
ORIGIN = re.compile(
    r"(?!http:.*:80$|https:.*:443$)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII
)
"""As browsers send it (RFC 6454): scheme and host in lower case, no port that the scheme implies, no path."""


class Settings(BaseSettings):
    """Everything that can be set: by argument, or by ``REALTIME_<NAME>`` in the environment. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="REALTIME_", frozen=True, env_ignore_empty=True, allow_inf_nan=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read settings from arguments, then from the environment, then from the files of ``REALTIME_SECRETS``."""
        folder = init_settings().get("secrets") or env_settings().get("secrets")
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, folder)

    secrets: Annotated[
        Path | None,
        Field(
            repr=False,
            description="folder of files that each hold a setting, such as `realtime_mongo_url`: Docker secrets",
        ),
    ] = None
    host: Annotated[str, Field(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 8000
    workers: Annotated[int, Field(ge=1, le=256, description="server processes")] = 1
    auth: Annotated[
        Literal["open", "accounts"],
        Field(description="`open`: everything is everyone's; `accounts`: people sign in, and own their notes"),
    ] = "open"
    open: Annotated[
        bool,
        Field(
            description="serve without accounts where others can reach it, through a proxy, or a database that has"
            " accounts; all refused otherwise"
        ),
    ] = False
    sign_up: Annotated[
        Literal["open", "invite", "closed"], Field(description="who may make an account: anyone, the invited, nobody")
    ] = "invite"
    secret: Annotated[
        str,
        Field(repr=False, description="what tokens are signed with, at least 32 characters; without it, one is made"),
    ] = ""
    password_memory: Annotated[
        int, Field(ge=8, le=4 * 1024 * 1024, description="KiB of memory that it takes to hash a password")
    ] = 47104
    proxies: Annotated[
        str,
        Field(description="addresses or networks of proxies, separated by commas, whose headers are trusted"),
    ] = "127.0.0.1"
    root_path: Annotated[
        str,
        Field(
            pattern=r"^((/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)?$",
            description="path prefix under which a proxy serves the page, such as `/notes`; stripped by it or not",
        ),
    ] = ""
    data: Annotated[Path, Field(description="folder of the embedded servers")] = Path("data")
    mongo_url: Annotated[
        str | None, Field(repr=False, description="MongoDB replica set; without it, the embedded one")
    ] = None
    redis_url: Annotated[str | None, Field(repr=False, description="Redis; without it, the embedded one")] = None
    database: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9_-]{1,38}$", description="database in MongoDB, and prefix of the keys in Redis"),
    ] = "realtime"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="least severity that is logged")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"], Field(description="`auto`: for people on a terminal, JSON otherwise")
    ] = "auto"
    max_body: Annotated[int, Field(ge=1024, description="largest request body in bytes")] = MIB
    write_timeout: Annotated[
        float, Field(gt=0, description="budget for MongoDB to confirm a write; past it, 503 with an unknown outcome")
    ] = 20.0
    read_timeout: Annotated[float, Field(gt=0, description="budget for a read of MongoDB; past it, 503")] = 5.0
    publish_wait: Annotated[
        float, Field(ge=0, description="how long the answer to a write waits for its event to be published")
    ] = 0.25
    heartbeat: Annotated[float, Field(gt=0, description="interval of the feed's heartbeats")] = 25.0
    log_entries: Annotated[int, Field(ge=100, description="events kept in Redis for clients that resume")] = 100_000
    log_bytes: Annotated[int, Field(ge=MIB, description="bytes of events kept in Redis, whatever their number")] = (
        256 * MIB
    )
    history_days: Annotated[
        int, Field(ge=1, le=36_500, description="days for which all versions are kept; of older ones, one per day")
    ] = 30
    trash_days: Annotated[
        int, Field(ge=1, le=36_500, description="days after which a note in the trash is deleted for good")
    ] = 30
    accepts: Annotated[
        int | None,
        Field(
            ge=0,
            description="WebSockets and event streams that a worker lets in a second, before it answers 503; 0 is all."
            " Without it: 200 with accounts, else all",
        ),
    ] = None
    writes: Annotated[
        int, Field(ge=1, description="with accounts: writes a second of one user over REST; four times as many at once")
    ] = 30
    user_notes: Annotated[
        int, Field(ge=0, description="with accounts: notes that a user may own, the trash included; 0 is no limit")
    ] = 100_000
    user_bytes: Annotated[
        int, Field(ge=0, description="with accounts: bytes of the notes that a user may own; 0 is no limit")
    ] = 1024 * MIB
    sockets: Annotated[
        int, Field(ge=1, description="with accounts: connections of one user that may stay open, over all workers")
    ] = 20
    guest_sockets: Annotated[
        int | None,
        Field(
            ge=0,
            description="connections of one network that may stay open without sign-in, over all workers; 0 is all."
            " Without it: 200 with accounts, else all",
        ),
    ] = None
    max_import: Annotated[int, Field(ge=1024, description="largest import in bytes")] = 256 * MIB
    origins: Annotated[
        str, Field(description="other origins whose pages may read, write and connect, separated by spaces")
    ] = ""
    security_contact: Annotated[
        str,
        Field(
            pattern=r"^((mailto:|tel:|https://)[!-~]+)?$",
            description="where to report vulnerabilities, as `mailto:` or `https:` URL; shown in"
            " `/.well-known/security.txt`",
        ),
    ] = ""
    client_budget: Annotated[
        int, Field(ge=1024, description="bytes queued for one client before only the latest event per note is kept")
    ] = MIB
    client_stall: Annotated[
        float, Field(gt=0, description="how long a client may take nothing before it is closed with 4008")
    ] = 10.0
    room_idle: Annotated[
        float, Field(ge=0, description="how long a shared text stays in memory after its last client left")
    ] = 30.0
    drain: Annotated[float, Field(ge=0, description="longest time over which a stopping server closes sockets")] = 10.0
    failpoint: Annotated[
        str, Field(description="for fault tests: `<point>:<kill|raise|sleep>[:<n-th hit>]`; empty is off")
    ] = ""

    @field_validator("secrets")
    @classmethod
    def _is_folder(cls, secrets: Path | None) -> Path | None:
        if secrets is not None and not secrets.is_dir():
            raise ValueError(f"{secrets} is not a folder")
        return secrets

    @field_validator("secret")
    @classmethod
    def _long(cls, secret: str) -> str:
        if 0 < len(secret) < 32:
            raise ValueError("must have at least 32 characters")
        return secret

    @field_validator("proxies")
    @classmethod
    def _addresses(cls, proxies: str) -> str:
        for proxy in filter(None, map(str.strip, proxies.split(","))):
            try:
                if proxy != "*":
                    ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise ValueError(f"{proxy} is not an address or a network, like 10.0.0.5 or 10.0.0.0/8") from None
        return proxies

    @field_validator("origins")
    @classmethod
    def _exact(cls, origins: str) -> str:
        for origin in origins.split():
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin} is no origin as browsers send it, like https://notes.example or http://localhost:3000:"
                    " name each exactly, in lower case, without a path"
                )
        return origins

    @property
    def most_accepts(self) -> int:
        """WebSockets and event streams that a worker lets in a second; 0 is all."""
        if self.accepts is None:
            return 200 if self.auth == "accounts" else 0
        return self.accepts

    @property
    def most_guest_sockets(self) -> int:
        """Connections of one network that may stay open without sign-in; 0 is all."""
        if self.guest_sockets is None:
            return 200 if self.auth == "accounts" else 0
        return self.guest_sockets

    @property
    def exposed(self) -> bool:
        """Whether others can reach it, and nobody said that this is meant."""
        return self.auth == "open" and not self.open and not is_loopback(self.host)

    @field_validator("failpoint")
    @classmethod
    def _armed(cls, spec: str) -> str:
        FailPoints(spec)
        return spec


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
