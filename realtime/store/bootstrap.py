"""A MongoDB server before there is a database: its URL, and the replica set of the embedded one."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import pymongo
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, ConfigurationError, InvalidURI, OperationFailure, PyMongoError

from realtime.errors import EmbeddedError
from realtime.store.bson_mapping import BsonDocument

ALREADY_INITIALIZED = 23
"""MongoDB's error code for a replica set that exists."""


def check_url(url: str) -> None:
    """Raises ``ValueError`` with the reason when a MongoDB URL cannot be used."""
    try:
        pymongo.uri_parser.parse_uri(url, validate=True, warn=False)
    except (InvalidURI, ConfigurationError, ValueError, OSError) as error:
        raise ValueError(f"the MongoDB URL cannot be used: {error}") from None


def ensure_replica_set(url: str, timeout: float = 60.0, *, follow_host: bool = True) -> None:
    """Makes the ``mongod`` at this URL a replica set of one, and waits until it is the primary.

    Args:
        url: The URL of the ``mongod``, with the credentials of ``__system``.
        timeout: Seconds until it must be the primary.
        follow_host: Replace the members of an existing set by this one. The port of an embedded server may be another
            one than last time, which the configuration of the set would not survive.

    Raises:
        EmbeddedError: It does not answer, or did not become the primary in time.
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
            # It hangs up once it has found out that it is not where its configuration says, which takes it
            # half a minute when somebody silent sits there now.
            client.admin.command("replSetInitiate", config)
    except OperationFailure as error:
        if error.code != ALREADY_INITIALIZED:
            raise
        known = client.local["system.replset"].find_one() or {}
        if follow_host and [member["host"] for member in known["members"]] != [host]:
            config["version"] = known["version"] + 1
            client.admin.command("replSetReconfig", config, force=True)


def ensure_user(url: str, name: str, password: str, database: str) -> None:
    """Creates a MongoDB user who may read and write one database; sets the password of one that exists.

    Args:
        url: The URL of the primary, with the credentials of ``__system``.
        name: The name of the user, who is kept in the database ``admin``.
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
