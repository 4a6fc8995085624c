"""The settings of the server. Only this module reads environment variables."""

from __future__ import annotations

import ipaddress
import os
import re
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from realtime.failpoints import FailPoints

MIB = 1024 * 1024
ORIGIN = re.compile(
    r"(?!http:.*:80$|https:.*:443$)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII
)
"""An origin in the form that browsers send (RFC 6454): lower case, no default port, no path."""
RENAMED = {
    "accepts": "max_connects_per_second",
    "client_budget": "client_queue_bytes",
    "client_stall": "client_stall_seconds",
    "drain": "drain_seconds",
    "guest_sockets": "max_connections_per_network",
    "open": "allow_public",
    "sockets": "max_connections_per_user",
    "writes": "max_writes_per_second",
}
"""Renamed settings: old name and new name. The old names work until the next release."""


class RenamedSettings(PydanticBaseSettingsSource):
    """Reads settings from environment variables with old names, and warns about each."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not supported, because :meth:`__call__` reads all settings."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        """Return the values of all settings that are set under an old name."""
        variables = {name.upper(): value for name, value in os.environ.items() if value}
        renamed: dict[str, Any] = {}
        for old, new in RENAMED.items():
            variable, replacement = f"REALTIME_{old.upper()}", f"REALTIME_{new.upper()}"
            if variable in variables:
                warnings.warn(f"{variable} was renamed to {replacement}. Use the new name", FutureWarning, stacklevel=2)
                renamed[new] = variables[variable]
        return renamed


class Settings(BaseSettings):
    """All settings, from arguments or from environment variables ``REALTIME_<NAME>``. Times are in seconds."""

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
        """Use arguments first, then the environment, then old names, then the files in ``REALTIME_SECRETS``."""
        folder = init_settings().get("secrets") or env_settings().get("secrets")
        renamed = RenamedSettings(settings_cls)
        return init_settings, env_settings, renamed, SecretsSettingsSource(settings_cls, folder)

    secrets: Annotated[
        Path | None,
        Field(
            repr=False,
            description="folder with one file per setting, named like `realtime_mongo_url` (Docker secrets)",
        ),
    ] = None
    host: Annotated[str, Field(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="port to listen on; 0 selects a free port")] = 8000
    workers: Annotated[int, Field(ge=1, le=256, description="server processes")] = 1
    auth: Annotated[
        Literal["open", "accounts"],
        Field(
            description="`open`: everyone can read and edit every note; `accounts`: users sign in and own their notes"
        ),
    ] = "open"
    allow_public: Annotated[
        bool,
        Field(
            description="without accounts: allow public addresses, proxies, and databases that have accounts."
            " Otherwise, each of these is refused"
        ),
    ] = False
    sign_up: Annotated[
        Literal["open", "invite", "closed"],
        Field(
            description="who can create an account: `open` (anyone), `invite` (users with an invite), or `closed`"
            " (nobody)"
        ),
    ] = "invite"
    secret: Annotated[
        str,
        Field(
            repr=False,
            description="key that signs tokens, at least 32 characters. By default, a key is generated and stored"
            " in MongoDB",
        ),
    ] = ""
    password_memory: Annotated[
        int, Field(ge=8, le=4 * 1024 * 1024, description="KiB of memory for hashing a password (Argon2)")
    ] = 47104
    proxies: Annotated[
        str,
        Field(description="addresses or networks of trusted proxies, separated by commas"),
    ] = "127.0.0.1"
    root_path: Annotated[
        str,
        Field(
            pattern=r"^((/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)?$",
            description="path prefix under which a proxy serves this server, such as `/notes`. The proxy can"
            " strip it or not",
        ),
    ] = ""
    data: Annotated[Path, Field(description="data folder of the embedded servers")] = Path("data")
    mongo_url: Annotated[
        str | None,
        Field(repr=False, description="URL of a MongoDB replica set. By default an embedded server is started"),
    ] = None
    redis_url: Annotated[
        str | None, Field(repr=False, description="URL of Redis. By default an embedded server is started")
    ] = None
    database: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9_-]{1,38}$", description="MongoDB database, and prefix of all keys in Redis"),
    ] = "realtime"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="lowest severity that is logged: `debug`, `info`, `warning`, or `error`"),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"], Field(description="`auto`: `console` on a terminal, `json` otherwise")
    ] = "auto"
    max_body: Annotated[int, Field(ge=1024, description="maximum size of a request body in bytes")] = MIB
    write_timeout: Annotated[
        float,
        Field(
            gt=0,
            description="time for MongoDB to confirm a write. After that, the response is 503 and the outcome"
            " is unknown",
        ),
    ] = 20.0
    read_timeout: Annotated[
        float, Field(gt=0, description="time for MongoDB to respond to a read. After that, the response is 503")
    ] = 5.0
    publish_wait: Annotated[
        float,
        Field(ge=0, description="maximum time that the response to a write waits for the publication of its event"),
    ] = 0.25
    heartbeat: Annotated[float, Field(gt=0, description="interval between heartbeats on the feed")] = 25.0
    log_entries: Annotated[int, Field(ge=100, description="number of events kept in Redis for clients that resume")] = (
        100_000
    )
    log_bytes: Annotated[int, Field(ge=MIB, description="maximum size in bytes of the events kept in Redis")] = (
        256 * MIB
    )
    history_days: Annotated[
        int,
        Field(
            ge=1,
            le=36_500,
            description="days for which every version of a note is kept. Of older versions, one per day is kept",
        ),
    ] = 30
    trash_days: Annotated[
        int, Field(ge=1, le=36_500, description="days after which a note in the trash is deleted permanently")
    ] = 30
    max_connects_per_second: Annotated[
        int | None,
        Field(
            ge=0,
            description="WebSockets and event streams that one worker accepts per second. More get 503; 0 means"
            " no limit. Default: 200 with accounts, otherwise no limit",
        ),
    ] = None
    max_writes_per_second: Annotated[
        int,
        Field(
            ge=1, description="with accounts: REST writes per second of one user, with bursts of four times this number"
        ),
    ] = 30
    user_notes: Annotated[
        int,
        Field(
            ge=0,
            description="with accounts: number of notes that a user can own, including the trash. 0 means no limit",
        ),
    ] = 100_000
    user_bytes: Annotated[
        int,
        Field(
            ge=0, description="with accounts: total size in bytes of the notes that a user can own. 0 means no limit"
        ),
    ] = 1024 * MIB
    max_connections_per_user: Annotated[
        int, Field(ge=1, description="with accounts: open connections of one user, over all workers")
    ] = 20
    max_connections_per_network: Annotated[
        int | None,
        Field(
            ge=0,
            description="open connections of one network without sign-in, over all workers; 0 means no limit."
            " Default: 200 with accounts, otherwise no limit",
        ),
    ] = None
    max_import: Annotated[int, Field(ge=1024, description="maximum size of an import in bytes")] = 256 * MIB
    origins: Annotated[
        str,
        Field(
            description="other origins whose pages can use this server, separated by spaces: `https://notes.example`"
        ),
    ] = ""
    security_contact: Annotated[
        str,
        Field(
            pattern=r"^((mailto:|tel:|https://)[!-~]+)?$",
            description="where to report vulnerabilities: a `mailto:`, `tel:` or `https:` URL for"
            " `/.well-known/security.txt`",
        ),
    ] = ""
    client_queue_bytes: Annotated[
        int,
        Field(
            ge=1024, description="bytes queued for one client. Beyond it, only the latest event of each note is kept"
        ),
    ] = MIB
    client_stall_seconds: Annotated[
        float,
        Field(gt=0, description="time without progress after which a client that does not read is disconnected (4008)"),
    ] = 10.0
    room_idle: Annotated[
        float, Field(ge=0, description="time that a shared text stays in memory after its last client disconnects")
    ] = 30.0
    drain_seconds: Annotated[
        float, Field(ge=0, description="time over which a stopping server spreads the closing of its connections")
    ] = 10.0
    failpoint: Annotated[str, Field(description="for fault tests: `<point>:<kill|raise|sleep>[:<n-th hit>]`")] = ""

    @field_validator("secrets")
    @classmethod
    def _check_secrets(cls, secrets: Path | None) -> Path | None:
        if secrets is not None and not secrets.is_dir():
            raise ValueError(f"{secrets} is not a folder")
        return secrets

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, secret: str) -> str:
        if 0 < len(secret) < 32:
            raise ValueError("must have at least 32 characters")
        return secret

    @field_validator("proxies")
    @classmethod
    def _check_proxies(cls, proxies: str) -> str:
        for proxy in filter(None, map(str.strip, proxies.split(","))):
            try:
                if proxy != "*":
                    ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise ValueError(f"{proxy} is not an address or a network, like 10.0.0.5 or 10.0.0.0/8") from None
        return proxies

    @field_validator("origins")
    @classmethod
    def _check_origins(cls, origins: str) -> str:
        for origin in origins.split():
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin} is not a valid origin. Write origins like https://notes.example or http://localhost:3000,"
                    " in lower case and without a path"
                )
        return origins

    @property
    def connects_per_second_limit(self) -> int:
        """WebSockets and event streams that one worker accepts per second; 0 means no limit."""
        if self.max_connects_per_second is None:
            return 200 if self.auth == "accounts" else 0
        return self.max_connects_per_second

    @property
    def connections_per_network_limit(self) -> int:
        """Open connections of one network without sign-in; 0 means no limit."""
        if self.max_connections_per_network is None:
            return 200 if self.auth == "accounts" else 0
        return self.max_connections_per_network

    @property
    def exposed(self) -> bool:
        """Whether the server would be public without accounts, which is not allowed by these settings."""
        return self.auth == "open" and not self.allow_public and not is_loopback(self.host)

    @field_validator("failpoint")
    @classmethod
    def _check_failpoint(cls, spec: str) -> str:
        FailPoints(spec)
        return spec


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or a name for it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
