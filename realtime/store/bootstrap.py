"""Preparation of a MongoDB server: check its URL, create the replica set and the user of the server.

``python -m realtime.store.bootstrap KEYFILE`` prepares the MongoDB of ``compose.yaml``. It makes the server a replica
set of one member if it belongs to none, and creates the user that ``REALTIME_MONGO_URL`` names, with its password.
Running it again changes nothing but the password, if the URL has a new one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymongo
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, ConfigurationError, InvalidURI, OperationFailure, PyMongoError

from realtime.errors import EmbeddedError, RealtimeError
from realtime.settings import Settings
from realtime.store.bson_mapping import BsonDocument

ALREADY_INITIALIZED = 23
"""MongoDB's error code for a replica set that already exists."""


def check_url(url: str) -> None:
    """Raise ``ValueError``, with the reason, if a MongoDB URL cannot be used."""
    try:
        pymongo.uri_parser.parse_uri(url, validate=True, warn=False)
    except (InvalidURI, ConfigurationError, ValueError, OSError) as error:
        raise ValueError(f"the MongoDB URL cannot be used: {error}") from None


def ensure_replica_set(url: str, timeout: float = 60.0, *, follow_host: bool = True) -> None:
    """Make the ``mongod`` at this URL a replica set of one member, and wait until it is the primary.

    Args:
        url: The URL of the ``mongod``, with the credentials of ``__system``.
        timeout: Seconds until it must be the primary.
        follow_host: Replace the members of an existing set with this one. The port of an embedded server may have
            changed since its last start, and a member that is not in its own configuration cannot become primary.

    Raises:
        EmbeddedError: The server does not answer, or did not become the primary in time.
    """
    host = urlsplit(url).netloc.rpartition("@")[2]
    deadline = time.monotonic() + timeout
    with MongoClient[BsonDocument](url, serverSelectionTimeoutMS=int(timeout * 1000)) as client:
        try:
            _initiate(client, host, follow_host=follow_host)
            while not client.admin.command("hello")["isWritablePrimary"]:
                if time.monotonic() > deadline:
                    raise EmbeddedError(f"the MongoDB at {host} did not become primary within {timeout:.0f} s")
                time.sleep(0.02)
        except PyMongoError as error:
            raise EmbeddedError(f"the MongoDB at {host} does not answer: {error}") from error


def _initiate(client: MongoClient[BsonDocument], host: str, *, follow_host: bool) -> None:
    config = {"_id": "realtime", "version": 1, "members": [{"_id": 0, "host": host}]}
    try:
        try:
            client.admin.command("replSetInitiate", config)
        except AutoReconnect:
            # A member that finds itself missing from its configuration closes all connections. That takes half a
            # minute if another program has its former port and does not answer.
            client.admin.command("replSetInitiate", config)
    except OperationFailure as error:
        if error.code != ALREADY_INITIALIZED:
            raise
        known = client.local["system.replset"].find_one() or {}
        if follow_host and [member["host"] for member in known["members"]] != [host]:
            config["version"] = known["version"] + 1
            client.admin.command("replSetReconfig", config, force=True)


def ensure_user(url: str, name: str, password: str, database: str) -> None:
    """Create a MongoDB user with read and write access to one database, or set the password of an existing user.

    Args:
        url: The URL of the primary, with the credentials of ``__system``.
        name: The name of the user, which is stored in the database ``admin``.
        password: The password.
        database: The database.

    Raises:
        EmbeddedError: The user cannot be created.
    """
    settings: dict[str, Any] = {"pwd": password, "roles": [{"role": "readWrite", "db": database}]}
    with MongoClient[BsonDocument](url) as client:
        try:
            if client.admin.command("usersInfo", name)["users"]:
                client.admin.command("updateUser", name, **settings)
            else:
                client.admin.command("createUser", name, **settings)
        except PyMongoError as error:
            raise EmbeddedError(f"the MongoDB user {name} cannot be created: {error}") from error


def prepare(settings: Settings, key: str) -> None:
    """Prepare the MongoDB that the settings name.

    Args:
        settings: Settings with a URL of one host, a user and a password.
        key: The content of MongoDB's key file, which is the password of its internal user ``__system``.

    Raises:
        RealtimeError: The URL lacks a part, or MongoDB cannot be prepared.
    """
    url = urlsplit(settings.mongo_url or "")
    if not (url.username and url.password and url.hostname):
        raise RealtimeError("REALTIME_MONGO_URL must name a user, a password and a host")
    host = url.netloc.rpartition("@")[2]
    system = f"mongodb://__system:{key}@{host}/?directConnection=true&authSource=local"
    ensure_replica_set(system, follow_host=False)
    ensure_user(system, unquote(url.username), unquote(url.password), settings.database)


def main() -> None:
    """Prepare MongoDB, with the key file that the first argument names."""
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m realtime.store.bootstrap KEYFILE")
    try:
        prepare(Settings(), Path(sys.argv[1]).read_text().strip())
    except (RealtimeError, OSError) as error:
        sys.exit(f"MongoDB cannot be prepared: {error}")


if __name__ == "__main__":
    main()
